// Package process runs the processes of a benchmark and reads what they cost.
// Linux only.
package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Process is a child that runs until it is stopped. It ends with this process,
// however that ends.
type Process struct {
	Name string
	PID  int

	log    string
	exited chan struct{}
}

// Start starts a program in the background. What it prints goes to a file in
// dir, its working directory. The calling goroutine must be locked to a thread
// that lives on: the child gets orphaned, the signal for when its parent is gone,
// with that thread's end.
func Start(name, dir string, env []string, orphaned syscall.Signal, program string, args ...string) (*Process, error) {
	p := &Process{Name: name, log: filepath.Join(dir, name+".log"), exited: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, log, log
	cmd.SysProcAttr = attributes(orphaned)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.PID = cmd.Process.Pid
	go func() {
		cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// Output runs a program to its end and returns what it prints. It ends with ctx.
func Output(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = attributes(syscall.SIGKILL)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w %s", filepath.Base(program), args[0], err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// Running returns an error once the process is over: nothing ends a target but
// Stop.
func (p *Process) Running() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s has ended:\n%s", p.Name, p.LastLines())
	default:
		return nil
	}
}

// LastLines returns the end of what the process printed.
func (p *Process) LastLines() string {
	text, _ := os.ReadFile(p.log)
	return string(text[max(0, len(text)-2000):])
}

// Stop ends the process and all it has started, and waits for that.
func (p *Process) Stop() {
	const patience = 300 * time.Millisecond // nginx goes at once, and what Weir would wait for is over
	signalGroup(p.PID, syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(patience):
	}
	signalGroup(p.PID, syscall.SIGKILL) // also what a process that ended has left behind
	<-p.exited
}
