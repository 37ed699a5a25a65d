package stream_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weir/internal/stream"
	"weir/internal/stream/memory"
)

func TestGoodGeneration(t *testing.T) {
	bubble(t, stream.Limits{}, func(h *harness) {
		id, detach := h.start(patient, tokens(3, 250*time.Millisecond))
		if got := h.runner.Running(); got != 1 {
			h.Errorf("%d run", got)
		}
		events, end := h.end(id)
		detach()
		if want := `{"id":"` + id + `","model":"demo/fast","provider":"demo","created":1750000000}`; events[0].Type != stream.TypeStart || string(events[0].Data) != want {
			h.Errorf("the log opens with %q %s, want %s", events[0].Type, events[0].Data, want)
		}
		if got := text(events); got != "token 1|token 2|token 3" {
			h.Errorf("tokens %q", got)
		}
		want := stream.DoneEvent(stream.Summary{
			FinishReason: "stop", Usage: providerUsage(), Timings: &stream.Timings{FirstTokenMS: 250, TotalMS: 750},
		})
		last := events[len(events)-1]
		if last.Type != stream.TypeDone || string(last.Data) != string(want.Data) {
			h.Errorf("the log ends in %q %s, want %s", last.Type, last.Data, want.Data)
		}
		h.wantEnd(end, stream.StateDone, "", 750*time.Millisecond)
		if end.Err != nil || end.Events != 3 || end.Bytes != 3*int64(len("token 1")) || end.ID != id || end.FinishReason != "stop" {
			h.Errorf("the observer was told %+v", end.End)
		}
		if booked := h.status(id).Booked; !reflect.DeepEqual(booked, end.Summary) {
			h.Errorf("booked %+v, want %+v", booked, end.Summary)
		}
		calls := []string{"started demo/fast", "first token of demo/fast after 250ms", "ended done"}
		if !reflect.DeepEqual(h.seen.calls, calls) {
			h.Errorf("observed %q, want %q", h.seen.calls, calls)
		}
		if got := h.runner.Running(); got != 0 {
			h.Errorf("%d run after the end", got)
		}
	})
}

func TestGenerationWithoutTokens(t *testing.T) {
	bubble(t, stream.Limits{}, func(h *harness) {
		events, end := h.run(func(context.Context, stream.Emit) (stream.Outcome, error) {
			return stream.Outcome{FinishReason: "stop"}, nil
		})
		if len(events) != 2 || end.Timings.FirstTokenMS != 0 || end.Usage != nil {
			h.Errorf("%d events, %+v", len(events), end.Summary)
		}
		h.wantEnd(end, stream.StateDone, "", 0)
		if calls := []string{"started demo/fast", "ended done"}; !reflect.DeepEqual(h.seen.calls, calls) {
			h.Errorf("observed %q, want %q", h.seen.calls, calls)
		}
	})
}

// A provider uses one buffer for all it emits, and emits what arrived together.
func TestEmitKeepsNothing(t *testing.T) {
	bubble(t, stream.Limits{}, func(h *harness) {
		events, end := h.run(func(_ context.Context, emit stream.Emit) (stream.Outcome, error) {
			buffer := []byte("ab")
			batch := []stream.Event{{Data: buffer[:1]}, {Data: buffer[1:]}}
			for i := range 3 {
				if err := errors.Join(emit(nil), emit(batch), emit(batch[:0])); err != nil {
					return stream.Outcome{}, err
				}
				buffer[0], buffer[1] = byte('c'+2*i), byte('d'+2*i)
			}
			return stream.Outcome{}, nil
		})
		if got := text(events); got != "a|b|c|d|e|f" || end.Events != 6 || end.Bytes != 6 {
			h.Errorf("%q, %d events, %d bytes", got, end.Events, end.Bytes)
		}
	})
}

