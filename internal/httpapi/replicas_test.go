package httpapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
	"testing"
	"time"

	"weir/internal/stream"
	"weir/internal/upstreamtest"
)

// newReplicas are two servers, each with a runner of its own, over one store.
func newReplicas(t *testing.T) (a, b *harness) {
	t.Helper()
	a = newHarness(t)
	b = newHarness(t, func(s *setup) { s.beside = a })
	return a, b
}

var comeBackLine = regexp.MustCompile(`(?:^|\n\n)retry: [0-9]{4}\n$`)

// A replica that stops sends the readers of another one's streams away at once:
// at the end of its own grace they would have waited for nothing.
func TestStoppingReplicaSendsReadersAway(t *testing.T) {
	a, b := newReplicas(t)
	steps := make(chan string)
	a.upstream.Answer(upstreamtest.Stepwise(steps))
	id := a.create(promptBody)
	events := "/v1/streams/" + id + "/events"
	steps <- upstreamtest.Chunk("one ")
	home := a.call("GET", events, "")
	readSome(t, home.Body, 2)

	reading := b.call("GET", events, "")
	readSome(t, reading.Body, 2)
	waiting := b.call("GET", events, "", "Last-Event-ID", id+".2")
	resumed := b.call("POST", "/v1/streams", promptBody, "Accept", "text/event-stream", "Last-Event-ID", id+".2")
	withIDs := b.call("POST", "/v1/chat/completions", chatBody, "Last-Event-ID", id+".1")
	readSome(t, withIDs.Body, 1)
	b.runner.StopStarting()
	for name, resp := range map[string]*http.Response{"reading": reading, "waiting": waiting, "POST": resumed, "chat with ids": withIDs} {
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != 200 || !errors.Is(err, io.ErrUnexpectedEOF) || !comeBackLine.Match(body) {
			t.Errorf("%s: status %d, %q, %v; want a retry line and an abort", name, resp.StatusCode, body, err)
		}
	}

	// The stream has noticed nothing.
	steps <- upstreamtest.Chunk("two") + upstreamtest.Finish("stop") + upstreamtest.Done
	close(steps)
	frames, err := readFrames(home.Body)
	if err != nil || assembled(t, frames) != "two" || frames[len(frames)-1].Type != "done" {
		t.Errorf("at home: %v, %v", frames, err)
	}
}

// A client without ids can't come back: there is nothing to tell it. One that has
// no status line yet gets one that its SDK tries again for.
func TestStoppingReplicaAbortsChat(t *testing.T) {
	const key = "a key of the test's own"
	a, b := newReplicas(t)
	steps := make(chan string)
	a.upstream.Answer(upstreamtest.Stepwise(steps))
	home := a.calling("POST", "/v1/chat/completions", chatBody, "Idempotency-Key", key)
	eventually(t, wait, "the stream runs", func() bool { return a.runner.Running() == 1 && len(a.upstream.Requests()) == 1 })

	opened := openings(b)
	early := b.calling("POST", "/v1/chat/completions", chatBody, "Idempotency-Key", key)
	<-opened
	b.runner.StopStarting()
	if resp := <-early; resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("before the first event: status %d, %v", resp.StatusCode, resp.Header)
	}

	steps <- upstreamtest.Chunk("one")
	(<-home).Body.Close()
	late := newHarness(t, func(s *setup) { s.beside = a })
	joined := late.call("POST", "/v1/chat/completions", chatBody, "Idempotency-Key", key)
	readSome(t, joined.Body, 1)
	late.runner.StopStarting()
	if body, err := io.ReadAll(joined.Body); !errors.Is(err, io.ErrUnexpectedEOF) || len(body) > 0 {
		t.Errorf("after it: %q, %v; want an abort and nothing else", body, err)
	}
	close(steps)
}

// calling sends a request whose answer waits for something.
func (h *harness) calling(method, path, body string, headers ...string) <-chan *http.Response {
	answer := make(chan *http.Response, 1)
	go func() {
		resp, err := h.try(testContext, method, path, body, headers...)
		if err != nil {
			h.t.Errorf("%s %s: %v", method, path, err)
			resp = &http.Response{Body: http.NoBody}
		}
		answer <- resp
	}()
	return answer
}

