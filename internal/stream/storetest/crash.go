package storetest

import (
	"errors"
	"sync"
	"sync/atomic"

	"weir/internal/stream"
)

// What a crash leaves running.
var recoveredTests = []durableTest{
	{"a running stream keeps what was acknowledged", testRunningRecovered},
	{"an empty stream ends", testEmptyRecovered},
	{"a failure before the first token frees the key", testRecoveredKeyFreed},
	{"a token keeps the key", testRecoveredKeyKept},
	{"once, however many crashes follow", testRecoveredOnce},
	{"its readers and its writer wait for the recovery", testReadRecovery},
}

// How a crash meets work that is under way.
var crashTests = []durableTest{
	{"in the midst of many streams", testCrashAnywhere},
	{"again and again while streams are recovered", testCrashWhileRecovering},
	{"leaves nothing to a dead store's writers", testZombies},
}

func testRunningRecovered(f *durable) {
	var pens []*pen
	for i := range 12 {
		w := f.create()
		for n := range i {
			w.append(1 + n%4)
		}
		pens = append(pens, w)
	}
	f.crash()
	for _, w := range pens {
		f.recovered(w.id, w.n, 0)
	}
}

func testEmptyRecovered(f *durable) {
	w := f.create()
	f.crash()
	if s := f.recovered(w.id, 0, 0); !s.status.FailedBeforeToken() {
		f.Errorf("%d events", len(s.events))
	}
}

// start opens a log as the runner does.
func (f *durable) start(meta stream.Meta) *pen {
	f.Helper()
	w := f.mustCreate(meta)
	f.must("Append", w.Append(f.ctx, []stream.Event{{Type: stream.TypeStart, Data: []byte("{}")}}))
	w.n++
	return w
}

func testRecoveredKeyFreed(f *durable) {
	failed := f.start(f.keyed("ann", "key"))
	f.crash()
	f.recovered(failed.id, 1, 0)
	_, err := f.log.Claimed(f.ctx, "ann", "key")
	f.wantErr("Claimed", err, stream.ErrNotFound)
	repeat := f.keyed("ann", "key")
	w := f.start(repeat)
	f.wantClaimed("taken again", repeat)
	w.append(1)
	w.seal(done())
	f.crash()
	f.wantClaimed("taken again, and crashed again", repeat)
}

func testRecoveredKeyKept(f *durable) {
	meta := f.keyed("ann", "key")
	w := f.start(meta)
	w.append(1)
	f.crash()
	// Before the recovery too: a repeat must not run beside what may be running.
	_, err := f.tryCreate(f.keyed("ann", "key"))
	var claimed *stream.ClaimedError
	if !errors.As(err, &claimed) || claimed.By.ID != w.id {
		f.Errorf("Create: %v, want a *ClaimedError by %s", err, w.id)
	}
	f.recovered(w.id, 2, 0)
	f.wantClaimed("recovered", meta)
}

func testRecoveredOnce(f *durable) {
	var was []snapshot
	for round := range 3 {
		w := f.create()
		w.append(round + 1)
		f.crash()
		for _, s := range was {
			f.wantSame("recovered before", s)
		}
		was = append(was, f.recovered(w.id, w.n, 0))
		f.clock.advance(retention / 10)
	}
}

// Whoever comes back at once, before a recovery may have found the stream, gets
// the end as soon as it is there.
func testReadRecovery(f *durable) {
	w := f.create()
	w.append(4)
	f.crash()
	var all sync.WaitGroup
	for _, after := range []uint64{0, 2, 4, 5, 9} {
		r := f.open(w.id, after)
		all.Go(func() { f.wantEvents("a reader", w.id, f.follow(r), after+1, 5) })
	}
	all.Wait()
	f.recovered(w.id, 4, 0)
}

// life is one stream in the hands of a worker whose store ends under it.
type life struct {
	meta     stream.Meta
	pen      *pen // nil: its create was not acknowledged
	inFlight int  // events whose append was not acknowledged
	sealing  bool
	sealed   bool
}

