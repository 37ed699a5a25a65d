package storetest

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weir/internal/stream"
)

// RunShared tests two stores on one place at the same time, as two replicas have
// them. What one has acknowledged holds for the other at once; its readers may
// learn of it a moment later.
func RunShared(t *testing.T, open func(t *testing.T, o Options) (a, b stream.Log)) {
	groups := []group[*shared]{{"Read", sharedReadTests}, {"Seal", sharedSealTests}, {"Catalog", sharedCatalogTests}}
	runGroups(t, groups, func(t *testing.T, run func(f *shared)) {
		f := newFixture(t)
		a, b := open(t, f.options())
		run(&shared{T: t, a: f.on(a), b: f.on(b)})
	})
}

type sharedTest = testOf[*shared]

// shared is one test at two stores.
type shared struct {
	*testing.T
	a, b *fixture
}

// each runs a test at both, first with a as the owner's store.
func (f *shared) each(test func(owner, other *fixture)) {
	test(f.a, f.b)
	test(f.b, f.a)
}

// wantLog checks that both see one log of n of the stream's tokens and an end.
func (f *shared) wantLog(id string, n uint64) (terminal stream.Event) {
	f.Helper()
	for _, at := range []*fixture{f.a, f.b} {
		events := at.follow(at.open(id, 0))
		at.wantEvents("the log", id, events, 1, n+1)
		status := at.status(id)
		checkEvents(f, status, events, true)
		if terminal.Seq != 0 && !same(terminal, status.Terminal) {
			f.Errorf("%s ends in %s at one store, in %s at the other", id, show(terminal), show(status.Terminal))
		}
		terminal = status.Terminal
	}
	return terminal
}

var sharedReadTests = []sharedTest{
	{"an append wakes the other's readers", func(f *shared) {
		f.each(func(owner, other *fixture) { other.pingPong(owner.create()) })
	}},
	{"readers at any place, of either store", testSharedReaders},
	{"a reader that opens before the first event", testSharedEarly},
	{"any type and any data", testSharedPayloads},
	{"a forgotten stream's readers finish", testSharedDeleteReaders},
}

func testSharedReaders(f *shared) {
	f.each(func(owner, other *fixture) {
		const events = 600
		w := owner.create()
		var all sync.WaitGroup
		read := func() {
			for _, at := range []*fixture{owner, other} {
				for _, after := range []uint64{0, 1, w.n, w.n + 7, events - 1, events, events + 3} {
					r := at.open(w.id, after)
					all.Go(func() { at.wantEvents("a reader", w.id, at.follow(r), after+1, events+1) })
				}
			}
		}
		for w.n < events {
			if w.n%150 == 0 {
				read()
			}
			w.append(1 + int(w.n%2)*4)
		}
		read()
		w.seal(done())
		read()
		all.Wait()
		f.wantLog(w.id, events)
	})
}

func testSharedEarly(f *shared) {
	f.each(func(owner, other *fixture) {
		w := owner.create()
		r := other.open(w.id, 0)
		other.news(r)
		w.append(1)
		other.wantEvents("the first", w.id, other.awaitEvents(r, 1, 1), 1, 1)
		w.append(2)
		other.wantEvents("the next", w.id, other.awaitEvents(r, 2, 3), 2, 3)
		w.seal(done())
		other.wantEvents("the end", w.id, other.follow(r), 4, 4)
	})
}

func testSharedPayloads(f *shared) {
	f.each(func(owner, other *fixture) {
		w := owner.create()
		r := other.open(w.id, 0)
		owner.appendPayloads(w)
		w.seal(done())
		other.wantPayloads("live", other.follow(r), 1)
		other.wantPayloads("a replay", other.follow(other.open(w.id, 0)), 1)
	})
}

func testSharedDeleteReaders(f *shared) {
	f.each(func(owner, other *fixture) {
		w := owner.create()
		for range 20 {
			w.append(50)
		}
		open := map[*fixture][]stream.Reader{}
		for _, at := range []*fixture{owner, other} {
			waiting := at.open(w.id, 0)
			at.wantEvents("before", w.id, at.awaitEvents(waiting, 1, w.n), 1, w.n)
			open[at] = []stream.Reader{at.open(w.id, 0), waiting}
		}
		w.seal(done())
		owner.must("Delete", owner.log.Delete(owner.ctx, w.id))
		for at, readers := range open {
			at.wantEvents("opened before Delete", w.id, at.follow(readers[0]), 1, w.n+1)
			at.wantEvents("waiting before Delete", w.id, at.follow(readers[1]), w.n+1, w.n+1)
		}
	})
}

