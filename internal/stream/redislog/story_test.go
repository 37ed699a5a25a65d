package redislog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"weir/internal/stream"
	"weir/internal/stream/storetest"
)

// patience is how long a test waits for what should come soon.
const patience = time.Minute

// story is one stream, produced at one replica and read at that and another,
// while a fault happens.
type story struct {
	*testing.T
	ctx  context.Context
	a, b *Store
	meta stream.Meta
	w    stream.Writer

	mu      sync.Mutex
	n       uint64        // guarded by mu; appended events
	changed chan struct{} // guarded by mu; closed when n grows
}

func newStory(t *testing.T, o Options) *story {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	s := &story{T: t, ctx: ctx, a: open(t, o), b: open(t, o), changed: make(chan struct{})}
	s.meta = newMeta("ann")
	s.w = create(t, s.a, s.meta)
	return s
}

func newMeta(owner string) stream.Meta {
	return stream.Meta{
		ID: stream.NewID(), Owner: owner, Dialect: stream.DialectChat, Model: "m", Provider: "p", Created: time.Now(),
	}
}

func create(t testing.TB, s *Store, meta stream.Meta) stream.Writer {
	t.Helper()
	w, err := s.Create(t.Context(), meta)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	return w
}

func token(seq uint64) string { return fmt.Sprintf("token %d", seq) }

// append appends n events one by one.
func (s *story) append(n int) error {
	for range n {
		s.mu.Lock()
		next := s.n + 1
		s.mu.Unlock()
		if err := s.w.Append(s.ctx, []stream.Event{{Data: []byte(token(next))}}); err != nil {
			return err
		}
		s.mu.Lock()
		s.n = next
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
	}
	return nil
}

func (s *story) must(what string, err error) {
	s.Helper()
	if err != nil {
		s.Fatalf("%s: %v", what, err)
	}
}

// await waits until so many more events are appended.
func (s *story) await(more uint64) {
	s.Helper()
	s.mu.Lock()
	target := s.n + more
	for s.n < target {
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-s.ctx.Done():
			s.Fatal("nothing is appended any more")
		}
		s.mu.Lock()
	}
	s.mu.Unlock()
}

// write appends at the pace of a model until stop is called.
func (s *story) write() (stop func()) {
	quit := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				if err := s.append(1); err != nil {
					s.Errorf("Append: %v", err)
					return
				}
			}
		}
	})
	return func() {
		close(quit)
		all.Wait()
	}
}

// seal ends the stream as the runner does.
func (s *story) seal() {
	s.Helper()
	for {
		err := s.a.Seal(s.ctx, s.meta.ID, stream.DoneEvent(stream.Summary{}))
		if err == nil {
			return
		}
		if !errors.Is(err, stream.ErrUnavailable) {
			s.Fatalf("Seal: %v", err)
		}
	}
}

// reading is a reader that follows a log in a goroutine of its own.
type reading struct {
	name   string
	done   chan struct{}
	events []stream.Event
	err    error
}

func (s *story) read(name string, at *Store, after uint64) *reading {
	s.Helper()
	r, err := at.Open(s.ctx, s.meta.ID, after)
	s.must("Open at "+name, err)
	g := &reading{name: name, done: make(chan struct{})}
	go func() {
		defer close(g.done)
		defer r.Close()
		g.events, g.err = storetest.Follow(s.ctx, r)
	}()
	return g
}

// wantTokens checks that events are the tokens from first on, in order.
func wantTokens(t *testing.T, what string, events []stream.Event, first uint64) {
	t.Helper()
	for i, e := range events {
		if seq := first + uint64(i); e.Seq != seq || string(e.Data) != token(seq) {
			t.Fatalf("%s: event %d is %d %q", what, seq, e.Seq, e.Data)
		}
	}
}

// wantWhole waits for a reader's end, and checks that it saw all there is: no
// gap, nothing twice, one end.
func (s *story) wantWhole(g *reading, kind string) {
	s.Helper()
	<-g.done
	if g.err != nil {
		s.Errorf("%s: %v", g.name, g.err)
		return
	}
	if uint64(len(g.events)) != s.n+1 {
		s.Errorf("%s: %d events, want %d", g.name, len(g.events), s.n+1)
		return
	}
	wantTokens(s.T, g.name, g.events[:s.n], 1)
	if end := g.events[s.n]; end.Type != kind {
		s.Errorf("%s: ends in %+v", g.name, end)
	}
}

// during runs a stream over a fault, and checks that nobody sees any of it.
func during(t *testing.T, o Options, fault func(s *story)) {
	t.Helper()
	s := newStory(t, o)
	readers := []*reading{s.read("at its producer", s.a, 0), s.read("elsewhere", s.b, 0)}
	stop := s.write()
	s.await(20)
	fault(s)
	s.await(20)
	stop()
	s.seal()
	for _, g := range append(readers, s.read("afterwards", s.b, 0)) {
		s.wantWhole(g, stream.TypeDone)
	}
	for _, at := range []*Store{s.a, s.b} {
		storetest.CheckLog(t, at, s.meta.ID)
	}
	if n, err := s.b.client.Do(s.ctx, s.b.client.B().Xlen().Key(s.b.keys.log(s.meta.ID)).Build()).AsInt64(); err != nil || uint64(n) != s.n+1 {
		t.Errorf("the server has %d events, %v; want %d", n, err, s.n+1)
	}
}
