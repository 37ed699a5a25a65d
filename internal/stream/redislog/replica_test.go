package redislog

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weir/internal/redistest"
	"weir/internal/stream"
	"weir/internal/stream/storetest"
)

func TestCancelElsewhere(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix()})
	c := open(t, Options{URL: server.URL(), Prefix: string(s.a.keys)})
	readers := []*reading{
		s.read("at its producer", s.a, 0), s.read("elsewhere", s.b, 0), s.read("where it is cancelled", c, 0), s.read("late", s.b, 7),
	}
	s.must("Append", s.append(10))
	began := time.Now()
	s.must("Seal", c.Seal(s.ctx, s.meta.ID, stream.CancelledEvent(stream.Summary{})))
	<-s.w.Sealed()
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("the owner learned of it after %v", took)
	}
	if err := s.append(1); !errors.Is(err, stream.ErrSealed) {
		t.Errorf("Append: %v", err)
	}
	for _, g := range readers[:3] {
		s.wantWhole(g, stream.TypeDone)
	}
	if <-readers[3].done; len(readers[3].events) != 4 {
		t.Errorf("late: %d events", len(readers[3].events))
	}
	// What nobody reads is not kept in memory.
	s.must("Book", s.w.Book(s.ctx, stream.Summary{}))
	for name, at := range map[string]*Store{"a": s.a, "b": s.b, "c": c} {
		at.mu.Lock()
		if len(at.mirrors)+len(at.writers) > 0 {
			t.Errorf("%s keeps %d mirrors and %d writers", name, len(at.mirrors), len(at.writers))
		}
		at.mu.Unlock()
	}
}

// A cancel that nobody hears of by message comes with the lease's renewal.
func TestCancelUnheard(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix(), Lease: 2 * time.Second})
	s.must("Append", s.append(1))
	s.a.ears.mu.Lock()
	clear(s.a.ears.want)
	s.a.ears.mu.Unlock()
	s.must("Seal", s.b.Seal(s.ctx, s.meta.ID, stream.CancelledEvent(stream.Summary{})))
	select {
	case <-s.w.Sealed():
	case <-s.ctx.Done():
		t.Error("the owner never learns of it")
	}
}

// shortLease is short for a test, and long for a machine under load.
const shortLease = time.Second

func (s *story) wantLost(g *reading) {
	s.Helper()
	s.wantWhole(g, stream.TypeError)
	if end := g.events[len(g.events)-1]; end.Recovery != 1 {
		s.Errorf("%s: the end has no mark of a recovery: %+v", g.name, end)
	}
	ending, err := stream.ReadEnding(g.events[len(g.events)-1])
	if err != nil || ending.Error.Code != stream.CodeProducerLost {
		s.Errorf("%s: ends in %+v, %v", g.name, ending, err)
	}
}

func TestLeaseLapses(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix(), Lease: shortLease})
	c := open(t, Options{URL: server.URL(), Prefix: string(s.a.keys), Lease: shortLease})
	readers := []*reading{s.read("elsewhere", s.b, 0), s.read("at a third", c, 0)}
	s.must("Append", s.append(10))
	s.a.frozen.Store(true)
	for _, g := range readers {
		s.wantLost(g)
	}
	// The zombie wakes up.
	if err := s.append(1); !errors.Is(err, stream.ErrSealed) {
		t.Errorf("the lost replica's append: %v", err)
	}
	s.a.frozen.Store(false)
	<-s.w.Sealed()
	if err := s.a.Seal(s.ctx, s.meta.ID, stream.DoneEvent(stream.Summary{})); !errors.Is(err, stream.ErrSealed) {
		t.Errorf("the lost replica's seal: %v", err)
	}
	for _, at := range []*Store{s.a, s.b, c} {
		storetest.CheckLog(t, at, s.meta.ID)
	}
	// And lives again.
	again := &story{T: t, ctx: s.ctx, a: s.a, b: s.b, meta: newMeta("ann"), changed: make(chan struct{})}
	again.w = create(t, s.a, again.meta)
	g := again.read("elsewhere", s.b, 0)
	s.must("Append", again.append(3))
	again.seal()
	again.wantWhole(g, stream.TypeDone)
}

