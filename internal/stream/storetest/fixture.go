package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"weir/internal/stream"
)

const (
	retention = time.Hour
	// deadline is how long a test waits for what should come at once.
	deadline = time.Minute
)

// fixture is one test's store, and the logs made in it.
type fixture struct {
	*testing.T
	ctx   context.Context
	log   stream.Log
	clock *clock

	mu  sync.Mutex
	ids []string // guarded by mu; the streams created, checked in the end
}

// newFixture returns one that has no store yet.
func newFixture(t *testing.T) *fixture {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return &fixture{T: t, ctx: ctx, clock: &clock{now: time.Now()}}
}

func (f *fixture) options() Options { return Options{Retention: retention, Now: f.clock.Now} }

// on is the same test at another store.
func (f *fixture) on(log stream.Log) *fixture {
	return &fixture{T: f.T, ctx: f.ctx, clock: f.clock, log: log}
}

type clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// meta is a new stream of the owner's, without an idempotency key.
func (f *fixture) meta(owner string) stream.Meta {
	return stream.Meta{
		ID: stream.NewID(), Owner: owner, Dialect: stream.DialectChat, Model: "demo/fast", Provider: "demo",
		Created: f.clock.Now().Truncate(time.Millisecond),
	}
}

// keyed is a new stream of the owner's with an idempotency key.
func (f *fixture) keyed(owner, key string) stream.Meta {
	meta := f.meta(owner)
	meta.IdempotencyKey, meta.Fingerprint = key, "of "+meta.ID
	return meta
}

// create makes a stream of the owner "ann".
func (f *fixture) create() *pen {
	f.Helper()
	return f.mustCreate(f.meta("ann"))
}

func (f *fixture) mustCreate(meta stream.Meta) *pen {
	f.Helper()
	w, err := f.tryCreate(meta)
	f.must("Create", err)
	return w
}

func (f *fixture) tryCreate(meta stream.Meta) (*pen, error) {
	w, err := f.log.Create(f.ctx, meta)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ids = append(f.ids, meta.ID)
	return &pen{Writer: w, f: f, id: meta.ID, meta: meta}, nil
}

// ended makes a stream of two tokens that is done.
func (f *fixture) ended(meta stream.Meta) *pen {
	f.Helper()
	w := f.mustCreate(meta)
	w.append(2)
	w.seal(done())
	return w
}

func (f *fixture) open(id string, after uint64) stream.Reader {
	f.Helper()
	r, err := f.log.Open(f.ctx, id, after)
	f.must("Open", err)
	f.Cleanup(r.Close)
	return r
}

func (f *fixture) status(id string) stream.Status {
	f.Helper()
	status, err := f.log.Status(f.ctx, id)
	f.must("Status", err)
	return status
}

// await waits for a channel.
func (f *fixture) await(what string, c <-chan struct{}) {
	f.Helper()
	select {
	case <-c:
	case <-f.ctx.Done():
		f.Fatalf("%s did not come", what)
	}
}

// follow reads to the end.
func (f *fixture) follow(r stream.Reader) []stream.Event {
	f.Helper()
	events, err := Follow(f.ctx, r)
	if err != nil {
		f.Errorf("follow: %v", err)
	}
	return events
}

// awaitEvent waits until the log has one.
func (f *fixture) awaitEvent(id string) {
	f.Helper()
	r := f.open(id, 0)
	for len(f.news(r)) == 0 {
		f.await("news", r.Wake())
	}
}

// news returns what a reader of a running log has not seen yet.
func (f *fixture) news(r stream.Reader) []stream.Event {
	f.Helper()
	events, sealed, err := readAll(r)
	f.must("Next", err)
	if sealed {
		f.Fatal("EOF from a running log")
	}
	return events
}

func (f *fixture) must(what string, err error) {
	f.Helper()
	if err != nil {
		f.Fatalf("%s: %v", what, err)
	}
}

func (f *fixture) wantErr(what string, err, want error) {
	f.Helper()
	if !errors.Is(err, want) {
		f.Errorf("%s: %v, want: %v", what, err, want)
	}
}

// wantGone checks that err is a GoneError with this owner.
func (f *fixture) wantGone(what string, err error, owner string) {
	f.Helper()
	f.wantErr(what, err, stream.ErrGone)
	var gone *stream.GoneError
	if !errors.As(err, &gone) {
		f.Errorf("%s: a %T, want a *GoneError", what, err)
	} else if gone.Owner != owner {
		f.Errorf("%s: gone of %q, want of %q", what, gone.Owner, owner)
	}
}

// wantEvents checks that events are exactly the stream's from..to.
func (f *fixture) wantEvents(what, id string, events []stream.Event, from, to uint64) {
	f.Helper()
	if want := max(to+1, from) - from; uint64(len(events)) != want {
		f.Errorf("%s: %d events, want %d", what, len(events), want)
		return
	}
	for i, e := range events {
		seq := from + uint64(i)
		if e.Seq != seq || e.Type == stream.TypeToken && string(e.Data) != token(id, seq) {
			f.Errorf("%s: event %d is %s, want seq %d", what, i, show(e), seq)
			return
		}
	}
}

// checkLogs looks at every log the test made and the store still has.
func (f *fixture) checkLogs() {
	for _, id := range f.ids {
		if _, err := f.log.Status(f.ctx, id); errors.Is(err, stream.ErrGone) {
			_, err := f.log.Open(f.ctx, id, 0)
			f.wantErr("Open of "+id+", whose Status is gone", err, stream.ErrGone)
			continue
		}
		CheckLog(f, f.log, id)
	}
}

// pen writes tokens that say where they belong.
type pen struct {
	stream.Writer
	f    *fixture
	id   string
	meta stream.Meta
	n    uint64 // acknowledged events
}

func token(id string, seq uint64) string { return fmt.Sprintf("%s.%d", id, seq) }

// add appends n tokens in one call.
func (p *pen) add(n int) error {
	events := make([]stream.Event, n)
	for i := range events {
		events[i].Data = []byte(token(p.id, p.n+uint64(i)+1))
	}
	if err := p.Append(p.f.ctx, events); err != nil {
		return err
	}
	for i, e := range events {
		if e.Seq != p.n+uint64(i)+1 {
			p.f.Errorf("Append set seq %d on event %d", e.Seq, p.n+uint64(i)+1)
		}
		clear(e.Data) // the log has a copy
	}
	p.n += uint64(n)
	return nil
}

func (p *pen) append(n int) {
	p.f.Helper()
	p.f.must("Append", p.add(n))
}

func (p *pen) seal(terminal stream.Event) {
	p.f.Helper()
	p.f.must("Seal", p.f.log.Seal(p.f.ctx, p.id, terminal))
}

// The terminal events the tests seal with.
func done() stream.Event {
	return stream.DoneEvent(stream.Summary{FinishReason: "stop"})
}

func cancelled() stream.Event { return stream.CancelledEvent(stream.Summary{}) }

func failed() stream.Event {
	e := &stream.Error{Message: "the upstream failed", Type: "server_error", Code: stream.CodeUpstreamError}
	return e.Event(stream.Summary{})
}
