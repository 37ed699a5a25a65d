package httpapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"weir/internal/stream"
	"weir/internal/upstreamtest"
)

// A client that leaves while no token flows is noticed within a second: the
// upstream of a stream that should end with it is closed.
func TestDisconnectIsNoticedWhileIdle(t *testing.T) {
	tests := []struct {
		name    string
		path    string
		request string // after the head's first lines
		leave   func(net.Conn)
	}{
		{"chat, closed", "/v1/chat/completions", chatBody, func(c net.Conn) { c.Close() }},
		{"chat, reset", "/v1/chat/completions", chatBody, func(c net.Conn) { c.(*net.TCPConn).SetLinger(0); c.Close() }},
		{"native with cancel, closed", "/v1/streams", promptBody, func(c net.Conn) { c.Close() }},
		{"closed behind the next request", "/v1/chat/completions", chatBody, func(c net.Conn) {
			io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
			c.Close()
		}},
	}
	for _, tt := range tests {
		for _, first := range []string{"", upstreamtest.Chunk("a")} { // while the status line waits, and after
			h := newHarness(t, func(s *setup) { s.options.DetachGrace = time.Millisecond })
			h.upstream.Answer(upstreamtest.Silent(first))
			conn, _ := h.raw(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"+
				"Weir-On-Disconnect: cancel\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", tt.path, len(tt.request), tt.request))
			eventually(t, wait, "the upstream is asked", func() bool { return len(h.upstream.Requests()) == 1 })
			if first != "" {
				awaitSeq(t, h, 2)
			}
			tt.leave(conn)
			left := time.Now()
			h.upstream.AwaitIdle()
			if took := time.Since(left); took > time.Second {
				t.Errorf("%s, %d bytes in: noticed after %s", tt.name, len(first), took)
			}
			eventually(t, wait, "the stream is cancelled", func() bool { return onlyStream(h).State() == stream.StateCancelled })
			if first != "" {
				eventually(t, wait, tt.name+": a partial usage is booked", func() bool {
					usage := onlyStream(h).Booked.Usage
					return usage != nil && usage.Source == stream.UsagePartial
				})
			}
		}
	}
}

func onlyStream(h *harness) stream.Status {
	list, err := h.store.List(context.Background(), ownerLocal, "", 1)
	if err != nil || len(list) != 1 {
		return stream.Status{}
	}
	return list[0]
}

func awaitSeq(t *testing.T, h *harness, seq uint64) {
	t.Helper()
	eventually(t, wait, fmt.Sprintf("the log has %d events", seq), func() bool { return onlyStream(h).LastSeq >= seq })
}

// Disconnect is not cancel: a native stream goes on, and its reader finds it
// whole.
func TestDisconnectIsNotCancel(t *testing.T) {
	h := newHarness(t, func(s *setup) { s.options.DetachGrace = time.Millisecond })
	steps := make(chan string)
	h.upstream.Answer(upstreamtest.Stepwise(steps))
	ctx, leave := context.WithCancel(t.Context())
	resp, err := h.try(ctx, "POST", "/v1/streams", promptBody, "Accept", "text/event-stream")
	if err != nil {
		t.Fatal(err)
	}
	id := resp.Header.Get("Weir-Stream-Id")
	readSome(t, resp.Body, 1)
	leave()
	resp.Body.Close()
	steps <- upstreamtest.Chunk("a")
	steps <- upstreamtest.Chunk("b") + upstreamtest.Finish("stop") + upstreamtest.Done
	close(steps)
	frames, err := readFrames(h.call("GET", "/v1/streams/"+id+"/events", "").Body)
	if err != nil || assembled(t, frames) != "ab" || frames[len(frames)-1].Type != "done" {
		t.Errorf("got %v, %v", frames, err)
	}
}

// Another reader keeps a compatible stream alive when its creator has left.
func TestAnyReaderKeepsAStreamAlive(t *testing.T) {
	h := newHarness(t, func(s *setup) { s.options.DetachGrace = 50 * time.Millisecond })
	steps := make(chan string)
	h.upstream.Answer(upstreamtest.Stepwise(steps))
	ctx, leave := context.WithCancel(t.Context())
	go func() { steps <- upstreamtest.Chunk("a") }()
	creator, err := h.try(ctx, "POST", "/v1/chat/completions", chatBody)
	if err != nil {
		t.Fatal(err)
	}
	reader := h.call("GET", "/v1/streams/"+creator.Header.Get("Weir-Stream-Id")+"/events", "")
	readSome(t, reader.Body, 2)
	leave()
	creator.Body.Close()
	after := time.NewTimer(200 * time.Millisecond) // four times the patience
	<-after.C
	steps <- upstreamtest.Finish("stop") + upstreamtest.Done
	close(steps)
	if frames, err := readFrames(reader.Body); err != nil || frames[len(frames)-1].Type != "done" {
		t.Errorf("got %v, %v", frames, err)
	}
}

