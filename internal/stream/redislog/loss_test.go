package redislog

import (
	"errors"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"weir/internal/redistest"
	"weir/internal/stream"
)

// A seal finds nothing, and the producer restores the stream before the sealer
// looks again: that it is there does not mean that it has ended.
func TestSealMeetsRestore(t *testing.T) {
	for name, own := range map[string]bool{"its producer's": true, "another's": false} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, redistest.Config{})
			var client *watched
			plain := Options{URL: server.URL(), Prefix: prefix(), Lease: time.Hour}
			special := plain
			special.wrap = func(c rueidis.Client) rueidis.Client {
				client = &watched{Client: c}
				return client
			}
			s := &story{T: t, ctx: t.Context(), meta: newMeta("ann"), changed: make(chan struct{})}
			if own {
				s.a, s.b = open(t, special), open(t, plain)
			} else {
				s.a, s.b = open(t, plain), open(t, special)
			}
			s.a.frozen.Store(true) // the keeper would find out what the server lost
			s.w = create(t, s.a, s.meta)
			s.must("Append", s.append(10))
			answered := func(_ []string, answer rueidis.RedisResult) rueidis.RedisResult {
				if words, err := answer.AsStrSlice(); err == nil && len(words) == 1 && words[0] == "missing" {
					client.answered.Store(nil)
					w := s.w.(*writer)
					w.resendAll()
					s.must("restore", w.flushed(s.ctx))
				}
				return answer
			}
			client.answered.Store(&answered)
			server.FlushAll()
			at := s.b
			if own {
				at = s.a
			}
			err := at.Seal(s.ctx, s.meta.ID, stream.CancelledEvent(stream.Summary{}))
			if client.answered.Load() != nil {
				t.Error("the seal found the stream")
			}
			s.must("Seal", err)
			status, err := s.b.Status(s.ctx, s.meta.ID)
			if s.must("Status", err); status.Running() || status.LastSeq != 11 {
				t.Errorf("sealed: %d events, running %v", status.LastSeq, status.Running())
			}
			s.a.frozen.Store(false)
			s.a.nudgeKeeper()
			<-s.w.Sealed()
		})
	}
}

// Who ends a stream from elsewhere does not know what its readers have seen of a
// tail that the server lost: a cursor at the end's seq is not the end's.
func TestCancelAfterLostTail(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix()})
	s.must("Append", s.append(41))
	s.loseTail(1)
	s.must("Seal", s.b.Seal(s.ctx, s.meta.ID, stream.CancelledEvent(stream.Summary{})))
	status, err := s.b.Status(s.ctx, s.meta.ID)
	s.must("Status", err)
	if status.LastSeq != 41 {
		t.Fatalf("the end is event %d", status.LastSeq)
	}
	if place := status.Locate(stream.Cursor{Stream: s.meta.ID, Seq: 41}); place != stream.PlaceBeyond {
		t.Errorf("who saw token 41 is at %v", place)
	}
	end := stream.Cursor{Stream: s.meta.ID, Seq: 41, Recovery: status.Terminal.Recovery}
	if place := status.Locate(end); place != stream.PlaceEnd {
		t.Errorf("who saw the end is at %v", place)
	}
}

// soon is how long the server may be without what it lost.
const soon = 15 * time.Second

// awaitServer waits until the server has so many events of the stream.
func (s *story) awaitServer(events uint64) {
	s.Helper()
	for began := time.Now(); ; pass(10 * time.Millisecond) {
		status, err := s.b.Status(s.ctx, s.meta.ID)
		if err == nil && status.LastSeq == events {
			return
		}
		if time.Since(began) > soon {
			s.Fatalf("the server has %d events of %d, %v", status.LastSeq, events, err)
		}
	}
}

// A stream whose tail the server lost is written again though nothing is appended.
func TestSilentStreamsTailIsWrittenAgain(t *testing.T) {
	server := redistest.Start(t, redistest.Config{AOF: "always"})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix()})
	s.must("Append", s.append(50))
	snapshot := server.Snapshot()
	s.must("Append", s.append(50))
	server.Rollback(snapshot)
	s.awaitServer(100)
	s.seal()
	s.wantWhole(s.read("afterwards", s.b, 0), stream.TypeDone)
}

// An id that is older than the retention is not one that has expired while its
// stream runs.
func TestOldStreamIsWrittenAgain(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	const retention = 500 * time.Millisecond
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix(), Retention: retention})
	s.must("Append", s.append(5))
	g := s.read("elsewhere", s.b, 0)
	pass(retention + 100*time.Millisecond)
	server.FlushAll()
	status, err := s.a.Status(s.ctx, s.meta.ID)
	if s.must("Status", err); !status.Running() || status.LastSeq != 5 {
		t.Errorf("%+v", status)
	}
	s.must("Append", s.append(1))
	s.awaitServer(6)
	s.seal()
	s.wantWhole(g, stream.TypeDone)
}

// An orphan and a stream that the server forgot to be running make the right
// number.
func TestOrphanAmongTheRightNumber(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix(), Lease: shortLease})
	g := s.read("elsewhere", s.b, 0)
	s.must("Append", s.append(3))
	forgotten := newMeta("ann")
	create(t, s.a, forgotten)
	s.a.forget(s.meta.ID)
	s.command("SREM", s.a.keys.running(s.a.token), forgotten.ID)
	s.wantLost(g)
	if err := s.a.Seal(s.ctx, forgotten.ID, stream.DoneEvent(stream.Summary{})); errors.Is(err, stream.ErrSealed) {
		t.Errorf("Seal of the other: %v", err)
	}
}
