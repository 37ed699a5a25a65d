package storetest

import (
	"sync"

	"weir/internal/stream"
)

var wakeTests = []test{
	{"by append", testWakeAppend},
	{"by seal", testWakeSeal},
	{"is one channel", testWakeChannel},
	{"is never lost", testWakeNotLost},
	{"is never lost to a seal", testWakeNotLostSeal},
}

func testWakeAppend(f *fixture) {
	w := f.create()
	w.append(1)
	for n, after := range []uint64{0, 1, 1} {
		// Three rounds of waiting with each reader.
		r := f.open(w.id, after)
		f.news(r)
		for range 3 {
			from := w.n + 1
			w.append(1 + n)
			f.await("Wake", r.Wake())
			f.wantEvents("after Wake", w.id, f.awaitEvents(r, from, w.n), from, w.n)
		}
	}
}

// awaitEvents reads up to seq to; a wake may come before it, or for nothing.
func (f *fixture) awaitEvents(r stream.Reader, from, to uint64) []stream.Event {
	f.Helper()
	var all []stream.Event
	for {
		all = append(all, f.news(r)...)
		if uint64(len(all)) >= to+1-from {
			return all
		}
		f.await("Wake", r.Wake())
	}
}

func testWakeSeal(f *fixture) {
	w := f.create()
	w.append(2)
	var all sync.WaitGroup
	waiting := make(chan struct{}, 20)
	for i := range cap(waiting) {
		// Some wait at the end, some beyond it.
		after := uint64(2 + i%2*5)
		r := f.open(w.id, after)
		all.Go(func() {
			f.news(r)
			waiting <- struct{}{}
			f.wantEvents("a blocked reader", w.id, f.follow(r), after+1, 3)
		})
	}
	for range cap(waiting) {
		<-waiting
	}
	w.seal(cancelled())
	all.Wait()
}

func testWakeChannel(f *fixture) {
	w := f.create()
	r := f.open(w.id, 0)
	wake := r.Wake()
	f.news(r)
	w.append(1)
	f.await("Wake, asked for before the first Next", wake)
	f.awaitEvents(r, 1, 1)
	w.append(1)
	f.awaitEvents(r, 2, 2)
	w.seal(done())
	f.follow(r)
	if r.Wake() != wake {
		f.Error("Wake is another channel than it was")
	}
}

// The writer appends the moment the reader has seen the last event, while the
// reader finds out that there is no news: one that does so between the look
// and the wait must wake it nevertheless.
func testWakeNotLost(f *fixture) { f.pingPong(f.create()) }

func (f *fixture) pingPong(w *pen) {
	const events, readers = 1500, 2
	seen := make(chan struct{}, readers)
	var all sync.WaitGroup
	for range readers {
		r := f.open(w.id, 0)
		all.Go(func() {
			for n := 0; n < events; {
				batch, err := r.Next(nil)
				if err != nil {
					f.Errorf("Next: %v", err)
					return
				}
				n += len(batch)
				for range batch {
					seen <- struct{}{}
				}
				if len(batch) > 0 {
					continue
				}
				select {
				case <-r.Wake():
				case <-f.ctx.Done():
					f.Errorf("asleep after event %d", n)
					return
				}
			}
		})
	}
	for range events {
		w.append(1)
		for range readers {
			f.await("a reader's next event", seen)
		}
	}
	all.Wait()
}

func testWakeNotLostSeal(f *fixture) {
	for range 200 {
		w := f.create()
		r := f.open(w.id, 0)
		w.append(1)
		var all sync.WaitGroup
		start := make(chan struct{})
		all.Go(func() {
			close(start)
			f.wantEvents("a reader", w.id, f.follow(r), 1, 2)
		})
		<-start
		w.seal(done())
		all.Wait()
	}
}
