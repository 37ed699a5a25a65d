package netloop

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// echo answers with what it got, many times over.
type echo struct{ times int }

func (echo) Opened(*Conn)        {}
func (echo) Closed(*Conn, error) {}
func (e echo) Received(c *Conn, p []byte, _ int64) {
	for range e.times {
		c.Write(p)
	}
}

// run runs a loop until the test ends.
func run(t *testing.T, l *Loop) {
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- l.Run(ctx, func(int64) error { return nil }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
}

func newLoop(t *testing.T) *Loop {
	l, err := New(time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// What the kernel does not take at once is sent in order when it does.
func TestASlowReaderGetsEverything(t *testing.T) {
	l := newLoop(t)
	const times = 100
	addr, err := l.Listen(netip.MustParseAddrPort("127.0.0.1:0"), func(*Conn) Handler { return echo{times} })
	if err != nil {
		t.Fatal(err)
	}
	run(t, l)
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.(*net.TCPConn).SetReadBuffer(16 << 10)
	piece := bytes.Repeat([]byte("0123456789abcdef"), 2<<10) // 32 KiB, 100 times
	if _, err := conn.Write(piece); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	want := len(piece) * times
	got := make([]byte, want)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := io.ReadFull(conn, got); err != nil {
		t.Fatalf("%d of %d bytes, %v", n, want, err)
	}
	for i, b := range got {
		if b != piece[i%16] {
			t.Fatalf("byte %d is %q", i, b)
		}
	}
}

// dialled tells what becomes of a connection.
type dialled struct{ closed chan error }

func (d dialled) Opened(*Conn)                  { d.closed <- nil }
func (d dialled) Received(*Conn, []byte, int64) {}
func (d dialled) Closed(_ *Conn, err error)     { d.closed <- err }

func TestDiallingTellsHowItWent(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	open := netip.MustParseAddrPort(server.Addr().String())
	refused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	shut := netip.MustParseAddrPort(refused.Addr().String())
	refused.Close()

	l := newLoop(t)
	good, bad := dialled{make(chan error, 2)}, dialled{make(chan error, 2)}
	from := netip.MustParseAddr("127.0.0.3")
	if _, err := l.Dial(from, open, good); err != nil {
		t.Fatal(err)
	}
	// A refusal may be told at once.
	if _, err := l.Dial(from, shut, bad); err != nil {
		bad.closed <- err
	}
	run(t, l)
	if err := <-good.closed; err != nil {
		t.Error(err)
	}
	conn, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.RemoteAddr().(*net.TCPAddr).IP.String(); got != from.String() {
		t.Errorf("it came from %s", got)
	}
	conn.Close()
	if err := <-good.closed; !errors.Is(err, io.EOF) {
		t.Errorf("after the other side closed: %v", err)
	}
	if err := <-bad.closed; err == nil {
		t.Error("a refused connection was opened")
	}
}