// A reader that never reads is dropped by its write deadline; the others get
// everything meanwhile.
func TestReaderThatNeverReads(t *testing.T) {
	readers := &readerCount{}
	h := newHarness(t, func(s *setup) { s.options.WriteTimeout = 300 * time.Millisecond; s.options.Metrics = readers })
	steps := make(chan string)
	h.upstream.Answer(upstreamtest.Stepwise(steps))
	id := h.create(promptBody)
	stuck, _ := h.raw("GET /v1/streams/" + id + "/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	healthy := h.call("GET", "/v1/streams/"+id+"/events", "")
	piece := strings.Repeat("x", 64<<10)
	var sent sync.WaitGroup
	sent.Go(func() {
		for range 640 { // 40 MiB: more than sockets hold
			steps <- upstreamtest.Chunk(piece)
		}
		steps <- upstreamtest.Finish("stop") + upstreamtest.Done
		close(steps)
	})
	frames, err := readFrames(healthy.Body)
	sent.Wait()
	if err != nil || len(frames) != 643 {
		t.Errorf("the healthy reader got %d frames, %v", len(frames), err)
	}
	eventually(t, wait, "the reader that never reads is dropped", func() bool { return readers.open.Load() == 0 })
	stuck.SetReadDeadline(time.Now().Add(wait))
	if _, err := io.Copy(io.Discard, stuck); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the reader that never reads is still connected: %v", err)
	}
}

// The same for plain answers: a client that asks again and again, and takes
// nothing, is dropped.
func TestClientThatNeverReadsPlainAnswers(t *testing.T) {
	h := newHarness(t, func(s *setup) { s.options.WriteTimeout = 200 * time.Millisecond })
	id := h.finished(strings.Repeat("x", 1<<20))
	conn, _ := h.raw("")
	request := "GET /v1/streams/" + id + " HTTP/1.1\r\nHost: localhost\r\n\r\n"
	conn.SetWriteDeadline(time.Now().Add(wait))
	for {
		if _, err := io.WriteString(conn, request); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the client is still connected")
			}
			return
		}
	}
}

// A connection that was idle longer than a write may take is as good as new.
func TestIdleConnectionKeepsNoDeadline(t *testing.T) {
	h := newHarness(t, func(s *setup) { s.options.WriteTimeout = 50 * time.Millisecond })
	conn, r := h.raw("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if _, err := http.ReadResponse(r, nil); err != nil {
		t.Fatal(err)
	}
	r.Discard(len("ok\n"))
	<-time.After(100 * time.Millisecond)
	io.WriteString(conn, "POST /v1/streams HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n")
	conn.SetReadDeadline(time.Now().Add(wait))
	if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Errorf("got %q, %v", line, err)
	}
}

