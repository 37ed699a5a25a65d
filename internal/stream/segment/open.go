package segment

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"weir/internal/stream"
)

// Recovery is what Open found, and did about it.
type Recovery struct {
	Streams     int      // kept
	Interrupted []string // ids of those that ran, and ended by this
	Lost        []string // ids of those that lost events to a damage, and ended by this
	Torn        int64    // bytes at the newest segment's end that a crash left unfinished, cut off
	Damages     []Damage // what can't be read
	Took        time.Duration
}

// Recovery tells what Open found.
func (s *Store) Recovery() Recovery { return s.recovery }

// Open opens a directory, and ends the streams that ran when its last process
// did. It returns an error when another process has it.
func Open(o Options) (*Store, error) {
	o = o.withDefaults()
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("segment: make the data directory: %w", err)
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	s := newStore(o, lock)
	if err := s.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("segment: open %s: %w", o.Dir, err), s.shelf.close(), lock.Close())
	}
	go s.sweep()
	return s, nil
}

func lockDir(dir string) (*flock.Flock, error) {
	lock := flock.New(filepath.Join(dir, "LOCK"), flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("segment: lock the data directory: %w", err)
	}
	if !locked {
		return nil, fmt.Errorf("segment: another process uses the data directory %s: stop it, or give this one a directory of its own", dir)
	}
	return lock, nil
}

// reservePart is the part of a segment that is kept for ends.
const reservePart = 64

func newStore(o Options, lock *flock.Flock) *Store {
	h := &shelf{dir: o.Dir, create: o.create, segments: map[uint32]*segmentFile{}}
	return &Store{
		dir: o.Dir, retention: o.Retention, maxBytes: o.MaxBytes, maxMemory: o.MaxMemory, now: o.Now,
		logger: o.Logger, lock: lock,
		shelf:    h,
		journal:  &journal{shelf: h, sync: o.Sync, segmentSize: o.SegmentSize, reserve: o.SegmentSize / reservePart, next: 1},
		sweeping: make(chan struct{}, 1), swept: make(chan struct{}), closed: make(chan struct{}),
		streams: map[string]*entry{}, claims: map[claim]string{}, owned: map[string][]*entry{},
		cache: newCache(), graves: map[string]*tombstone{},
	}
}

// recover reads the directory and puts it in order. What is left to do after
// the replay goes the ways of every day.
func (s *Store) recover() error {
	began := time.Now()
	r := newReplay()
	if err := r.dir(s.dir, s.openSegment); err != nil {
		return err
	}
	if err := s.resume(r); err != nil {
		return err
	}
	entries := s.adopt(r)
	if err := s.buryAgain(r.unburied()); err != nil {
		return err
	}
	if err := s.eraseBuried(r); err != nil {
		return err
	}
	if err := s.endRunning(entries); err != nil {
		return err
	}
	s.mu.Lock()
	slices.SortStableFunc(s.ended, func(a, b *entry) int { return a.ended.Compare(b.ended) })
	s.dropExpired()
	s.recovery.Streams = len(s.streams)
	s.mu.Unlock()
	s.shelf.dropAllUnused()
	s.recovery.Damages, s.recovery.Torn, s.recovery.Took = r.damages, r.torn, time.Since(began)
	return nil
}

// openSegment puts a segment on the shelf and returns its bytes.
func (s *Store) openSegment(number uint32) ([]byte, error) {
	path := segmentPath(s.dir, number)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	s.shelf.add(number, osFile{f}, int64(len(data)))
	return data, err
}

// resume cuts off what a crash left unfinished at the end of the newest
// segment, and has the journal go on there.
func (s *Store) resume(r *replay) error {
	if r.newest == 0 {
		return nil
	}
	g := s.shelf.segments[r.newest]
	if r.torn > 0 {
		if err := g.file.Truncate(g.size - r.torn); err != nil {
			return fmt.Errorf("cut the unfinished end of %s: %w", g.path, err)
		}
		s.shelf.grew(g, g.size-r.torn)
	}
	return s.journal.resume(g)
}

// adopt makes the replay's streams and graves the store's. The graves come
// first: a key that both have is the living stream's.
func (s *Store) adopt(r *replay) []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range r.graves {
		s.shelf.adopt(&g.span)
		if old := s.graves[g.id]; old != nil {
			s.replaceGrave(old, g) // it was written anew, before its old segment went
			s.shelf.release(&old.span)
		} else {
			s.bury(g)
		}
		if g.key != "" {
			s.claims[claim{g.owner, g.key}] = g.id
		}
	}
	var entries []*entry
	for _, st := range r.living() {
		e := &entry{
			id: st.id, owner: st.owner, key: st.key, created: st.created, span: st.span, lost: st.lost,
			failed: failedBeforeToken(st.end, st.lastSeq), last: st.last, lastSeq: st.lastSeq, ended: st.ended, booked: st.booked,
		}
		s.shelf.adopt(&e.span)
		s.insert(e)
		if !e.ended.IsZero() {
			s.ended = append(s.ended, e)
		}
		entries = append(entries, e)
	}
	return entries
}

// buryAgain writes the tombstones that were damaged.
func (s *Store) buryAgain(graves []*tombstone) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.commitGraves(graves); err != nil {
		return fmt.Errorf("write tombstones: %w", err)
	}
	for _, g := range graves {
		s.bury(g)
		if g.key != "" && s.claims[claim{g.owner, g.key}] == "" {
			s.claims[claim{g.owner, g.key}] = g.id
		}
	}
	return nil
}

// eraseBuried goes on with the erasing that a crash cut short.
func (s *Store) eraseBuried(r *replay) error {
	deleted := map[position]bool{}
	for _, g := range r.graves {
		deleted[g.created] = g.kind == kindDeleted
	}
	for _, st := range r.order {
		if !st.content || !deleted[st.created] && !st.erased {
			continue
		}
		if err := s.erase(&entry{id: st.id, created: st.created, span: st.span, last: st.last, lost: st.lost}); err != nil {
			return err
		}
	}
	return nil
}

// atOnce is how many streams a recovery ends at the same time, with one write.
const atOnce = 64

// endRunning seals what no process generates any more, as it is done every day
// but that the event says it is a recovery's.
func (s *Store) endRunning(entries []*entry) error {
	running := slices.DeleteFunc(entries, func(e *entry) bool { return !e.running() })
	for group := range slices.Chunk(running, atOnce) {
		failed := make([]error, len(group))
		var all sync.WaitGroup
		for i, e := range group {
			all.Go(func() { failed[i] = s.endInterrupted(e) })
		}
		all.Wait()
		if err := errors.Join(failed...); err != nil {
			return fmt.Errorf("end interrupted streams: %w", err)
		}
		for _, e := range group {
			if e.lost {
				s.recovery.Lost = append(s.recovery.Lost, e.id)
			} else {
				s.recovery.Interrupted = append(s.recovery.Interrupted, e.id)
			}
		}
	}
	return nil
}

func (s *Store) endInterrupted(e *entry) error {
	e.changing.Lock()
	_, err := s.warmUp(e)
	e.changing.Unlock()
	if err != nil {
		return err
	}
	why := stream.Interrupted()
	if e.lost {
		why = stream.LogDamaged()
	}
	terminal := why.Event(stream.Summary{})
	terminal.Recovery = 1
	return s.end(e, terminal)
}
