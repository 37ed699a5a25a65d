package stream_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weir/internal/stream"
)

// faulty is a store that answers as the test says before it does its work.
type faulty struct {
	stream.Log
	create  func(ctx context.Context) error
	append  func(ctx context.Context, id string, nth int) error // nth from 1, the start event's
	seal    func(ctx context.Context) error
	status  func(ctx context.Context) error
	booking func(ctx context.Context) error
}

func (f *faulty) Create(ctx context.Context, meta stream.Meta) (stream.Writer, error) {
	if f.create != nil {
		if err := f.create(ctx); err != nil {
			return nil, err
		}
	}
	w, err := f.Log.Create(ctx, meta)
	return &faultyWriter{Writer: w, store: f, id: meta.ID}, err
}

func (f *faulty) Seal(ctx context.Context, id string, terminal stream.Event) error {
	if f.seal != nil {
		if err := f.seal(ctx); err != nil {
			return err
		}
	}
	return f.Log.Seal(ctx, id, terminal)
}

func (f *faulty) Status(ctx context.Context, id string) (stream.Status, error) {
	if f.status != nil {
		if err := f.status(ctx); err != nil {
			return stream.Status{}, err
		}
	}
	return f.Log.Status(ctx, id)
}

type faultyWriter struct {
	stream.Writer
	store   *faulty
	id      string
	appends atomic.Int32
}

func (w *faultyWriter) Append(ctx context.Context, events []stream.Event) error {
	if w.store.append != nil {
		if err := w.store.append(ctx, w.id, int(w.appends.Add(1))); err != nil {
			return err
		}
	}
	return w.Writer.Append(ctx, events)
}

func (w *faultyWriter) Book(ctx context.Context, summary stream.Summary) error {
	if w.store.booking != nil {
		if err := w.store.booking(ctx); err != nil {
			return err
		}
	}
	return w.Writer.Book(ctx, summary)
}

// over runs a test on a runner whose store is faulty.
func over(t *testing.T, f *faulty, test func(h *harness)) {
	t.Helper()
	bubbleOver(t, stream.Limits{}, func(log stream.Log) stream.Log {
		f.Log = log
		return f
	}, test)
}

// wantDrained checks that nothing keeps the runner from stopping.
func (h *harness) wantDrained(within time.Duration) {
	h.Helper()
	if took := h.drain(0); took > within || h.runner.Running() != 0 {
		h.Errorf("Drain took %v, %d run", took, h.runner.Running())
	}
}

func fails(err error) func(context.Context) error {
	return func(context.Context) error { return err }
}