var sharedSealTests = []sharedTest{
	{"by the other store", testSharedSeal},
	{"exactly one wins", testSharedOneSeal},
	{"races with append", testSharedSealAgainstAppend},
	{"Book after a seal by the other", testSharedBook},
}

func testSharedSeal(f *shared) {
	f.each(func(owner, other *fixture) {
		w := owner.create()
		w.append(3)
		var all sync.WaitGroup
		for _, at := range []*fixture{owner, other} {
			r := at.open(w.id, 0)
			at.wantEvents("before", w.id, at.awaitEvents(r, 1, 3), 1, 3)
			all.Go(func() { at.wantEvents("the end", w.id, at.follow(r), 4, 4) })
		}
		other.must("Seal", other.log.Seal(other.ctx, w.id, cancelled()))
		owner.wantErr("Append", w.add(1), stream.ErrSealed)
		owner.await("Sealed", w.Sealed())
		for _, at := range []*fixture{owner, other} {
			at.wantErr("Seal", at.log.Seal(at.ctx, w.id, done()), stream.ErrSealed)
		}
		all.Wait()
		if terminal := f.wantLog(w.id, 3); string(terminal.Data) != string(cancelled().Data) {
			f.Errorf("ends in %s", show(terminal))
		}
	})
}

func testSharedOneSeal(f *shared) {
	for round := range 20 {
		w := f.a.create()
		w.append(round % 3)
		var (
			wins  atomic.Int32
			all   sync.WaitGroup
			start = make(chan struct{})
			won   stream.Event
		)
		for i := range 16 {
			at := []*fixture{f.a, f.b}[i%2]
			terminal := (&stream.Error{Code: fmt.Sprint("number ", i)}).Event(stream.Summary{})
			all.Go(func() {
				<-start
				err := at.log.Seal(at.ctx, w.id, terminal)
				switch {
				case err == nil && wins.Add(1) == 1:
					won = terminal
				case err != nil && !errors.Is(err, stream.ErrSealed):
					f.Errorf("Seal: %v", err)
				}
			})
		}
		close(start)
		all.Wait()
		if wins.Load() != 1 {
			f.Fatalf("%d seals won", wins.Load())
		}
		if got := f.wantLog(w.id, w.n); string(got.Data) != string(won.Data) {
			f.Errorf("ends in %s, want the winner's %s", show(got), show(won))
		}
		f.a.await("Sealed", w.Sealed())
	}
}

func testSharedSealAgainstAppend(f *shared) {
	for range 30 {
		f.each(func(owner, other *fixture) {
			w := owner.create()
			r := other.open(w.id, 0)
			var all sync.WaitGroup
			all.Go(func() {
				for n := 0; ; n++ {
					if err := w.add(1 + n%3); err != nil {
						owner.wantErr("Append", err, stream.ErrSealed)
						return
					}
					runtime.Gosched()
				}
			})
			other.awaitEvent(w.id)
			other.must("Seal", other.log.Seal(other.ctx, w.id, cancelled()))
			all.Wait()
			other.wantEvents("a reader", w.id, other.follow(r), 1, w.n+1)
			f.wantLog(w.id, w.n)
		})
	}
}

func testSharedBook(f *shared) {
	f.each(func(owner, other *fixture) {
		w := owner.create()
		w.append(1)
		other.must("Seal", other.log.Seal(other.ctx, w.id, cancelled()))
		owner.await("Sealed", w.Sealed())
		owner.must("Book", w.Book(owner.ctx, bookedSummary()))
		for _, at := range []*fixture{owner, other} {
			if got, want := asJSON(at, at.status(w.id).Booked), asJSON(at, bookedSummary()); got != want {
				f.Errorf("booked %s, want %s", got, want)
			}
		}
		f.wantLog(w.id, 1)
	})
}

var sharedCatalogTests = []sharedTest{
	{"Status", testSharedStatus},
	{"an id is used once", testSharedUsedID},
	{"an idempotency key has one winner", testSharedKeyRace},
	{"an idempotency key is freed for both", testSharedKeyFreed},
	{"List", testSharedList},
	{"Delete", testSharedDelete},
	{"the retention", testSharedRetention},
}

