// Command gotest runs go test with its arguments and prints what that prints,
// then the tests that were skipped, which plain go test keeps to itself. With
// CI=true a skipped test is a failure: it would hide that something was never
// tested.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

func main() {
	skipped, err := run(os.Args[1:])
	for _, s := range skipped {
		fmt.Println("skipped:", s)
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	case len(skipped) > 0 && os.Getenv("CI") == "true":
		fmt.Println("CI=true: a skipped test is a failure")
		os.Exit(1)
	}
}

// run returns what was skipped, and an error unless go test succeeded.
func run(args []string) ([]string, error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := report{out: os.Stdout, tests: map[test]string{}}
	// A test may print lines of any length, so no bufio.Scanner.
	in := bufio.NewReader(stdout)
	for {
		line, err := in.ReadBytes('\n')
		r.line(line)
		if err == io.EOF {
			return r.skipped, cmd.Wait()
		}
		if err != nil {
			return r.skipped, errors.Join(err, cmd.Wait())
		}
	}
}

type test struct{ Package, Test string }

// event is a line of go test -json; go doc test2json describes it.
type event struct {
	test
	Action, Output string
}

type report struct {
	out     io.Writer
	tests   map[test]string // what the tests that are not over printed
	skipped []string
}

func (r *report) line(line []byte) {
	var e event
	if json.Unmarshal(line, &e) != nil {
		r.out.Write(line)
		return
	}
	switch {
	case e.Action == "build-output":
		io.WriteString(r.out, e.Output)
	case e.Action == "output" && e.Test == "":
		r.ofPackage(e)
	case e.Action == "output" && !strings.HasPrefix(e.Output, "=== "):
		r.tests[e.test] += e.Output
	case e.Test == "":
	case e.Action == "fail":
		io.WriteString(r.out, r.tests[e.test])
		delete(r.tests, e.test)
	case e.Action == "skip":
		// A fuzz target skips the inputs that say nothing to it.
		if !strings.HasPrefix(e.Test, "Fuzz") || !strings.Contains(e.Test, "/") {
			reason, _, _ := strings.Cut(r.tests[e.test], "--- SKIP")
			r.skipped = append(r.skipped, strings.TrimSpace(e.Package+" "+e.Test+" "+strings.TrimSpace(reason)))
		}
		delete(r.tests, e.test)
	case e.Action == "pass":
		delete(r.tests, e.test)
	}
}

// ofPackage prints what belongs to no test: the package's closing line, and
// what the process printed around its tests.
func (r *report) ofPackage(e event) {
	if strings.HasPrefix(e.Output, "FAIL\t") {
		for t, output := range r.tests {
			if t.Package == e.Package { // it never ended: the process died first
				io.WriteString(r.out, output)
				delete(r.tests, t)
			}
		}
	}
	if e.Output != "PASS\n" {
		io.WriteString(r.out, e.Output)
	}
}