// hangs is a store that does not answer until it is given up.
func hangs(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestCreateFails(t *testing.T) {
	for _, want := range []error{stream.ErrUnavailable, stream.ErrFull, stream.ErrGone, errUpstream} {
		over(t, &faulty{create: fails(want)}, func(h *harness) {
			s := spec(patient, tokens(1, 0))
			if _, err := h.runner.Start(h.Context(), s); !errors.Is(err, want) {
				h.Errorf("Start: %v, want %v", err, want)
			}
			if h.runner.Running() != 0 || len(h.seen.calls) > 0 {
				h.Errorf("%d run, observed %q", h.runner.Running(), h.seen.calls)
			}
			h.wantDrained(0)
		})
	}
}

func TestCreateHangs(t *testing.T) {
	over(t, &faulty{create: hangs}, func(h *harness) {
		ctx, cancel := context.WithTimeout(h.Context(), 3*time.Second)
		defer cancel()
		go func() {
			if _, err := h.runner.Start(ctx, spec(patient, tokens(1, 0))); !errors.Is(err, context.DeadlineExceeded) {
				h.Errorf("Start: %v", err)
			}
		}()
		synctest.Wait()
		h.wantDrained(3 * time.Second)
	})
}

// Whoever starts what the store can't take gets the refusal, not a stream that
// fails. The stream that was created before it ends all the same.
func TestStartEventFails(t *testing.T) {
	for _, failure := range []error{stream.ErrFull, stream.ErrUnavailable, stream.ErrFenced, errUpstream} {
		t.Run(failure.Error(), func(t *testing.T) { testStartEventFails(t, failure) })
	}
}

func testStartEventFails(t *testing.T, failure error) {
	var healed atomic.Bool
	store := &faulty{append: func(context.Context, string, int) error {
		if healed.Load() {
			return nil
		}
		return failure
	}}
	over(t, store, func(h *harness) {
		s := spec(patient, func(context.Context, stream.Emit) (stream.Outcome, error) {
			h.Error("the provider was called for a stream without its start")
			return stream.Outcome{}, nil
		})
		s.IdempotencyKey = "key"
		if detach, err := h.runner.Start(h.Context(), s); !errors.Is(err, failure) || detach != nil {
			h.Errorf("Start: %v, want %v", err, failure)
		}
		h.pass(time.Second)
		if h.runner.Running() != 0 {
			h.Errorf("%d run", h.runner.Running())
		}
		if errors.Is(failure, stream.ErrFenced) {
			return // its log's end is its new owner's to write
		}
		events, end := h.end(s.ID)
		h.wantFailure(events, end, stream.AsError(failure), failure.Error())
		if len(events) != 1 || !h.status(s.ID).FailedBeforeToken() {
			h.Errorf("%d events", len(events))
		}
		healed.Store(true)
		s.ID, s.Generate = stream.NewID(), tokens(1, 0)
		if _, err := h.runner.Start(h.Context(), s); err != nil {
			h.Errorf("the key is not free: %v", err)
		}
		h.end(s.ID)
		h.wantDrained(0)
	})
}

// Somebody cancels the stream between its creation and its first event.
func TestSealedBeforeItsStart(t *testing.T) {
	store := &faulty{}
	store.append = func(ctx context.Context, id string, nth int) error {
		if nth > 1 {
			return nil
		}
		return store.Log.Seal(ctx, id, stream.CancelledEvent(stream.Summary{}))
	}
	over(t, store, func(h *harness) {
		events, end := h.run(func(context.Context, stream.Emit) (stream.Outcome, error) {
			h.Error("the provider was called for a cancelled stream")
			return stream.Outcome{}, nil
		})
		h.wantEnd(end, stream.StateCancelled, "", 0)
		if len(events) != 1 {
			h.Errorf("%d events", len(events))
		}
	})
}

func TestAppendFails(t *testing.T) {
	for name, failure := range map[string]error{"unavailable": stream.ErrUnavailable, "an error": errUpstream, "full": stream.ErrFull} {
		t.Run(name, func(t *testing.T) {
			store := &faulty{append: func(_ context.Context, _ string, nth int) error {
				if nth == 4 {
					return failure
				}
				return nil
			}}
			over(t, store, func(h *harness) {
				events, end := h.run(tokens(10, time.Second))
				h.wantFailure(events, end, stream.AsError(failure), failure.Error())
				h.wantEnd(end, stream.StateError, stream.AsError(failure).Code, 3*time.Second)
				if text(events) != "token 1|token 2" {
					h.Errorf("tokens %q", text(events))
				}
				h.wantDrained(0)
			})
		})
	}
}

// An append that hangs holds neither a cancel nor a drain.
func TestAppendHangs(t *testing.T) {
	store := func() *faulty {
		return &faulty{append: func(ctx context.Context, _ string, nth int) error {
			if nth == 3 {
				return hangs(ctx)
			}
			return nil
		}}
	}
	over(t, store(), func(h *harness) {
		id, _ := h.start(patient, tokens(10, time.Second))
		h.pass(5 * time.Second)
		h.cancel(id)
		_, end := h.end(id)
		h.wantEnd(end, stream.StateCancelled, "", 5*time.Second)
	})
	over(t, store(), func(h *harness) {
		id, _ := h.start(patient, tokens(10, time.Second))
		h.pass(5 * time.Second)
		h.wantDrained(0)
		_, end := h.end(id)
		h.wantEnd(end, stream.StateError, stream.CodeInterrupted, 5*time.Second)
	})
}

// A store that is slow, or gone for a while, is not the upstream's silence: the
// clock of that starts again when the append has returned.
func TestSlowAppendIsNotTheUpstreamsSilence(t *testing.T) {
	limits := stream.Limits{FirstToken: 10 * time.Second, Idle: 5 * time.Second}
	slow := func(nth int, took time.Duration) func(log stream.Log) stream.Log {
		return func(log stream.Log) stream.Log {
			return &faulty{Log: log, append: func(ctx context.Context, _ string, n int) error {
				if n == nth {
					return wait(ctx, took)
				}
				return nil
			}}
		}
	}
	const s = time.Second
	tests := []struct {
		name   string
		nth    int
		took   time.Duration
		pauses []time.Duration // before each token; then silence
		at     time.Duration   // of the upstream's timeout
	}{
		{"of the start", 1, 60 * s, nil, 70 * s},
		{"of the first token", 2, 61 * s, []time.Duration{9 * s}, 75 * s},
		{"between tokens", 3, 61 * s, []time.Duration{1 * s, 4 * s, 4 * s}, 1*s + 4*s + 61*s + 4*s + 5*s},
		{"about as long as the limit", 3, 5 * s, []time.Duration{1 * s, 4 * s, 4 * s}, 1*s + 4*s + 5*s + 4*s + 5*s},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bubbleOver(t, limits, slow(test.nth, test.took), func(h *harness) {
				_, end := h.run(func(ctx context.Context, emit stream.Emit) (stream.Outcome, error) {
					for _, pause := range append(test.pauses, time.Hour) {
						if err := errors.Join(wait(ctx, pause), emit(token("a"))); err != nil {
							return partial(0), err
						}
					}
					return stream.Outcome{}, nil
				})
				h.wantEnd(end, stream.StateError, stream.CodeUpstreamTimeout, test.at)
				if end.Events != len(test.pauses) {
					h.Errorf("%d events", end.Events)
				}
			})
		})
	}
}