func testSharedStatus(f *shared) {
	f.each(func(owner, other *fixture) {
		meta := owner.keyed("ann", stream.NewID())
		w := owner.mustCreate(meta)
		for range 3 {
			got := other.status(w.id)
			other.wantMeta("Status", got.Meta, meta)
			if got.LastSeq != w.n || !got.Running() {
				f.Errorf("last seq %d of %d, %s", got.LastSeq, w.n, got.State())
			}
			other.wantClaimed("by the other's stream", meta)
			other.wantErr("Delete of a running stream", other.log.Delete(other.ctx, w.id), stream.ErrRunning)
			w.append(2)
		}
		w.seal(done())
		other.wantClaimed("by the other's ended stream", meta)
		f.wantLog(w.id, w.n)
	})
}

func testSharedUsedID(f *shared) {
	for range 20 {
		meta := f.a.meta("ann")
		won := f.a.raceCreate(f.b, 8, func(int) stream.Meta { return meta }, stream.ErrExists)
		if len(won) != 1 {
			f.Errorf("%d creates of one id won", len(won))
		}
	}
	f.each(func(owner, other *fixture) {
		w := owner.create()
		_, err := other.tryCreate(w.meta)
		other.wantErr("Create of the other's id", err, stream.ErrExists)
	})
}

func testSharedKeyRace(f *shared) {
	for round := range 20 {
		key := fmt.Sprint("key ", round)
		won := f.a.raceCreate(f.b, 8, func(int) stream.Meta { return f.a.keyed("ann", key) }, nil)
		if len(won) != 1 {
			f.Fatalf("%d creates won one key", len(won))
		}
		f.a.wantClaimed("after the race", won[0])
		f.b.wantClaimed("after the race", won[0])
	}
}

func testSharedKeyFreed(f *shared) {
	for round := range 10 {
		f.each(func(owner, other *fixture) {
			key := fmt.Sprint("key ", round, owner == f.a)
			w := owner.mustCreate(owner.keyed("ann", key))
			w.append(1)
			other.must("Seal", other.log.Seal(other.ctx, w.id, failed()))
			won := owner.raceCreate(other, 4, func(int) stream.Meta { return owner.keyed("ann", key) }, nil)
			if len(won) != 1 {
				f.Fatalf("%d creates won a freed key", len(won))
			}
			other.wantClaimed("freed, and taken", won[0])
		})
	}
}

func testSharedList(f *shared) {
	var newest []string
	for i := range 12 {
		w := []*fixture{f.a, f.b}[i%2].create()
		w.append(i % 3)
		if i%3 == 0 {
			w.seal(done())
		}
		newest = append([]string{w.id}, newest...)
	}
	for _, at := range []*fixture{f.a, f.b} {
		at.wantList("all", at.listIDs("ann", "", 100), newest)
		at.wantList("a page", at.listIDs("ann", newest[3], 4), newest[4:8])
	}
}

func testSharedDelete(f *shared) {
	f.each(func(owner, other *fixture) {
		key := stream.NewID()
		w := owner.ended(owner.keyed("ann", key))
		other.must("Delete", other.log.Delete(other.ctx, w.id))
		for _, at := range []*fixture{owner, other} {
			at.wantAllGone("after Delete", w.id, "ann")
			_, err := at.log.Claimed(at.ctx, "ann", key)
			at.wantGone("Claimed", err, "ann")
			_, err = at.tryCreate(at.keyed("ann", key))
			at.wantErr("Create with its key", err, stream.ErrGone)
			meta := w.meta
			meta.IdempotencyKey = ""
			_, err = at.tryCreate(meta)
			at.wantErr("Create of its id", err, stream.ErrExists)
		}
		owner.must("Book", w.Book(owner.ctx, bookedSummary()))
		other.wantAllGone("after Book", w.id, "ann")
	})
}

func testSharedRetention(f *shared) {
	w := f.a.ended(f.a.meta("ann"))
	running := f.a.create()
	f.a.clock.advance(retention + time.Minute)
	f.b.create()
	for _, at := range []*fixture{f.b, f.a} {
		_, err := at.log.Status(at.ctx, w.id)
		at.wantErr("Status", err, stream.ErrGone)
		_, err = at.log.Open(at.ctx, w.id, 0)
		at.wantErr("Open", err, stream.ErrGone)
		if !at.status(running.id).Running() {
			f.Error("a running stream ended with its retention")
		}
	}
}
