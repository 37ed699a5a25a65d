package stream_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"weir/internal/stream"
)

func TestCancel(t *testing.T) {
	bubble(t, stream.Limits{}, func(h *harness) {
		var closed time.Duration
		id, _ := h.start(patient, func(ctx context.Context, emit stream.Emit) (stream.Outcome, error) {
			if err := emit(token("a")); err != nil {
				return stream.Outcome{}, err
			}
			<-ctx.Done()
			closed = time.Since(h.began)
			if err := emit(token("late")); err == nil {
				h.Error("emit after the cancel is no error")
			}
			if err := wait(context.Background(), 3*time.Second); err != nil { // the upstream takes its time
				return stream.Outcome{}, err
			}
			return partial(1), ctx.Err()
		})
		h.pass(2 * time.Second)
		h.cancel(id)
		if status := h.status(id); status.State() != stream.StateCancelled || time.Since(h.began) != 2*time.Second {
			h.Errorf("%s after %v: the log waits for the provider", status.State(), time.Since(h.began))
		}
		h.pass(5 * time.Second)
		if closed != 2*time.Second {
			h.Errorf("the generation's context ended after %v", closed)
		}
		events, end := h.end(id)
		if text(events) != "a" || string(events[2].Data) != `{"state":"cancelled"}` {
			h.Errorf("tokens %q, end %s", text(events), events[2].Data)
		}
		h.wantEnd(end, stream.StateCancelled, "", 5*time.Second)
		booked := h.status(id).Booked
		if booked.Usage == nil || booked.Usage.Source != stream.UsagePartial || booked.Timings == nil || booked.Timings.TotalMS != 5000 {
			h.Errorf("booked %+v", booked)
		}
		if end.Usage == nil || end.Usage.Source != stream.UsagePartial {
			h.Errorf("the observer was told %+v", end.Summary)
		}
	})
}

func TestCancelWhatHasEnded(t *testing.T) {
	bubble(t, stream.Limits{}, func(h *harness) {
		id, _ := h.start(patient, tokens(2, time.Second))
		h.end(id)
		before := h.status(id)
		for range 2 {
			h.cancel(id)
		}
		if after := h.status(id); after.State() != stream.StateDone || after.LastSeq != before.LastSeq {
			h.Errorf("%s with %d events", after.State(), after.LastSeq)
		}
		if err := h.runner.Cancel(h.Context(), stream.NewID()); !errors.Is(err, stream.ErrNotFound) {
			h.Errorf("Cancel of an unknown stream: %v", err)
		}
	})
}

// However the provider takes the end of its context, the stream was cancelled.
func TestCancelWhateverTheProviderSays(t *testing.T) {
	tests := map[string]error{
		"nothing": nil, "its context": context.Canceled, "an error": errUpstream, "an Error": &stream.Error{Code: "upstream_error"},
	}
	for name, said := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, stream.Limits{}, func(h *harness) {
				id, _ := h.start(patient, func(ctx context.Context, _ stream.Emit) (stream.Outcome, error) {
					<-ctx.Done()
					return stream.Outcome{}, said
				})
				h.pass(time.Second)
				h.cancel(id)
				h.cancel(id)
				events, end := h.end(id)
				h.wantEnd(end, stream.StateCancelled, "", time.Second)
				if len(events) != 2 {
					h.Errorf("%d events", len(events))
				}
			})
		})
	}
}

func TestDeleteWhileTheOwnerBooks(t *testing.T) {
	bubble(t, stream.Limits{}, func(h *harness) {
		id, _ := h.start(patient, func(ctx context.Context, _ stream.Emit) (stream.Outcome, error) {
			<-ctx.Done()
			return partial(0), wait(context.Background(), time.Second)
		})
		h.cancel(id)
		if err := h.log.Delete(h.Context(), id); err != nil {
			h.Fatalf("Delete: %v", err)
		}
		h.runner.Drain(h.Context())
		if _, err := h.log.Status(h.Context(), id); !errors.Is(err, stream.ErrGone) {
			h.Errorf("Status: %v", err)
		}
		if end := h.seen.end(h.T, id); end.at != time.Second {
			h.Errorf("over after %v", end.at)
		}
	})
}

// A reader comes or goes at a time.
type step struct {
	at     time.Duration
	change int // +1: a reader comes; -1: the first one that came goes, Start's own before all
}