// In a replay, events are not cut in two: each write ends behind a whole one.
func TestReplayCutsNoEvent(t *testing.T) {
	h := newHarness(t)
	id := h.finished(pieces(200)...)
	conn, r := h.raw("GET /v1/streams/" + id + "/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	conn.SetReadDeadline(time.Now().Add(wait))
	readUntil(t, r, "\r\n")
	for chunks := 0; ; chunks++ {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		size, err := strconv.ParseInt(strings.TrimSpace(line), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		chunk := make([]byte, size+2)
		if _, err := io.ReadFull(r, chunk); err != nil {
			t.Fatal(err)
		}
		if size == 0 {
			if chunks < 5 {
				t.Errorf("only %d chunks: nothing was tested", chunks)
			}
			return
		}
		if !strings.HasSuffix(string(chunk), "\n\n\r\n") {
			t.Fatalf("a write ends in %q", chunk[max(0, len(chunk)-40):])
		}
	}
}

// readerCount is metrics that count the readers there are.
type readerCount struct{ open atomic.Int64 }

func (r *readerCount) ReaderOpened(bool) { r.open.Add(1) }
func (r *readerCount) ReaderClosed()     { r.open.Add(-1) }

// A body without a terminal event is never ended cleanly, and what it said is
// enough to go on from.
func TestStoppedServerAbortsBodies(t *testing.T) {
	h := newHarness(t)
	id := stream.NewID() // one that runs elsewhere: this server can't end it
	w, err := h.store.Create(t.Context(), stream.Meta{ID: id, Owner: ownerLocal, Dialect: stream.DialectChat})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Append(t.Context(), []stream.Event{{Type: stream.TypeStart, Data: []byte("{}")}, {Data: []byte(`{"choices":[]}`)}}); err != nil {
		t.Fatal(err)
	}
	resp := h.call("GET", "/v1/streams/"+id+"/events", "")
	conn, r := h.raw("GET /v1/streams/" + id + "/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	defer conn.Close()
	readUntil(t, r, "id: "+id+".2\n")
	frames := readSome(t, resp.Body, 2)
	h.stop()
	if _, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the body ended with %v, want an abort", err)
	}
	if rest, _ := io.ReadAll(r); strings.Contains(string(rest), "0\r\n\r\n") {
		t.Errorf("the final chunk was sent: %q", rest)
	}
	if frames[1].ID != id+".2" {
		t.Errorf("the last id is %q", frames[1].ID)
	}
}

func readUntil(t *testing.T, r *bufio.Reader, line string) {
	t.Helper()
	for {
		got, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if got == line {
			return
		}
	}
}

// A stream that runs here when the server stops ends in an honest error, told
// to its reader before the connection closes.
func TestStoppedServerEndsItsOwnStreams(t *testing.T) {
	h := newHarness(t)
	h.upstream.Answer(upstreamtest.Silent(upstreamtest.Chunk("a")))
	native := h.call("POST", "/v1/streams", promptBody, "Accept", "text/event-stream")
	chat := h.call("POST", "/v1/chat/completions", chatBody)
	readSome(t, native.Body, 2)
	readSome(t, chat.Body, 1)
	h.stop()
	frames, err := readFrames(native.Body)
	if err != nil || len(frames) != 1 || frames[0].Type != "error" || !strings.Contains(frames[0].Data, `"code":"interrupted"`) || !strings.Contains(frames[0].Data, `"retryable":true`) {
		t.Errorf("native: %v, %v", frames, err)
	}
	frames, err = readFrames(chat.Body)
	if err != nil || len(frames) != 1 || !strings.Contains(frames[0].Data, `"code":"interrupted"`) {
		t.Errorf("chat: %v, %v", frames, err)
	}
	h.upstream.AwaitIdle()
}

// A panic while a body is written aborts that body and nothing else.
func TestPanicAbortsItsBodyOnly(t *testing.T) {
	h := newHarness(t)
	id := h.finished("a", "b", "c")
	store := &panickyStore{Log: h.server.Log}
	h.server.Log = store
	store.arm.Store(id, true)
	resp := h.call("GET", "/v1/streams/"+id+"/events", "")
	if _, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the body ended with %v, want an abort", err)
	}
	store.arm.Clear()
	if frames, err := readFrames(h.call("GET", "/v1/streams/"+id+"/events", "").Body); err != nil || len(frames) != 6 {
		t.Errorf("afterwards: %v, %v", frames, err)
	}
}

// panickyStore's readers panic at their second Next, for armed streams.
type panickyStore struct {
	stream.Log
	arm sync.Map
}

func (s *panickyStore) Open(ctx context.Context, id string, after uint64) (stream.Reader, error) {
	r, err := s.Log.Open(ctx, id, after)
	if _, armed := s.arm.Load(id); armed && err == nil {
		r = &panickyReader{Reader: r}
	}
	return r, err
}

type panickyReader struct {
	stream.Reader
	calls int
}

func (r *panickyReader) Next(dst []stream.Event) ([]stream.Event, error) {
	if r.calls++; r.calls > 1 {
		panic("scripted")
	}
	return r.Reader.Next(dst)
}

// While the server drains, an EventSource is told to come back and everybody
// else gets 503; readers that are there are served to the end.
func TestDraining(t *testing.T) {
	h := newHarness(t)
	steps := make(chan string)
	h.upstream.Answer(upstreamtest.Stepwise(steps))
	resp := h.call("POST", "/v1/streams", promptBody, "Accept", "text/event-stream")
	id := resp.Header.Get("Weir-Stream-Id")
	grace, stop := context.WithCancel(t.Context())
	defer stop()
	drained := make(chan struct{})
	go func() { h.runner.Drain(grace); close(drained) }()
	eventually(t, wait, "draining", h.runner.Draining)

	if resp := h.call("GET", "/readyz", ""); resp.StatusCode != 503 {
		t.Errorf("readyz: status %d", resp.StatusCode)
	}
	if resp := h.call("GET", "/livez", ""); resp.StatusCode != 200 {
		t.Errorf("livez: status %d", resp.StatusCode)
	}
	for _, path := range []string{"/v1/streams/" + id + "/events", "/v1/stream?prompt=x&model=gpt-test"} {
		resp := h.call("GET", path, "")
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != 200 || !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(string(body), "retry: ") || strings.Count(string(body), "\n") != 1 {
			t.Errorf("%s: status %d, %q, %v", path, resp.StatusCode, body, err)
		}
	}
	for _, resp := range []*http.Response{
		h.call("POST", "/v1/streams", promptBody), h.call("POST", "/v1/chat/completions", chatBody),
		h.call("POST", "/v1/chat/completions", strings.Replace(chatBody, "true", "false", 1)), h.call("GET", "/v1/streams/"+id, ""),
	} {
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s %s: status %d, %v", resp.Request.Method, resp.Request.URL, resp.StatusCode, resp.Header)
		}
	}
	steps <- upstreamtest.Answer("still ", "here")
	close(steps)
	frames, err := readFrames(resp.Body)
	if err != nil || assembled(t, frames) != "still here" || frames[len(frames)-1].Type != "done" {
		t.Errorf("got %v, %v", frames, err)
	}
	<-drained
}

