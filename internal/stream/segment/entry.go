package segment

import (
	"context"
	"fmt"
	"sync"
	"time"
	"weak"

	"weir/internal/stream"
	"weir/internal/stream/live"
)

// entry is what the store holds in memory of every stream. Its events, and
// what else there is to know, are with it while it is warm, and else on disk.
type entry struct {
	id, owner, key string
	created        position // of its create record: its name on disk
	span           span

	// ready is closed when the create record is written, or could not be. Until
	// then the entry only keeps others from its id and key.
	ready   chan struct{}
	pending bool // guarded by Store.mu

	// changing is held by whoever appends, seals, books, loads or deletes, so
	// that the order on disk is the order readers see. It is taken before
	// Store.mu, and that before mu.
	changing sync.Mutex
	deleted  bool // guarded by changing
	hit      bool // set by a recovery: records of it are damaged, or behind such

	mu      sync.Mutex
	warm    *warm                  // guarded by mu; nil when only on disk
	read    weak.Pointer[live.Log] // guarded by mu; what readers may have of it in memory all the same
	lastSeq uint32                 // guarded by mu
	last    position               // guarded by mu; the newest record of its events
	ended   time.Time              // guarded by mu; zero while it runs
	failed  bool                   // guarded by mu; it ended before its first token
	booked  position               // guarded by mu; none until then
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

func (e *entry) endTime() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ended
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
	if e.deleted || !e.running() {
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
	err := w.store.journal.commit(&w.commit)
	w.commit.events = nil // they are the caller's
	if err != nil {
		return err
	}
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
	if e.deleted {
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
	if e.deleted {
		return &stream.GoneError{Owner: e.owner}
	}
	if !e.running() {
		return stream.ErrSealed
	}
	if err := s.seal(e, terminal); err != nil {
		return err
	}
	s.shelf.ended(&e.span)
	s.journal.running.Add(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addEnded(e)
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
	status := stream.Status{LastSeq: uint64(e.lastSeq), Ended: e.ended}
	last, booked := e.last, e.booked
	if w := e.warm; w != nil {
		status.Meta, status.Booked = w.meta, w.booked
		status.LastSeq, status.Terminal = w.Last()
		e.mu.Unlock()
		return status, nil
	}
	e.mu.Unlock() // a disk may take its time
	var err error
	if status.Meta, err = s.readMeta(e.created); err == nil {
		_, status.Terminal, err = s.readEnd(last)
	}
	if err == nil && !booked.none() {
		status.Booked, err = s.readSummary(booked)
	}
	if err != nil {
		return stream.Status{}, s.orMissing(e, err)
	}
	return status, nil
}

// orMissing is the error of a read from disk, or why there was nothing to read:
// the stream was evicted or deleted meanwhile.
func (s *Store) orMissing(e *entry, err error) error {
	if _, missing := s.find(e.id); missing != nil {
		return missing
	}
	return err
}

// reader is a cursor in the stream, in memory.
func (s *Store) reader(e *entry, after uint64) (stream.Reader, error) {
	e.changing.Lock()
	defer e.changing.Unlock()
	if e.deleted {
		return nil, &stream.GoneError{Owner: e.owner}
	}
	w, err := s.warmUp(e)
	if err != nil {
		return nil, s.orMissing(e, err)
	}
	return w.Open(after), nil
}
