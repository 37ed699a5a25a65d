// Package segment is the log on disk: all streams append to shared segment
// files of one directory, and what a reader has been shown survives a crash of
// the process, or of the machine when every write is synced.
//
// A stream's records form a chain, each with the position of the one before,
// so that the index in memory is one entry a stream. Running and recent streams
// are served from memory; an older one is read back when somebody opens it.
package segment

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
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

	files files // the operating system's when nil
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
	if o.files == nil {
		o.files = disk{}
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
	closing   sync.Once

	mu         sync.Mutex
	streams    map[string]*entry     // guarded by mu; by id
	claims     map[claim]string      // guarded by mu; → id
	owned      map[string][]*entry   // guarded by mu; by owner, oldest first
	ended      []*entry              // guarded by mu; in the order they ended
	cache      cache                 // guarded by mu; the ended streams that are warm
	graves     map[string]*tombstone // guarded by mu; by id
	buried     []*tombstone          // guarded by mu; the same, oldest id first
	graveBytes int64                 // guarded by mu; what their records take
	unended    []*entry              // Open's, then the sweeper's; interrupted ones, for whose end there was no room yet
	unerased   []*entry              // guarded by mu; deleted ones that could not be erased yet
	damaged    map[uint32]bool       // written by Open only; segments that are damaged somewhere
}

type claim struct{ owner, key string }

// Create implements stream.Store.
func (s *Store) Create(ctx context.Context, meta stream.Meta) (stream.Writer, error) {
	e := &entry{
		id: meta.ID, owner: meta.Owner, key: meta.IdempotencyKey, span: span{running: true},
		warm: &warm{Log: live.New(), meta: meta}, ready: make(chan struct{}), pending: true,
	}
	if err := s.reserve(ctx, e); err != nil {
		return nil, err
	}
	// Not under mu: with every write synced, creates share the syncs.
	c := commit{header: header{kind: kindCreate}, payload: appendMeta(nil, meta), span: &e.span}
	err := s.journal.commit(&c)
	s.mu.Lock()
	defer s.mu.Unlock()
	e.pending = false
	close(e.ready)
	if err != nil {
		delete(s.streams, e.id)
		s.freeKey(e.owner, e.key, e.id)
		return nil, err
	}
	e.created = c.at
	s.insert(e)
	s.warmBytes.Add(e.warm.size())
	s.journal.running.Add(1)
	return &writer{store: s, entry: e, log: e.warm}, nil
}

// reserve takes the id and the key for a stream that is about to be created, or
// says why it can't be: two creates can't both win one.
func (s *Store) reserve(ctx context.Context, e *entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropExpired()
	for {
		holder, err := s.vacant(e)
		if err != nil {
			return err
		}
		if holder == nil {
			break
		}
		s.mu.Unlock()
		err = s.yieldTo(ctx, holder)
		s.mu.Lock()
		if err != nil {
			return err
		}
	}
	if err := s.makeRoom(); err != nil {
		return err
	}
	s.streams[e.id] = e
	if e.key != "" {
		s.claims[claim{e.owner, e.key}] = e.id
	}
	return nil
}

// vacant returns who holds the entry's key, if anybody does, or else why the
// stream can't be created. The caller holds mu.
func (s *Store) vacant(e *entry) (holder *entry, err error) {
	if s.streams[e.id] != nil || s.graves[e.id] != nil {
		return nil, stream.ErrExists
	}
	if e.key == "" {
		return nil, nil
	}
	holder, err = s.claimed(claim{e.owner, e.key})
	if errors.Is(err, stream.ErrNotFound) {
		return nil, nil
	}
	return holder, err // one that was forgotten is an error: a repeat must not run it again
}

// yieldTo says that a key is the holder's. Nil says that its own create is over
// by now, whatever became of it.
func (s *Store) yieldTo(ctx context.Context, holder *entry) error {
	s.mu.Lock()
	pending := holder.pending
	s.mu.Unlock()
	if pending {
		select {
		case <-holder.ready:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("segment: %w: %w", stream.ErrUnavailable, context.Cause(ctx))
		}
	}
	status, err := s.status(holder)
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

func byID(e *entry, id string) int { return strings.Compare(e.id, id) }

func byEnd(a, b *entry) int {
	return cmp.Or(a.endTime().Compare(b.endTime()), strings.Compare(a.id, b.id))
}

// addEnded puts a stream among the ended ones. The caller holds mu.
func (s *Store) addEnded(e *entry) {
	at, _ := slices.BinarySearchFunc(s.ended, e, byEnd)
	s.ended = slices.Insert(s.ended, at, e) // at the end, but for a clock that was ahead
}

func (s *Store) removeEnded(e *entry) {
	i := slices.Index(s.ended, e)
	if i == 0 { // the usual case
		s.ended[0] = nil
		s.ended = s.ended[1:]
	} else if i > 0 {
		s.ended = slices.Delete(s.ended, i, i+1)
	}
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
	if err == nil && e.pending {
		err = stream.ErrNotFound
	}
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
		if errors.Is(err, stream.ErrGone) {
			continue // a moment ago
		}
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
	if e := s.streams[id]; e != nil && !e.pending && !e.expired(s.now(), s.retention) {
		return e, nil
	}
	return nil, s.missing(id)
}

// missing says why there is no such stream. The caller holds mu.
func (s *Store) missing(id string) error {
	if g := s.graves[id]; g != nil {
		return &stream.GoneError{Owner: g.owner}
	}
	if e := s.streams[id]; e != nil && !e.pending { // expired, and not dropped yet
		return &stream.GoneError{Owner: e.owner}
	}
	if stream.Expired(id, s.now(), s.retention) {
		return &stream.GoneError{}
	}
	return stream.ErrNotFound
}

// claimed returns the holder of a claim, which may be pending. The caller holds mu.
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
func (s *Store) Close() (err error) {
	s.closing.Do(func() {
		close(s.closed)
		<-s.swept
		err = errors.Join(s.journal.close(), s.shelf.sweep(), s.shelf.close(), s.lock.Close())
	})
	if err != nil {
		return fmt.Errorf("segment: close: %w", err)
	}
	return nil
}
