package redislog

import (
	"sync"
	"testing"
	"time"

	"weir/internal/redistest"
	"weir/internal/stream"
	"weir/internal/stream/storetest"
)

// wantStored checks that the server has so many events, each once.
func (s *story) wantStored(events int) {
	s.Helper()
	n, err := s.b.client.Do(s.ctx, s.b.client.B().Xlen().Key(s.b.keys.log(s.meta.ID)).Build()).AsInt64()
	if s.must("XLEN", err); n != int64(events) {
		s.Errorf("the server has %d events, want %d", n, events)
	}
	if got := storetest.CheckLog(s.T, s.b, s.meta.ID); len(got) != events {
		s.Errorf("%d events, want %d", len(got), events)
	}
}

// farStory has its producer behind a link, and nobody else.
func farStory(t *testing.T, o Options) (*story, *link) {
	t.Helper()
	server := redistest.Start(t, redistest.Config{})
	o.URL = server.URL()
	s := newStory(t, o) // whose producer is another's, from here on
	l := newLink(t, server)
	o.URL = l.url()
	s.a = open(t, o)
	s.meta = newMeta("ann")
	s.w = create(t, s.a, s.meta)
	return s, l
}

// Answers that take longer than an append waits are waited for all the same: who
// asks again and again never hears one.
func TestSlowAnswers(t *testing.T) {
	s, l := farStory(t, Options{Prefix: prefix()})
	s.must("Append", s.append(1))
	l.slow(600 * time.Millisecond)
	s.must("Append", s.append(3))
	s.must("the events are shown", s.w.(*writer).flushed(s.ctx))
	s.wantStored(4)
	l.slow(0)
	s.seal()
	s.wantStored(5)
}

// So are those to an event that alone takes longer than that.
func TestLargeEventOverSlowLink(t *testing.T) {
	s, l := farStory(t, Options{Prefix: prefix()})
	s.must("Append", s.append(1))
	l.rate.Store(8 << 20)
	s.must("Append", s.w.Append(s.ctx, []stream.Event{{Data: make([]byte, 16<<20)}}))
	s.must("the event is shown", s.w.(*writer).flushed(s.ctx))
	l.rate.Store(0)
	s.seal()
	s.wantStored(3)
}

// Many ends that others wrote are looked at in less than a lease, however far
// the server is.
func TestManyNotices(t *testing.T) {
	const lease = 4 * time.Second
	s, l := farStory(t, Options{Prefix: prefix(), Lease: lease})
	ids := make([]string, 480)
	writers := make([]stream.Writer, len(ids))
	var all sync.WaitGroup
	for i := range ids {
		meta := newMeta("ann")
		ids[i] = meta.ID
		all.Go(func() { writers[i] = create(t, s.a, meta) })
	}
	all.Wait()
	l.slow(20 * time.Millisecond)
	for _, id := range ids {
		all.Go(func() { _ = s.b.Seal(s.ctx, id, stream.CancelledEvent(stream.Summary{})) })
	}
	all.Wait()
	for _, w := range writers {
		select {
		case <-w.Sealed():
		case <-s.ctx.Done():
			t.Fatal("an end is never heard of")
		}
	}
	notices := s.b.client.B().Scard().Key(s.b.keys.notices(s.a.token)).Build().Pin()
	for began := time.Now(); ; pass(20 * time.Millisecond) {
		left, err := s.b.client.Do(s.ctx, notices).AsInt64()
		if s.must("SCARD", err); left == 0 {
			break
		}
		if time.Since(began) > 2*lease {
			t.Fatalf("%d notices are not heeded", left)
		}
	}
	s.must("Append of the stream that runs on", s.append(1))
}

// A large log is opened over a slow link in as much time as that takes, while
// there is progress.
func TestLargeLogOverSlowLink(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix()})
	l := newLink(t, server)
	far := open(t, Options{URL: l.url(), Prefix: string(s.a.keys)})
	const large = 60
	for range large {
		s.must("Append", s.w.Append(s.ctx, []stream.Event{{Data: make([]byte, 1<<20)}}))
	}
	l.rate.Store(10 << 20) // all of it takes longer than a call may
	r, err := far.Open(s.ctx, s.meta.ID, 0)
	s.must("Open", err)
	defer r.Close()
	l.rate.Store(0)
	s.seal()
	if events, err := storetest.Follow(s.ctx, r); err != nil || len(events) != large+1 {
		t.Errorf("%d events, %v", len(events), err)
	}
}
