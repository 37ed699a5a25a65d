package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"weir/internal/stream"
)

// Reasons for which a body ends without a terminal event. fasthttp closes the
// connection without the final chunk then, so that the client knows.
var (
	errClientGone = errors.New("the client has left")
	errStopping   = errors.New("the server is stopping")
)

// tail is a log on its way onto one connection: a cursor, and a body that
// fasthttp reads from and closes. All it waits for meets in one select.
type tail struct {
	reader  stream.Reader
	frames  frames
	beat    time.Duration // silence before a heartbeat
	gone    chan struct{} // closed when the client has left
	stop    <-chan struct{}
	timer   *time.Timer
	release func() // frees what came with the tail; called once

	draining <-chan struct{} // closed when the server starts nothing more; nil for a log that stays to its end
	runsHere func() bool     // whether the log's producer is this server; unused without draining

	events []stream.Event // read from the log, not yet encoded
	out    []byte         // encoded, not yet taken
	buf    []byte         // out's backing
	err    error          // what Read returns once out is empty
}

// newTail takes over the reader, and starts to watch the connection. Somebody
// must Close it; fasthttp does when it is a response's body.
func (s *Server) newTail(conn net.Conn, reader stream.Reader, frames frames, detach func()) *tail {
	t := &tail{
		reader: reader, frames: frames, beat: s.Heartbeat,
		gone: make(chan struct{}), stop: s.stopping, timer: time.NewTimer(s.Heartbeat),
	}
	unwatch := watchConn(conn, func() { close(t.gone) })
	t.release = sync.OnceFunc(func() {
		unwatch()
		t.timer.Stop()
		reader.Close()
		detach()
		s.Metrics.ReaderClosed()
	})
	return t
}

// Close implements io.Closer.
func (t *tail) Close() error {
	t.release()
	return nil
}

// Read implements io.Reader: it blocks until there is something to send. A
// panic in it aborts this body and nothing else.
func (t *tail) Read(p []byte) (n int, err error) {
	defer func() {
		if r := recover(); r != nil {
			t.err = fmt.Errorf("panic in a stream's body: %v", r)
			n, err = 0, t.err
		}
	}()
	if len(t.out) == 0 {
		t.fill()
	}
	if len(t.out) == 0 {
		return 0, t.err
	}
	if n = copy(p, t.out); n < len(t.out) {
		// An event goes out in one write, unless it is larger than a write:
		// some clients take an id as seen before the blank line behind it.
		if end := bytes.LastIndex(p[:n], []byte("\n\n")); end >= 0 {
			n = end + len("\n\n")
		}
	}
	t.out = t.out[n:]
	return n, nil
}

// keepBuffer is the size of buffer a connection may keep while it waits.
const keepBuffer = 4 << 10

// fill encodes the next events, or what else there is to send, into out. If
// there is nothing more, it leaves out empty and err set.
func (t *tail) fill() {
	if cap(t.buf) > keepBuffer {
		t.buf = nil
	}
	t.out = t.buf[:0]
	for len(t.out) == 0 && t.err == nil {
		if len(t.events) == 0 && !t.next() {
			if t.err == nil && t.wait(t.timer.C) {
				t.out = t.frames.heartbeat(t.out)
			}
			continue
		}
		for i, e := range t.events {
			t.out = t.frames.append(t.out, e)
			t.events[i] = stream.Event{} // the log may be forgotten before the next wait
		}
		t.events = t.events[:0]
	}
	t.buf = t.out[:0]
}

// next reads what the log has now, and reports whether that is anything. Only
// after it was nothing does a wait see the next news.
func (t *tail) next() bool {
	var err error
	if t.events, err = t.reader.Next(t.events); err != nil {
		t.err = err // io.EOF only past the terminal event: then a clean end is due
	}
	return len(t.events) > 0
}

// wait returns when the log may have news, or true when the alarm rang first.
func (t *tail) wait(alarm <-chan time.Time) (rang bool) {
	t.timer.Reset(t.beat)
	select {
	case <-t.reader.Wake():
	case <-alarm:
		return true
	case <-t.gone:
		t.err = errClientGone
	case <-t.stop:
		// What was sealed before the stop is still told.
		if !t.next() && t.err == nil {
			t.err = errStopping
		}
	case <-t.draining:
		t.leave()
	}
	return false
}

// leave sends the client of another server's stream away, to one that will be
// there longer: nothing here will come to an end that is worth a wait. A stream
// that runs here is served on, for this server waits for its end.
func (t *tail) leave() {
	switch {
	case t.runsHere():
		t.draining = nil
	case t.next() || t.err != nil: // what has come meanwhile is told first
	default:
		t.out = t.frames.comeBack(t.out)
		t.err = errStopping
	}
}

// first waits for the first event that gets a frame, so that a failure before
// the first token can still have a status line of its own. It returns false
// when there is none by then.
func (t *tail) first(within time.Duration) (stream.Event, bool) {
	limit := time.NewTimer(within)
	defer limit.Stop()
	for t.err == nil {
		for _, e := range t.events {
			if e.Type != stream.TypeStart {
				return e, true
			}
		}
		t.events = t.events[:0]
		if !t.next() && t.err == nil && t.wait(limit.C) {
			break
		}
	}
	return stream.Event{}, false
}

// aborted is a body that sends what it holds and then breaks off: the client
// comes back, here or on another replica.
type aborted struct{ rest []byte }

func (a *aborted) Read(p []byte) (int, error) {
	if len(a.rest) == 0 {
		return 0, errStopping
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

var _ io.ReadCloser = (*tail)(nil)
