package openai

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/internal/providers"
	"weir/internal/stream"
	"weir/internal/upstreamtest"
)

var body = []byte(`{"model":"gpt-test","stream":true,"messages":[{"role":"user","content":"Hi"}]}`)

func ask(t *testing.T, p *Provider) ([][]string, stream.Outcome, error) {
	t.Helper()
	var batches [][]string
	outcome, err := p.Stream(t.Context(), providers.Request{Model: "gpt-test", Body: body}, func(events []stream.Event) error {
		var batch []string
		for _, e := range events {
			batch = append(batch, string(e.Data))
		}
		batches = append(batches, batch)
		return nil
	})
	return batches, outcome, err
}

// What one read from upstream brings is one batch, as it came.
func TestOneReadIsOneBatch(t *testing.T) {
	u := upstreamtest.New(t)
	steps := make(chan string, 1)
	u.Answer(upstreamtest.Stepwise(steps))
	p := New(Options{BaseURL: u.URL})
	defer p.Close()
	steps <- upstreamtest.Chunk("a") + upstreamtest.Chunk("b") + upstreamtest.Chunk("c")
	var sizes []int
	_, err := p.Stream(t.Context(), providers.Request{Body: body}, func(events []stream.Event) error {
		sizes = append(sizes, len(events))
		if len(sizes) == 1 {
			steps <- upstreamtest.Finish("stop") + upstreamtest.Done
			close(steps)
		}
		return nil
	})
	if err != nil || !slices.Equal(sizes, []int{3, 1}) {
		t.Errorf("batches of %v, %v", sizes, err)
	}
}

// A comment is no event, but it tells that the upstream is alive.
func TestCommentIsASignOfLife(t *testing.T) {
	u := upstreamtest.New(t)
	steps := make(chan string)
	u.Answer(upstreamtest.Stepwise(steps))
	p := New(Options{BaseURL: u.URL})
	defer p.Close()
	go func() { steps <- ": OPENROUTER PROCESSING\n\n" }()
	var sizes []int
	_, err := p.Stream(t.Context(), providers.Request{Body: body}, func(events []stream.Event) error {
		if sizes = append(sizes, len(events)); len(sizes) == 1 {
			go func() { steps <- upstreamtest.Answer("x"); close(steps) }()
		}
		return nil
	})
	if err != nil || len(sizes) < 2 || sizes[0] != 0 {
		t.Errorf("batches of %v, %v", sizes, err)
	}
}

// The connection of an answer that came to its end serves the next call; one
// that broke off does not.
func TestConnectionIsUsedAgain(t *testing.T) {
	u := upstreamtest.New(t)
	var conns []string
	answer := upstreamtest.SSE(upstreamtest.Answer("x"))
	u.Answer(func(w http.ResponseWriter, r *http.Request) {
		conns = append(conns, r.RemoteAddr)
		answer(w, r)
	})
	p := New(Options{BaseURL: u.URL})
	defer p.Close()
	for range 3 {
		if _, _, err := ask(t, p); err != nil {
			t.Fatal(err)
		}
	}
	if conns[0] != conns[1] || conns[1] != conns[2] {
		t.Errorf("connections from %v", conns)
	}
	answer = upstreamtest.Silent(upstreamtest.Chunk("x") + `data: {"error":{"message":"x"}}` + "\n\n")
	if _, _, err := ask(t, p); err == nil {
		t.Fatal("no error")
	}
	u.AwaitIdle()
	answer = upstreamtest.SSE(upstreamtest.Answer("x"))
	if _, _, err := ask(t, p); err != nil {
		t.Fatal(err)
	}
	if conns[4] == conns[3] {
		t.Error("a connection was used again after an error")
	}
}