func TestFailures(t *testing.T) {
	upstream := &stream.Error{
		Message: "Rate limit reached", Type: "requests", Code: "rate_limit_exceeded", Param: "model", Retryable: true,
		UpstreamStatus: 429, RetryAfter: 7 * time.Second, Upstream: json.RawMessage(`{"x":1}`),
	}
	internal := stream.AsError(errUpstream)
	tests := []struct {
		name string
		fail func() error
		want *stream.Error
		err  string // told to the observer
	}{
		{"an Error as it is", func() error { return upstream }, upstream, "Rate limit reached"},
		{"an Error that is wrapped", func() error { return fmt.Errorf("demo: %w: %w", errUpstream, upstream) }, upstream, "sk-secret"},
		{"a plain error without its text", func() error { return errUpstream }, internal, "sk-secret"},
		{"a panic without its text", func() error { panic("sk-secret in a panic") }, internal, "panic: sk-secret in a panic"},
		{"a panic with an error", func() error { panic(errUpstream) }, internal, "sk-secret"},
		{"a context error of the provider's own", func() error { return context.DeadlineExceeded }, internal, "deadline"},
		{"an error whose upstream body is no JSON", func() error {
			return &stream.Error{Message: "no", Code: "c", Upstream: json.RawMessage("<html>")}
		}, &stream.Error{Message: "no", Code: "c"}, "no"},
	}
	for _, test := range tests {
		for _, sent := range []int{0, 2} {
			t.Run(fmt.Sprintf("%s after %d tokens", test.name, sent), func(t *testing.T) {
				bubble(t, stream.Limits{}, func(h *harness) {
					events, end := h.run(func(ctx context.Context, emit stream.Emit) (stream.Outcome, error) {
						outcome, err := tokens(sent, time.Second)(ctx, emit)
						if err != nil {
							return outcome, err
						}
						return partial(sent), test.fail()
					})
					h.wantFailure(events, end, test.want, test.err)
					h.wantEnd(end, stream.StateError, test.want.Code, time.Duration(sent)*time.Second)
					if len(events) != sent+2 || h.status(end.ID).FailedBeforeToken() != (sent == 0) {
						h.Errorf("%d events, failed before a token: %v", len(events), h.status(end.ID).FailedBeforeToken())
					}
				})
			})
		}
	}
}

// wantFailure checks the last event, and that its details went to the observer
// alone.
func (h *harness) wantFailure(events []stream.Event, end ended, want *stream.Error, detail string) {
	h.Helper()
	last := events[len(events)-1]
	ending, err := stream.ReadEnding(last)
	if err != nil {
		h.Fatal(err)
	}
	if last.Type != stream.TypeError || !reflect.DeepEqual(ending.Error, want) {
		h.Errorf("ended in %q %+v, want %+v", last.Type, ending.Error, want)
	}
	if end.Err == nil || !strings.Contains(end.Err.Error(), detail) {
		h.Errorf("the observer was told %v, want %q in it", end.Err, detail)
	}
	for _, secret := range []string{"sk-secret", "10.0.0.1", "goroutine", ".go:"} {
		if strings.Contains(string(last.Data), secret) {
			h.Errorf("%q reached the clients: %s", secret, last.Data)
		}
	}
}

// What a provider takes over from the wire may be anything. It must not cost
// the stream its end, or the process its life.
func TestMalformedUsage(t *testing.T) {
	for _, counts := range []string{"", "garbage", `{"total_tokens":}`, `[1]`, `7`, `"text"`, "null"} {
		t.Run(counts, func(t *testing.T) {
			bubble(t, stream.Limits{}, func(h *harness) {
				events, end := h.run(func(_ context.Context, emit stream.Emit) (stream.Outcome, error) {
					usage := &stream.Usage{Source: stream.UsageProvider, Counts: json.RawMessage(counts)}
					return stream.Outcome{FinishReason: "stop", Usage: usage}, emit(token("a"))
				})
				if text(events) != "a" || end.State != stream.StateDone || end.FinishReason != "stop" {
					h.Errorf("%q, ended %s", text(events), end.State)
				}
			})
		})
	}
}

func TestGenerationOutlivesItsRequest(t *testing.T) {
	bubble(t, stream.Limits{}, func(h *harness) {
		ctx, cancel := context.WithCancel(h.Context())
		s := spec(patient, tokens(3, time.Second))
		if _, err := h.runner.Start(ctx, s); err != nil {
			h.Fatal(err)
		}
		h.pass(500 * time.Millisecond)
		cancel()
		_, end := h.end(s.ID)
		h.wantEnd(end, stream.StateDone, "", 3*time.Second)
	})
}

