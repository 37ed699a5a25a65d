// Package segment is the log on disk: all streams append to shared segment
// files of one directory, and what a reader has been shown survives a crash of
// the process, or of the machine when every write is synced.
//
// A stream's records form a chain, each with the position of the one before,
// so that the index in memory is one entry a stream. Running and recent streams
// are served from memory; an older one is read back when somebody opens it.
package segment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"

	"weir/internal/stream"
	"weir/internal/stream/live"
)

// Options of a Store.
type Options struct {
	// Dir is the directory, made when it is not there. One process at a time
	// has it.
	Dir string
	// Sync makes every write reach the disk before anybody sees it: then the
	// log survives a loss of power, else a crash of the process only.
	Sync bool
	// Retention is how long an ended stream is kept; 24 h when zero.
	Retention time.Duration
	// MaxBytes bounds what the directory takes. The oldest ended streams make
	// room; when only running ones are left, no stream can be created. Zero
	// means no bound.
	MaxBytes int64
	// MaxMemory bounds what streams take in memory, as MaxBytes does on disk:
	// ended ones are read back when they are asked for. Zero means no bound.
	MaxMemory int64
	// SegmentSize is of one file; 64 MiB, or an eighth of MaxBytes, when zero.
	SegmentSize int64
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Logger hears what is not any caller's error; nil for none.
	Logger *slog.Logger

	create func(path string) (file, error) // createFile when nil
}

