package redislog

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"weir/internal/redistest"
	"weir/internal/stream"
)

// fill leaves the server no room, and empty gives it back.
func (s *story) fill()  { s.Helper(); s.command("CONFIG", "SET", "maxmemory", "1") }
func (s *story) empty() { s.Helper(); s.command("CONFIG", "SET", "maxmemory", "0") }

func (s *story) wantFull(end stream.Event) {
	s.Helper()
	ending, err := stream.ReadEnding(end)
	if err != nil || ending.Error == nil || ending.Error.Code != stream.CodeStoreFull || end.Recovery != 1 {
		s.Errorf("ends in %+v, %v; want %s, marked", end, err, stream.CodeStoreFull)
	}
}

// What was taken in hand and then refused is missing from the answer, which does
// not end as if it were whole.
func TestRefusedInHand(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix()})
	s.must("Append", s.append(1)) // the server has the script
	meta := newMeta("ann")
	shown, away, taken := make(chan struct{}), make(chan struct{}), make(chan struct{})
	generate := func(_ context.Context, emit stream.Emit) (stream.Outcome, error) {
		if err := emit([]stream.Event{{Data: []byte("Hel")}}); err != nil {
			return stream.Outcome{}, err
		}
		close(shown)
		<-away
		defer close(taken)
		return stream.Outcome{FinishReason: "stop"}, emit([]stream.Event{{Data: []byte("lo")}})
	}
	runner := stream.NewRunner(s.a, stream.Limits{}, nil)
	_, err := runner.Start(s.ctx, stream.Spec{Meta: meta, Unread: patience, Generate: generate})
	s.must("Start", err)
	<-shown
	s.fill()
	server.Pause()
	close(away)
	<-taken
	server.Resume()
	runner.Drain(s.ctx)
	status, err := s.b.Status(s.ctx, meta.ID)
	s.must("Status", err)
	s.wantFull(status.Terminal)
	if status.LastSeq != 3 {
		t.Errorf("the end is event %d, want 3", status.LastSeq)
	}
}

// refused has the producer find that the server lost events, and has no room for
// them.
func (s *story) refused() {
	s.Helper()
	_, err := s.a.Status(s.ctx, s.meta.ID)
	s.must("Status", err)
	if err := s.append(1); !errors.Is(err, stream.ErrFull) {
		s.Errorf("Append: %v", err)
	}
}

// A full server that has lost events does not get them back; the stream ends
// all the same, while there is no room and when there is some again.
func TestTailLostOfFullServer(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	for name, room := range map[string]bool{"while it is full": false, "when there is room again": true} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t, Options{URL: server.URL(), Prefix: prefix()})
			t.Cleanup(func() { server.Command("CONFIG SET maxmemory 0") })
			s.must("Append", s.append(40))
			g := s.read("at its producer", s.a, 0)
			s.loseTail(3)
			s.fill()
			s.refused()
			if room {
				s.empty()
			}
			if err := s.a.Seal(s.ctx, s.meta.ID, stream.DoneEvent(stream.Summary{})); !errors.Is(err, stream.ErrSealed) {
				t.Errorf("Seal: %v; the end is not the producer's", err)
			}
			if <-g.done; g.err == nil || len(g.events) != 40 {
				t.Errorf("its reader: %d events, %v; want an abort after 40", len(g.events), g.err)
			}
			status, err := s.b.Status(s.ctx, s.meta.ID)
			s.must("Status", err)
			s.wantFull(status.Terminal)
			if place := status.Locate(stream.Cursor{Stream: s.meta.ID, Seq: 38}); place != stream.PlaceBeyond {
				t.Errorf("who saw event 38 is at %v", place)
			}
		})
	}
}

// Streams that a full server does not take back keep nobody else from theirs.
func TestRestoreRefused(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix()})
	s.must("Append", s.append(1))
	lost := make([]*writer, 50)
	for i := range lost {
		lost[i] = create(t, s.a, newMeta("ann")).(*writer)
		s.must("Append", lost[i].Append(s.ctx, []stream.Event{{Data: []byte(token(1))}}))
		s.command("DEL", s.a.keys.meta(lost[i].meta.ID), s.a.keys.log(lost[i].meta.ID))
	}
	s.fill()
	for _, w := range lost {
		w.resendAll()
	}
	if err := s.append(1); !errors.Is(err, stream.ErrFull) {
		t.Errorf("Append: %v", err)
	}
	select {
	case <-s.a.health.failing():
		t.Error("a server that is full counts as away")
	default:
	}
	s.empty()
	s.must("Append", s.append(1))
	for _, w := range lost {
		s.must("Seal", s.a.Seal(s.ctx, w.meta.ID, stream.DoneEvent(stream.Summary{})))
		if status, err := s.b.Status(s.ctx, w.meta.ID); err != nil || status.LastSeq != 2 {
			t.Errorf("written again: %d events, %v", status.LastSeq, err)
		}
	}
}

// The answer to an append is lost, and its repeat is refused for want of room:
// it may be in the log, and nothing else gets its seq.
func TestRefusedThoughWritten(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	var client *watched
	o := Options{URL: server.URL(), Prefix: prefix(), wrap: func(c rueidis.Client) rueidis.Client {
		client = &watched{Client: c}
		return client
	}}
	b := open(t, Options{URL: server.URL(), Prefix: o.Prefix})
	s := &story{T: t, ctx: t.Context(), a: open(t, o), b: b, meta: newMeta("ann"), changed: make(chan struct{})}
	s.w = create(t, s.a, s.meta)
	s.must("Append", s.append(3))
	answered := func(command []string, answer rueidis.RedisResult) rueidis.RedisResult {
		if !slices.Contains(command, "one") {
			return answer
		}
		client.answered.Store(nil)
		s.fill()
		return rueidis.NewErrorResult(context.DeadlineExceeded)
	}
	client.answered.Store(&answered)
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if err := s.w.Append(ctx, []stream.Event{{Data: []byte("one")}}); !errors.Is(err, stream.ErrFull) {
		t.Errorf("Append: %v", err)
	}
	s.empty()
	if err := s.w.Append(ctx, []stream.Event{{Data: []byte("two")}}); err == nil {
		t.Error("an event that may be in the log has its seq given away")
	}
	if err := s.a.Seal(ctx, s.meta.ID, stream.DoneEvent(stream.Summary{})); !errors.Is(err, stream.ErrSealed) {
		t.Errorf("Seal: %v; the end is not the producer's", err)
	}
	status, err := s.b.Status(ctx, s.meta.ID)
	s.must("Status", err)
	s.wantFull(status.Terminal)
	if status.LastSeq != 5 {
		t.Errorf("the end is event %d, want 5", status.LastSeq)
	}
}

// A writer that is over writes nothing again: when the server loses its stream,
// the readers are told so.
func TestLostAfterRefusal(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix()})
	s.must("Append", s.append(5))
	g := s.read("at its producer", s.a, 0)
	s.loseTail(1)
	s.fill()
	s.refused()
	s.empty()
	server.FlushAll()
	if err := s.a.Seal(s.ctx, s.meta.ID, stream.DoneEvent(stream.Summary{})); err == nil || errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("Seal: %v", err)
	}
	select {
	case <-g.done:
	case <-time.After(10 * time.Second):
		t.Fatal("its reader waits for ever")
	}
	if g.err == nil || errors.Is(g.err, context.DeadlineExceeded) || len(g.events) != 5 {
		t.Errorf("its reader: %d events, %v; want an abort after 5", len(g.events), g.err)
	}
}
