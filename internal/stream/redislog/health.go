package redislog

import "sync"

// health says whether the server answers to appends.
type health struct {
	mu   sync.Mutex
	down chan struct{} // guarded by mu; closed while it does not
}

func (h *health) init() { h.down = make(chan struct{}) }

// failing is closed when the server does not answer.
func (h *health) failing() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.down
}

// set notes whether the server answers, and reports whether that is news.
func (h *health) set(up bool) (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.down:
		if up {
			h.down = make(chan struct{})
		}
		return up
	default:
		if !up {
			close(h.down)
		}
		return !up
	}
}
