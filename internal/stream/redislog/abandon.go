package redislog

import (
	"maps"
	"time"
)

// abandon has the keeper end a stream that may have been created, or may be yet:
// whoever repeats the request would wait for a producer that it has not.
func (s *Store) abandon(id string) {
	s.mu.Lock()
	s.abandoned[id] = time.Now()
	s.mu.Unlock()
	s.nudgeKeeper()
}

func (s *Store) abandonedAny() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.abandoned) > 0
}

func (s *Store) abandonedIDs() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make(map[string]bool, len(s.abandoned))
	for id := range s.abandoned {
		ids[id] = true
	}
	return ids
}

// dropAbandoned forgets creates that were abandoned before: what was on its way
// has come, or is an orphan like any other.
func (s *Store) dropAbandoned(before time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.abandoned, func(_ string, since time.Time) bool { return since.Before(before) })
}
