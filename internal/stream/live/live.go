// Package live is a stream's log as it stands in memory, and the readers that
// wait for more of it. Every store serves its readers from here; what else a
// store keeps, and when it has an event safe enough to show, is its own.
package live

import (
	"bytes"
	"io"
	"sync"

	"weir/internal/stream"
)

// EventOverhead is what an event takes in memory besides its payload, about.
const EventOverhead = 64

// Log is one stream's events. Readers that found nothing wait in it, and
// whoever appends wakes them; between two waits it knows nothing of them.
type Log struct {
	sealed chan struct{} // closed once the terminal event is there

	mu      sync.Mutex
	events  []stream.Event // guarded by mu; events[i].Seq == i+1, entries immutable
	slab    []byte         // guarded by mu; the payloads' latest backing
	bytes   int64          // guarded by mu
	ended   bool           // guarded by mu
	failed  error          // guarded by mu; what readers get once they have read all
	waiting []*reader      // guarded by mu
}

// New returns an empty log.
func New() *Log { return &Log{sealed: make(chan struct{})} }

// Append copies the events in, sets their Seq, and shows them to the readers.
// It returns how many bytes they take, or stream.ErrSealed.
func (l *Log) Append(events []stream.Event) (added int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return 0, stream.ErrSealed
	}
	for i := range events {
		events[i].Seq = uint64(len(l.events)) + 1
		kept := events[i]
		kept.Data = l.keep(events[i].Data)
		l.events = append(l.events, kept)
		added += int64(len(kept.Data)) + EventOverhead
	}
	l.bytes += added
	l.wakeAll()
	return added, nil
}

// Seal copies the terminal event in, as the last one, and shows it to the
// readers. It returns how many bytes it takes, or stream.ErrSealed.
func (l *Log) Seal(terminal stream.Event) (added int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return 0, stream.ErrSealed
	}
	terminal.Seq = uint64(len(l.events)) + 1
	terminal.Data = bytes.Clone(terminal.Data)
	l.events = append(l.events, terminal)
	added = int64(len(terminal.Data)) + EventOverhead
	l.bytes += added
	l.ended = true
	close(l.sealed)
	l.wakeAll()
	return added, nil
}

// Fail tells the readers, once they have read what is there, that no more will
// come, though the log has no end. A log that has one takes no notice.
func (l *Log) Fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = err
	l.wakeAll()
}

// Sealed is closed when the log has its terminal event.
func (l *Log) Sealed() <-chan struct{} { return l.sealed }

// Last returns the newest event's seq, and the terminal event, the zero Event
// while there is none.
func (l *Log) Last() (seq uint64, terminal stream.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		terminal = l.events[len(l.events)-1]
	}
	return uint64(len(l.events)), terminal
}

// Bytes is about what the log takes in memory.
func (l *Log) Bytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

const (
	firstSlab = 512
	maxSlab   = 64 << 10
)

// keep copies data into the slab, so that a token does not cost an allocation
// of its own. The caller holds mu.
func (l *Log) keep(data []byte) []byte {
	if cap(l.slab)-len(l.slab) < len(data) {
		size := min(max(2*cap(l.slab), firstSlab), maxSlab)
		l.slab = make([]byte, 0, max(size, len(data)))
	}
	from := len(l.slab)
	l.slab = append(l.slab, data...)
	return l.slab[from:len(l.slab):len(l.slab)]
}

// wakeAll tells the waiting readers. The caller holds mu.
func (l *Log) wakeAll() {
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

// Open returns a reader of the events after seq, which may be beyond the end.
func (l *Log) Open(after uint64) stream.Reader {
	return &reader{log: l, seen: after, wake: make(chan struct{}, 1)}
}

// reader is a cursor. Its fields belong to the goroutine that reads, but for
// waiting.
type reader struct {
	log     *Log
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
		if l.ended {
			return dst, io.EOF
		}
		if l.failed != nil {
			return dst, l.failed
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
