package stream_test

import (
	"context"
	"testing"
	"time"

	"weir/internal/stream"
)

// shared is a store with readers on other replicas.
type shared struct {
	stream.Log
	read func() (bool, error)
}

func (s shared) ReadElsewhere(context.Context, string) (bool, error) { return s.read() }

// A stream that nobody reads here goes on as long as somebody does elsewhere, or
// as long as nobody knows.
func TestReadElsewhere(t *testing.T) {
	const unread = 5 * time.Second
	for name, answer := range map[string]struct {
		read bool
		err  error
	}{"read": {true, nil}, "unknown": {false, stream.ErrUnavailable}} {
		t.Run(name, func(t *testing.T) {
			var until time.Time
			wrap := func(log stream.Log) stream.Log {
				return shared{log, func() (bool, error) {
					if time.Now().Before(until) {
						return answer.read, answer.err
					}
					return false, nil
				}}
			}
			bubbleOver(t, stream.Limits{}, wrap, func(h *harness) {
				until = h.began.Add(18 * time.Second)
				id, detach := h.start(unread, tokens(1000, time.Second))
				detach()
				events, end := h.end(id)
				// Asked after 5, 10 and 15 s it was read, and after 20 s no more.
				h.wantEnd(end, stream.StateCancelled, "", 20*time.Second)
				if len(events) < 20 {
					h.Errorf("%d events", len(events))
				}
			})
		})
	}
}
