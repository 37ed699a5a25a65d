package memory

import (
	"slices"

	"weir/internal/stream"
)

// dropExpired forgets what is past its retention. The caller holds mu.
func (s *Store) dropExpired() {
	now := s.now()
	for len(s.ended) > 0 && s.ended[0].expired(now, s.retention) {
		s.dropOldest()
	}
	for len(s.goneIDs) > 0 && (len(s.goneIDs) > maxGone || stream.Expired(s.goneIDs[0], now, s.retention)) {
		id := s.goneIDs[0]
		if c := s.gone[id].claim; c.key != "" && s.claims[c] == id {
			delete(s.claims, c)
		}
		delete(s.gone, id)
		s.goneIDs = s.goneIDs[1:]
	}
}

// makeRoom forgets the oldest ended streams while the store holds more than it
// may, and reports whether there is room then. The caller holds mu.
func (s *Store) makeRoom() bool {
	for s.maxBytes > 0 && s.bytes.Load() >= s.maxBytes {
		if len(s.ended) == 0 {
			return false
		}
		s.dropOldest()
	}
	return true
}

// dropOldest forgets the stream that ended first. The caller holds mu.
func (s *Store) dropOldest() {
	oldest := s.ended[0]
	if s.logs[oldest.meta.ID] == oldest {
		s.forget(oldest)
	} else {
		s.ended = s.ended[1:] // deleted meanwhile
	}
}

// forget drops an ended log. Readers that have it open keep it alive until
// they are through. The caller holds mu.
func (s *Store) forget(l *log) {
	id, owner := l.meta.ID, l.meta.Owner
	delete(s.logs, id)
	s.bytes.Add(-l.size())
	if i := slices.Index(s.ended, l); i == 0 {
		s.ended[0] = nil
		s.ended = s.ended[1:]
	} else if i > 0 {
		s.ended = slices.Delete(s.ended, i, i+1)
	}
	if ids := s.owned[owner]; len(ids) == 1 {
		delete(s.owned, owner)
	} else if at, found := slices.BinarySearch(ids, id); found && at == 0 {
		s.owned[owner] = ids[1:] // the usual case: the oldest goes first
	} else if found {
		s.owned[owner] = slices.Delete(ids, at, at+1)
	}
	c := claim{owner, l.meta.IdempotencyKey}
	if s.claims[c] == id && l.status().FailedBeforeToken() {
		delete(s.claims, c) // it had freed its key already
	}
	s.gone[id] = &goneLog{owner: owner, claim: c}
	at, _ := slices.BinarySearch(s.goneIDs, id)
	s.goneIDs = slices.Insert(s.goneIDs, at, id)
}