func TestUnread(t *testing.T) {
	const s, ms = time.Second, time.Millisecond
	tests := []struct {
		name   string
		unread time.Duration
		steps  []step
		at     time.Duration // of the cancel; 0: goes on to its end
	}{
		{"its creator stays", 5 * s, nil, 0},
		{"its creator never reads", 5 * s, []step{{0, -1}}, 5 * s},
		{"its creator leaves", 5 * s, []step{{7 * s, -1}}, 12 * s},
		{"nobody waits", 0, []step{{7 * s, -1}}, 7 * s},
		{"natively patient", 10 * time.Minute, []step{{0, -1}}, 10 * time.Minute},
		{"back in time", 5 * s, []step{{0, -1}, {4999 * ms, +1}}, 0},
		{"back too late", 5 * s, []step{{0, -1}, {5001 * ms, +1}}, 5 * s},
		{"back in time, and away", 5 * s, []step{{0, -1}, {4999 * ms, +1}, {8 * s, -1}}, 13 * s},
		{"away and back, often", 5 * s, []step{{0, -1}, {3 * s, +1}, {4 * s, -1}, {8 * s, +1}, {9 * s, -1}, {13 * s, +1}, {14 * s, -1}}, 19 * s},
		{"another one stays", 5 * s, []step{{1 * s, +1}, {2 * s, -1}}, 0},
		{"the last one leaves", 5 * s, []step{{1 * s, +1}, {2 * s, +1}, {3 * s, -1}, {4 * s, -1}, {9 * s, -1}}, 14 * s},
		{"a short look is enough to begin again", 5 * s, []step{{0, -1}, {4 * s, +1}, {4 * s, -1}}, 9 * s},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, stream.Limits{}, func(h *harness) {
				const whole = time.Hour
				id, own := h.start(test.unread, tokens(int(whole/s), s))
				present := []func(){own}
				for _, step := range test.steps {
					h.pass(time.Until(h.began.Add(step.at)))
					if step.change > 0 {
						present = append(present, h.runner.Attach(id))
						continue
					}
					present[0]()
					present[0]() // a second call counts nobody out
					present = present[1:]
				}
				_, end := h.end(id)
				if test.at > 0 {
					h.wantEnd(end, stream.StateCancelled, "", test.at)
					if usage := h.status(id).Booked.Usage; usage == nil || usage.Source != stream.UsagePartial {
						h.Errorf("booked usage %+v", usage)
					}
				} else {
					h.wantEnd(end, stream.StateDone, "", whole)
				}
				for _, detach := range present {
					detach() // after the end
				}
			})
		})
	}
}

func TestAttachToWhatDoesNotRunHere(t *testing.T) {
	bubble(t, stream.Limits{}, func(h *harness) {
		h.runner.Attach(stream.NewID())()
		id, _ := h.start(patient, tokens(1, 0))
		h.end(id)
		detach := h.runner.Attach(id)
		detach()
		detach()
	})
}

func TestSilence(t *testing.T) {
	const s = time.Second
	defaults := stream.Limits{FirstToken: 120 * s, Idle: 60 * s}
	tests := []struct {
		name   string
		limits stream.Limits
		pauses []time.Duration // before each token; then silence for an hour
		at     time.Duration   // of the timeout; 0: none
	}{
		{"never a token", defaults, nil, 120 * s},
		{"the first in time, then nothing", defaults, []time.Duration{119 * s}, 179 * s},
		{"the first at once, then nothing", defaults, []time.Duration{0}, 60 * s},
		{"the first soon, then nothing", defaults, []time.Duration{1 * s}, 61 * s},
		{"each postpones it", defaults, []time.Duration{100 * s, 59 * s, 59 * s, 1 * s, 59 * s}, 338 * s},
		{"no limit before the first", stream.Limits{Idle: 60 * s}, []time.Duration{time.Hour, 1 * s}, time.Hour + 61*s},
		{"no limit after the first", stream.Limits{FirstToken: 120 * s}, []time.Duration{119 * s, time.Hour}, 0},
		{"a limit before the first that is the shorter", stream.Limits{FirstToken: 10 * s, Idle: 60 * s}, []time.Duration{9 * s, 50 * s}, 119 * s},
		{"no limits", stream.Limits{}, []time.Duration{time.Hour, time.Hour}, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, test.limits, func(h *harness) {
				var whole time.Duration
				events, end := h.run(func(ctx context.Context, emit stream.Emit) (stream.Outcome, error) {
					for _, pause := range append(test.pauses, time.Hour) {
						if err := wait(ctx, pause); err != nil {
							return partial(0), err
						}
						whole += pause
						if err := emit(token("a")); err != nil {
							return partial(0), err
						}
					}
					return stream.Outcome{}, nil
				})
				if test.at == 0 {
					h.wantEnd(end, stream.StateDone, "", whole)
					return
				}
				h.wantEnd(end, stream.StateError, stream.CodeUpstreamTimeout, test.at)
				if !retryable(end.Ending) || len(events) != len(test.pauses)+2 {
					h.Errorf("retryable %v, %d events", retryable(end.Ending), len(events))
				}
			})
		})
	}
}

