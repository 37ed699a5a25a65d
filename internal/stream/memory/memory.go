// Package memory is the log in this process's memory: the fastest store, and
// one that a crash or a restart empties.
package memory

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weir/internal/stream"
	"weir/internal/stream/live"
)

// Options of a Store. The zero value keeps everything for 24 hours.
type Options struct {
	// Retention is how long an ended stream is kept; 24 h when zero.
	Retention time.Duration
	// MaxBytes bounds what all streams take. The oldest ended ones make
	// room; when only running ones are left, no stream can be created. Zero
	// means no bound.
	MaxBytes int64
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Store implements stream.Log. It owns no goroutine: what has expired is
// swept by whoever creates the next stream.
type Store struct {
	retention time.Duration
	maxBytes  int64
	now       func() time.Time

	mu      sync.Mutex
	logs    map[string]*log     // guarded by mu
	claims  map[claim]string    // guarded by mu; → stream id
	owned   map[string][]string // guarded by mu; owner → ids of logs, oldest first
	ended   []*log              // guarded by mu; in the order they ended
	gone    map[string]*goneLog // guarded by mu; forgotten before they expired
	goneIDs []string            // guarded by mu; the keys of gone, oldest first

	bytes atomic.Int64 // what every log takes, about
}

type claim struct{ owner, key string }

// logOverhead is what a stream takes besides its events, about.
const logOverhead = 1 << 10

// maxGone bounds the memory of forgotten streams: of one more, only the age of
// its id will tell.
const maxGone = 100_000

// goneLog is what is kept of a forgotten stream until its id is old enough to
// tell by itself.
type goneLog struct {
	owner string
	claim claim
}

// New returns an empty store.
func New(o Options) *Store {
	if o.Retention == 0 {
		o.Retention = 24 * time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Store{
		retention: o.Retention, maxBytes: o.MaxBytes, now: o.Now,
		logs: map[string]*log{}, claims: map[claim]string{}, owned: map[string][]string{}, gone: map[string]*goneLog{},
	}
}

// Create implements stream.Store.
func (s *Store) Create(_ context.Context, meta stream.Meta) (stream.Writer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropExpired()
	if s.logs[meta.ID] != nil || s.gone[meta.ID] != nil {
		return nil, stream.ErrExists
	}
	c := claim{meta.Owner, meta.IdempotencyKey}
	if c.key != "" {
		status, err := s.claimed(c)
		switch {
		case err == nil:
			return nil, &stream.ClaimedError{By: status}
		case !errors.Is(err, stream.ErrNotFound):
			return nil, err // its stream was forgotten: a repeat must not run it again
		}
	}
	if !s.makeRoom() {
		return nil, stream.ErrFull
	}
	l := &log{Log: live.New(), meta: meta, store: s}
	s.bytes.Add(logOverhead)
	s.logs[meta.ID] = l
	if c.key != "" {
		s.claims[c] = meta.ID
	}
	ids := s.owned[meta.Owner]
	at, _ := slices.BinarySearch(ids, meta.ID)
	s.owned[meta.Owner] = slices.Insert(ids, at, meta.ID)
	return writer{l}, nil
}

// Open implements stream.Store.
func (s *Store) Open(_ context.Context, id string, after uint64) (stream.Reader, error) {
	l, err := s.find(id)
	if err != nil {
		return nil, err
	}
	return l.Log.Open(after), nil
}

// Seal implements stream.Store.
func (s *Store) Seal(_ context.Context, id string, terminal stream.Event) error {
	l, err := s.find(id)
	if err != nil {
		return err
	}
	if err := l.seal(terminal, s.now()); err != nil {
		return err
	}
	s.mu.Lock()
	s.ended = append(s.ended, l)
	s.mu.Unlock()
	return nil
}

// Status implements stream.Catalog.
func (s *Store) Status(_ context.Context, id string) (stream.Status, error) {
	l, err := s.find(id)
	if err != nil {
		return stream.Status{}, err
	}
	return l.status(), nil
}

// Claimed implements stream.Catalog.
func (s *Store) Claimed(_ context.Context, owner, key string) (stream.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claimed(claim{owner, key})
}

// List implements stream.Catalog.
func (s *Store) List(_ context.Context, owner, before string, limit int) ([]stream.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := s.owned[owner]
	if before != "" {
		at, _ := slices.BinarySearch(ids, before)
		ids = ids[:at]
	}
	var list []stream.Status
	for i := len(ids) - 1; i >= 0 && len(list) < limit; i-- {
		if l := s.logs[ids[i]]; !l.expired(s.now(), s.retention) {
			list = append(list, l.status())
		}
	}
	return list, nil
}

// Delete implements stream.Catalog.
func (s *Store) Delete(_ context.Context, id string) error {
	l, err := s.find(id)
	if err != nil {
		return err
	}
	if l.status().Running() {
		return stream.ErrRunning
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.logs[id] == l {
		s.forget(l)
	}
	return nil
}

// find returns a log that is there.
func (s *Store) find(id string) (*log, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.logs[id]; l != nil && !l.expired(s.now(), s.retention) {
		return l, nil
	}
	return nil, s.missing(id)
}

// missing says why there is no such log. The caller holds mu.
func (s *Store) missing(id string) error {
	if g := s.gone[id]; g != nil {
		return &stream.GoneError{Owner: g.owner}
	}
	if l := s.logs[id]; l != nil { // expired, and not swept yet
		return &stream.GoneError{Owner: l.meta.Owner}
	}
	if stream.Expired(id, s.now(), s.retention) {
		return &stream.GoneError{}
	}
	return stream.ErrNotFound
}

// claimed returns the holder of a claim. The caller holds mu.
func (s *Store) claimed(c claim) (stream.Status, error) {
	id, taken := s.claims[c]
	if !taken {
		return stream.Status{}, stream.ErrNotFound
	}
	if l := s.logs[id]; l != nil && !l.expired(s.now(), s.retention) {
		status := l.status()
		if status.FailedBeforeToken() {
			return stream.Status{}, stream.ErrNotFound
		}
		return status, nil
	}
	return stream.Status{}, s.missing(id)
}
