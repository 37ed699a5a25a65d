package segment

import (
	"fmt"
	"strings"
)

// Audit counts again what the store counts as it goes, and returns what does
// not agree. Nothing else may use the store meanwhile.
func (s *Store) Audit() error {
	a := audit{refs: map[uint32]int{}, graves: map[uint32]int{}, running: map[uint32]int{}}
	a.streams(s)
	a.tombstones(s)
	a.segments(s)
	for c, id := range s.claims {
		a.check(s.streams[id] != nil || s.graves[id] != nil, "key %q leads to %s, which is nowhere", c.key, id)
	}
	if len(a.problems) > 0 {
		return fmt.Errorf("audit: %s", strings.Join(a.problems, "; "))
	}
	return nil
}

type audit struct {
	refs, graves, running map[uint32]int // by segment
	problems              []string
}

func (a *audit) check(ok bool, format string, args ...any) {
	if !ok {
		a.problems = append(a.problems, fmt.Sprintf(format, args...))
	}
}

func (a *audit) streams(s *Store) {
	var warm, running int64
	ended, owned := 0, 0
	for id, e := range s.streams {
		for _, n := range e.span.numbers {
			a.refs[n]++
			if e.span.running {
				a.running[n]++
			}
			a.check(s.shelf.segments[n] != nil, "stream %s needs segment %d, which is gone", id, n)
		}
		a.check(!e.span.released && !e.pending, "stream %s is let go of, or pending", id)
		if e.ended.IsZero() {
			running++
		} else {
			ended++
		}
		if e.warm != nil {
			warm += e.warm.size()
			a.check(e.ended.IsZero() || s.cache.at[e] != nil, "stream %s is in memory for ever", id)
		}
	}
	for e := range s.cache.at {
		a.check(s.streams[e.id] == e && e.warm != nil, "%s is in the cache for nothing", e.id)
	}
	for _, list := range s.owned {
		owned += len(list)
	}
	a.check(owned == len(s.streams), "%d owned of %d", owned, len(s.streams))
	a.check(ended == len(s.ended), "%d ended, %d in the list", ended, len(s.ended))
	a.check(running == s.journal.running.Load(), "%d run, %d counted", running, s.journal.running.Load())
	a.check(warm == s.warmBytes.Load(), "%d bytes in memory, %d counted", warm, s.warmBytes.Load())
}

func (a *audit) tombstones(s *Store) {
	var bytes int64
	for _, g := range s.graves {
		for _, n := range g.span.numbers {
			a.refs[n]++
			a.graves[n]++
		}
		bytes += g.size()
	}
	a.check(len(s.graves) == len(s.buried), "%d graves, %d in the list", len(s.graves), len(s.buried))
	a.check(bytes == s.graveBytes, "%d bytes of graves, %d counted", bytes, s.graveBytes)
}

func (a *audit) segments(s *Store) {
	if s.journal.active != nil {
		a.refs[s.journal.active.number]++
	}
	var bytes int64
	for n, g := range s.shelf.segments {
		bytes += g.size
		a.check(g.refs == a.refs[n] && g.graves == a.graves[n] && g.running == a.running[n],
			"segment %d has %d refs, %d graves, %d running; counted %d, %d, %d",
			n, g.refs, g.graves, g.running, a.refs[n], a.graves[n], a.running[n])
	}
	a.check(bytes == s.shelf.bytes, "%d bytes on disk, %d counted", bytes, s.shelf.bytes)
}