// An empty emit is no token, but a sign of life: the upstream is not silent.
func TestEmptyEmitIsASignOfLife(t *testing.T) {
	bubble(t, stream.Limits{FirstToken: 10 * time.Second}, func(h *harness) {
		_, end := h.run(func(ctx context.Context, emit stream.Emit) (stream.Outcome, error) {
			for range 30 {
				if err := errors.Join(wait(ctx, time.Second), emit(nil)); err != nil {
					return stream.Outcome{}, err
				}
			}
			return stream.Outcome{}, wait(ctx, time.Hour)
		})
		h.wantEnd(end, stream.StateError, stream.CodeUpstreamTimeout, 40*time.Second)
		if end.Timings.FirstTokenMS != 0 {
			h.Errorf("first token after %v ms", end.Timings.FirstTokenMS)
		}
	})
}

func TestMaxBytes(t *testing.T) {
	tests := []struct {
		sizes []int
		kept  int // events; all of them when the stream ends well
		good  bool
	}{
		{[]int{300, 300, 400}, 3, true},
		{[]int{1000}, 1, true},
		{[]int{300, 300, 401}, 2, false},
		{[]int{1001}, 0, false},
		{[]int{1000, 1, 1}, 1, false},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.sizes), func(t *testing.T) {
			bubble(t, stream.Limits{MaxBytes: 1000}, func(h *harness) {
				events, end := h.run(func(_ context.Context, emit stream.Emit) (stream.Outcome, error) {
					for _, size := range test.sizes {
						if err := emit([]stream.Event{{Data: make([]byte, size)}}); err != nil {
							return partial(1), fmt.Errorf("relay: %w", err)
						}
					}
					return stream.Outcome{}, nil
				})
				if len(events) != test.kept+2 {
					h.Errorf("%d tokens in the log, want %d", len(events)-2, test.kept)
				}
				if test.good {
					h.wantEnd(end, stream.StateDone, "", 0)
				} else {
					h.wantEnd(end, stream.StateError, stream.CodeTooLarge, 0)
				}
			})
		})
	}
}

// Once the runner gives a generation up nothing more gets into its log, though
// the log is open until the provider has returned.
func TestEmitAfterTheRunnerGaveUp(t *testing.T) {
	bubble(t, stream.Limits{Idle: 5 * time.Second}, func(h *harness) {
		events, end := h.run(func(ctx context.Context, emit stream.Emit) (stream.Outcome, error) {
			if err := emit(token("a")); err != nil {
				return stream.Outcome{}, err
			}
			<-ctx.Done()
			if err := emit(token("late")); err == nil {
				h.Error("emit is no error")
			}
			return partial(1), wait(context.Background(), time.Second)
		})
		if text(events) != "a" || end.Events != 1 {
			h.Errorf("tokens %q, %d events told", text(events), end.Events)
		}
	})
}

// The three ways to end meet at one moment, many times: one of them ends the
// log, and all know which.
func TestEndsMeet(t *testing.T) {
	for round := range 60 {
		bubble(t, stream.Limits{Idle: time.Second}, func(h *harness) {
			var ids []string
			for range 10 {
				id, detach := h.start(time.Second, func(ctx context.Context, emit stream.Emit) (stream.Outcome, error) {
					err := errors.Join(emit(token("a")), wait(ctx, time.Second), emit(token("b")))
					return partial(2), err
				})
				ids = append(ids, id)
				detach()
				go func() {
					<-time.After(time.Second)
					h.cancel(id)
				}()
			}
			if round%2 == 0 {
				ctx, cancel := context.WithTimeout(h.Context(), time.Second)
				defer cancel()
				h.runner.Drain(ctx)
			}
			for _, id := range ids {
				_, end := h.end(id)
				if end.at != time.Second {
					h.Errorf("over after %v", end.at)
				}
			}
			synctest.Wait()
		})
	}
}
