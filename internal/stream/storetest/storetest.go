// Package storetest is the suite every store of streams must pass: what the
// comments of stream.Log promise, as tests.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"weir/internal/stream"
)

// Options of the store that a test opens.
type Options struct {
	Retention time.Duration
	Now       func() time.Time // a clock that only the test moves
}

// Run tests the stores that open returns. Each is empty, or shares nothing with
// the others; open has it closed by a cleanup of t.
func Run(t *testing.T, open func(t *testing.T, o Options) stream.Log) {
	groups := []group[*fixture]{
		{"Append", appendTests}, {"Seal", sealTests}, {"Read", readTests}, {"Wake", wakeTests},
		{"Create", createTests}, {"Catalog", catalogTests}, {"Forget", forgetTests},
	}
	runGroups(t, groups, func(t *testing.T, run func(f *fixture)) {
		f := newFixture(t)
		f.log = open(t, f.options())
		run(f)
		f.checkLogs()
	})
}

type group[F any] struct {
	name  string
	tests []testOf[F]
}

// testOf is a test that needs a fixture of type F.
type testOf[F any] struct {
	name string
	run  func(f F)
}

type test = testOf[*fixture]

// runGroups runs every test of the groups with a fixture that with makes.
func runGroups[F any](t *testing.T, groups []group[F], with func(t *testing.T, run func(f F))) {
	for _, group := range groups {
		t.Run(group.name, func(t *testing.T) {
			for _, test := range group.tests {
				t.Run(test.name, func(t *testing.T) { with(t, test.run) })
			}
		})
	}
}

// CheckLog checks what holds for every log that nobody writes to at the
// moment: events are numbered 1 to n, exactly one terminal event stands at the
// end when it is sealed and none while it runs, and Status says the same. It
// returns the events.
func CheckLog(t testing.TB, log stream.Log, id string) []stream.Event {
	t.Helper()
	ctx := context.Background()
	status, err := log.Status(ctx, id)
	if err != nil {
		t.Fatalf("Status of %s: %v", id, err)
	}
	r, err := log.Open(ctx, id, 0)
	if err != nil {
		t.Fatalf("Open %s: %v", id, err)
	}
	defer r.Close()
	events, sealed, err := readAll(r)
	if err != nil {
		t.Fatalf("read %s: %v", id, err)
	}
	checkEvents(t, status, events, sealed)
	if status.ID != id {
		t.Errorf("%s: status of %q", id, status.ID)
	}
	return events
}

// checkEvents checks a whole log against what its status says.
func checkEvents(t testing.TB, status stream.Status, events []stream.Event, sealed bool) {
	t.Helper()
	id := status.ID
	if sealed && len(events) == 0 {
		t.Fatalf("%s: sealed, without a terminal event", id)
	}
	for i, e := range events {
		if e.Seq != uint64(i)+1 {
			t.Errorf("%s: event %d has seq %d", id, i+1, e.Seq)
		}
		if last := i == len(events)-1; e.Terminal() != (sealed && last) {
			t.Errorf("%s: event %d of %d has type %q; sealed: %v", id, i+1, len(events), e.Type, sealed)
		}
	}
	if status.LastSeq != uint64(len(events)) {
		t.Errorf("%s: status with last seq %d, the log has %d events", id, status.LastSeq, len(events))
	}
	if status.Running() == sealed || status.Ended.IsZero() == sealed {
		t.Errorf("%s: status running %v, ended %v; sealed: %v", id, status.Running(), status.Ended, sealed)
	}
	if sealed && !same(status.Terminal, events[len(events)-1]) {
		t.Errorf("%s: status has terminal %s, the log %s", id, show(status.Terminal), show(events[len(events)-1]))
	}
}

// Follow reads to the end of the log, as a connection does.
func Follow(ctx context.Context, r stream.Reader) ([]stream.Event, error) {
	var all []stream.Event
	for {
		events, sealed, err := readAll(r)
		all = append(all, events...)
		if err != nil || sealed {
			return all, err
		}
		select {
		case <-r.Wake():
		case <-ctx.Done():
			return all, fmt.Errorf("after %d events: %w", len(all), ctx.Err())
		}
	}
}

// readAll reads until there is no news.
func readAll(r stream.Reader) (events []stream.Event, sealed bool, err error) {
	for {
		had := len(events)
		events, err = r.Next(events)
		switch {
		case errors.Is(err, io.EOF) && len(events) > had:
			return events, true, fmt.Errorf("EOF came with %d events", len(events)-had)
		case errors.Is(err, io.EOF):
			return events, true, nil
		case err != nil:
			return events, false, err
		case len(events) == had:
			return events, false, nil
		}
	}
}

func same(a, b stream.Event) bool {
	return a.Seq == b.Seq && a.Type == b.Type && a.Recovery == b.Recovery && bytes.Equal(a.Data, b.Data)
}

func show(e stream.Event) string {
	return fmt.Sprintf("%d %q %.80q r%d", e.Seq, e.Type, e.Data, e.Recovery)
}
