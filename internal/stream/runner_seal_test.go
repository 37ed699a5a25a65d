package stream_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"weir/internal/stream"
	"weir/internal/stream/storetest"
)

// until fails until a time after its making, and counts the calls.
func until(back time.Duration, fail func(context.Context) error) (call func(context.Context) error, calls *atomic.Int32) {
	calls = new(atomic.Int32)
	var began atomic.Pointer[time.Time]
	return func(ctx context.Context) error {
		calls.Add(1)
		now := time.Now()
		began.CompareAndSwap(nil, &now)
		if time.Since(*began.Load()) < back {
			return fail(ctx)
		}
		return nil
	}, calls
}

// A store that is away when a generation ends gets its end once it is back.
// Until then the stream runs for all who look.
func TestSealWaitsForTheStore(t *testing.T) {
	for name, fail := range map[string]func(context.Context) error{
		"unavailable": fails(stream.ErrUnavailable), "full": fails(stream.ErrFull), "silent": hangs,
	} {
		t.Run(name, func(t *testing.T) {
			seal, calls := until(time.Minute, fail)
			over(t, &faulty{seal: seal}, func(h *harness) {
				id, _ := h.start(patient, tokens(2, time.Second))
				h.pass(30 * time.Second)
				if status := h.status(id); !status.Running() || status.LastSeq != 3 || h.runner.Running() != 1 || !h.runner.Runs(id) {
					h.Errorf("%s with %d events, %d run", status.State(), status.LastSeq, h.runner.Running())
				}
				h.runner.Attach(id)()
				events, end := h.end(id)
				const back = 62 * time.Second // the store is; the last pause is at most 2 s
				if len(events) != 4 || end.State != stream.StateDone || end.Err != nil || end.at < back || end.at > back+7*time.Second {
					h.Errorf("%d events, %s after %v: %v", len(events), end.State, end.at, end.Err)
				}
				if booked := h.status(id).Booked; !reflect.DeepEqual(booked, end.Summary) || booked.Timings.TotalMS != 2000 {
					h.Errorf("booked %+v", booked)
				}
				if n := calls.Load(); n < 9 || n > 100 {
					h.Errorf("%d attempts in a minute", n)
				}
				h.wantDrained(0)
			})
		})
	}
}

// What no second attempt would change is not tried twice.
func TestSealTakesNoForAnAnswer(t *testing.T) {
	for _, refusal := range []error{stream.ErrNotFound, stream.ErrGone, &stream.GoneError{}, stream.ErrFenced, errUpstream} {
		seal, calls := until(time.Hour, fails(refusal))
		over(t, &faulty{seal: seal}, func(h *harness) {
			id, _ := h.start(patient, tokens(2, time.Second))
			h.pass(2 * time.Second)
			h.wantDrained(0)
			if end := h.seen.end(h.T, id); !errors.Is(end.Err, refusal) || end.at != 2*time.Second || calls.Load() != 1 {
				h.Errorf("the observer was told %v after %v and %d attempts", end.Err, end.at, calls.Load())
			}
		})
	}
}

// A drain whose grace is over waits for a store that is away, but not for long.
func TestDrainGivesTheSealUp(t *testing.T) {
	for name, fail := range map[string]func(context.Context) error{"unavailable": fails(stream.ErrUnavailable), "silent": hangs} {
		t.Run(name, func(t *testing.T) {
			over(t, &faulty{seal: fail, booking: hangs}, func(h *harness) {
				ended, _ := h.start(patient, tokens(2, time.Second))
				running, _ := h.start(patient, endless(time.Second))
				h.pass(20500 * time.Millisecond)
				if took := h.drain(10 * time.Second); took != 15*time.Second || h.runner.Running() != 0 {
					h.Errorf("Drain took %v, %d run", took, h.runner.Running())
				}
				for id, events := range map[string]int{ended: 2, running: 30} {
					end := h.seen.end(h.T, id)
					if end.Err == nil || !strings.Contains(end.Err.Error(), "seal: given up") || end.Events != events {
						h.Errorf("the observer was told %v of %d events after %v", end.Err, end.Events, end.at)
					}
					if status := h.status(id); !status.Running() {
						h.Errorf("%s with %d events", status.State(), status.LastSeq)
					}
				}
			})
		})
	}
}

