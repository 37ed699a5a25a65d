package memory

import (
	"context"
	"sync"
	"time"

	"weir/internal/stream"
	"weir/internal/stream/live"
)

// log is one stream: its events, and what is known of it beside them.
type log struct {
	*live.Log
	meta  stream.Meta
	store *Store

	mu     sync.Mutex
	ended  time.Time      // guarded by mu; zero while it runs
	booked stream.Summary // guarded by mu
}

type writer struct{ log *log }

// Append implements stream.Writer.
func (w writer) Append(_ context.Context, events []stream.Event) error {
	added, err := w.log.Append(events)
	if err != nil {
		return err
	}
	w.log.store.bytes.Add(added)
	return nil
}

// Sealed implements stream.Writer.
func (w writer) Sealed() <-chan struct{} { return w.log.Sealed() }

// Book implements stream.Writer.
func (w writer) Book(_ context.Context, summary stream.Summary) error {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	w.log.booked = summary
	return nil
}

// seal ends the log. The lock makes the end and its time one thing to see.
func (l *log) seal(terminal stream.Event, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	added, err := l.Seal(terminal)
	if err != nil {
		return err
	}
	l.store.bytes.Add(added)
	l.ended = now
	return nil
}

func (l *log) status() stream.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := stream.Status{Meta: l.meta, Ended: l.ended, Booked: l.booked}
	s.LastSeq, s.Terminal = l.Last()
	return s
}

func (l *log) expired(now time.Time, retention time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.ended.IsZero() && now.Sub(l.ended) > retention
}

// size is what the store counts the log for.
func (l *log) size() int64 { return logOverhead + l.Bytes() }