// live goes through a whole life, or as much of it as the store lives.
func (l *life) live(f *fixture, appends int, appended func()) (err error) {
	if l.pen, err = f.tryCreate(l.meta); err != nil {
		return err
	}
	for n := range appends {
		l.inFlight = 1 + n%3
		if err := l.pen.add(l.inFlight); err != nil {
			return err
		}
		l.inFlight = 0
		appended()
	}
	l.sealing = true
	if err := f.log.Seal(f.ctx, l.meta.ID, done()); err != nil {
		return err
	}
	l.sealed = true
	return nil
}

// check compares what the place has of a stream with what its worker knows.
func (l *life) check(f *durable) {
	f.Helper()
	id := l.meta.ID
	if l.pen == nil {
		if _, err := f.log.Status(f.ctx, id); errors.Is(err, stream.ErrNotFound) {
			return
		}
		f.recovered(id, 0, 0)
		return
	}
	s := f.settle(id)
	if l.sealed || l.sealing && s.terminal().Recovery == 0 {
		want := done()
		if want.Seq = l.pen.n + 1; !same(s.terminal(), want) {
			f.Errorf("%s ends in %s, want %s", id, show(s.terminal()), show(want))
		}
		f.wantEvents(id, id, s.events, 1, l.pen.n+1)
		return
	}
	f.recovered(id, l.pen.n, l.inFlight)
}

func testCrashAnywhere(f *durable) {
	const workers, enough = 16, 400
	var (
		all      sync.WaitGroup
		appends  atomic.Int64
		crashing atomic.Bool
		lives    [workers][]*life
		plenty   = make(chan struct{})
		dying    = f.on(f.log)
	)
	for i := range workers {
		all.Go(func() {
			for n := 0; ; n++ {
				l := &life{meta: dying.meta("ann")}
				lives[i] = append(lives[i], l)
				err := l.live(dying, (i+n)%9, func() {
					if appends.Add(1) == enough {
						close(plenty)
					}
				})
				if err == nil {
					continue
				}
				if !crashing.Load() {
					f.Errorf("before the crash: %v", err)
				}
				return
			}
		})
	}
	f.await("work", plenty)
	crashing.Store(true)
	f.crash()
	all.Wait()
	for _, worker := range lives {
		for _, l := range worker {
			l.check(f)
		}
	}
}

func testCrashWhileRecovering(f *durable) {
	var pens []*pen
	for range 4 {
		for i := range 5 {
			w := f.create()
			w.append(i)
			pens = append(pens, w)
		}
		f.crash()
		f.crash()
	}
	for _, w := range pens {
		f.recovered(w.id, w.n, 0)
	}
}

// A process that is taken for dead may be merely slow, and its goroutines go on
// when another store has the place.
func testZombies(f *durable) {
	dead, running, empty, ended := f.log, f.create(), f.create(), f.create()
	running.append(3)
	ended.append(2)
	ended.seal(done())
	pens := []*pen{running, empty, ended}
	haunt := func(when string) {
		f.Helper()
		for i, w := range pens {
			if err := w.add(1); err == nil {
				f.Errorf("%s: a dead store acknowledged an append to stream %d", when, i)
			}
			if err := dead.Seal(f.ctx, w.id, cancelled()); err == nil {
				f.Errorf("%s: a dead store sealed stream %d", when, i)
			}
			_ = w.Book(f.ctx, bookedSummary()) // whatever it says
		}
		if _, err := dead.Create(f.ctx, f.meta("ann")); err == nil {
			f.Errorf("%s: a dead store created a stream", when)
		}
	}
	f.place.Crash(dead)
	haunt("after the crash")
	f.log = f.place.Open()
	haunt("while another store begins")
	was := []snapshot{f.recovered(running.id, 3, 0), f.recovered(empty.id, 0, 0), f.settle(ended.id)}
	haunt("after the recovery")
	for range 2 {
		for _, s := range was {
			f.wantSame("haunted", s)
		}
		if got := len(f.listIDs("ann", "", 10)); got != len(pens) {
			f.Errorf("%d streams listed", got)
		}
		f.crash()
	}
}
