package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weir/internal/stream"
	"weir/internal/stream/segment"
)

// logDir is a data directory with a finished, a running and a deleted stream.
func logDir(t *testing.T) (dir string, ids []string) {
	t.Helper()
	dir = t.TempDir()
	s, err := segment.Open(segment.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for range 3 {
		id := stream.NewID()
		w, err := s.Create(t.Context(), stream.Meta{ID: id, Owner: "ann", Model: "gpt\x1b[2J-test", Created: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Append(t.Context(), []stream.Event{{Type: stream.TypeStart, Data: []byte("{}")}, {Data: []byte("Hello \x1b[31m")}}); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	for _, id := range []string{ids[0], ids[2]} {
		if err := s.Seal(t.Context(), id, stream.DoneEvent(stream.Summary{FinishReason: "stop"})); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Delete(t.Context(), ids[2]); err != nil {
		t.Fatal(err)
	}
	return dir, ids
}

// The command reads a directory that a running store holds.
func TestLogCommand(t *testing.T) {
	dir, ids := logDir(t)
	for _, test := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"ls", []string{"ls"}, 0, []string{ids[0] + "  done", ids[1] + "  running", ids[2] + "  gone", `"gpt\x1b[2J-test"`}},
		{"cat", []string{"cat", ids[0]}, 0, []string{"1\tstart\t{}", `2	token	"Hello \x1b[31m"`, "3\tdone\t"}},
		{"cat of a running stream", []string{"cat", ids[1]}, 0, []string{"2\ttoken"}},
		{"cat of a deleted stream", []string{"cat", ids[2]}, 1, []string{"was deleted"}},
		{"cat of an unknown stream", []string{"cat", "nope"}, 1, []string{"has no stream nope"}},
		{"verify", []string{"verify"}, 0, []string{"1 segments, 3 streams (1 running, 1 gone), 0 damages"}},
		{"nothing", nil, 2, []string{"usage:"}},
		{"too much", []string{"ls", "x"}, 2, []string{"usage:"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, code := runLog(append([]string{"-dir", dir}, test.args...))
			if code != test.code {
				t.Errorf("exit code %d", code)
			}
			for _, want := range test.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
			if strings.Contains(out, "\x1b") {
				t.Errorf("the terminal is told what to do: %q", out)
			}
		})
	}
}

func TestLogVerifyFindsDamage(t *testing.T) {
	dir, ids := logDir(t)
	files, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	data[bytes.Index(data, []byte("Hello"))] ^= 1
	if err := os.WriteFile(files[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, code := runLog([]string{"-dir", dir, "verify"})
	if code != 1 || !strings.Contains(out, "damaged: segment 1, offset ") || !strings.Contains(out, ids[0]) {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

func runLog(args []string) (output string, code int) {
	var out bytes.Buffer
	code = readLog(args, []string{"PATH=/nowhere"}, &out, &out)
	return out.String(), code
}
