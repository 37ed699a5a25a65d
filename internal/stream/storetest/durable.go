package storetest

import (
	"errors"
	"testing"

	"weir/internal/stream"
)

// Durable is a place where logs outlive the store that wrote them: a directory,
// a database. The tests have one store at a time on a place.
type Durable interface {
	// Open returns a new store on the place. What a crash left running is ended
	// by a recovery: before Open returns, or a while later, without anybody
	// asking for it. The store is closed by a cleanup unless it crashes first.
	Open() stream.Log
	// Crash ends a store as kill -9 does: it seals, flushes and closes nothing.
	// Calls that are under way may fail or succeed. Whoever calls the store or a
	// writer of it from then on gets an error, and leaves the place as it is.
	Crash(log stream.Log)
}

// RunDurable tests what a crash may take from the stores of a place, and what it
// may not. Every place that open returns is empty, or shares nothing with the
// others.
func RunDurable(t *testing.T, open func(t *testing.T, o Options) Durable) {
	groups := []group[*durable]{{"Kept", keptTests}, {"Recovered", recoveredTests}, {"Crash", crashTests}}
	runGroups(t, groups, func(t *testing.T, run func(f *durable)) {
		f := &durable{fixture: newFixture(t)}
		f.place = open(t, f.options())
		f.log = f.place.Open()
		run(f)
		f.checkSettled()
	})
}

type durableTest = testOf[*durable]

// durable is a test's place, with the store that is open there.
type durable struct {
	*fixture
	place Durable
}

// crash ends the store, and opens the next one.
func (f *durable) crash() {
	f.place.Crash(f.log)
	f.log = f.place.Open()
}

// settle waits for the end of a stream, checks its log, and returns what there
// is to know of it.
func (f *durable) settle(id string) snapshot {
	f.Helper()
	events := f.follow(f.open(id, 0))
	status := f.status(id)
	if status.ID != id {
		f.Errorf("%s: status of %q", id, status.ID)
	}
	checkEvents(f, status, events, true)
	return snapshot{events, status}
}

// checkSettled looks at every log the test made through the store that is open.
func (f *durable) checkSettled() {
	for _, id := range f.ids {
		status, err := f.log.Status(f.ctx, id)
		switch {
		case errors.Is(err, stream.ErrGone):
			_, err := f.log.Open(f.ctx, id, 0)
			f.wantErr("Open of "+id+", whose Status is gone", err, stream.ErrGone)
		case err != nil:
			f.Errorf("Status of %s: %v", id, err)
		case !status.Running():
			f.settle(id)
		}
	}
}

// snapshot is an ended stream at a moment.
type snapshot struct {
	events []stream.Event
	status stream.Status
}

func (s snapshot) terminal() stream.Event { return s.events[len(s.events)-1] }

// wantSame checks that a stream is what it was, byte for byte.
func (f *durable) wantSame(what string, was snapshot) {
	f.Helper()
	now := f.settle(was.status.ID)
	if len(now.events) != len(was.events) {
		f.Errorf("%s: %d events, want %d", what, len(now.events), len(was.events))
		return
	}
	for i, e := range now.events {
		if !same(e, was.events[i]) {
			f.Errorf("%s: event %s, want %s", what, show(e), show(was.events[i]))
		}
	}
	f.wantStatus(what, now.status, was.status)
}

func (f *durable) wantStatus(what string, got, want stream.Status) {
	f.Helper()
	f.wantMeta(what, got.Meta, want.Meta)
	if got.LastSeq != want.LastSeq || !same(got.Terminal, want.Terminal) {
		f.Errorf("%s: ends in %s, want %s", what, show(got.Terminal), show(want.Terminal))
	}
	// A store may keep the time less exactly than it had it in memory.
	if off := got.Ended.Sub(want.Ended).Abs().Seconds(); off > 1 {
		f.Errorf("%s: ended %v, want %v", what, got.Ended, want.Ended)
	}
	if got, want := asJSON(f.fixture, got.Booked), asJSON(f.fixture, want.Booked); got != want {
		f.Errorf("%s: booked %s, want %s", what, got, want)
	}
}

// recovered waits for a stream that a crash left running. It must hold the first
// events of its pen, at least the acknowledged ones and at most inFlight more,
// and then one terminal event that a recovery wrote.
func (f *durable) recovered(id string, acknowledged uint64, inFlight int) snapshot {
	f.Helper()
	s := f.settle(id)
	kept := uint64(len(s.events)) - 1
	if kept < acknowledged || kept > acknowledged+uint64(inFlight) {
		f.Errorf("%s: %d events after a crash, %d were acknowledged and %d in flight", id, kept, acknowledged, inFlight)
	}
	f.wantEvents(id+" after a crash", id, s.events, 1, kept+1)
	f.wantRecovery(s)
	return s
}

// wantRecovery checks an end that a recovery wrote.
func (f *durable) wantRecovery(s snapshot) {
	f.Helper()
	terminal := s.terminal()
	ending, err := stream.ReadEnding(terminal)
	f.must("ReadEnding", err)
	if terminal.Type != stream.TypeError || terminal.Recovery == 0 {
		f.Fatalf("%s ends in %s, want an error that a recovery wrote", s.status.ID, show(terminal))
	}
	if e := ending.Error; e.Code != stream.CodeInterrupted && e.Code != stream.CodeProducerLost || !e.Retryable {
		f.Errorf("%s ends in %+v, want interrupted or producer_lost, retryable", s.status.ID, e)
	}
	if s.status.State() != stream.StateError {
		f.Errorf("%s: state %s", s.status.ID, s.status.State())
	}
	f.wantErr("Seal of a recovered stream", f.log.Seal(f.ctx, s.status.ID, done()), stream.ErrSealed)
}