func (o Options) withDefaults() Options {
	if o.Retention == 0 {
		o.Retention = 24 * time.Hour
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = 64 << 20
		if o.MaxBytes > 0 { // room is made a segment at a time
			o.SegmentSize = min(o.SegmentSize, max(o.MaxBytes/8, 1<<20))
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.create == nil {
		o.create = createFile
	}
	return o
}

// Store implements stream.Log.
type Store struct {
	dir       string
	retention time.Duration
	maxBytes  int64
	maxMemory int64
	now       func() time.Time
	logger    *slog.Logger
	lock      *flock.Flock
	recovery  Recovery // written by Open only

	shelf   *shelf
	journal *journal

	warmBytes atomic.Int64  // what the warm streams take, about
	sweeping  chan struct{} // one slot: there may be files to remove
	swept     chan struct{} // closed when the sweeper has ended
	closed    chan struct{} // closed by Close

	// mu is taken after an entry's changing and before its mu.
	mu      sync.Mutex
	streams map[string]*entry     // guarded by mu; by id
	claims  map[claim]string      // guarded by mu; → id
	owned   map[string][]*entry   // guarded by mu; by owner, oldest first
	ended   []*entry              // guarded by mu; in the order they ended
	cache   cache                 // guarded by mu; the ended streams that are warm
	graves  map[string]*tombstone // guarded by mu; by id
	buried  []*tombstone          // guarded by mu; the same, oldest id first
}

type claim struct{ owner, key string }

// Create implements stream.Store.
func (s *Store) Create(_ context.Context, meta stream.Meta) (stream.Writer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropExpired()
	if err := s.vacant(meta); err != nil {
		return nil, err
	}
	if err := s.makeRoom(); err != nil {
		return nil, err
	}
	e := &entry{id: meta.ID, owner: meta.Owner, key: meta.IdempotencyKey, warm: &warm{Log: live.New(), meta: meta}}
	c := commit{header: header{kind: kindCreate}, payload: appendMeta(nil, meta), span: &e.span}
	// Under mu: two creates can't both win an id or a key.
	if err := s.journal.commit(&c); err != nil {
		return nil, err
	}
	e.created = c.at
	s.insert(e)
	s.warmBytes.Add(e.warm.size())
	return &writer{store: s, entry: e, log: e.warm}, nil
}

// vacant says why a stream can't be created. The caller holds mu.
func (s *Store) vacant(meta stream.Meta) error {
	if s.streams[meta.ID] != nil || s.graves[meta.ID] != nil {
		return stream.ErrExists
	}
	if meta.IdempotencyKey == "" {
		return nil
	}
	by, err := s.claimed(claim{meta.Owner, meta.IdempotencyKey})
	if errors.Is(err, stream.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err // its stream was forgotten: a repeat must not run it again
	}
	status, err := s.status(by)
	if err != nil {
		return err
	}
	return &stream.ClaimedError{By: status}
}

// insert puts an entry into the index. The caller holds mu.
func (s *Store) insert(e *entry) {
	s.streams[e.id] = e
	if e.key != "" {
		s.claims[claim{e.owner, e.key}] = e.id
	}
	list := s.owned[e.owner]
	if len(list) > 0 {
		e.owner = list[0].owner // one copy of the name
	}
	at, _ := slices.BinarySearchFunc(list, e.id, byID)
	s.owned[e.owner] = slices.Insert(list, at, e)
}

func byID(e *entry, id string) int {
	switch {
	case e.id < id:
		return -1
	case e.id > id:
		return 1
	}
	return 0
}

// Open implements stream.Store.
func (s *Store) Open(_ context.Context, id string, after uint64) (stream.Reader, error) {
	e, err := s.find(id)
	if err != nil {
		return nil, err
	}
	return s.reader(e, after)
}

// Seal implements stream.Store.
func (s *Store) Seal(_ context.Context, id string, terminal stream.Event) error {
	e, err := s.find(id)
	if err != nil {
		return err
	}
	return s.end(e, terminal)
}

// Status implements stream.Catalog.
func (s *Store) Status(_ context.Context, id string) (stream.Status, error) {
	e, err := s.find(id)
	if err != nil {
		return stream.Status{}, err
	}
	return s.status(e)
}

// Claimed implements stream.Catalog.
func (s *Store) Claimed(_ context.Context, owner, key string) (stream.Status, error) {
	s.mu.Lock()
	e, err := s.claimed(claim{owner, key})
	s.mu.Unlock()
	if err != nil {
		return stream.Status{}, err
	}
	return s.status(e)
}

// List implements stream.Catalog.
func (s *Store) List(_ context.Context, owner, before string, limit int) ([]stream.Status, error) {
	var list []stream.Status
	for _, e := range s.page(owner, before, limit) {
		status, err := s.status(e)
		if err != nil {
			s.logger.Error("a stream is left out of a list", "stream", e.id, "err", err)
			continue
		}
		list = append(list, status)
	}
	return list, nil
}

func (s *Store) page(owner, before string, limit int) []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.owned[owner]
	if before != "" {
		at, _ := slices.BinarySearchFunc(all, before, byID)
		all = all[:at]
	}
	var page []*entry
	for _, e := range slices.Backward(all) {
		if len(page) == limit {
			break
		}
		if !e.expired(s.now(), s.retention) {
			page = append(page, e)
		}
	}
	return page
}

// find returns a stream that is there.
func (s *Store) find(id string) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.streams[id]; e != nil && !e.expired(s.now(), s.retention) {
		return e, nil
	}
	return nil, s.missing(id)
}

// missing says why there is no such stream. The caller holds mu.
func (s *Store) missing(id string) error {
	if g := s.graves[id]; g != nil {
		return &stream.GoneError{Owner: g.owner}
	}
	if e := s.streams[id]; e != nil { // expired, and not dropped yet
		return &stream.GoneError{Owner: e.owner}
	}
	if stream.Expired(id, s.now(), s.retention) {
		return &stream.GoneError{}
	}
	return stream.ErrNotFound
}

// claimed returns the holder of a claim. The caller holds mu.
func (s *Store) claimed(c claim) (*entry, error) {
	id, taken := s.claims[c]
	if !taken {
		return nil, stream.ErrNotFound
	}
	e := s.streams[id]
	if e == nil || e.expired(s.now(), s.retention) {
		return nil, s.missing(id)
	}
	if e.freedKey() {
		return nil, stream.ErrNotFound
	}
	return e, nil
}

func (e *entry) freedKey() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.failed
}

// Close ends the store. What runs is left as it is, and ends as interrupted
// when the directory is opened next. Whoever writes from now on gets an error.
func (s *Store) Close() error {
	close(s.closed)
	<-s.swept
	err := errors.Join(s.journal.close(), s.shelf.sweep(), s.shelf.close(), s.lock.Close())
	if err != nil {
		return fmt.Errorf("segment: close: %w", err)
	}
	return nil
}
