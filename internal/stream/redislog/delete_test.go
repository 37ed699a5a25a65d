package redislog

import (
	"testing"

	"weir/internal/redistest"
	"weir/internal/stream"
)

// Cancelled and deleted elsewhere at once, a stream is gone before its producer
// can look: the readers there have the end all the same.
func TestDeleteElsewhere(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	first := newStory(t, Options{URL: server.URL(), Prefix: prefix()})
	for range 50 {
		s := &story{T: t, ctx: first.ctx, a: first.a, b: first.b, meta: newMeta("ann"), changed: make(chan struct{})}
		s.w = create(t, s.a, s.meta)
		readers := []*reading{s.read("at its producer", s.a, 0), s.read("elsewhere", s.b, 0)}
		s.must("Append", s.append(3))
		s.must("Seal", s.b.Seal(s.ctx, s.meta.ID, stream.CancelledEvent(stream.Summary{})))
		s.must("Delete", s.b.Delete(s.ctx, s.meta.ID))
		for _, g := range readers {
			s.wantWhole(g, stream.TypeDone)
		}
		s.must("Book", s.w.Book(s.ctx, stream.Summary{}))
	}
}
