package segment

// Chill leaves every ended stream to the disk.
func (s *Store) Chill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.cache.oldest(); e != nil; e = s.cache.oldest() {
		s.chill(e)
	}
}
