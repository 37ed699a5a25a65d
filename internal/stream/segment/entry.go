package segment

import (
	"context"
	"fmt"
	"sync"
	"time"

	"weir/internal/stream"
	"weir/internal/stream/live"
)

// entry is what the store holds in memory of every stream. Its events, and
// what else there is to know, are with it while it is warm, and else on disk.
type entry struct {
	id, owner, key string
	created        position // of its create record: its name on disk
	span           span

	// changing is held by whoever appends, seals, books, loads or deletes, so
	// that the order on disk is the order readers see. It is taken before mu.
	changing sync.Mutex
	gone     bool // guarded by changing; deleted
	lost     bool // set by a recovery: records are not in the chain

	mu      sync.Mutex
	warm    *warm     // guarded by mu; nil when only on disk
	lastSeq uint32    // guarded by mu
	last    position  // guarded by mu; the newest record of its events
	ended   time.Time // guarded by mu; zero while it runs
	failed  bool      // guarded by mu; it ended before its first token
	booked  position  // guarded by mu; none until then
}

// warm is a stream in memory.
type warm struct {
	*live.Log
	meta   stream.Meta
	booked stream.Summary // guarded by entry.mu
}

// warmOverhead is what a warm stream takes in memory besides its events, about.
const warmOverhead = 1 << 10

func (w *warm) size() int64 { return warmOverhead + w.Bytes() }

func (e *entry) running() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ended.IsZero()
}

func (e *entry) expired(now time.Time, retention time.Duration) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.ended.IsZero() && now.Sub(e.ended) > retention
}

// current returns what of the entry may change.
func (e *entry) current() (w *warm, last position, lastSeq uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.warm, e.last, e.lastSeq
}

// advance notes a record of the stream's events.
func (e *entry) advance(at position, lastSeq uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last, e.lastSeq = at, lastSeq
}

// writer is the owner's hand on a running stream.
type writer struct {
	store  *Store
	entry  *entry
	log    *warm  // the entry's while it runs
	commit commit // guarded by entry.changing
}

// Append implements stream.Writer.
func (w *writer) Append(_ context.Context, events []stream.Event) error {
	e := w.entry
	e.changing.Lock()
	defer e.changing.Unlock()
	if e.gone || !e.running() {
		return stream.ErrSealed
	}
	if len(events) == 0 {
		return nil
	}
	_, last, seq := e.current()
	if uint64(seq)+uint64(len(events)) >= maxSeq {
		return fmt.Errorf("segment: a stream of %d events: %w", seq, stream.ErrFull)
	}
	w.commit = commit{
		header: header{kind: kindEvents, stream: e.created, seq: seq + 1, previous: last},
		events: events, span: &e.span,
	}
	if err := w.store.journal.commit(&w.commit); err != nil {
		return err
	}
	w.commit.events = nil
	e.advance(w.commit.at, seq+uint32(len(events)))
	added, err := w.log.Append(events)
	w.store.warmBytes.Add(added)
	return err
}

// Sealed implements stream.Writer.
func (w *writer) Sealed() <-chan struct{} { return w.log.Sealed() }

// Book implements stream.Writer.
func (w *writer) Book(_ context.Context, summary stream.Summary) error {
	e := w.entry
	e.changing.Lock()
	defer e.changing.Unlock()
	if e.gone {
		return nil
	}
	payload, err := appendSummary(nil, summary)
	if err != nil {
		return err
	}
	c := commit{header: header{kind: kindBook, stream: e.created}, payload: payload, span: &e.span}
	if err := w.store.journal.commit(&c); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.booked = c.at
	if e.warm != nil {
		e.warm.booked = summary
	}
	return nil
}

// end seals a stream that is warm.
func (s *Store) end(e *entry, terminal stream.Event) error {
	e.changing.Lock()
	defer e.changing.Unlock()
	if e.gone {
		return &stream.GoneError{Owner: e.owner}
	}
	if !e.running() {
		return stream.ErrSealed
	}
	if err := s.seal(e, terminal); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = append(s.ended, e)
	s.cache.use(e)
	s.cool()
	return nil
}

// seal writes the terminal event. The caller holds changing.
func (s *Store) seal(e *entry, terminal stream.Event) error {
	log, last, seq := e.current()
	now := s.now()
	c := commit{
		header: header{
			kind: kindEnd, recovery: terminal.Recovery, stream: e.created, seq: seq + 1, previous: last,
		},
		payload: appendEnd(nil, now, terminal), span: &e.span,
	}
	if err := s.journal.commit(&c); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	// Under mu, so that nobody sees the end without its time.
	added, err := log.Seal(terminal)
	if err != nil {
		return err
	}
	s.warmBytes.Add(added)
	e.last, e.lastSeq, e.ended = c.at, seq+1, now
	e.failed = failedBeforeToken(terminal, e.lastSeq)
	return nil
}

// status is the stream's, from memory if it is warm and else from disk.
func (s *Store) status(e *entry) (stream.Status, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	status := stream.Status{LastSeq: uint64(e.lastSeq), Ended: e.ended}
	if e.warm != nil {
		status.Meta, status.Booked = e.warm.meta, e.warm.booked
		status.LastSeq, status.Terminal = e.warm.Last()
		return status, nil
	}
	var err error
	if status.Meta, err = s.readMeta(e.created); err != nil {
		return stream.Status{}, err
	}
	if _, status.Terminal, err = s.readEnd(e.last); err != nil {
		return stream.Status{}, err
	}
	if !e.booked.none() {
		if status.Booked, err = s.readSummary(e.booked); err != nil {
			return stream.Status{}, err
		}
	}
	return status, nil
}

// reader is a cursor in the stream, in memory.
func (s *Store) reader(e *entry, after uint64) (stream.Reader, error) {
	e.changing.Lock()
	defer e.changing.Unlock()
	if e.gone {
		return nil, &stream.GoneError{Owner: e.owner}
	}
	w, err := s.warmUp(e)
	if err != nil {
		if _, missing := s.find(e.id); missing != nil {
			return nil, missing // evicted while it was read
		}
		return nil, err
	}
	return w.Open(after), nil
}
