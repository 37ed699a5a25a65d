package segment

// Chill leaves every ended stream to the disk.
func (s *Store) Chill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.cache.oldest(); e != nil; e = s.cache.oldest() {
		s.chill(e)
	}
}

// Crash ends the store as the end of its process does: nothing is sealed,
// synced or cut, and nothing of it can write any more.
func (s *Store) Crash() {
	close(s.closed)
	<-s.swept
	s.journal.turn.Lock()
	defer s.journal.turn.Unlock()
	s.journal.closed = true
	s.shelf.close()
	s.lock.Close()
}
