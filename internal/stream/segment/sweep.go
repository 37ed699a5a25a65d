package segment

import (
	"slices"
	"time"

	"weir/internal/stream"
)

// tombstone is a grave in the index, until its id is old enough to tell by
// itself that the stream is no more.
type tombstone struct {
	grave
	kind    kind
	created position // the stream's name on disk
	span    span     // of the tombstone's record
}

// maxGraves bounds the memory of forgotten streams: of one more, only the age
// of its id will tell.
const maxGraves = 100_000

// sweepEvery is how often expired streams are looked for while nobody creates any.
const sweepEvery = time.Minute

// sweep removes files that nobody needs, until the store is closed.
func (s *Store) sweep() {
	defer close(s.swept)
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-s.closed:
			return
		case <-s.sweeping:
		case <-ticker.C:
			s.mu.Lock()
			s.dropExpired()
			s.mu.Unlock()
		}
		if err := s.shelf.sweep(); err != nil {
			s.logger.Error("can't remove a log file", "err", err)
		}
	}
}

// sweepSoon wakes the sweeper.
func (s *Store) sweepSoon() {
	select {
	case s.sweeping <- struct{}{}:
	default:
	}
}

// dropExpired forgets what is past its retention. The caller holds mu.
func (s *Store) dropExpired() {
	now := s.now()
	for len(s.ended) > 0 && s.ended[0].expired(now, s.retention) {
		e := s.ended[0]
		s.forget(e)
		s.freeKey(e.owner, e.key, e.id)
		s.shelf.release(&e.span)
	}
	for len(s.buried) > 0 && (len(s.buried) > maxGraves || stream.Expired(s.buried[0].id, now, s.retention)) {
		g := s.buried[0]
		s.buried = s.buried[1:]
		delete(s.graves, g.id)
		s.freeKey(g.owner, g.key, g.id)
		s.shelf.release(&g.span)
	}
	s.sweepSoon()
}

func (s *Store) freeKey(owner, key, id string) {
	if c := (claim{owner, key}); key != "" && s.claims[c] == id {
		delete(s.claims, c)
	}
}

// forget takes an ended stream out of the index. Readers that have it open may
// finish. The caller holds mu, and releases the span.
func (s *Store) forget(e *entry) {
	s.chill(e)
	delete(s.streams, e.id)
	if i := slices.Index(s.ended, e); i == 0 { // the usual case
		s.ended[0] = nil
		s.ended = s.ended[1:]
	} else if i > 0 {
		s.ended = slices.Delete(s.ended, i, i+1)
	}
	list := s.owned[e.owner]
	if at, found := slices.BinarySearchFunc(list, e.id, byID); found && len(list) == 1 {
		delete(s.owned, e.owner)
	} else if found {
		s.owned[e.owner] = slices.Delete(list, at, at+1)
	}
	if e.freedKey() {
		s.freeKey(e.owner, e.key, e.id)
	}
}

// bury remembers a stream that is no more. The caller holds mu.
func (s *Store) bury(g *tombstone) {
	s.graves[g.id] = g
	at, _ := slices.BinarySearchFunc(s.buried, g.id, func(g *tombstone, id string) int {
		switch {
		case g.id < id:
			return -1
		case g.id > id:
			return 1
		}
		return 0
	})
	s.buried = slices.Insert(s.buried, at, g)
}

func newTombstone(e *entry, k kind) *tombstone {
	g := &tombstone{
		grave: grave{id: e.id, owner: e.owner, key: e.key}, kind: k, created: e.created, span: span{grave: true},
	}
	if e.freedKey() {
		g.key = ""
	}
	return g
}

// commit is the tombstone's record.
func (g *tombstone) commit() *commit {
	return &commit{
		header:  header{kind: g.kind, stream: g.created},
		payload: appendGrave(nil, g.grave), span: &g.span,
	}
}