func TestCancelFails(t *testing.T) {
	store := &faulty{seal: fails(stream.ErrUnavailable)}
	over(t, store, func(h *harness) {
		id, _ := h.start(patient, tokens(2, time.Second))
		if err := h.runner.Cancel(h.Context(), id); !errors.Is(err, stream.ErrUnavailable) {
			h.Errorf("Cancel: %v", err)
		}
		h.pass(time.Second)
		store.seal = nil
		_, end := h.end(id)
		h.wantEnd(end, stream.StateDone, "", 2*time.Second)
	})
}

// An owner that was fenced off leaves the log's end to its new owner.
func TestFencedOwnerDoesNotSeal(t *testing.T) {
	f := &faulty{append: func(_ context.Context, _ string, nth int) error {
		if nth > 1 {
			return stream.ErrFenced
		}
		return nil
	}}
	over(t, f, func(h *harness) {
		id, _ := h.start(patient, tokens(1, time.Second))
		h.pass(2 * time.Second)
		if status := h.status(id); !status.Running() {
			h.Errorf("the fenced owner sealed the log: %+v", status)
		}
		if end := h.seen.end(h.T, id); !errors.Is(end.Err, stream.ErrFenced) {
			h.Errorf("the observer was told %v", end.Err)
		}
		h.wantDrained(0)
	})
}

// Whoever finds a stream while its creator is still at it can attach to it, and
// keeps it alive when the creator leaves.
func TestAttachWhileStarting(t *testing.T) {
	created, attached := make(chan struct{}), make(chan struct{})
	f := &faulty{append: func(_ context.Context, _ string, nth int) error {
		if nth == 1 {
			close(created)
			<-attached
		}
		return nil
	}}
	over(t, f, func(h *harness) {
		s := spec(time.Second, tokens(1, time.Minute))
		started := make(chan func())
		go func() {
			detach, err := h.runner.Start(h.Context(), s)
			if err != nil {
				h.Error(err)
			}
			started <- detach
		}()
		<-created
		detach := h.runner.Attach(s.ID)
		close(attached)
		(<-started)() // the creator leaves
		h.pass(10 * time.Second)
		if status := h.status(s.ID); !status.Running() {
			h.Errorf("the stream ended under its reader: %s", status.State())
		}
		detach()
		h.wantDrained(time.Minute)
	})
}
