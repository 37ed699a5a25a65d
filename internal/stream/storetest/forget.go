package storetest

import (
	"errors"
	"sync"
	"time"

	"weir/internal/stream"
)

var forgetTests = []test{
	{"Delete", testDelete},
	{"Delete by many", testDeleteRace},
	{"Delete leaves readers alone", testDeleteReaders},
	{"Book of a forgotten log", testBookForgotten},
	{"Book of an expired log", testBookExpired},
	{"the retention begins with the end", testRetention},
	{"the retention leaves readers alone", testRetentionReaders},
	{"an id tells its age", testOldID},
	{"a forgotten stream expires too", testForgottenExpires},
}

func (f *fixture) wantAllGone(when, id, owner string) {
	f.Helper()
	_, err := f.log.Status(f.ctx, id)
	f.wantGone("Status "+when, err, owner)
	for _, after := range []uint64{0, 1, 100} {
		_, err = f.log.Open(f.ctx, id, after)
		f.wantGone("Open "+when, err, owner)
	}
	f.wantGone("Seal "+when, f.log.Seal(f.ctx, id, done()), owner)
	f.wantGone("Delete "+when, f.log.Delete(f.ctx, id), owner)
}

func testDelete(f *fixture) {
	w, neighbour := f.create(), f.ended(f.meta("ann"))
	f.wantErr("Delete of an empty log", f.log.Delete(f.ctx, w.id), stream.ErrRunning)
	w.append(2)
	f.wantErr("Delete of a running log", f.log.Delete(f.ctx, w.id), stream.ErrRunning)
	w.append(1)
	w.seal(done())
	f.must("Delete", f.log.Delete(f.ctx, w.id))
	f.wantAllGone("after Delete", w.id, "ann")
	f.create() // whatever the store does on its way
	f.wantAllGone("after Delete and Create", w.id, "ann")
	f.wantEvents("the neighbour", neighbour.id, CheckLog(f, f.log, neighbour.id), 1, 3)
}

func testDeleteRace(f *fixture) {
	for range 20 {
		w := f.create()
		w.append(1)
		var all sync.WaitGroup
		start := make(chan struct{})
		for range 4 {
			all.Go(func() {
				<-start
				err := f.log.Delete(f.ctx, w.id)
				if err != nil && !errors.Is(err, stream.ErrRunning) && !errors.Is(err, stream.ErrGone) {
					f.Errorf("Delete: %v", err)
				}
			})
			all.Go(func() {
				<-start
				err := f.log.Seal(f.ctx, w.id, done())
				if err != nil && !errors.Is(err, stream.ErrSealed) && !errors.Is(err, stream.ErrGone) {
					f.Errorf("Seal: %v", err)
				}
			})
		}
		close(start)
		all.Wait()
		if err := f.log.Delete(f.ctx, w.id); err != nil && !errors.Is(err, stream.ErrGone) {
			f.Errorf("Delete in the end: %v", err)
		}
		f.wantAllGone("after the race", w.id, "ann")
	}
}

func testDeleteReaders(f *fixture) {
	w := f.create()
	w.append(5)
	readers := map[uint64]stream.Reader{}
	for _, after := range []uint64{0, 3, 5, 6} {
		readers[after] = f.open(w.id, after)
	}
	half := f.open(w.id, 0)
	f.wantEvents("half", w.id, f.news(half), 1, 5)
	waiting := f.open(w.id, 5)
	f.news(waiting)
	w.seal(done())
	f.must("Delete", f.log.Delete(f.ctx, w.id))
	f.mustCreate(f.meta("bob"))
	for after, r := range readers {
		f.wantEvents("open before Delete", w.id, f.follow(r), after+1, 6)
	}
	f.wantEvents("half read before Delete", w.id, f.follow(half), 6, 6)
	f.wantEvents("waiting before Delete", w.id, f.follow(waiting), 6, 6)
}

func testBookForgotten(f *fixture) {
	w := f.ended(f.meta("ann"))
	f.must("Delete", f.log.Delete(f.ctx, w.id))
	f.must("Book", w.Book(f.ctx, bookedSummary()))
	f.wantAllGone("after Book", w.id, "ann")
}