// A thousand streams of a lost replica end, each once.
func TestLeaseOfManyLapses(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	o := Options{URL: server.URL(), Prefix: prefix(), Lease: shortLease}
	a, b, c := open(t, o), open(t, o), open(t, o)
	ids := make([]string, 1000)
	var all sync.WaitGroup
	for i := range ids {
		meta := newMeta("ann")
		ids[i] = meta.ID
		all.Go(func() {
			if err := create(t, a, meta).Append(t.Context(), []stream.Event{{Data: []byte(token(1))}}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	crash(a)
	for i, id := range ids {
		r, err := []*Store{b, c}[i%2].Open(t.Context(), id, 0)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			defer r.Close()
			if events, err := storetest.Follow(t.Context(), r); err != nil || len(events) != 2 || events[1].Recovery != 1 {
				t.Errorf("%s: %d events, %v", id, len(events), err)
			}
		})
	}
	all.Wait()
}

// A server that was away for longer than a lease has not lost the replicas.
func TestLeaseOutlastsTheServersAbsence(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	during(t, Options{URL: server.URL(), Prefix: prefix(), Lease: shortLease}, func(*story) {
		server.Pause()
		pass(3 * shortLease)
		server.Resume()
	})
}

// What a replica thinks to be over, though the server does not, is ended.
func TestOrphans(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix(), Lease: shortLease})
	g := s.read("elsewhere", s.b, 0)
	s.must("Append", s.append(3))
	s.a.forget(s.meta.ID) // as after a create whose answer did not come
	s.wantLost(g)
}

// A stream that the server lost is written again though nothing is appended.
func TestSilentStreamIsWrittenAgain(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix(), Lease: shortLease})
	s.must("Append", s.append(300))
	g := s.read("elsewhere", s.b, 0)
	server.FlushAll()
	for {
		if status, err := s.b.Status(s.ctx, s.meta.ID); err == nil && status.LastSeq == 300 {
			break
		}
		pass(10 * time.Millisecond)
		s.must("the server has it again", s.ctx.Err())
	}
	s.seal()
	s.wantWhole(g, stream.TypeDone)
	s.wantWhole(s.read("afterwards", s.b, 0), stream.TypeDone)
}

// Without its producer, nobody writes again what the server lost.
func TestLostForGood(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix(), Lease: shortLease})
	s.must("Append", s.append(3))
	g := s.read("elsewhere", s.b, 0)
	crash(s.a)
	server.Command("FLUSHALL")
	s.b.mirrors[s.meta.ID].nudge() // the net under the messages would find out, too, after some seconds
	<-g.done
	if !errors.Is(g.err, stream.ErrGone) || len(g.events) != 3 {
		t.Errorf("%d events, %v; want an abort with ErrGone", len(g.events), g.err)
	}
	if _, err := openAfterLoss(s.ctx, s.b, s.meta.ID, 3); !errors.Is(err, stream.ErrNotFound) {
		t.Errorf("Open: %v", err)
	}
}

func TestCreateAtTheSameTime(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	o := Options{URL: server.URL(), Prefix: prefix()}
	stores := []*Store{open(t, o), open(t, o), open(t, o)}
	for range 20 {
		id, key := stream.NewID(), stream.NewID()
		var byID, byKey atomic.Int32
		var all sync.WaitGroup
		for _, s := range stores {
			all.Go(func() {
				meta := newMeta("ann")
				meta.ID = id
				if _, err := s.Create(t.Context(), meta); err == nil {
					byID.Add(1)
				} else if !errors.Is(err, stream.ErrExists) {
					t.Errorf("Create of one id: %v", err)
				}
			})
			all.Go(func() {
				meta := newMeta("ann")
				meta.IdempotencyKey = key
				var claimed *stream.ClaimedError
				if _, err := s.Create(t.Context(), meta); err == nil {
					byKey.Add(1)
				} else if !errors.As(err, &claimed) || claimed.By.IdempotencyKey != key {
					t.Errorf("Create with one key: %v", err)
				}
			})
		}
		all.Wait()
		if byID.Load() != 1 || byKey.Load() != 1 {
			t.Errorf("%d creates won an id, %d a key", byID.Load(), byKey.Load())
		}
	}
}

func TestSecret(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	o := Options{URL: server.URL(), Prefix: prefix()}
	stores := []*Store{open(t, o), open(t, o), open(t, o)}
	secrets := make([]string, len(stores))
	var all sync.WaitGroup
	for i, s := range stores {
		all.Go(func() {
			var err error
			if secrets[i], err = s.Secret(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if secrets[0] != secrets[1] || secrets[1] != secrets[2] || len(secrets[0]) < 40 {
		t.Errorf("secrets %q", secrets)
	}
}
