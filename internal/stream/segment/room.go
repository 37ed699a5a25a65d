package segment

import (
	"fmt"
	"slices"

	"weir/internal/stream"
)

// makeRoom sees to it that a stream may be created: while the directory is too
// large, the streams that ended first are evicted. The caller holds mu.
func (s *Store) makeRoom() error {
	if s.memoryFull() {
		return fmt.Errorf("segment: running streams take all the memory they may: %w", stream.ErrFull)
	}
	if s.maxBytes == 0 || s.shelf.size() < s.maxBytes {
		return nil
	}
	if s.shelf.pinned() >= s.maxBytes {
		// Whatever is evicted, it would be in vain.
		return fmt.Errorf("segment: running streams take all the disk they may: %w", stream.ErrFull)
	}
	for s.shelf.size() >= s.maxBytes {
		if err := s.makeSomeRoom(); err != nil {
			return fmt.Errorf("segment: make room: %w", err)
		}
	}
	s.sweepSoon()
	return nil
}

// evictAtOnce is how many streams make room with one write.
const evictAtOnce = 32

// makeSomeRoom goes a step towards a smaller directory, or fails. The caller
// holds mu.
func (s *Store) makeSomeRoom() error {
	if yard := s.shelf.graveyard(); yard != 0 {
		before := s.shelf.size()
		if err := s.moveGraves(yard); err != nil {
			return err
		}
		if s.shelf.size() < before {
			return nil
		}
	}
	if len(s.ended) == 0 {
		return stream.ErrFull
	}
	return s.evict(s.ended[:min(len(s.ended), evictAtOnce)])
}

// evict forgets ended streams before their time. The caller holds mu.
func (s *Store) evict(entries []*entry) error {
	entries = slices.Clone(entries) // forget takes them out of s.ended
	graves := make([]*tombstone, len(entries))
	for i, e := range entries {
		graves[i] = newTombstone(e, kindEvicted)
	}
	if err := s.commitGraves(graves); err != nil {
		return err
	}
	for i, e := range entries {
		s.forget(e)
		s.bury(graves[i])
		s.leave(e)
	}
	return nil
}

// moveGraves writes a segment's tombstones anew, into the newest one. The
// caller holds mu.
func (s *Store) moveGraves(from uint32) error {
	var old, moved []*tombstone
	for _, g := range s.buried {
		if s.shelf.over(&g.span, from) {
			again := &tombstone{grave: g.grave, kind: g.kind, created: g.created, span: span{grave: true}}
			old, moved = append(old, g), append(moved, again)
		}
	}
	if err := s.commitGraves(moved); err != nil {
		return err
	}
	for i, g := range old {
		s.shelf.exchange(&g.span, &moved[i].span)
		s.shelf.release(&moved[i].span)
	}
	return nil
}

// commitGraves writes tombstones in one go. An error says that some may not be
// written; those that are do no harm.
func (s *Store) commitGraves(graves []*tombstone) error {
	commits := make([]*commit, len(graves))
	for i, g := range graves {
		commits[i] = g.commit()
	}
	s.journal.commitAll(commits)
	for _, c := range commits {
		if c.err != nil {
			for _, g := range graves {
				s.shelf.release(&g.span)
			}
			return c.err
		}
	}
	return nil
}