func testBookExpired(f *fixture) {
	w := f.ended(f.meta("ann"))
	f.clock.advance(retention + time.Minute)
	f.create() // whoever comes next sweeps
	f.must("Book", w.Book(f.ctx, bookedSummary()))
	_, err := f.log.Status(f.ctx, w.id)
	f.wantErr("Status after Book", err, stream.ErrGone)
}

// A slow reader of a long answer is not cut off when the answer's time is up:
// it has begun in time, and a body that breaks off would send it to a 410.
func testRetentionReaders(f *fixture) {
	w := f.create()
	for range 40 {
		w.append(100) // more than a store may hold ready for a reader
	}
	waiting := f.open(w.id, w.n)
	f.news(waiting)
	w.seal(done())
	fresh, late := f.open(w.id, 0), f.open(w.id, 3000)
	half := f.open(w.id, 0)
	var seen []stream.Event
	for len(seen) == 0 {
		var err error
		seen, err = half.Next(nil)
		f.must("Next", err)
	}
	f.wantEvents("half read in time", w.id, seen, 1, uint64(len(seen)))

	f.clock.advance(retention + time.Minute)
	for range 3 {
		f.ended(f.meta("bob"))
	}
	_, err := f.log.Open(f.ctx, w.id, 0)
	f.wantErr("Open", err, stream.ErrGone)
	f.wantEvents("opened in time", w.id, f.follow(fresh), 1, w.n+1)
	f.wantEvents("opened in time, far on", w.id, f.follow(late), 3001, w.n+1)
	f.wantEvents("half read in time", w.id, f.follow(half), uint64(len(seen))+1, w.n+1)
	f.wantEvents("waiting in time", w.id, f.follow(waiting), w.n+1, w.n+1)
}

func testRetention(f *fixture) {
	w, running := f.create(), f.create()
	w.append(2)
	running.append(2)
	f.clock.advance(2 * retention) // running streams do not expire
	f.create()
	w.append(1)
	f.wantEvents("a long generation", w.id, CheckLog(f, f.log, w.id), 1, 3)
	w.seal(done())

	f.clock.advance(retention - time.Minute)
	f.create()
	f.wantEvents("just before", w.id, CheckLog(f, f.log, w.id), 1, 4)
	f.clock.advance(2 * time.Minute)
	gone := func(when string) {
		f.Helper()
		_, err := f.log.Status(f.ctx, w.id)
		f.wantErr("Status "+when, err, stream.ErrGone)
		_, err = f.log.Open(f.ctx, w.id, 0)
		f.wantErr("Open "+when, err, stream.ErrGone)
		f.wantErr("Seal "+when, f.log.Seal(f.ctx, w.id, done()), stream.ErrGone)
		f.wantErr("Delete "+when, f.log.Delete(f.ctx, w.id), stream.ErrGone)
	}
	gone("after the retention")
	f.create()
	gone("after the retention, and Create")
	f.wantEvents("the running one", running.id, CheckLog(f, f.log, running.id), 1, 2)
	running.seal(done())
}

func testOldID(f *fixture) {
	id := stream.NewID()
	f.clock.advance(retention - time.Minute)
	_, err := f.log.Status(f.ctx, id)
	f.wantErr("Status of a young id", err, stream.ErrNotFound)
	f.clock.advance(2 * time.Minute)
	f.wantAllGone("of an old id", id, "")
	for _, id := range malformed {
		_, err := f.log.Status(f.ctx, id)
		f.wantErr("Status of a malformed id", err, stream.ErrNotFound)
	}
}

func testForgottenExpires(f *fixture) {
	w := f.ended(f.keyed("ann", "key"))
	f.must("Delete", f.log.Delete(f.ctx, w.id))
	f.clock.advance(retention + time.Minute)
	f.create()
	_, err := f.log.Status(f.ctx, w.id)
	f.wantErr("Status", err, stream.ErrGone)
	// The key's memory is as long as the stream's.
	f.mustCreate(f.keyed("ann", "key"))
}
