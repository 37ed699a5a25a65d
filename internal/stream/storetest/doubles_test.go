package storetest_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"weir/internal/stream"
	"weir/internal/stream/memory"
	"weir/internal/stream/storetest"
)

// place is a Durable whose logs live in a store in memory: a crash takes the
// way to it, not what is in it.
type place struct {
	t     *testing.T
	mem   *memory.Store
	lapse time.Duration // from an Open to the recovery; none when zero
	fault fault

	mu      sync.Mutex
	created []string // guarded by mu
}

// fault is what a broken double does wrong.
type fault string

const (
	sound             fault = ""
	zombiesWrite      fault = "zombies write"
	unmarked          fault = "recovered events have no mark"
	acknowledgesEarly fault = "appends are acknowledged before they are kept"
	apart             fault = "two stores do not know of each other"
)

func newPlace(t *testing.T, o storetest.Options) *place {
	return &place{t: t, mem: memory.New(memory.Options{Retention: o.Retention, Now: o.Now})}
}

// Open implements storetest.Durable.
func (p *place) Open() stream.Log {
	p.mu.Lock()
	left := append([]string(nil), p.created...)
	p.mu.Unlock()
	if p.lapse == 0 {
		p.recover(left)
	} else {
		timer := time.AfterFunc(p.lapse, func() { p.recover(left) })
		p.t.Cleanup(func() { timer.Stop() })
	}
	return &mortal{Log: p.mem, place: p}
}

// recover ends what an earlier store left running.
func (p *place) recover(left []string) {
	for _, id := range left {
		end := stream.Interrupted().Event(stream.Summary{})
		if p.fault != unmarked {
			end.Recovery = 1
		}
		_ = p.mem.Seal(context.Background(), id, end) // most have ended
	}
}

// Crash implements storetest.Durable.
func (p *place) Crash(log stream.Log) {
	m := log.(*mortal)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = p.fault != zombiesWrite
}

// mortal is a store that can crash. Catalog calls reach the place for ever: no
// test makes them of a dead store.
type mortal struct {
	stream.Log
	place *place

	mu   sync.RWMutex // held for reading by a call that changes the place
	dead bool         // guarded by mu
}

// alive runs a call unless the store is dead.
func (m *mortal) alive(call func() error) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.dead {
		return stream.ErrUnavailable
	}
	return call()
}

func (m *mortal) Create(ctx context.Context, meta stream.Meta) (w stream.Writer, err error) {
	err = m.alive(func() error {
		w, err = m.Log.Create(ctx, meta)
		if err == nil {
			m.place.mu.Lock()
			m.place.created = append(m.place.created, meta.ID)
			m.place.mu.Unlock()
		}
		return err
	})
	return &mortalWriter{Writer: w, store: m}, err
}

func (m *mortal) Seal(ctx context.Context, id string, terminal stream.Event) error {
	return m.alive(func() error { return m.Log.Seal(ctx, id, terminal) })
}

type mortalWriter struct {
	stream.Writer
	store  *mortal
	inHand []stream.Event
}

func (w *mortalWriter) Append(ctx context.Context, events []stream.Event) error {
	return w.store.alive(func() error {
		if w.store.place.fault != acknowledgesEarly {
			return w.Writer.Append(ctx, events)
		}
		kept := w.inHand
		w.inHand = nil
		for _, e := range events {
			w.inHand = append(w.inHand, stream.Event{Type: e.Type, Data: append([]byte(nil), e.Data...)})
		}
		return w.Writer.Append(ctx, kept)
	})
}

func (w *mortalWriter) Book(ctx context.Context, summary stream.Summary) error {
	return w.store.alive(func() error { return w.Writer.Book(ctx, summary) })
}
