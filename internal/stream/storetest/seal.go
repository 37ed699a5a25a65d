package storetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"weir/internal/stream"
)

var sealTests = []test{
	{"exactly one wins", testOneSeal},
	{"nothing follows", testNothingFollows},
	{"an empty log", testSealEmpty},
	{"an unknown id", testSealUnknown},
	{"keeps the terminal event as it is", testSealKeeps},
	{"races with append", testSealAgainstAppend},
	{"Sealed closes whoever seals", testSealed},
	{"Book is beside the log", testBook},
	{"Book after a foreign seal", testBookCancelled},
}

func testOneSeal(f *fixture) {
	for round := range 20 {
		w := f.create()
		w.append(round % 3)
		var (
			wins   atomic.Int32
			winner atomic.Pointer[stream.Event]
			all    sync.WaitGroup
			start  = make(chan struct{})
		)
		for i := range 16 {
			terminal := done()
			if i%2 == 0 {
				terminal = cancelled()
			}
			all.Go(func() {
				<-start
				err := f.log.Seal(f.ctx, w.id, terminal)
				if err == nil {
					wins.Add(1)
					winner.Store(&terminal)
				} else if !errors.Is(err, stream.ErrSealed) {
					f.Errorf("Seal: %v", err)
				}
			})
		}
		close(start)
		all.Wait()
		if wins.Load() != 1 {
			f.Fatalf("%d seals won", wins.Load())
		}
		log := CheckLog(f, f.log, w.id)
		if got := log[len(log)-1]; uint64(len(log)) != w.n+1 || string(got.Data) != string(winner.Load().Data) {
			f.Errorf("%d events end in %s, want the winner's after %d: %s", len(log), show(got), w.n, show(*winner.Load()))
		}
	}
}

func testNothingFollows(f *fixture) {
	w := f.create()
	w.append(3)
	r := f.open(w.id, 0)
	w.seal(cancelled())
	for range 3 {
		f.wantErr("Append", w.add(1), stream.ErrSealed)
		f.wantErr("Append of several", w.add(5), stream.ErrSealed)
		f.wantErr("Seal", f.log.Seal(f.ctx, w.id, done()), stream.ErrSealed)
	}
	f.wantEvents("the log", w.id, CheckLog(f, f.log, w.id), 1, 4)
	f.wantEvents("a reader from before", w.id, f.follow(r), 1, 4)
	if got := f.status(w.id).State(); got != stream.StateCancelled {
		f.Errorf("state %s, want that of the first seal", got)
	}
}

func testSealEmpty(f *fixture) {
	w := f.create()
	w.seal(failed())
	f.wantErr("Append", w.add(1), stream.ErrSealed)
	f.wantEvents("the log", w.id, CheckLog(f, f.log, w.id), 1, 1)
	if got := f.status(w.id).State(); got != stream.StateError {
		f.Errorf("state %s", got)
	}
}

func testSealUnknown(f *fixture) {
	f.wantErr("Seal", f.log.Seal(f.ctx, stream.NewID(), done()), stream.ErrNotFound)
}

// An upstream's error may bring a large body, and a recovery marks its event.
func testSealKeeps(f *fixture) {
	for i, terminal := range []stream.Event{
		{Type: stream.TypeDone},
		{Type: stream.TypeError, Data: bytes.Repeat([]byte("large "), 40<<10)},
		{Type: stream.TypeError, Data: []byte("{}"), Recovery: 1},
		{Type: stream.TypeDone, Data: []byte("{}"), Recovery: 255},
	} {
		w := f.create()
		w.append(i)
		w.seal(terminal)
		log := CheckLog(f, f.log, w.id)
		if terminal.Seq = uint64(i) + 1; !same(log[i], terminal) {
			f.Errorf("sealed with %s, want %s", show(log[i]), show(terminal))
		}
	}
}

// The race of a cancel with the generation: log order settles it, and what was
// acknowledged is in the log, what was refused is not.
func testSealAgainstAppend(f *fixture) {
	for round := range 100 {
		w := f.create()
		r := f.open(w.id, 0)
		var all sync.WaitGroup
		started := make(chan struct{})
		all.Go(func() {
			close(started)
			for n := 0; ; n++ {
				if err := w.add(1 + n%3); err != nil {
					if !errors.Is(err, stream.ErrSealed) {
						f.Errorf("Append: %v", err)
					}
					return
				}
				runtime.Gosched() // on one processor the sealer's turn would come late
			}
		})
		<-started
		if round%2 == 0 { // well into it
			f.awaitEvent(w.id)
		}
		w.seal(cancelled())
		all.Wait()
		f.wantEvents("the log", w.id, CheckLog(f, f.log, w.id), 1, w.n+1)
		f.wantEvents("a reader", w.id, f.follow(r), 1, w.n+1)
	}
}

func testSealed(f *fixture) {
	w, other := f.create(), f.create()
	w.append(1)
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			select {
			case <-w.Sealed():
			case <-f.ctx.Done():
				f.Error("Sealed did not close")
			}
		})
	}
	select {
	case <-w.Sealed():
		f.Error("Sealed closed before the end")
	default:
	}
	w.seal(cancelled())
	all.Wait()
	f.await("Sealed, asked for late", w.Sealed())
	select {
	case <-other.Sealed():
		f.Error("Sealed of another stream closed")
	default:
	}
}

func testBook(f *fixture) {
	w := f.create()
	w.append(2)
	if got := f.status(w.id).Booked; !emptySummary(got) {
		f.Errorf("booked before Book: %s", asJSON(f, got))
	}
	w.seal(done())
	summary := bookedSummary()
	f.must("Book", w.Book(f.ctx, summary))
	if got, want := asJSON(f, f.status(w.id).Booked), asJSON(f, summary); got != want {
		f.Errorf("booked %s, want %s", got, want)
	}
	f.wantEvents("the log", w.id, CheckLog(f, f.log, w.id), 1, 3)
}

func testBookCancelled(f *fixture) {
	meta := f.keyed("ann", "key")
	w := f.mustCreate(meta)
	w.append(2)
	w.seal(cancelled())
	f.await("Sealed", w.Sealed())
	summary := bookedSummary()
	f.must("Book", w.Book(f.ctx, summary))

	want := asJSON(f, summary)
	claimed, err := f.log.Claimed(f.ctx, "ann", "key")
	f.must("Claimed", err)
	list, err := f.log.List(f.ctx, "ann", "", 10)
	f.must("List", err)
	if len(list) != 1 {
		f.Fatalf("%d streams listed", len(list))
	}
	for where, status := range map[string]stream.Status{"Status": f.status(w.id), "Claimed": claimed, "List": list[0]} {
		if got := asJSON(f, status.Booked); got != want || status.State() != stream.StateCancelled {
			f.Errorf("%s: %s, booked %s; want cancelled, %s", where, status.State(), got, want)
		}
	}
}

func bookedSummary() stream.Summary {
	return stream.Summary{
		FinishReason: "length",
		Usage:        stream.EstimatedUsage(stream.UsagePartial, 12, 34),
		Timings:      &stream.Timings{FirstTokenMS: 1.5, TotalMS: 20},
	}
}

func emptySummary(s stream.Summary) bool {
	return s.FinishReason == "" && s.Usage == nil && s.Timings == nil
}

// asJSON is how a store may keep a summary, and all of it that matters.
func asJSON(f *fixture, s stream.Summary) string {
	f.Helper()
	data, err := json.Marshal(s)
	f.must("marshal", err)
	return string(data)
}