// openings tells of every log that the server opens from now on.
func openings(h *harness) <-chan struct{} {
	opened := make(chan struct{}, 16)
	h.server.Log = &openingStore{h.server.Log, opened}
	return opened
}

type openingStore struct {
	stream.Log
	opened chan<- struct{}
}

func (s *openingStore) Open(ctx context.Context, id string, after uint64) (stream.Reader, error) {
	defer func() { s.opened <- struct{}{} }()
	return s.Log.Open(ctx, id, after)
}

// scripted is a reader of what each Next returns.
type scripted []struct {
	events []stream.Event
	err    error
}

func (s *scripted) Next(dst []stream.Event) ([]stream.Event, error) {
	now := (*s)[0]
	*s = (*s)[1:]
	return append(dst, now.events...), now.err
}

func (*scripted) Wake() <-chan struct{} { return nil }
func (*scripted) Close()                {}

// News that came with the stop is told before the client is sent away, and an end
// instead of it.
func TestLeavingTellsTheNews(t *testing.T) {
	token := []stream.Event{{Seq: 1, Data: []byte("x")}}
	end := []stream.Event{{Seq: 2, Type: stream.TypeDone, Data: []byte("{}")}}
	tests := map[string]struct {
		log  scripted
		body string
		err  error
	}{
		"news":   {scripted{{}, {events: token}, {}, {}}, `data: x\nid: s\.1\n\nretry: \d+\n$`, errStopping},
		"an end": {scripted{{}, {events: end}, {err: io.EOF}}, `data: {}\nid: s\.2\n\n$`, nil},
		"EOF":    {scripted{{}, {err: io.EOF}}, `^$`, nil},
	}
	stopping := make(chan struct{})
	close(stopping)
	for name, test := range tests {
		tail := &tail{
			reader: &test.log, frames: &nativeFrames{stream: "s"}, beat: wait, timer: time.NewTimer(wait),
			draining: stopping, runsHere: func() bool { return false },
		}
		body, err := io.ReadAll(tail)
		if !regexp.MustCompile(test.body).Match(body) || !errors.Is(err, test.err) {
			t.Errorf("%s: %q, %v", name, body, err)
		}
	}
}

// What runs here, and what has ended anywhere, is served on.
func TestStoppingReplicaServesItsOwn(t *testing.T) {
	a, b := newReplicas(t)
	steps := make(chan string)
	b.upstream.Answer(upstreamtest.Stepwise(steps))
	own := b.call("GET", "/v1/streams/"+b.create(promptBody)+"/events", "")
	steps <- upstreamtest.Chunk("one ")
	readSome(t, own.Body, 2)

	const large = 24 // more MiB than the sockets take
	meta := stream.Meta{ID: stream.NewID(), Owner: ownerLocal, Dialect: stream.DialectChat}
	w, err := a.store.Create(t.Context(), meta)
	if err != nil {
		t.Fatal(err)
	}
	for range large {
		if err := w.Append(t.Context(), []stream.Event{{Data: bytes.Repeat([]byte("x"), 1<<20)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.store.Seal(t.Context(), meta.ID, stream.DoneEvent(stream.Summary{})); err != nil {
		t.Fatal(err)
	}
	replay := b.call("GET", "/v1/streams/"+meta.ID+"/events", "")

	b.runner.StopStarting()
	frames, err := readFrames(replay.Body)
	if err != nil || len(frames) != large+1 || frames[large].Type != "done" {
		t.Errorf("a replay: %d frames, %v", len(frames), err)
	}
	steps <- upstreamtest.Chunk("two") + upstreamtest.Finish("stop") + upstreamtest.Done
	close(steps)
	frames, err = readFrames(own.Body)
	if err != nil || assembled(t, frames) != "two" || frames[len(frames)-1].Type != "done" {
		t.Errorf("its own: %v, %v", frames, err)
	}
}
