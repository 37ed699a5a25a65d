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
	Interrupted []string // ids of those that ran, and end by this
	Damaged     []string // ids of those that lost events to a damage, and end by this
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
	if err := s.putInOrder(); err != nil {
		return nil, errors.Join(fmt.Errorf("segment: open %s: %w", o.Dir, err), s.shelf.close(), lock.Close())
	}
	go s.sweep()
	return s, nil
}

const lockName = "LOCK"

func lockDir(dir string) (*flock.Flock, error) {
	lock := flock.New(filepath.Join(dir, lockName), flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("segment: lock the data directory: %w", err)
	}
	if !locked {
		return nil, fmt.Errorf("segment: another process uses the data directory %s: stop it, or give this one a directory of its own", dir)
	}
	return lock, nil
}

func newStore(o Options, lock *flock.Flock) *Store {
	h := &shelf{dir: o.Dir, files: o.files, segments: map[uint32]*segmentFile{}}
	return &Store{
		dir: o.Dir, retention: o.Retention, maxBytes: o.MaxBytes, maxMemory: o.MaxMemory, now: o.Now,
		logger: o.Logger, lock: lock,
		shelf:    h,
		journal:  &journal{shelf: h, logger: o.Logger, sync: o.Sync, segmentSize: o.SegmentSize, next: 1},
		sweeping: make(chan struct{}, 1), swept: make(chan struct{}), closed: make(chan struct{}),
		streams: map[string]*entry{}, claims: map[claim]string{}, owned: map[string][]*entry{},
		cache: newCache(), graves: map[string]*tombstone{}, damaged: map[uint32]bool{},
	}
}

// putInOrder reads the directory. What is to be done after the replay goes the
// ways of every day, and what frees room comes before what takes some.
func (s *Store) putInOrder() error {
	began := time.Now()
	r := newReplay()
	if err := r.dir(s.dir, s.shelf.open); err != nil {
		return err
	}
	if err := s.resume(r); err != nil {
		return err
	}
	running := s.adopt(r)
	s.eraseBuried(r)
	s.mu.Lock()
	s.dropExpired()
	s.recovery.Streams = len(s.streams)
	s.mu.Unlock()
	s.shelf.settle()
	if err := s.shelf.sweep(); err != nil {
		return fmt.Errorf("remove what has expired: %w", err)
	}
	if err := s.buryAgain(r.unburied()); err != nil {
		return err
	}
	if err := s.endAll(running); err != nil {
		return err
	}
	s.recovery.Damages, s.recovery.Torn, s.recovery.Took = r.damages, r.torn, time.Since(began)
	return nil
}

// resume cuts off what a crash left unfinished at the end of the newest
// segment, and has the journal go on there. What is not ours is left alone.
func (s *Store) resume(r *replay) error {
	for _, n := range r.foreign {
		s.shelf.hold(s.shelf.segments[n])
	}
	for _, d := range r.damages {
		s.damaged[d.Segment] = true
	}
	s.journal.next = r.newest + 1
	g := s.shelf.segments[r.newest]
	if g == nil || slices.Contains(r.foreign, r.newest) {
		return nil
	}
	if r.torn > 0 {
		if err := g.file.Truncate(g.size - r.torn); err != nil {
			return fmt.Errorf("cut the unfinished end of %s: %w", g.path, err)
		}
		s.shelf.grew(g, g.size-r.torn)
	}
	if s.journal.sync {
		// A reader may be shown what the last process wrote, and did not sync.
		if err := errors.Join(s.shelf.sync(r.numbers), syncDir(s.dir), syncDir(filepath.Dir(s.dir))); err != nil {
			return fmt.Errorf("sync: %w", err)
		}
	}
	return s.journal.resume(g)
}

