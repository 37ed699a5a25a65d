package stream_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"weir/internal/stream"
)

// drain drains with a grace, and returns how long it took.
func (h *harness) drain(grace time.Duration) time.Duration {
	began := time.Now()
	ctx, cancel := context.WithTimeout(h.Context(), grace)
	defer cancel()
	h.runner.Drain(ctx)
	return time.Since(began)
}

func TestDrainOfNothing(t *testing.T) {
	bubble(t, stream.Limits{}, func(h *harness) {
		if h.runner.Draining() {
			h.Error("draining before Drain")
		}
		if took := h.drain(time.Minute); took != 0 {
			h.Errorf("took %v", took)
		}
		_, err := h.runner.Start(h.Context(), spec(patient, tokens(1, 0)))
		if !errors.Is(err, stream.ErrDraining) || !h.runner.Draining() {
			h.Errorf("Start after Drain: %v; draining: %v", err, h.runner.Draining())
		}
		if took := h.drain(0); took != 0 {
			h.Errorf("a second Drain took %v", took)
		}
		if len(h.seen.calls) > 0 {
			h.Errorf("observed %q", h.seen.calls)
		}
	})
}

func TestStopStarting(t *testing.T) {
	bubble(t, stream.Limits{}, func(h *harness) {
		id, _ := h.start(patient, tokens(2, time.Second))
		select {
		case <-h.runner.Stopping():
			h.Error("stopping before StopStarting")
		default:
		}
		h.runner.StopStarting()
		h.runner.StopStarting()
		<-h.runner.Stopping()
		if !h.runner.Draining() || !h.runner.Runs(id) || h.runner.Runs(stream.NewID()) {
			h.Errorf("draining %v, runs %v", h.runner.Draining(), h.runner.Runs(id))
		}
		_, end := h.end(id)
		h.wantEnd(end, stream.StateDone, "", 2*time.Second)
		if h.runner.Runs(id) {
			h.Error("runs after its end")
		}
	})
}

func TestDrainWaits(t *testing.T) {
	bubble(t, stream.Limits{}, func(h *harness) {
		short, _ := h.start(patient, tokens(3, time.Second))
		long, _ := h.start(patient, tokens(20, time.Second))
		var all sync.WaitGroup
		all.Go(func() {
			h.pass(time.Second)
			if _, err := h.runner.Start(h.Context(), spec(patient, tokens(1, 0))); !errors.Is(err, stream.ErrDraining) {
				h.Errorf("Start while draining: %v", err)
			}
			detach := h.runner.Attach(long) // who reads may come still
			defer detach()
			h.cancel(short)
		})
		if took := h.drain(30 * time.Second); took != 20*time.Second || h.runner.Running() != 0 {
			h.Errorf("took %v, %d run", took, h.runner.Running())
		}
		all.Wait()
		_, end := h.end(short)
		h.wantEnd(end, stream.StateCancelled, "", time.Second)
		_, end = h.end(long)
		h.wantEnd(end, stream.StateDone, "", 20*time.Second)
	})
}

func TestDrainInterrupts(t *testing.T) {
	bubble(t, stream.Limits{}, func(h *harness) {
		good, _ := h.start(patient, tokens(3, time.Second))
		endless, _ := h.start(patient, endless(time.Second))
		silent, _ := h.start(patient, silent)
		slow, _ := h.start(patient, func(ctx context.Context, _ stream.Emit) (stream.Outcome, error) {
			<-ctx.Done()
			return partial(0), wait(context.Background(), 2*time.Second)
		})
		failing, _ := h.start(patient, func(ctx context.Context, _ stream.Emit) (stream.Outcome, error) {
			<-ctx.Done()
			return partial(0), errors.Join(errUpstream, wait(context.Background(), time.Second))
		})
		if took := h.drain(10500 * time.Millisecond); took != 12500*time.Millisecond || h.runner.Running() != 0 {
			h.Errorf("took %v, %d run", took, h.runner.Running())
		}
		_, end := h.end(good)
		h.wantEnd(end, stream.StateDone, "", 3*time.Second)
		for id, after := range map[string]time.Duration{endless: 0, silent: 0, failing: time.Second} {
			events, end := h.end(id)
			h.wantEnd(end, stream.StateError, stream.CodeInterrupted, 10500*time.Millisecond+after)
			if !retryable(end.Ending) || id == endless && len(events) != 12 {
				h.Errorf("retryable %v, %d events", retryable(end.Ending), len(events))
			}
		}
		// A provider that came to its end after all has a whole answer.
		_, end = h.end(slow)
		h.wantEnd(end, stream.StateDone, "", 12500*time.Millisecond)
	})
}

func TestDrainByMany(t *testing.T) {
	bubble(t, stream.Limits{}, func(h *harness) {
		id, _ := h.start(patient, endless(time.Second))
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				if took := h.drain(time.Duration(5+i) * time.Second); took != 5*time.Second {
					h.Errorf("took %v", took)
				}
			})
		}
		all.Wait()
		_, end := h.end(id)
		h.wantEnd(end, stream.StateError, stream.CodeInterrupted, 5*time.Second)
	})
}

