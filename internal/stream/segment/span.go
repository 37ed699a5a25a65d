package segment

import "slices"

// span is where the records of a stream lie, or of a tombstone: the segments
// that are kept for it. The shelf's mu guards it; only who has the journal's
// turn stretches it.
type span struct {
	numbers  []uint32 // of the segments, in order
	running  bool     // it may get more records
	grave    bool     // it is a tombstone's
	released bool     // a straggler can't hold a segment any more
}

// in reports whether the newest record lies in the segment. For who has the
// journal's turn.
func (p *span) in(number uint32) bool {
	return len(p.numbers) > 0 && p.numbers[len(p.numbers)-1] == number
}

// note adds a segment in which a record was found.
func (p *span) note(number uint32) {
	if !p.in(number) {
		p.numbers = append(p.numbers, number)
	}
}

// stretch makes the span reach into a segment.
func (s *shelf) stretch(p *span, number uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !p.released {
		p.note(number)
		s.count(p, p.numbers[len(p.numbers)-1:], 1)
	}
}

// adopt counts a span in that was read from the segments.
func (s *shelf) adopt(p *span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(p, p.numbers, 1)
}

// ended notes that the span's stream runs no more.
func (s *shelf) ended(p *span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !p.running || p.released {
		return
	}
	p.running = false
	for _, n := range p.numbers {
		if g := s.segments[n]; g != nil {
			g.running--
		}
	}
}

// release gives a span back. Segments that nobody needs then leave the shelf.
func (s *shelf) release(p *span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !p.released {
		s.count(p, p.numbers, -1)
	}
	p.released = true
}

// exchange gives a span the segments of another, and that one its.
func (s *shelf) exchange(p, with *span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.numbers, with.numbers = with.numbers, p.numbers
}

// over reports whether the span has a record in the segment.
func (s *shelf) over(p *span, number uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !p.released && slices.Contains(p.numbers, number)
}

// numbers returns the span's segments.
func (s *shelf) numbers(p *span) []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(p.numbers)
}

// count counts a span in its segments. The caller holds mu.
func (s *shelf) count(p *span, numbers []uint32, by int) {
	for _, n := range numbers {
		g := s.segments[n]
		if g == nil {
			continue // lost
		}
		g.refs += by
		if p.grave {
			g.graves += by
		}
		if p.running {
			g.running += by
		}
		s.dropUnused(g)
	}
}

// dropUnused takes a segment off the shelf that nobody needs. The caller holds mu.
func (s *shelf) dropUnused(g *segmentFile) {
	if g.refs > 0 || !s.settled {
		return
	}
	delete(s.segments, g.number)
	s.bytes -= g.size
	g.file.Close()
	s.unlinked = append(s.unlinked, g.path)
}

// settle ends the counting in of what was read: what nobody needs goes.
func (s *shelf) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled = true
	for _, g := range s.segments {
		s.dropUnused(g)
	}
}

// graveyard returns the number of a segment that only tombstones keep, and
// zero when there is none.
func (s *shelf) graveyard() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, g := range s.segments {
		if g.refs == g.graves {
			return n
		}
	}
	return 0
}

// pinned is how many bytes can't be had by forgetting what has ended.
func (s *shelf) pinned() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var bytes int64
	for _, g := range s.segments {
		if g.running > 0 || g.held > 0 {
			bytes += g.size
		}
	}
	return bytes
}
