//go:build !unix

package redistest

// Pause skips the test: only Unix stops a process in its tracks.
func (s *Server) Pause() { s.t.Skip("a process can't be paused here") }

// Resume does nothing.
func (s *Server) Resume() {}
