package segment

import (
	"container/list"
	"weak"
)

// cache knows the ended streams that are warm, and which was used longest ago.
// The store's mu guards it.
type cache struct {
	order list.List // of *entry; the front was used last
	at    map[*entry]*list.Element
}

func newCache() cache { return cache{at: map[*entry]*list.Element{}} }

// use notes that a warm ended stream was used.
func (c *cache) use(e *entry) {
	if at := c.at[e]; at != nil {
		c.order.MoveToFront(at)
		return
	}
	c.at[e] = c.order.PushFront(e)
}

func (c *cache) drop(e *entry) {
	if at := c.at[e]; at != nil {
		c.order.Remove(at)
		delete(c.at, e)
	}
}

func (c *cache) oldest() *entry {
	if at := c.order.Back(); at != nil {
		return at.Value.(*entry)
	}
	return nil
}

// warmUp returns the stream in memory, read from disk if need be. The caller
// holds e.changing.
func (s *Store) warmUp(e *entry) (*warm, error) {
	w, _, _ := e.current()
	found := w == nil
	if found {
		var err error
		if w, err = s.load(e); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[e.id] != e {
		return w, nil // evicted meanwhile: it is this reader's only
	}
	if found {
		s.warmBytes.Add(w.size())
		e.mu.Lock()
		e.warm, e.read = w, weak.Make(w.Log)
		e.mu.Unlock()
	}
	if !e.running() {
		s.cache.use(e)
		s.cool()
	}
	return w, nil
}

// cool leaves to the disk what was used longest ago, while the warm streams
// take more than they may. Readers that have one open keep it alive. The
// caller holds mu.
func (s *Store) cool() {
	for s.maxMemory > 0 && s.warmBytes.Load() > s.maxMemory {
		e := s.cache.oldest()
		if e == nil {
			return // only running streams are left
		}
		s.chill(e)
	}
}

// chill leaves one stream to the disk. The caller holds mu.
func (s *Store) chill(e *entry) {
	s.cache.drop(e)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.warm != nil {
		s.warmBytes.Add(-e.warm.size())
		e.read, e.warm = weak.Make(e.warm.Log), nil
	}
}

// memoryFull reports whether running streams alone take more memory than all
// may. The caller holds mu.
func (s *Store) memoryFull() bool {
	s.cool()
	return s.maxMemory > 0 && s.warmBytes.Load() > s.maxMemory
}
