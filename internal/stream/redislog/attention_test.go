package redislog

import (
	"context"
	"fmt"
	"testing"
	"time"

	"weir/internal/redistest"
	"weir/internal/stream"
	"weir/internal/stream/storetest"
)

// A client whose connection broke comes back to another replica: its reading
// there keeps the generation going here.
func TestReaderElsewhereKeepsAStreamAlive(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix()})
	runner, meta := stream.NewRunner(s.a, stream.Limits{}, nil), newMeta("ann")
	const tokens = 30
	detach, err := runner.Start(s.ctx, stream.Spec{
		Meta: meta, Unread: 200 * time.Millisecond,
		Generate: func(ctx context.Context, emit stream.Emit) (stream.Outcome, error) {
			for n := range tokens {
				pass(50 * time.Millisecond)
				if err := emit([]stream.Event{{Data: fmt.Appendf(nil, "token %d", n)}}); err != nil {
					return stream.Outcome{}, err
				}
			}
			return stream.Outcome{FinishReason: "stop"}, nil
		},
	})
	s.must("Start", err)
	r, err := s.b.Open(s.ctx, meta.ID, 0)
	s.must("Open", err)
	detach()
	events, err := storetest.Follow(s.ctx, r)
	if err != nil || len(events) != tokens+2 || events[len(events)-1].Type != stream.TypeDone {
		t.Errorf("%d events, %v; the last %s", len(events), err, events[len(events)-1].Data)
	}
	r.Close()
	runner.Drain(s.ctx)
	s.seal()
}
