// Package upstream is a model API that costs little to run: one thread serves
// tens of thousands of timed streams from one wheel of timers. Each stream is as
// its request's plan says, and each token carries the time it was sent.
package upstream

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"weir/bench/internal/netloop"
	"weir/bench/internal/wire"
)

// Options of an upstream.
type Options struct {
	// Listen are the addresses. Targets that have one each share no ports
	// towards it.
	Listen []netip.AddrPort
	// Tick is how exact the times of tokens are. All that is due within one goes
	// out together, so a long one serves proxies that gather what arrives together.
	Tick time.Duration
}

// Run serves until ctx ends. It calls ready with the addresses and their ports.
func Run(ctx context.Context, o Options, ready func([]netip.AddrPort)) error {
	loop, err := netloop.New(o.Tick)
	if err != nil {
		return err
	}
	s := &server{encoder: wire.NewEncoder(), wheel: newWheel(o.Tick)}
	var bound []netip.AddrPort
	for _, addr := range o.Listen {
		at, err := loop.Listen(addr, func(*netloop.Conn) netloop.Handler { return &session{server: s} })
		if err != nil {
			return err
		}
		bound = append(bound, at)
	}
	ready(bound)
	return loop.Run(ctx, func(now int64) error {
		s.wheel.advance(now, s.send)
		return nil
	})
}

type server struct {
	encoder *wire.Encoder
	wheel   *wheel
	streams int // that were begun
}

// stream is one answer under way.
type stream struct {
	session *session
	plan    wire.Plan
	number  int
	sent    int   // tokens
	asked   int64 // when the request came, in Unix nanoseconds
	due     int64 // when the next token is
	gone    bool  // the caller has left
}

// think is how long the upstream is silent before a first token. Real ones take
// a hundred times that. With none at all, the answer overtakes the end of the
// request in a proxy, and Go's ReverseProxy breaks off one stream in a hundred.
const think = 2 * time.Millisecond

// begin starts a stream.
func (s *server) begin(c *session, conn *netloop.Conn, plan wire.Plan) {
	s.streams++
	c.conn = conn
	now := time.Now().UnixNano()
	c.stream = &stream{session: c, plan: plan, number: s.streams, asked: now, due: now + int64(think)}
	s.wheel.add(c.stream)
}

// spread gives numbers in a row places between 0 and 1 that are far apart: the
// golden ratio's multiples.
func spread(n int) float64 {
	const ratio = 0.6180339887498949
	x := float64(n) * ratio
	return x - float64(int(x))
}

// send sends the stream's next token, or its end after the last, and reports
// whether there is more to come.
func (s *server) send(st *stream, now int64) (more bool) {
	conn := st.session.conn
	switch {
	case st.gone:
		return false
	case st.sent == st.plan.Tokens:
		st.session.stream = nil
		conn.Write(s.encoder.End(st.number))
		return false
	}
	st.sent++
	token := wire.Token{Seq: st.sent, Sent: now}
	if st.sent == 1 {
		token.Waited = now - st.asked
		conn.Write(append([]byte(wire.Head), s.encoder.Token(st.number, token)...))
		// The second is due somewhere within the gap, so that streams which
		// begin together do not speak in step.
		st.due = now + int64(float64(st.plan.Gap)*spread(st.number))
	} else {
		conn.Write(s.encoder.Token(st.number, token))
		st.due += int64(st.plan.Gap)
	}
	return !st.gone
}

// session is a connection: one request after the other.
type session struct {
	server  *server
	conn    *netloop.Conn
	stream  *stream // the answer under way
	request []byte  // what has come of a request
}

func (c *session) Opened(*netloop.Conn) {}

func (c *session) Closed(*netloop.Conn, error) {
	if c.stream != nil {
		c.stream.gone = true
	}
}

func (c *session) Received(conn *netloop.Conn, p []byte, _ int64) {
	c.request = append(c.request, p...)
	const maxRequest = 1 << 20
	body, whole := requestBody(c.request)
	switch {
	case !whole && len(c.request) < maxRequest:
		return
	case !whole || c.stream != nil:
		c.refuse(conn, "a request that is too large, or before its turn")
		return
	}
	plan, err := wire.ParsePlan(body)
	if err != nil {
		c.refuse(conn, err.Error())
		return
	}
	c.request = nil
	c.server.begin(c, conn, plan)
}

// refuse answers what no benchmark sends.
func (c *session) refuse(conn *netloop.Conn, why string) {
	body := fmt.Sprintf(`{"error":{"message":%q,"type":"invalid_request_error"}}`, why)
	conn.Write(fmt.Appendf(nil, "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body))
	conn.Close()
}

// requestBody returns a request's body once all of it is there. It knows bodies
// with a length only, or none.
func requestBody(request []byte) (body []byte, whole bool) {
	head, body, ok := bytes.Cut(request, []byte("\r\n\r\n"))
	if !ok {
		return nil, false
	}
	length := 0
	for line := range strings.SplitSeq(string(head), "\r\n") {
		if name, value, _ := strings.Cut(line, ":"); strings.EqualFold(name, "Content-Length") {
			length, _ = strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return body, len(body) >= length
}