// A request that does not arrive gets 408 and its connection closed.
func TestSlowRequest(t *testing.T) {
	h := newHarness(t, func(s *setup) { s.options.ReadTimeout = 100 * time.Millisecond })
	for _, part := range []string{"POST /v1/streams HT", "POST /v1/streams HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"} {
		conn, r := h.raw(part)
		conn.SetReadDeadline(time.Now().Add(wait))
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("%q: %v", part, err)
		}
		if e, _ := object(t, resp)["error"].(map[string]any); resp.StatusCode != 408 || e["code"] != "request_timeout" {
			t.Errorf("%q: status %d, %v", part, resp.StatusCode, e)
		}
		if _, err := r.ReadByte(); err == nil {
			t.Errorf("%q: the connection stays open", part)
		}
	}
}

// A connection serves the next request after a stream, a resumed one too.
func TestKeepAliveAfterAStream(t *testing.T) {
	h := newHarness(t)
	id := h.finished("a")
	conn, r := h.raw("")
	conn.SetReadDeadline(time.Now().Add(wait))
	for i := range 5 {
		fmt.Fprintf(conn, "GET /v1/streams/%s/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: %d\r\n\r\n", id, i%4)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		if frames, err := readFrames(resp.Body); err != nil || len(frames) != 4-i%4 {
			t.Errorf("request %d: %v, %v", i, frames, err)
		}
	}
}

// No goroutine is left after 1,000 streams whose readers leave, cancel or stay
// at random.
func TestNoGoroutineIsLeft(t *testing.T) {
	before := goleak.IgnoreCurrent()
	func() {
		h := newHarness(t, func(s *setup) {
			s.options.DetachGrace = time.Millisecond
			s.options.OrphanLimit = 200 * time.Millisecond
		})
		h.upstream.Answer(func(w http.ResponseWriter, r *http.Request) {
			upstreamtest.Begin(w)
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for range 1 + rand.IntN(10) {
				upstreamtest.Send(w, upstreamtest.Chunk("x"))
				select {
				case <-tick.C:
				case <-r.Context().Done():
					return
				}
			}
			if rand.IntN(3) == 0 {
				<-r.Context().Done() // silent for ever
				return
			}
			upstreamtest.Send(w, upstreamtest.Finish("stop")+upstreamtest.Done)
		})
		var clients sync.WaitGroup
		work := make(chan int)
		for range 50 {
			clients.Go(func() {
				for range work {
					oneRandomClient(t, h)
				}
			})
		}
		for i := range 1000 {
			work <- i
		}
		close(work)
		clients.Wait()
		eventually(t, wait, "all generations are over", func() bool { return h.runner.Running() == 0 })
		h.upstream.AwaitIdle()
		h.stop()
		h.upstream.Close()
	}()
	goleak.VerifyNone(t, before, // these two fasthttp starts once and never ends
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

func oneRandomClient(t *testing.T, h *harness) {
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	path, body := "/v1/streams", promptBody
	if rand.IntN(2) == 0 {
		path, body = "/v1/chat/completions", chatBody
	}
	resp, err := h.try(ctx, "POST", path, body, "Accept", "text/event-stream")
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	time.AfterFunc(300*time.Millisecond, leave)
	switch rand.IntN(3) {
	case 0: // leaves after a few bytes
		io.CopyN(io.Discard, resp.Body, int64(rand.IntN(800)))
	case 1: // cancels, and reads to the end
		if r, err := h.try(t.Context(), "POST", "/v1/streams/"+resp.Header.Get("Weir-Stream-Id")+"/cancel", "{}"); err == nil {
			r.Body.Close()
		}
		io.Copy(io.Discard, resp.Body)
	case 2: // stays for a while
		io.Copy(io.Discard, resp.Body)
	}
}
