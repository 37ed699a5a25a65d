package storetest_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"weir/internal/stream"
	"weir/internal/stream/memory"
	"weir/internal/stream/storetest"
)

func TestRun(t *testing.T) {
	storetest.Run(t, func(t *testing.T, o storetest.Options) stream.Log { return newPlace(t, o).Open() })
}

func TestRunDurable(t *testing.T) {
	for name, lapse := range map[string]time.Duration{"recovers at once": 0, "recovers later": 20 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			storetest.RunDurable(t, func(t *testing.T, o storetest.Options) storetest.Durable {
				p := newPlace(t, o)
				p.lapse = lapse
				return p
			})
		})
	}
}

func TestRunShared(t *testing.T) {
	storetest.RunShared(t, func(t *testing.T, o storetest.Options) (a, b stream.Log) {
		p := newPlace(t, o)
		return p.Open(), p.Open()
	})
}

// broken names the fault of the double that a run of this binary tests.
const broken = "STORETEST_BROKEN"

func TestBrokenDouble(t *testing.T) {
	f := fault(os.Getenv(broken))
	switch f {
	case sound:
		// Nothing to do but in the processes that TestSuiteFindsFaults starts.
	case apart:
		storetest.RunShared(t, func(_ *testing.T, o storetest.Options) (a, b stream.Log) {
			options := memory.Options{Retention: o.Retention, Now: o.Now}
			return memory.New(options), memory.New(options)
		})
	default:
		storetest.RunDurable(t, func(t *testing.T, o storetest.Options) storetest.Durable {
			p := newPlace(t, o)
			p.fault = f
			return p
		})
	}
}

// A suite that everything passes proves nothing.
func TestSuiteFindsFaults(t *testing.T) {
	tests := map[fault]struct{ run, found string }{
		zombiesWrite:      {"Crash/leaves_nothing", "a dead store acknowledged an append"},
		unmarked:          {"Recovered", "want an error that a recovery wrote"},
		acknowledgesEarly: {"Recovered/a_running_stream", "were acknowledged"},
		apart:             {"Catalog/an_idempotency_key_has", "2 creates won one key"},
	}
	for f, want := range tests {
		t.Run(string(f), func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBrokenDouble$/"+want.run)
			cmd.Env = append(os.Environ(), broken+"="+string(f))
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), want.found) {
				t.Errorf("%v, want %q found:\n%s", err, want.found, out)
			}
		})
	}
}
