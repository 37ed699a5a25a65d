package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"weir/internal/config"
	"weir/internal/stream/segment"
)

const logUsage = `usage: proxy log [-dir DIR] ls         lists the streams of a data directory
       proxy log [-dir DIR] cat ID     prints the events of one
       proxy log [-dir DIR] verify     checks every record; exit code 1 when one is damaged

DIR is WEIR_DATA_DIR unless it is given. Nothing is changed, and a proxy may be
running on the directory.
`

// readLog shows people what a data directory holds. It returns the exit code.
func readLog(args, environ []string, out, errOut io.Writer) int {
	flags := flag.NewFlagSet("log", flag.ContinueOnError)
	flags.SetOutput(errOut)
	flags.Usage = func() { fmt.Fprint(errOut, logUsage) }
	dir := flags.String("dir", "", "the data directory")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	if *dir == "" {
		cfg, err := config.Load(nil, environ, io.Discard)
		if err != nil {
			fmt.Fprintf(errOut, "%v\n-dir names a data directory without the settings\n", err)
			return 2
		}
		*dir = cfg.DataDir
	}
	var err error
	switch command, rest := flags.Arg(0), flags.Args(); {
	case command == "ls" && len(rest) == 1:
		err = listLog(out, *dir)
	case command == "cat" && len(rest) == 2:
		err = printStream(out, *dir, rest[1])
	case command == "verify" && len(rest) == 1:
		err = verifyLog(out, *dir)
	default:
		fmt.Fprint(errOut, logUsage)
		return 2
	}
	if err != nil {
		fmt.Fprintln(errOut, "weir:", err)
		return 1
	}
	return 0
}

func listLog(out io.Writer, dir string) error {
	found, err := segment.Inspect(dir, "")
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STREAM\tSTATE\tCREATED\tTOOK\tEVENTS\tBYTES\tMODEL")
	for _, st := range found.Streams {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%d\t%s\n", st.ID, stateOf(st), st.Created.UTC().Format(time.RFC3339),
			took(st), st.LastSeq, st.Bytes, printable(st.Model))
	}
	return table.Flush()
}

func stateOf(st segment.Inspected) string {
	switch {
	case st.Gone:
		return "gone"
	case st.Damaged && st.Running():
		return "damaged"
	default:
		return string(st.State())
	}
}

func took(st segment.Inspected) string {
	if st.Ended.IsZero() {
		return "-"
	}
	return st.Ended.Sub(st.Created).Round(time.Millisecond).String()
}

func printStream(out io.Writer, dir, id string) error {
	found, err := segment.Inspect(dir, id)
	if err != nil {
		return err
	}
	st, ok := found.Find(id)
	switch {
	case !ok:
		return fmt.Errorf("%s has no stream %s", dir, printable(id))
	case st.Gone:
		return fmt.Errorf("stream %s was deleted, or made room for others", id)
	}
	for _, e := range st.Events {
		fmt.Fprintf(out, "%d\t%s\t%s\n", e.Seq, cmp.Or(printable(e.Type), "token"), printable(string(e.Data)))
	}
	if st.Running() && st.Damaged {
		return fmt.Errorf("stream %s: what follows is damaged", id)
	}
	return nil
}

func verifyLog(out io.Writer, dir string) error {
	found, err := segment.Inspect(dir, "")
	if err != nil {
		return err
	}
	running, gone := 0, 0
	for _, st := range found.Streams {
		switch {
		case st.Gone:
			gone++
		case st.Running():
			running++
		}
	}
	for _, d := range found.Damages {
		fmt.Fprintln(out, "damaged:", d)
	}
	if found.Torn > 0 {
		fmt.Fprintf(out, "the last %d bytes are unfinished: the proxy crashed, or is writing them; opening the log cuts them off\n", found.Torn)
	}
	fmt.Fprintf(out, "%d segments, %d streams (%d running, %d gone), %d damages\n",
		found.Segments, len(found.Streams), running, gone, len(found.Damages))
	if len(found.Damages) > 0 {
		return errors.New("the log is damaged")
	}
	return nil
}

// printable keeps what a model wrote from steering the terminal.
func printable(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}
