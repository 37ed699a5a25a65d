package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"weir/bench/internal/netloop"
	"weir/bench/internal/wire"
)

// client reads one stream and checks it.
type client struct {
	run     *run
	request []byte
	want    int  // tokens
	creator bool // it started the stream, so its first token is a new one

	response wire.Response
	now      int64 // when the bytes at hand were read
	asked    int64 // when the request was written; zero before
	tokens   int
	second   int64 // when the second token was sent: from it on the upstream keeps time
	stream   []byte
	seq      int
	finished bool // the chunk with the finish reason has come
	done     bool // the end has come
	over     bool
}

func newClient(r *run, request []byte, want int, creator bool) *client {
	c := &client{run: r, request: request, want: want, creator: creator}
	c.response.OnEvent = c.event
	return c
}

// Opened implements netloop.Handler.
func (c *client) Opened(conn *netloop.Conn) {
	c.asked = c.run.clock()
	conn.Write(c.request)
	c.request = nil
}

// Received implements netloop.Handler.
func (c *client) Received(conn *netloop.Conn, p []byte, now int64) {
	c.now = now
	err := c.response.Feed(p)
	if err == nil && c.response.Ended() {
		err = c.check()
		if err == nil {
			conn.Close()
			c.run.over(c, nil)
			return
		}
	}
	if err != nil {
		conn.Close()
		c.run.over(c, err)
	}
}

// Closed implements netloop.Handler.
func (c *client) Closed(_ *netloop.Conn, err error) {
	if errors.Is(err, io.EOF) {
		err = errors.New("the connection was closed before the end")
	}
	c.run.over(c, err)
}

// check looks at a stream whose body has ended properly.
func (c *client) check() error {
	switch {
	case !c.done:
		return errors.New("the body ended without the end of the stream")
	case c.tokens != c.want:
		return fmt.Errorf("ended with too few tokens")
	case !c.finished:
		return errors.New("ended without a finish reason")
	}
	return nil
}

func (c *client) event(e wire.Event) error {
	if c.done {
		return errors.New("an event behind the end")
	}
	token, isToken := wire.ReadToken(e.Data)
	if c.run.hasIDs() {
		if len(e.ID) == 0 && !isToken && !wire.IsFinish(e.Data) && !wire.IsDone(e.Data) {
			return nil // a heartbeat
		}
		if err := c.checkID(e.ID); err != nil {
			return err
		}
	}
	switch {
	case isToken:
		return c.token(token)
	case wire.IsFinish(e.Data) && len(e.Type) == 0:
		c.finished = true
	case wire.IsDone(e.Data), string(e.Type) == "done":
		c.done = true
	case string(e.Type) == "start" && c.seq == 1:
	default:
		return fmt.Errorf("the event %q %.80q", e.Type, e.Data)
	}
	return nil
}

// checkID checks that ids are of one stream and count on by one.
func (c *client) checkID(id []byte) error {
	dot := bytes.LastIndexByte(id, '.')
	if dot < 0 {
		return errors.New("an event without an id")
	}
	seq, err := strconv.Atoi(string(id[dot+1:]))
	if c.stream == nil {
		c.stream = bytes.Clone(id[:dot])
		c.seq = seq - 1
		if c.run.Mode == IDs && seq != 2 || c.run.Mode != IDs && seq != 1 {
			return errors.New("the first id is not the stream's first")
		}
	}
	c.seq++
	if err != nil || seq != c.seq || !bytes.Equal(id[:dot], c.stream) {
		return errors.New("an id out of order")
	}
	return nil
}

// token checks one and measures its way.
func (c *client) token(t wire.Token) error {
	c.tokens++
	if t.Seq != c.tokens {
		return errors.New("a token out of order")
	}
	switch {
	case t.Seq == 1 && c.creator:
		c.run.firstToken(c.now - c.asked - t.Waited)
	case t.Seq == 2:
		c.second = t.Sent
	case t.Seq > 2:
		c.run.tokenKept(t.Sent - c.second - int64(t.Seq-2)*int64(c.run.Gap))
	}
	if t.Sent >= c.asked { // else it was sent before this reader came
		c.run.token(t.Sent, c.now)
	} else {
		c.run.delivered()
	}
	return nil
}
