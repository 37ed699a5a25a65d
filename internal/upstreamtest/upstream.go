// Package upstreamtest is the far end of the network for tests: a model API on
// loopback that speaks the real wire, faults included.
package upstreamtest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// Request is what the upstream was sent.
type Request struct {
	Method string
	Path   string
	Query  string
	Header http.Header
	Body   []byte
}

// Upstream is an HTTP server that answers as it is told and remembers what it
// was asked.
type Upstream struct {
	URL string // without a trailing slash; a base URL for /chat/completions and /models

	mu       sync.Mutex
	requests []Request        // guarded by mu
	answer   http.HandlerFunc // guarded by mu
	open     int              // guarded by mu; calls that have not ended
	changed  *sync.Cond
	server   *httptest.Server
}

// New starts an upstream that ends with the test. Its answer is set by Answer.
func New(t testing.TB) *Upstream {
	u := &Upstream{}
	u.changed = sync.NewCond(&u.mu)
	u.server = httptest.NewServer(u)
	t.Cleanup(u.server.Close)
	u.URL = u.server.URL
	return u
}

// Close ends the upstream before its test ends. It waits for open calls.
func (u *Upstream) Close() { u.server.Close() }

// Answer sets how calls are answered from now on.
func (u *Upstream) Answer(h http.HandlerFunc) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answer = h
}

// Requests returns what came so far.
func (u *Upstream) Requests() []Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]Request(nil), u.requests...)
}

// AwaitIdle returns when no call is open any more: all were answered, or their
// connections closed.
func (u *Upstream) AwaitIdle() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for u.open > 0 {
		u.changed.Wait()
	}
}

func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	u.mu.Lock()
	u.open++
	u.requests = append(u.requests, Request{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Clone(), body})
	answer := u.answer
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		u.open--
		u.changed.Broadcast()
		u.mu.Unlock()
	}()
	r.Body = io.NopCloser(bytes.NewReader(body))
	answer(w, r)
}

// Status answers with a status, headers in pairs, and a body.
func Status(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		if w.Header().Get("Content-Type") == "" {
			w.Header().Set("Content-Type", "application/json")
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// SSE answers with a whole stream, in one piece.
func SSE(wire string) http.HandlerFunc { return Pieces(wire) }

// Pieces answers with a stream, a piece a write.
func Pieces(pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		Begin(w)
		for _, p := range pieces {
			Send(w, p)
		}
	}
}

// Begin sends the head of a stream.
func Begin(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
}

// Send sends a piece of a stream at once.
func Send(w http.ResponseWriter, piece string) {
	io.WriteString(w, piece)
	w.(http.Flusher).Flush()
}

// Stepwise answers with a piece for every value that steps yields, until it is
// closed; it ends early when the caller leaves.
func Stepwise(steps <-chan string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		Begin(w)
		for {
			select {
			case piece, more := <-steps:
				if !more {
					return
				}
				Send(w, piece)
			case <-r.Context().Done():
				return
			}
		}
	}
}

// Silent begins a stream with a first piece and says nothing more until the
// caller leaves.
func Silent(first string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		Begin(w)
		Send(w, first)
		<-r.Context().Done()
	}
}

// How a Cut ends the connection.
type CutKind int

const (
	CutClose CutKind = iota // without the final chunk
	CutReset                // by a reset
	CutClean                // as if the body were whole
)

// Cut answers with the wire and ends behind it in the given way.
func Cut(wire string, kind CutKind) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		buf.WriteString("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
		if len(wire) > 0 {
			fmt.Fprintf(buf, "%x\r\n%s\r\n", len(wire), wire)
		}
		switch kind {
		case CutClean:
			buf.WriteString("0\r\n\r\n")
		case CutReset:
			if tcp, ok := conn.(*net.TCPConn); ok {
				defer tcp.SetLinger(0)
			}
		}
		buf.Flush()
	}
}

// Chunk is a chat chunk as OpenAI sends it, framed.
func Chunk(content string) string {
	return fmt.Sprintf(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"gpt-test","system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"content":%q},"logprobs":null,"finish_reason":null}],"obfuscation":"x"}`+"\n\n", content)
}

// Finish is the chunk with the finish reason, framed.
func Finish(reason string) string {
	return fmt.Sprintf(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"gpt-test","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":%q}]}`+"\n\n", reason)
}

// Usage is the chunk that carries the usage alone, framed.
const Usage = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"gpt-test","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12,"prompt_tokens_details":{"cached_tokens":1}}}` + "\n\n"

// Done is the end marker, framed.
const Done = "data: [DONE]\n\n"

// Answer is a whole chat stream of the given pieces of text.
func Answer(pieces ...string) string {
	var b strings.Builder
	for _, p := range pieces {
		b.WriteString(Chunk(p))
	}
	b.WriteString(Finish("stop"))
	b.WriteString(Done)
	return b.String()
}