// A call whose answer never came is not sent again: the upstream may have
// worked for it.
func TestOneRequestIsOneCall(t *testing.T) {
	u := upstreamtest.New(t)
	warm := upstreamtest.SSE(upstreamtest.Answer("x"))
	u.Answer(warm)
	p := New(Options{BaseURL: u.URL})
	defer p.Close()
	if _, _, err := ask(t, p); err != nil {
		t.Fatal(err)
	}
	u.Answer(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if _, _, err := ask(t, p); stream.AsError(err).Code != stream.CodeUpstreamUnreachable {
		t.Errorf("got %v", err)
	}
	if n := len(u.Requests()); n != 2 {
		t.Errorf("%d calls for two requests", n)
	}
}

// The upstream's connection closes as soon as the context ends, and an emit
// that fails ends the call.
func TestEndsWithItsContext(t *testing.T) {
	u := upstreamtest.New(t)
	u.Answer(upstreamtest.Silent(upstreamtest.Chunk("a")))
	p := New(Options{BaseURL: u.URL})
	defer p.Close()
	ctx, cancel := context.WithCancel(t.Context())
	outcome, err := p.Stream(ctx, providers.Request{Body: body}, func([]stream.Event) error {
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || outcome.Usage == nil || outcome.Usage.Source != stream.UsagePartial {
		t.Errorf("got %+v, %v", outcome, err)
	}
	u.AwaitIdle()

	full := errors.New("full")
	_, err = p.Stream(t.Context(), providers.Request{Body: body}, func([]stream.Event) error { return full })
	if !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	u.AwaitIdle()
}

// An upstream that keeps its connection open after [DONE] does not hold up the
// end.
func TestUpstreamThatStaysOpen(t *testing.T) {
	u := upstreamtest.New(t)
	u.Answer(upstreamtest.Silent(upstreamtest.Answer("x")))
	p := New(Options{BaseURL: u.URL})
	defer p.Close()
	if _, outcome, err := ask(t, p); err != nil || outcome.FinishReason != "stop" {
		t.Errorf("got %+v, %v", outcome, err)
	}
	u.AwaitIdle()
}

func TestModels(t *testing.T) {
	u := upstreamtest.New(t)
	u.Answer(upstreamtest.Status(200, `{"object":"list","data":[{"id":"m1","object":"model","unknown":[1,2.50]},{"id":"m2"}]}`))
	p := New(Options{BaseURL: u.URL + "/", Key: "k"})
	defer p.Close()
	for range 3 {
		models, err := p.Models(t.Context())
		if err != nil || len(models) != 2 || string(models[0]) != `{"id":"m1","object":"model","unknown":[1,2.50]}` {
			t.Fatalf("got %s, %v", models, err)
		}
	}
	if name, err := p.DefaultModel(t.Context()); err != nil || name != "m1" {
		t.Errorf("default model %q, %v", name, err)
	}
	requests := u.Requests()
	if len(requests) != 1 || requests[0].Path != "/models" || requests[0].Header.Get("Authorization") != "Bearer k" {
		t.Errorf("asked %d times: %+v", len(requests), requests)
	}
	if name, err := New(Options{}).DefaultModel(t.Context()); err != nil || name != defaultModel {
		t.Errorf("default model at OpenAI itself %q, %v", name, err)
	}
	u.Answer(upstreamtest.Status(500, "no"))
	fresh := New(Options{BaseURL: u.URL})
	defer fresh.Close()
	if _, err := fresh.Models(t.Context()); err == nil {
		t.Error("no error")
	}
}

func TestScrub(t *testing.T) {
	p := New(Options{Key: "very-own-key"})
	for text, gone := range map[string]string{
		"Incorrect API key provided: sk-proj-abc***xyz.": "abc",
		`{"authorization":"Bearer abcdefghijklmnop"}`:    "abcdefgh",
		"key very-own-key is bad":                        "very-own-key",
		"AIzaSyAbcdefghijk":                              "AIza",
		"gsk-abcdefgh":                                   "abcdefgh",
	} {
		if got := string(p.scrub([]byte(text))); strings.Contains(got, gone) || !strings.Contains(got, "[removed]") {
			t.Errorf("%q became %q", text, got)
		}
	}
	if plain := "nothing to see: task-list, risk-free, keyboard"; string(p.scrub([]byte(plain))) != plain {
		t.Errorf("%q became %q", plain, p.scrub([]byte(plain)))
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "0.5": 500 * time.Millisecond, "-1": 0, "soon": 0, "1e99": 0,
		"Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second, "Fri, 02 Jan 2026 03:04:00 GMT": 0,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("%q: got %s, want %s", header, got, want)
		}
	}
}