// The store comes back in the last moment.
func TestDrainLetsTheSealBeTriedAgain(t *testing.T) {
	store := &faulty{}
	store.seal, _ = until(10*time.Second, fails(stream.ErrUnavailable)) // from the second second on
	over(t, store, func(h *harness) {
		id, _ := h.start(patient, tokens(2, time.Second))
		h.pass(3 * time.Second)
		if took := h.drain(8 * time.Second); took < 9*time.Second || took > 11*time.Second {
			h.Errorf("Drain took %v", took)
		}
		_, end := h.end(id)
		if end.State != stream.StateDone || end.Err != nil {
			h.Errorf("%s, %v", end.State, end.Err)
		}
	})
}

// mute is a store whose first seal is written, but not answered.
type mute struct {
	stream.Log
	seals atomic.Int32
}

func (m *mute) Seal(ctx context.Context, id string, terminal stream.Event) error {
	err := m.Log.Seal(ctx, id, terminal)
	if m.seals.Add(1) == 1 {
		return errors.Join(err, stream.ErrUnavailable)
	}
	return err
}

func TestSealWhoseAnswerIsLost(t *testing.T) {
	bubbleOver(t, stream.Limits{}, func(log stream.Log) stream.Log { return &mute{Log: log} }, func(h *harness) {
		id, _ := h.start(patient, tokens(2, time.Second))
		h.pass(5 * time.Second)
		_, end := h.end(id)
		if end.State != stream.StateDone || end.Err != nil {
			h.Errorf("%s, %v", end.State, end.Err)
		}
		if booked := h.status(id).Booked; booked.Usage == nil || booked.Timings == nil {
			h.Errorf("booked %+v", booked)
		}
	})
}

// While the owner tries to write its end, another replica that reaches the store
// cancels the stream. The log's order settles it.
func TestCancelledWhileTheSealWaits(t *testing.T) {
	store := &faulty{}
	store.seal, _ = until(12*time.Second, fails(stream.ErrUnavailable))
	over(t, store, func(h *harness) {
		id, _ := h.start(patient, tokens(2, time.Second))
		h.pass(10 * time.Second)
		if err := store.Log.Seal(h.Context(), id, stream.CancelledEvent(stream.Summary{})); err != nil {
			h.Fatal(err)
		}
		h.pass(10 * time.Second)
		_, end := h.end(id)
		if end.State != stream.StateCancelled || end.Err != nil || end.Usage == nil {
			h.Errorf("%s, %v", end.State, end.Err)
		}
	})
}

// The owner can't read who ended its stream, and takes it for a cancel.
func TestStatusFailsAfterCancel(t *testing.T) {
	store := &faulty{status: fails(stream.ErrUnavailable)}
	over(t, store, func(h *harness) {
		id, _ := h.start(patient, tokens(2, time.Second))
		h.cancel(id)
		h.pass(0)
		h.wantDrained(5 * time.Second)
		store.status = nil
		_, end := h.end(id)
		h.wantEnd(end, stream.StateCancelled, "", 5*time.Second)
	})
}

func TestBookIsTriedAgain(t *testing.T) {
	store := &faulty{}
	store.booking, _ = until(2*time.Second, fails(stream.ErrUnavailable))
	over(t, store, func(h *harness) {
		id, _ := h.start(patient, tokens(2, time.Second))
		h.pass(10 * time.Second)
		_, end := h.end(id)
		if booked := h.status(id).Booked; end.Err != nil || end.at > 7*time.Second || !reflect.DeepEqual(booked, end.Summary) {
			h.Errorf("booked %+v, told %v after %v", booked, end.Err, end.at)
		}
	})
}

// An account is not worth more than a moment.
func TestBookFails(t *testing.T) {
	tests := map[string]struct {
		booking func(context.Context) error
		want    error
		at      time.Duration
	}{
		"unavailable": {fails(stream.ErrUnavailable), stream.ErrUnavailable, 7 * time.Second},
		"silent":      {hangs, context.DeadlineExceeded, 7 * time.Second},
		"for good":    {fails(errUpstream), errUpstream, 2 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			over(t, &faulty{booking: test.booking}, func(h *harness) {
				id, _ := h.start(patient, tokens(2, time.Second))
				h.pass(2 * time.Second)
				if status := h.status(id); status.State() != stream.StateDone {
					h.Errorf("%s: readers wait for the booking", status.State())
				}
				h.pass(5 * time.Second)
				events, end := h.end(id)
				h.wantDrained(0)
				h.wantEnd(end, stream.StateDone, "", test.at)
				if !errors.Is(end.Err, test.want) || len(events) != 4 {
					h.Errorf("the observer was told %v; %d events", end.Err, len(events))
				}
				storetest.CheckLog(h, h.log, end.ID)
			})
		})
	}
}
