package memory

import (
	"slices"

	"weir/internal/stream"
)

// sweep drops what has expired, and the oldest ended streams while the store
// holds more than it may. The caller holds mu.
func (s *Store) sweep() {
	now := s.now()
	for len(s.ended) > 0 {
		oldest := s.ended[0]
		expired := oldest.expired(now, s.retention)
		if !expired && (s.maxBytes == 0 || s.bytes.Load() < s.maxBytes) {
			break
		}
		if s.logs[oldest.meta.ID] == oldest {
			s.forget(oldest)
		} else {
			s.ended = s.ended[1:] // deleted meanwhile
		}
	}
	for len(s.goneIDs) > 0 && stream.Expired(s.goneIDs[0], now, s.retention) {
		id := s.goneIDs[0]
		if c := s.gone[id].claim; c.key != "" && s.claims[c] == id {
			delete(s.claims, c)
		}
		delete(s.gone, id)
		s.goneIDs = s.goneIDs[1:]
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
	s.gone[id] = &goneLog{owner: owner, claim: claim{owner, l.meta.IdempotencyKey}}
	at, _ := slices.BinarySearch(s.goneIDs, id)
	s.goneIDs = slices.Insert(s.goneIDs, at, id)
}
