package memory

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"

	"weir/internal/stream"
)

// log is one stream's events. Readers that found nothing wait in it, and
// whoever appends wakes them; between two waits it knows nothing of them.
type log struct {
	meta   stream.Meta
	store  *Store
	sealed chan struct{} // closed by seal

	mu      sync.Mutex
	events  []stream.Event // guarded by mu; events[i].Seq == i+1, entries immutable
	slab    []byte         // guarded by mu; the payloads' latest backing
	bytes   int64          // guarded by mu
	ended   time.Time      // guarded by mu; zero while it runs
	booked  stream.Summary // guarded by mu
	waiting []*reader      // guarded by mu
}

type writer struct{ log *log }

// Append implements stream.Writer.
func (w writer) Append(_ context.Context, events []stream.Event) error {
	added, err := w.log.append(events)
	if err != nil {
		return err
	}
	w.log.store.bytes.Add(added)
	return nil
}

// Sealed implements stream.Writer.
func (w writer) Sealed() <-chan struct{} { return w.log.sealed }

// Book implements stream.Writer.
func (w writer) Book(_ context.Context, summary stream.Summary) error {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	w.log.booked = summary
	return nil
}

func (l *log) append(events []stream.Event) (added int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended.IsZero() {
		return 0, stream.ErrSealed
	}
	for i := range events {
		events[i].Seq = uint64(len(l.events)) + 1
		kept := events[i]
		kept.Data = l.keep(events[i].Data)
		l.events = append(l.events, kept)
		added += int64(len(kept.Data)) + eventOverhead
	}
	l.bytes += added
	l.wakeAll()
	return added, nil
}

func (l *log) seal(terminal stream.Event, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended.IsZero() {
		return stream.ErrSealed
	}
	terminal.Seq = uint64(len(l.events)) + 1
	terminal.Data = bytes.Clone(terminal.Data)
	l.events = append(l.events, terminal)
	size := int64(len(terminal.Data)) + eventOverhead
	l.bytes += size
	l.store.bytes.Add(size)
	l.ended = now
	close(l.sealed)
	l.wakeAll()
	return nil
}

const (
	firstSlab = 512
	maxSlab   = 64 << 10
)

// keep copies data into the slab, so that a token does not cost an allocation
// of its own. The caller holds mu.
func (l *log) keep(data []byte) []byte {
	if cap(l.slab)-len(l.slab) < len(data) {
		size := min(max(2*cap(l.slab), firstSlab), maxSlab)
		l.slab = make([]byte, 0, max(size, len(data)))
	}
	from := len(l.slab)
	l.slab = append(l.slab, data...)
	return l.slab[from:len(l.slab):len(l.slab)]
}

// wakeAll tells the waiting readers. The caller holds mu.
func (l *log) wakeAll() {
	for i, r := range l.waiting {
		r.waiting = false
		select {
		case r.wake <- struct{}{}:
		default: // it has yet to take the last one
		}
		l.waiting[i] = nil
	}
	l.waiting = l.waiting[:0]
}

func (l *log) status() stream.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := stream.Status{Meta: l.meta, LastSeq: uint64(len(l.events)), Ended: l.ended, Booked: l.booked}
	if !l.ended.IsZero() {
		s.Terminal = l.events[len(l.events)-1]
	}
	return s
}

func (l *log) expired(now time.Time, retention time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.ended.IsZero() && now.Sub(l.ended) > retention
}

func (l *log) size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// reader is a cursor. Its fields belong to the goroutine that reads, but for
// waiting.
type reader struct {
	log     *log
	seen    uint64
	wake    chan struct{} // one slot
	waiting bool          // guarded by log.mu; whether it is in log.waiting
}

// One Next returns at most so much, so that a long replay takes turns with its
// writes and holds little memory. An event larger than that comes alone.
const (
	maxEvents = 128
	maxBytes  = 64 << 10
)

// Next implements stream.Reader.
func (r *reader) Next(dst []stream.Event) ([]stream.Event, error) {
	l := r.log
	l.mu.Lock()
	defer l.mu.Unlock()
	last := uint64(len(l.events))
	if r.seen >= last {
		if !l.ended.IsZero() {
			return dst, io.EOF
		}
		if !r.waiting {
			// Under the same lock as the look at the log: an append in
			// between would wake nobody.
			r.waiting = true
			l.waiting = append(l.waiting, r)
		}
		return dst, nil
	}
	size := 0
	for n := 0; r.seen < last && n < maxEvents; n++ {
		e := l.events[r.seen]
		size += len(e.Data)
		if n > 0 && size > maxBytes {
			break
		}
		dst = append(dst, e)
		r.seen++
	}
	return dst, nil
}

// Wake implements stream.Reader.
func (r *reader) Wake() <-chan struct{} { return r.wake }

// Close implements stream.Reader.
func (r *reader) Close() {
	l := r.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if !r.waiting {
		return
	}
	for i, w := range l.waiting {
		if w == r {
			end := len(l.waiting) - 1
			l.waiting[i] = l.waiting[end]
			l.waiting[end] = nil
			l.waiting = l.waiting[:end]
			return
		}
	}
}