// A stream that is being created when the grace ends would wait for nobody.
func TestDrainWhileTheStoreCreates(t *testing.T) {
	slow := func(log stream.Log) stream.Log {
		return &faulty{Log: log, create: func(ctx context.Context) error { return wait(ctx, 10*time.Second) }}
	}
	bubbleOver(t, stream.Limits{}, slow, func(h *harness) {
		s := spec(patient, endless(time.Second))
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := h.runner.Start(h.Context(), s); err != nil {
				h.Errorf("Start: %v", err)
			}
		})
		h.pass(time.Second)
		if took := h.drain(5 * time.Second); took != 9*time.Second {
			h.Errorf("took %v", took)
		}
		all.Wait()
		_, end := h.end(s.ID)
		h.wantEnd(end, stream.StateError, stream.CodeInterrupted, 10*time.Second)
	})
}

func TestDrainRacesStart(t *testing.T) {
	for range 50 {
		bubble(t, stream.Limits{}, func(h *harness) {
			var (
				all     sync.WaitGroup
				mu      sync.Mutex
				started []string
				begin   = make(chan struct{})
			)
			for range 20 {
				all.Go(func() {
					<-begin
					s := spec(patient, endless(time.Second))
					_, err := h.runner.Start(h.Context(), s)
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						started = append(started, s.ID)
					} else if !errors.Is(err, stream.ErrDraining) {
						h.Errorf("Start: %v", err)
					}
				})
			}
			ctx, cancel := context.WithCancel(h.Context())
			cancel()
			all.Go(func() {
				<-begin
				h.runner.Drain(ctx)
				if got := h.runner.Running(); got != 0 {
					h.Errorf("%d run after Drain", got)
				}
			})
			close(begin)
			all.Wait()
			for _, id := range started {
				_, end := h.end(id)
				h.wantEnd(end, stream.StateError, stream.CodeInterrupted, 0)
			}
		})
	}
}

// A busy hour: streams come, are cancelled, lose and find their readers, and
// the server stops in the middle of it.
func TestThousandStreamsLeaveNothing(t *testing.T) {
	defer goleak.VerifyNone(t)
	before := runtime.NumGoroutine()
	bubble(t, stream.Limits{FirstToken: 5 * time.Second, Idle: 2 * time.Second, MaxBytes: 400}, func(h *harness) {
		var (
			all     sync.WaitGroup
			mu      sync.Mutex
			started []string
		)
		for range 1000 {
			at := randTime(60 * time.Second)
			all.Go(func() {
				<-time.After(at)
				s := spec(randTime(3*time.Second), moody)
				detach, err := h.runner.Start(h.Context(), s)
				if errors.Is(err, stream.ErrDraining) {
					return
				}
				if err != nil {
					h.Errorf("Start: %v", err)
					return
				}
				mu.Lock()
				started = append(started, s.ID)
				mu.Unlock()
				h.visit(s.ID, detach)
			})
		}
		h.pass(50 * time.Second)
		h.drain(3 * time.Second)
		if got := h.runner.Running(); got != 0 {
			h.Errorf("%d run after Drain", got)
		}
		all.Wait()
		if len(started) < 500 || len(started) == 1000 {
			h.Errorf("%d streams started before the drain", len(started))
		}
		states := map[stream.State]int{}
		for _, id := range started {
			_, end := h.end(id)
			states[end.State]++
		}
		for _, state := range []stream.State{stream.StateDone, stream.StateError, stream.StateCancelled} {
			if states[state] == 0 {
				h.Errorf("no stream ended %s: %v", state, states)
			}
		}
	})
	if after := runtime.NumGoroutine(); after > before {
		t.Logf("%d goroutines before, %d after; goleak tells whether they stay", before, after)
	}
}

func randTime(most time.Duration) time.Duration { return rand.N(most) }

// moody is a provider of every temper.
func moody(ctx context.Context, emit stream.Emit) (stream.Outcome, error) {
	for i := range rand.IntN(40) {
		if err := wait(ctx, randTime(time.Second)); err != nil {
			return partial(i), err
		}
		if err := emit(token("some token's data")); err != nil {
			return partial(i), err
		}
		switch rand.IntN(200) {
		case 0:
			return partial(i), errUpstream
		case 1:
			panic("moody")
		case 2:
			if err := wait(ctx, time.Hour); err != nil { // falls silent
				return partial(i), err
			}
		}
	}
	return stream.Outcome{FinishReason: "stop"}, nil
}

// visit reads a stream as an unsteady client does.
func (h *harness) visit(id string, detach func()) {
	for range rand.IntN(3) {
		<-time.After(randTime(5 * time.Second))
		detach()
		<-time.After(randTime(3 * time.Second))
		detach = h.runner.Attach(id)
	}
	<-time.After(randTime(10 * time.Second))
	if rand.IntN(3) == 0 {
		h.cancel(id)
	}
	detach()
}
