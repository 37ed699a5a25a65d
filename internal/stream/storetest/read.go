package storetest

import (
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"sync"

	"weir/internal/stream"
)

var readTests = []test{
	{"an unknown id", testOpenUnknown},
	{"resumes after every seq of a finished log", testResumeFinished},
	{"resumes after every seq of a running log", testResumeLive},
	{"a hundred readers at any place at any time", testManyReaders},
	{"bounded batches", testBatches},
	{"EOF alone, again and again", testEOF},
	{"appends to dst", testDst},
	{"beyond the end", testBeyond},
	{"a closed reader leaves the others alone", testClose},
}

func testOpenUnknown(f *fixture) {
	for _, after := range []uint64{0, 7} {
		_, err := f.log.Open(f.ctx, stream.NewID(), after)
		f.wantErr("Open", err, stream.ErrNotFound)
	}
}

func testResumeFinished(f *fixture) {
	w := f.create()
	for range 10 {
		w.append(1)
		w.append(4)
	}
	w.seal(done())
	for after := range w.n + 2 {
		f.wantEvents("a reader", w.id, f.follow(f.open(w.id, after)), after+1, w.n+1)
	}
}

func testResumeLive(f *fixture) {
	w := f.create()
	w.append(1)
	w.append(30)
	var readers []stream.Reader
	for after := range w.n + 1 {
		r := f.open(w.id, after)
		f.wantEvents("a live reader", w.id, f.news(r), after+1, w.n)
		readers = append(readers, r)
	}
	had := w.n
	w.append(2)
	w.append(1)
	for after, r := range readers {
		if after%2 == 0 { // the others see it all at once
			f.wantEvents("a live reader, later", w.id, f.news(r), had+1, w.n)
		}
	}
	w.seal(done())
	for after, r := range readers {
		from := had + 1
		if after%2 == 0 {
			from = w.n + 1
		}
		f.wantEvents("a live reader, in the end", w.id, f.follow(r), from, w.n+1)
	}
}

// Readers that open before, during and after the writing, at a random place,
// beyond the end of that moment too, all see exactly what follows it.
func testManyReaders(f *fixture) {
	const events, readers = 600, 100
	w := f.create()
	var all sync.WaitGroup
	read := func(when string) {
		after := rand.Uint64N(events + 2)
		r := f.open(w.id, after)
		all.Go(func() {
			f.wantEvents("a reader from "+when, w.id, f.follow(r), after+1, events+1)
		})
	}
	for range readers / 3 {
		read("before")
	}
	quarter, written := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(written)
		for opened := false; w.n < events; {
			if err := w.add(min(1+rand.IntN(5), events-int(w.n))); err != nil {
				f.Errorf("Append: %v", err)
				return
			}
			if !opened && w.n >= events/4 {
				opened = true
				close(quarter)
			}
		}
		if err := f.log.Seal(f.ctx, w.id, done()); err != nil {
			f.Errorf("Seal: %v", err)
		}
	}()
	f.await("a quarter of the events", quarter)
	for range readers / 3 {
		read("during")
	}
	f.await("the end", written)
	for range readers - 2*(readers/3) {
		read("after")
	}
	all.Wait()
}

// What one Next may return at most. A store may well have smaller bounds; none
// would read a whole log into memory.
const (
	maxBatchEvents = 10_000
	maxBatchBytes  = 1 << 20
)

func testBatches(f *fixture) {
	many := f.create()
	for range 20 {
		many.append(1000)
	}
	large := f.create()
	data := make([]byte, 100<<10)
	for i := range 30 {
		size := len(data)
		if i%10 == 9 {
			size = 10
		}
		f.must("Append", large.Append(f.ctx, []stream.Event{{Type: "large", Data: data[:size]}}))
	}
	empty := f.create()
	for range 20 {
		batch := make([]stream.Event, 1000)
		for i := range batch {
			batch[i].Type = "empty"
		}
		f.must("Append", empty.Append(f.ctx, batch))
	}
	for id, want := range map[string]uint64{many.id: many.n, large.id: 30, empty.id: 20_000} {
		r := f.open(id, 0)
		var all []stream.Event
		for uint64(len(all)) < want {
			batch, err := r.Next(nil)
			f.must("Next", err)
			size := 0
			for _, e := range batch {
				size += len(e.Data)
			}
			if len(batch) == 0 {
				f.Fatalf("no news after %d events of %d", len(all), want)
			}
			if len(batch) > maxBatchEvents || size > maxBatchBytes {
				f.Fatalf("Next returned %d events of %d bytes at once", len(batch), size)
			}
			all = append(all, batch...)
		}
		f.wantEvents("all batches", id, all, 1, want)
		if more := f.news(r); len(more) > 0 {
			f.Errorf("%d events too many", len(more))
		}
	}
}

