package load_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weir/bench/internal/load"
	"weir/bench/internal/upstream"
	"weir/bench/internal/wire"
)

func options(target netip.AddrPort) load.Options {
	return load.Options{
		Target: target, Mode: load.Chat, Streams: 20, Gap: 10 * time.Millisecond,
		Ramp: 50 * time.Millisecond, Settle: 20 * time.Millisecond, Window: 300 * time.Millisecond,
		From: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")},
	}
}

// startUpstream starts the mock upstream until the test ends.
func startUpstream(t *testing.T) netip.AddrPort {
	ctx, cancel := context.WithCancel(t.Context())
	ready, over := make(chan netip.AddrPort), make(chan error, 1)
	go func() {
		over <- upstream.Run(ctx, upstream.Options{
			Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Tick: time.Millisecond,
		}, func(at []netip.AddrPort) { ready <- at[0] })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	return <-ready
}

func TestTheUpstreamItselfPasses(t *testing.T) {
	o := options(startUpstream(t))
	r, err := load.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Streams != o.Streams || r.Failed() > 0 {
		t.Errorf("%d streams, failures: %v", r.Streams, r.Failures)
	}
	if want := o.Streams * int(r.Window/o.Gap); r.Delivered < want*8/10 || r.Delivered > want*12/10 {
		t.Errorf("%d tokens in the window, want some %d", r.Delivered, want)
	}
	if r.Latency.P50 <= 0 || r.FirstToken.P50 <= 0 || r.OwnCPU <= 0 {
		t.Errorf("latency %v, first token %v, CPU %v", r.Latency, r.FirstToken, r.OwnCPU)
	}
}

func TestIdleStreamsAreLeftAfterAToken(t *testing.T) {
	o := options(startUpstream(t))
	o.Mode = load.Idle
	r, err := load.Run(t.Context(), o)
	if err != nil || r.Tokens != o.Streams || r.Failed() > 0 {
		t.Errorf("%d tokens, failures %v, %v", r.Tokens, r.Failures, err)
	}
}

// serve answers every request with the same bytes and closes.
func serve(t *testing.T, answer string) netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.ReadAtLeast(conn, make([]byte, 4096), 1)
			io.WriteString(conn, answer)
			conn.Close()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// answer is a stream of such tokens, and maybe its end.
func answer(mode load.Mode, seqs []int, end bool) string {
	e := wire.NewEncoder()
	var b strings.Builder
	b.WriteString(wire.Head)
	for i, seq := range seqs {
		chunk := string(e.Token(1, wire.Token{Seq: seq, Sent: time.Now().UnixNano()}))
		if mode != load.Chat { // an id behind the data
			_, data, _ := strings.Cut(strings.TrimSuffix(chunk, "\n\n\r\n"), "\r\n")
			data += fmt.Sprintf("\nid: s.%d\n\n", i+2)
			chunk = fmt.Sprintf("%x\r\n%s\r\n", len(data), data)
		}
		b.WriteString(chunk)
	}
	if end {
		b.Write(e.End(1))
	}
	return b.String()
}

func TestBadStreamsFail(t *testing.T) {
	for _, test := range []struct {
		mode   load.Mode
		answer string
		want   string
	}{
		{load.Chat, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "status 502"},
		{load.Chat, answer(load.Chat, []int{1, 3}, false), "a token out of order"},
		{load.Chat, answer(load.Chat, []int{1, 1}, false), "a token out of order"},
		{load.Chat, answer(load.Chat, []int{1, 2}, false), "the connection was closed before the end"},
		{load.Chat, answer(load.Chat, []int{1, 2}, true), "ended with too few tokens"},
		{load.Chat, answer(load.Chat, nil, false) + "0\r\n\r\n", "the body ended without the end of the stream"},
		{load.Chat, wire.Head + "f\r\ndata: {\"a\":1}\n\n\r\n", `the event "" "{\"a\":1}"`},
		{load.IDs, answer(load.IDs, []int{1, 2}, true), "an event without an id"},
		{load.IDs, answer(load.Chat, []int{1}, true), "an event without an id"},
		{load.Native, answer(load.Native, []int{1}, false), "the first id is not the stream's first"},
		{load.Readers, answer(load.Native, []int{1}, false), "never opened"},
	} {
		o := options(serve(t, test.answer))
		o.Mode, o.Streams, o.Window = test.mode, 1, 20*time.Millisecond
		r, err := load.Run(t.Context(), o)
		if err != nil {
			t.Errorf("%s: %v", test.want, err)
		}
		if r.Failures[test.want] == 0 {
			t.Errorf("%s: got %v", test.want, r.Failures)
		}
	}
}
