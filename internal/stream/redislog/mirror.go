package redislog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"weir/internal/stream"
	"weir/internal/stream/live"
)

// mirror is a log that another replica writes, for the readers here. What is
// published fills it; whatever that leaves out is read from the server.
type mirror struct {
	store  *Store
	id     string
	log    *live.Log
	cancel context.CancelFunc
	look   chan struct{} // one slot: there may be something to read from the server
	looked chan struct{} // closed when what was there when the stream began to be heard has been read
	refs   int           // guarded by the store's mu

	mu     sync.Mutex // held while events are shown, so that they come in order
	ended  bool       // guarded by mu; nothing more will come
	failed bool       // guarded by mu; and the stream's end did not
}

// checkEvery is how often a stream is looked at that says nothing: a net under
// the subscriptions, whose losses are noticed.
const checkEvery = 5 * time.Second

// mirror returns the stream's mirror, with one reference for the caller.
func (s *Store) mirror(id string, running bool) (*mirror, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosed() {
		return nil, errClosed
	}
	m := s.mirrors[id]
	if m == nil {
		ctx, cancel := context.WithCancel(context.Background())
		m = &mirror{store: s, id: id, log: live.New(), cancel: cancel, look: make(chan struct{}, 1), looked: make(chan struct{})}
		s.mirrors[id] = m
		s.all.Go(func() { m.follow(ctx, running) })
	}
	m.refs++
	return m, nil
}

func (m *mirror) release() {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	if m.refs--; m.refs == 0 {
		m.drop()
	}
}

// drop ends the mirror. The caller holds the store's mu.
func (m *mirror) drop() {
	m.cancel()
	if m.store.mirrors[m.id] == m {
		delete(m.store.mirrors, m.id)
	}
}

func (m *mirror) nudge() {
	select {
	case m.look <- struct{}{}:
	default:
	}
}

// follow fills the mirror until the stream's end, or until ctx ends.
func (m *mirror) follow(ctx context.Context, running bool) {
	if running {
		// First heard, then read: in the other order events would be missed.
		sub := m.store.ears.add(m.store.keys.log(m.id), m.hear, m.nudge, m.nudge)
		defer m.store.ears.remove(sub)
	} else {
		m.nudge()
	}
	defer m.retire()
	looked := sync.OnceFunc(func() { close(m.looked) })
	defer looked()
	check := time.NewTimer(checkEvery)
	defer check.Stop()
	wait := minBackoff
	var missing time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.look:
		case <-check.C:
		}
		if running {
			m.payAttention(ctx)
		}
		err := m.catchUp(ctx)
		switch {
		case err == nil:
			looked()
			wait, missing = minBackoff, time.Time{}
		case errors.Is(err, stream.ErrGone) && !unknown(err):
			m.fail(err)
		case unknown(err):
			// The server lost it. Its producer writes it again, if that lives.
			if missing.IsZero() {
				missing = time.Now()
			} else if time.Since(missing) > m.store.lease {
				m.fail(&stream.GoneError{})
			}
			fallthrough
		default:
			wait = backOff(ctx, wait)
			m.nudge()
		}
		if m.over() {
			return
		}
		check.Reset(checkEvery)
	}
}

// hear takes in what was published.
func (m *mirror) hear(message string) {
	events, err := parseNews(message)
	if err != nil {
		m.store.logger.Error("redis: a foreign message on a stream's channel", "stream", m.id, "error", err)
		return
	}
	if !m.show(events) {
		m.nudge()
	}
}

// show appends the events that the mirror has not yet; false when there are
// some missing before them.
func (m *mirror) show(events []stream.Event) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	last, _ := m.log.Last()
	for len(events) > 0 && !m.ended {
		switch e := events[0]; {
		case e.Terminal() && e.Seq <= last:
			m.failLocked(errTail)
		case e.Seq <= last:
			events = events[1:]
		case e.Seq > last+1:
			return false
		case e.Terminal():
			_, _ = m.log.Seal(e)
			m.ended = true
			m.nudge() // there is nothing to follow any more
		default:
			n := len(events)
			if events[n-1].Terminal() {
				n--
			}
			_, _ = m.log.Append(events[:n])
			last, events = events[n-1].Seq, events[n:]
		}
	}
	return true
}

func (m *mirror) over() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ended
}

// fail ends the mirror without the stream's end.
func (m *mirror) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failLocked(err)
}

func (m *mirror) failLocked(err error) {
	if m.ended {
		return
	}
	m.ended, m.failed = true, true
	m.log.Fail(err)
	m.nudge()
}

// retire keeps a failed mirror from the next reader.
func (m *mirror) retire() {
	m.mu.Lock()
	failed := m.failed
	m.mu.Unlock()
	if !failed {
		return
	}
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	m.drop()
}

// catchUp reads from the server what the mirror has not.
func (m *mirror) catchUp(ctx context.Context) error {
	count := int64(firstRange)
	for !m.over() {
		last, _ := m.log.Last()
		events, status, err := m.store.readRange(ctx, m.id, last, count)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && count > 1 {
			count = max(count/4, 1) // the network is slow, or the events are large
			continue
		}
		if err != nil {
			return err
		}
		if !status.Running() {
			if status.Terminal.Seq <= last {
				m.fail(errTail)
				return nil
			}
			if len(events) == 0 || events[0].Seq != last+1 {
				return &stream.GoneError{Owner: status.Owner} // the server evicted the events
			}
		}
		if len(events) > 0 && !m.show(events) {
			return fmt.Errorf("%w: the log has a gap after event %d", stream.ErrUnavailable, last)
		}
		if int64(len(events)) < count {
			return nil
		}
		count = nextRange(events)
	}
	return nil
}