func testEOF(f *fixture) {
	w := f.create()
	w.append(3)
	w.seal(done())
	for _, after := range []uint64{0, 2, 3, 4, 5, 1 << 40} {
		r := f.open(w.id, after)
		f.wantEvents("the suffix", w.id, f.follow(r), after+1, 4)
		for range 5 {
			dst := []stream.Event{{Seq: 99}}
			got, err := r.Next(dst)
			if !errors.Is(err, io.EOF) || len(got) != 1 || got[0].Seq != 99 {
				f.Errorf("Next past the terminal event returned %d events, %v; want io.EOF alone", len(got)-1, err)
			}
		}
	}
}

func testDst(f *fixture) {
	w := f.create()
	w.append(3)
	r := f.open(w.id, 1)
	dst := make([]stream.Event, 1, 16)
	dst[0] = stream.Event{Seq: 99, Type: "mine"}
	dst, err := r.Next(dst)
	f.must("Next", err)
	if len(dst) != 3 || dst[0].Seq != 99 {
		f.Fatalf("Next made %d events of dst with 1, the first is %s", len(dst), show(dst[0]))
	}
	f.wantEvents("behind dst", w.id, dst[1:], 2, 3)
	again, err := r.Next(dst)
	f.must("Next", err)
	if len(again) != 3 {
		f.Errorf("Next without news made %d events of dst with 3", len(again))
	}

	// The same slice again and again, as a connection uses it; the data lives on.
	var data [][]byte
	buffer := dst[:0]
	r = f.open(w.id, 0)
	for range 50 {
		w.append(2)
		buffer, err = r.Next(buffer[:0])
		f.must("Next", err)
		for _, e := range buffer {
			data = append(data, e.Data)
		}
	}
	for i, d := range data {
		if want := token(w.id, uint64(i)+1); string(d) != want {
			f.Errorf("data changed under its reader: %q, want %q", d, want)
		}
	}
}

func testBeyond(f *fixture) {
	w := f.create()
	w.append(3)
	near, far, farthest := f.open(w.id, 5), f.open(w.id, 100), f.open(w.id, math.MaxInt64)
	for _, r := range []stream.Reader{near, far, farthest} {
		f.wantEvents("beyond the end", w.id, f.news(r), 1, 0)
	}
	w.append(1)
	f.wantEvents("beyond the end still", w.id, f.news(near), 1, 0)
	w.append(3)
	f.wantEvents("no longer beyond it", w.id, f.news(near), 6, 7)
	w.seal(done())
	f.wantEvents("near", w.id, f.follow(near), 8, 8)
	f.wantEvents("far", w.id, f.follow(far), 1, 0)
	f.wantEvents("farthest", w.id, f.follow(farthest), 1, 0)
	f.wantEvents("opened late", w.id, f.follow(f.open(w.id, math.MaxInt64)), 1, 0)
}

func testClose(f *fixture) {
	w := f.create()
	var closing, waiting, idle []stream.Reader
	for i := range 24 {
		r, err := f.log.Open(f.ctx, w.id, 0)
		f.must("Open", err)
		if i%4 < 2 {
			f.news(r) // waits from now on
		}
		switch {
		case i%2 == 0:
			closing = append(closing, r)
			continue
		case i%4 < 2:
			waiting = append(waiting, r)
		default:
			idle = append(idle, r)
		}
		f.Cleanup(r.Close)
	}
	for _, r := range closing {
		r.Close()
	}
	w.append(2)
	for _, r := range waiting {
		f.await("Wake", r.Wake())
		f.wantEvents("a reader that waited", w.id, f.awaitEvents(r, 1, 2), 1, 2)
	}
	w.seal(done())
	for _, r := range waiting {
		f.wantEvents("a reader that waited, in the end", w.id, f.follow(r), 3, 3)
	}
	for _, r := range idle {
		f.wantEvents("a reader that did not wait", w.id, f.follow(r), 1, 3)
	}
}