// A provider's helpers may still run when it has returned.
func TestEmitAfterTheEnd(t *testing.T) {
	bubble(t, stream.Limits{}, func(h *harness) {
		var late stream.Emit
		var context context.Context
		events, _ := h.run(generateKeeping(&late, &context))
		if err := context.Err(); err == nil {
			h.Error("the generation's context outlives it")
		}
		if err := late(token("late")); err == nil {
			h.Error("emit after the end is no error")
		}
		if len(events) != 3 || h.status(idOf(h, events)).LastSeq != 3 {
			h.Errorf("%d events, then %d", len(events), h.status(idOf(h, events)).LastSeq)
		}
	})
}

func generateKeeping(emit *stream.Emit, ctx *context.Context) stream.Generate {
	return func(c context.Context, e stream.Emit) (stream.Outcome, error) {
		*ctx, *emit = c, e
		return stream.Outcome{}, e(token("a"))
	}
}

// idOf reads the stream's id in its start event.
func idOf(h *harness, events []stream.Event) string {
	h.Helper()
	var start struct{ ID string }
	if err := json.Unmarshal(events[0].Data, &start); err != nil {
		h.Fatal(err)
	}
	return start.ID
}

func TestRunnerWithoutObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memory.New(memory.Options{})
		runner := stream.NewRunner(log, stream.Limits{}, nil)
		s := spec(patient, tokens(2, time.Second))
		if _, err := runner.Start(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		runner.Drain(t.Context())
		if status, err := log.Status(t.Context(), s.ID); err != nil || status.State() != stream.StateDone {
			t.Errorf("%s, %v", status.State(), err)
		}
	})
}

func TestStartOfAUsedID(t *testing.T) {
	bubble(t, stream.Limits{}, func(h *harness) {
		s := spec(patient, tokens(1, time.Second))
		s.IdempotencyKey = "key"
		if _, err := h.runner.Start(h.Context(), s); err != nil {
			h.Fatal(err)
		}
		if _, err := h.runner.Start(h.Context(), s); !errors.Is(err, stream.ErrExists) {
			h.Errorf("Start of a used id: %v", err)
		}
		again := s
		again.ID = stream.NewID()
		var claimed *stream.ClaimedError
		if _, err := h.runner.Start(h.Context(), again); !errors.As(err, &claimed) || claimed.By.ID != s.ID {
			h.Errorf("Start with a used key: %v", err)
		}
		h.runner.Drain(h.Context())
		h.end(s.ID)
	})
}

// A provider that overlooks what emit says has not come to a good end: its
// answer is not in the log.
func TestOverlookedRefusal(t *testing.T) {
	bubble(t, stream.Limits{MaxBytes: 3}, func(h *harness) {
		events, end := h.run(func(_ context.Context, emit stream.Emit) (stream.Outcome, error) {
			for range 3 {
				_ = emit([]stream.Event{{Data: []byte("ab")}})
			}
			return stream.Outcome{FinishReason: "stop"}, nil
		})
		h.wantEnd(end, stream.StateError, stream.CodeTooLarge, 0)
		if len(events) != 3 || end.Events != 1 || end.Bytes != 2 {
			h.Errorf("%d events in the log, counted %d of %d bytes", len(events), end.Events, end.Bytes)
		}
	})
}

// Only the runner ends a stream: a provider's event of a terminal type would be
// a second end.
func TestProviderMayNotEndTheLog(t *testing.T) {
	for _, typ := range []string{stream.TypeDone, stream.TypeError} {
		bubble(t, stream.Limits{}, func(h *harness) {
			events, end := h.run(func(_ context.Context, emit stream.Emit) (stream.Outcome, error) {
				return stream.Outcome{}, emit([]stream.Event{{Type: typ, Data: []byte("{}")}})
			})
			h.wantEnd(end, stream.StateError, stream.CodeInternal, 0)
			if len(events) != 2 {
				h.Errorf("%d events", len(events))
			}
		})
	}
}
