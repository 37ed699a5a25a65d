package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weir/internal/stream"
	"weir/internal/stream/memory"
	"weir/internal/stream/storetest"
)

// harness is a runner over a store, in a bubble whose clock moves when all of
// it waits.
type harness struct {
	*testing.T
	log    stream.Log
	runner *stream.Runner
	seen   *recorder
	began  time.Time
}

// bubble runs a test in one. The bubble ends only when every goroutine in it
// has: a leak is a deadlock.
func bubble(t *testing.T, limits stream.Limits, test func(h *harness)) {
	t.Helper()
	bubbleOver(t, limits, func(log stream.Log) stream.Log { return log }, test)
}

// bubbleOver puts a store of the test's between the runner and the memory.
func bubbleOver(t *testing.T, limits stream.Limits, wrap func(stream.Log) stream.Log, test func(h *harness)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log := wrap(memory.New(memory.Options{}))
		seen := &recorder{began: time.Now(), ends: map[string][]ended{}}
		test(&harness{T: t, log: log, runner: stream.NewRunner(log, limits, seen), seen: seen, began: seen.began})
	})
}

// patient is an Unread that no test outlasts.
const patient = 24 * time.Hour

func spec(unread time.Duration, generate stream.Generate) stream.Spec {
	return stream.Spec{
		Meta: stream.Meta{
			ID: stream.NewID(), Owner: "ann", Dialect: stream.DialectChat, Model: "demo/fast", Provider: "demo",
			Created: time.Unix(1_750_000_000, 0),
		},
		Unread: unread, Generate: generate,
	}
}

func (h *harness) start(unread time.Duration, generate stream.Generate) (id string, detach func()) {
	h.Helper()
	s := spec(unread, generate)
	detach, err := h.runner.Start(h.Context(), s)
	if err != nil {
		h.Fatalf("Start: %v", err)
	}
	return s.ID, detach
}

// run starts a generation that is read, and waits for its end.
func (h *harness) run(generate stream.Generate) ([]stream.Event, ended) {
	h.Helper()
	id, _ := h.start(patient, generate)
	return h.end(id)
}

// end waits for the end of a stream, and returns its log and what the observer
// was told.
func (h *harness) end(id string) ([]stream.Event, ended) {
	h.Helper()
	r, err := h.log.Open(h.Context(), id, 0)
	if err != nil {
		h.Fatalf("Open: %v", err)
	}
	defer r.Close()
	if _, err := storetest.Follow(h.Context(), r); err != nil {
		h.Fatalf("follow: %v", err)
	}
	synctest.Wait() // the log ends before its owner does
	events := storetest.CheckLog(h, h.log, id)
	end := h.seen.end(h.T, id)
	if status := h.status(id); status.State() != end.State {
		h.Errorf("the log ended %s, the observer was told %s", status.State(), end.State)
	}
	return events, end
}

func (h *harness) status(id string) stream.Status {
	h.Helper()
	status, err := h.log.Status(h.Context(), id)
	if err != nil {
		h.Fatalf("Status: %v", err)
	}
	return status
}

// pass lets time pass.
func (h *harness) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (h *harness) cancel(id string) {
	h.Helper()
	if err := h.runner.Cancel(h.Context(), id); err != nil {
		h.Errorf("Cancel: %v", err)
	}
}

// wantEnd checks how and when a stream ended.
func (h *harness) wantEnd(end ended, state stream.State, code string, at time.Duration) {
	h.Helper()
	if end.State != state || end.at != at {
		h.Errorf("%s after %v (%v), want %s after %v", end.State, end.at, end.Err, state, at)
	}
	if got := errorCode(end.Ending); got != code {
		h.Errorf("error code %q, want %q", got, code)
	}
}

func errorCode(e stream.Ending) string {
	if e.Error == nil {
		return ""
	}
	return e.Error.Code
}

func retryable(e stream.Ending) bool { return e.Error != nil && e.Error.Retryable }

// ended is what an observer was told, and when.
type ended struct {
	stream.End
	at time.Duration
}

// recorder is an Observer.
type recorder struct {
	began time.Time

	mu    sync.Mutex
	calls []string           // guarded by mu
	ends  map[string][]ended // guarded by mu; by stream
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, fmt.Sprintf(format, args...))
}

func (r *recorder) Started(m stream.Meta) { r.note("started %s", m.Model) }

func (r *recorder) FirstToken(m stream.Meta, after time.Duration) {
	r.note("first token of %s after %v", m.Model, after)
}

func (r *recorder) Ended(e stream.End) {
	r.note("ended %s", e.State)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ends[e.ID] = append(r.ends[e.ID], ended{e, time.Since(r.began)})
}

// end returns the one end of a stream.
func (r *recorder) end(t testing.TB, id string) ended {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ends[id]) != 1 {
		t.Fatalf("the observer was told of %d ends of %s", len(r.ends[id]), id)
	}
	return r.ends[id][0]
}

// wait waits as a provider does.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tokens is a provider that sends n tokens, each after a pause.
func tokens(n int, pause time.Duration) stream.Generate {
	return func(ctx context.Context, emit stream.Emit) (stream.Outcome, error) {
		for i := range n {
			if err := wait(ctx, pause); err != nil {
				return partial(i), err
			}
			if err := emit(token(fmt.Sprint("token ", i+1))); err != nil {
				return partial(i), err
			}
		}
		return stream.Outcome{FinishReason: "stop", Usage: providerUsage()}, nil
	}
}

// endless is a provider that goes on until its context ends.
func endless(pause time.Duration) stream.Generate { return tokens(1<<40, pause) }

func token(data string) []stream.Event {
	return []stream.Event{{Type: stream.TypeToken, Data: []byte(data)}}
}

func partial(tokens int) stream.Outcome {
	return stream.Outcome{Usage: stream.EstimatedUsage(stream.UsagePartial, 10, tokens)}
}

// text joins the data of the tokens.
func text(events []stream.Event) string {
	var data []string
	for _, e := range events {
		if e.Type == stream.TypeToken {
			data = append(data, string(e.Data))
		}
	}
	return strings.Join(data, "|")
}

// silent is a provider that says nothing until its context ends.
func silent(ctx context.Context, _ stream.Emit) (stream.Outcome, error) {
	<-ctx.Done()
	return stream.Outcome{}, ctx.Err()
}

var errUpstream = errors.New("dial 10.0.0.1: refused, key sk-secret")
