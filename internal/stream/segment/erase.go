package segment

import (
	"context"
	"errors"
	"fmt"

	"weir/internal/stream"
)

// Delete implements stream.Catalog. The payloads of the stream's records are
// overwritten in place; what a file system or a disk keeps of old blocks is
// beyond it.
func (s *Store) Delete(_ context.Context, id string) error {
	e, err := s.find(id)
	if err != nil {
		return err
	}
	return s.delete(e)
}

func (s *Store) delete(e *entry) error {
	e.changing.Lock()
	defer e.changing.Unlock()
	if e.running() {
		return stream.ErrRunning
	}
	if err := s.claimEnded(e); err != nil {
		return err
	}
	g := newTombstone(e, kindDeleted)
	// The tombstone first: when a crash cuts the erasing short, the next
	// opening goes on with it.
	err := s.journal.commit(g.commit())
	s.mu.Lock()
	if err != nil {
		s.addEnded(e)
		s.mu.Unlock()
		return err
	}
	s.forget(e)
	s.bury(g)
	s.mu.Unlock()
	e.deleted = true
	if err := s.erase(e); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.unerased = append(s.unerased, e)
		return err
	}
	s.shelf.release(&e.span)
	s.sweepSoon()
	return nil
}

// claimEnded takes an ended stream out of the reach of eviction and expiry.
func (s *Store) claimEnded(e *entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[e.id] != e {
		return s.missing(e.id)
	}
	s.removeEnded(e)
	return nil
}

// erase overwrites the payloads of a stream's records, the newest first. Each
// stays a record, so that the chain leads on from where a crash cut it short,
// and the one with which the stream began comes last.
func (s *Store) erase(e *entry) error {
	_, last, _ := e.current()
	err := s.chain(last, s.eraseRecord)
	if e.hit || errors.Is(err, errDamaged) || s.hasDamage(e) {
		// The chain misses what stands behind a damage, or in one.
		err = s.eraseByScan(e)
	}
	if err == nil && !e.booked.none() {
		err = s.eraseAt(e.booked)
	}
	if err == nil {
		err = s.eraseAt(e.created)
	}
	if err == nil && s.journal.sync {
		err = s.shelf.sync(s.shelf.numbers(&e.span))
	}
	if err != nil {
		return fmt.Errorf("segment: erase %s: %w", e.id, err)
	}
	return nil
}

func (s *Store) hasDamage(e *entry) bool {
	for _, n := range s.shelf.numbers(&e.span) {
		if s.damaged[n] {
			return true
		}
	}
	return false
}

// eraseLeftOver tries again what failed.
func (s *Store) eraseLeftOver() {
	s.mu.Lock()
	entries := s.unerased
	s.unerased = nil
	s.mu.Unlock()
	for _, e := range entries {
		if err := s.erase(e); err != nil {
			s.logger.Error("a deleted stream is not erased yet", "stream", e.id, "err", err)
			s.mu.Lock()
			s.unerased = append(s.unerased, e)
			s.mu.Unlock()
			continue
		}
		s.shelf.release(&e.span)
	}
}

func (s *Store) eraseAt(at position) error {
	b := block{shelf: s.shelf, size: recordBlock}
	defer b.close()
	r, err := b.record(at)
	if errors.Is(err, errDamaged) {
		return nil // it can't be read by anybody
	}
	if err != nil {
		return err
	}
	return s.eraseRecord(r)
}

func (s *Store) eraseRecord(r record) error {
	if r.kind == kindErased {
		return nil
	}
	blank := make([]byte, headerSize+r.length)
	if r.kind == kindCreate || r.kind == kindForgotten {
		r.kind = kindForgotten
	} else {
		r.kind = kindErased
	}
	r.sum = checksum(blank[headerSize:])
	putHeader(blank, r.header, r.at)
	return s.overwrite(r.at, blank)
}

func (s *Store) overwrite(at position, data []byte) error {
	f, release, err := s.shelf.file(at.segment)
	if err != nil {
		return err
	}
	defer release()
	_, err = f.WriteAt(data, int64(at.offset))
	return err
}

// eraseByScan looks for the stream's records everywhere in its segments. What is
// damaged there, so that nobody can read it or tell whose it is, goes with them.
func (s *Store) eraseByScan(e *entry) error {
	var failed []error
	for _, n := range s.shelf.numbers(&e.span) {
		data, err := s.shelf.read(n)
		if errors.Is(err, errNoSegment) {
			continue
		}
		if err != nil {
			return err
		}
		found := scan(n, data, func(r record) {
			if r.stream == e.created && (r.kind == kindEvents || r.kind == kindEnd) {
				failed = append(failed, s.eraseRecord(r))
			}
		})
		for _, d := range found.damages {
			at := position{n, uint32(d.Offset)}
			if h, ok := parseHeader(data[d.Offset:], at); ok && h.stream == e.created {
				failed = append(failed, s.eraseRecord(record{header: h, at: at}))
			} else if !ok && d.Offset >= segmentHeaderSize {
				failed = append(failed, s.overwrite(at, make([]byte, d.Length)))
			}
		}
	}
	return errors.Join(failed...)
}
