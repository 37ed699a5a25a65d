package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"weir/internal/providers"
	"weir/internal/providers/demo"
	"weir/internal/providers/openai"
	"weir/internal/sse"
	"weir/internal/stream"
	"weir/internal/stream/memory"
	"weir/internal/upstreamtest"
)

// harness is a whole proxy on a real listener in front of a fake upstream.
type harness struct {
	t        testing.TB
	url      string
	upstream *upstreamtest.Upstream
	store    *memory.Store
	runner   *stream.Runner
	server   *Server
	client   *http.Client
	served   chan error
	provider *openai.Provider // nil with a registry of the test's own
	stopped  bool
}

// setup changes what a harness is built with.
type setup struct {
	options Options
	limits  stream.Limits
	store   memory.Options
	beside  *harness // another replica, whose store this one shares; may be nil
	key     string   // of the upstream
}

func newHarness(t testing.TB, change ...func(*setup)) *harness {
	t.Helper()
	h := &harness{t: t, upstream: upstreamtest.New(t), served: make(chan error, 1)}
	s := setup{key: "sk-upstream-secret", options: Options{
		Logger: slog.New(slog.DiscardHandler), Heartbeat: 15 * time.Second,
		DetachGrace: 5 * time.Second, OrphanLimit: 10 * time.Minute,
		Access: AccessOptions{Loopback: true, Secret: []byte("a secret of the tests")},
	}}
	for _, c := range change {
		c(&s)
	}
	if h.store = memory.New(s.store); s.beside != nil {
		h.store = s.beside.store
	}
	h.runner = stream.NewRunner(h.store, s.limits, nil)
	s.options.Log, s.options.Runner = h.store, h.runner
	if s.options.Registry == nil {
		s.options.Registry = providers.NewRegistry("")
		h.provider = openai.New(openai.Options{Key: s.key, BaseURL: h.upstream.URL})
		s.options.Registry.Add("openai", h.provider)
		s.options.Registry.Add(providers.Demo, demo.New())
	}
	h.server = New(s.options)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.url = "http://" + listener.Addr().String()
	h.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	go func() { h.served <- h.server.Serve(listener) }()
	t.Cleanup(h.stop)
	return h
}

// stop ends the proxy: running generations are interrupted.
func (h *harness) stop() {
	if h.stopped {
		return
	}
	h.stopped = true
	now, cancel := context.WithCancel(context.Background())
	cancel()
	h.runner.Drain(now)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	h.client.CloseIdleConnections()
	if h.provider != nil {
		h.provider.Close()
	}
	if err := h.server.Shutdown(ctx); err != nil {
		h.t.Errorf("shutdown: %v", err)
	}
	if err := <-h.served; err != nil {
		h.t.Errorf("serve: %v", err)
	}
}

// call sends a request; headers come in pairs.
func (h *harness) call(method, path, body string, headers ...string) *http.Response {
	h.t.Helper()
	resp, err := h.try(context.Background(), method, path, body, headers...)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	h.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func (h *harness) try(ctx context.Context, method, path, body string, headers ...string) (*http.Response, error) {
	var payload io.Reader
	if body != "" {
		payload = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, h.url+path, payload)
	if err != nil {
		return nil, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	return h.client.Do(req)
}

// text reads a whole answer.
func text(t testing.TB, resp *http.Response) string {
	t.Helper()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read the body: %v (after %q)", err, data)
	}
	return string(data)
}

// object reads an answer as JSON.
func object(t testing.TB, resp *http.Response) map[string]any {
	t.Helper()
	var v map[string]any
	data := text(t, resp)
	if err := json.Unmarshal([]byte(data), &v); err != nil {
		t.Fatalf("status %d, not JSON: %q", resp.StatusCode, data)
	}
	return v
}

const (
	chatBody   = `{"model":"gpt-test","stream":true,"messages":[{"role":"user","content":"Hi"}]}`
	promptBody = `{"prompt":"Hi","model":"gpt-test"}`
)

// create starts a native stream and returns its id.
func (h *harness) create(body string, headers ...string) string {
	h.t.Helper()
	resp := h.call("POST", "/v1/streams", body, headers...)
	answer := object(h.t, resp)
	if resp.StatusCode != http.StatusCreated {
		h.t.Fatalf("create: status %d: %v", resp.StatusCode, answer)
	}
	return answer["id"].(string)
}

// finished starts a stream of an answer and returns its id once it has ended.
func (h *harness) finished(pieces ...string) string {
	h.t.Helper()
	h.upstream.Answer(upstreamtest.SSE(upstreamtest.Answer(pieces...)))
	id := h.create(promptBody)
	frames, err := readFrames(h.call("GET", "/v1/streams/"+id+"/events", "").Body)
	if err != nil || len(frames) == 0 || frames[len(frames)-1].Type != "done" {
		h.t.Fatalf("the stream did not end well: %v, %v", frames, err)
	}
	return id
}

// frame is one event as a client gets it.
type frame struct{ Type, Data, ID string }

// readFrames reads a body to its end. The error is io.ErrUnexpectedEOF for one
// that was aborted.
func readFrames(r io.Reader) (frames []frame, err error) {
	d := sse.NewDecoder(64 << 20)
	for {
		err := d.Fill(r)
		for {
			e, ok := d.Next()
			if !ok {
				break
			}
			frames = append(frames, frame{string(e.Type), string(e.Data), string(e.ID)})
		}
		if errors.Is(err, io.EOF) {
			return frames, nil
		}
		if err != nil {
			return frames, err
		}
	}
}

// readSome reads frames until there are n.
func readSome(t testing.TB, r io.Reader, n int) []frame {
	t.Helper()
	var frames []frame
	d := sse.NewDecoder(64 << 20)
	for len(frames) < n {
		if err := d.Fill(r); err != nil {
			t.Fatalf("after %d frames of %d: %v", len(frames), n, err)
		}
		for {
			e, ok := d.Next()
			if !ok {
				break
			}
			frames = append(frames, frame{string(e.Type), string(e.Data), string(e.ID)})
		}
	}
	return frames
}

// assembled joins the text of chat chunks.
func assembled(t testing.TB, frames []frame) string {
	t.Helper()
	var b strings.Builder
	for _, f := range frames {
		if f.Type != "" || f.Data == "[DONE]" {
			continue
		}
		var chunk struct {
			Choices []struct {
				Delta struct {
					Content string `json:"content"`
				} `json:"delta"`
			} `json:"choices"`
		}
		if err := json.Unmarshal([]byte(f.Data), &chunk); err != nil {
			t.Fatalf("not a chunk: %q", f.Data)
		}
		for _, c := range chunk.Choices {
			b.WriteString(c.Delta.Content)
		}
	}
	return b.String()
}

// eventually waits until ok holds, for what no event tells. It polls, and gives
// up after within.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
		<-tick.C
	}
}

// raw is a connection on which a test speaks HTTP by hand.
func (h *harness) raw(request string) (net.Conn, *bufio.Reader) {
	h.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close() })
	if _, err := io.Copy(conn, bytes.NewBufferString(request)); err != nil {
		h.t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// wait bounds what a test waits for; it is reached by failures only.
const wait = 10 * time.Second

// testContext is for clients whose calls end by themselves.
var testContext = context.Background()