// adopt makes the replay's streams and graves the store's, and returns those
// that ran. The graves come first: a key that both have is the living stream's.
func (s *Store) adopt(r *replay) (running []*entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range r.graves {
		s.shelf.adopt(&g.span)
		if old := s.graves[g.id]; old != nil {
			s.shelf.exchange(&old.span, &g.span) // it was written again, for its segment to go
			s.shelf.release(&g.span)
			continue
		}
		s.bury(g)
		if g.key != "" {
			s.claims[claim{g.owner, g.key}] = g.id
		}
	}
	for _, st := range r.living() {
		e := &entry{
			id: st.id, owner: st.owner, key: st.key, created: st.created, span: st.span, hit: st.hit,
			last: st.last, lastSeq: st.lastSeq, ended: st.ended, failed: st.failed, booked: st.booked,
		}
		if e.span.running = e.ended.IsZero(); e.span.running {
			e.booked = position{} // of an end that is lost
			s.journal.running.Add(1)
			running = append(running, e)
		} else {
			s.ended = append(s.ended, e)
		}
		s.shelf.adopt(&e.span)
		s.insert(e)
	}
	slices.SortStableFunc(s.ended, byEnd)
	return running
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
func (s *Store) eraseBuried(r *replay) {
	deleted := map[position]bool{}
	for _, g := range r.graves {
		deleted[g.created] = g.kind == kindDeleted
	}
	for _, st := range r.order {
		if !deleted[st.created] && !st.erased {
			continue
		}
		e := &entry{id: st.id, created: st.created, span: st.span, last: st.last, booked: st.booked, hit: st.hit}
		e.span.released = true // it holds nothing
		if err := s.erase(e); err != nil {
			s.logger.Error("a deleted stream is not erased yet", "stream", e.id, "err", err)
			s.unerased = append(s.unerased, e)
		}
	}
}

// atOnce is how many streams a recovery ends at the same time, with one write.
const atOnce = 64

// endAll seals what no process generates any more, as it is done every day but
// that the event says it is a recovery's. Streams for whose end there is no
// room stay without one, until there is.
func (s *Store) endAll(running []*entry) error {
	for group := range slices.Chunk(running, atOnce) {
		failed := make([]error, len(group))
		var all sync.WaitGroup
		for i, e := range group {
			all.Go(func() { failed[i] = s.endInterrupted(e) })
		}
		all.Wait()
		for i, e := range group {
			switch err := failed[i]; {
			case errors.Is(err, errDamaged):
				s.giveUp(e, err)
			case errors.Is(err, stream.ErrFull):
				s.unended = append(s.unended, e)
			case err != nil:
				return fmt.Errorf("end interrupted streams: %w", err)
			}
			if e.hit {
				s.recovery.Damaged = append(s.recovery.Damaged, e.id)
			} else {
				s.recovery.Interrupted = append(s.recovery.Interrupted, e.id)
			}
		}
	}
	return nil
}

// endLeftOver ends interrupted streams for which there was no room at first.
func (s *Store) endLeftOver() {
	for len(s.unended) > 0 {
		err := s.endInterrupted(s.unended[0])
		if errors.Is(err, stream.ErrFull) || errors.Is(err, stream.ErrUnavailable) {
			return
		}
		if err != nil && !errors.Is(err, stream.ErrSealed) { // somebody cancelled it
			s.giveUp(s.unended[0], err)
		}
		s.unended = s.unended[1:]
	}
}

// giveUp forgets a stream that can't be read, though it could a moment ago.
func (s *Store) giveUp(e *entry, err error) {
	s.logger.Error("a stream can't be read any more", "stream", e.id, "err", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(e)
	s.freeKey(e.owner, e.key, e.id)
	s.journal.running.Add(-1)
	s.leave(e)
}

func (s *Store) endInterrupted(e *entry) error {
	e.changing.Lock()
	_, err := s.warmUp(e)
	e.changing.Unlock()
	if err != nil {
		return err
	}
	why := stream.Interrupted()
	if e.hit {
		why = stream.LogDamaged()
	}
	terminal := why.Event(stream.Summary{})
	terminal.Recovery = 1
	return s.end(e, terminal)
}
