package httpapi

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"weir/internal/stream"
	"weir/internal/upstreamtest"
)

// A repeat of a key joins its stream; another body is refused; a stream that
// failed before its first token frees it.
func TestIdempotencyKey(t *testing.T) {
	h := newHarness(t)
	h.upstream.Answer(upstreamtest.SSE(upstreamtest.Answer("a", "b")))
	key := []string{"Idempotency-Key", "k1"}

	first := h.create(promptBody, key...)
	text(t, h.call("GET", "/v1/streams/"+first+"/events", "")) // to its end
	resp := h.call("POST", "/v1/streams", promptBody, key...)
	if again := object(t, resp); again["id"] != first || resp.StatusCode != 200 {
		t.Errorf("status %d, %v; want stream %s", resp.StatusCode, again, first)
	}
	frames, err := readFrames(h.call("POST", "/v1/streams", promptBody, "Accept", "text/event-stream", "Idempotency-Key", "k1", "Last-Event-ID", "2").Body)
	if err != nil || frames[0].ID != first+".3" {
		t.Errorf("a bare cursor with the key: %v, %v", frames, err)
	}
	for name, body := range map[string]string{"another prompt": `{"prompt":"other"}`, "another model": `{"prompt":"Hi","model":"demo"}`} {
		if resp := h.call("POST", "/v1/streams", body, key...); resp.StatusCode != 409 {
			t.Errorf("%s: status %d, want 409", name, resp.StatusCode)
		}
	}
	asked := len(h.upstream.Requests())
	for _, path := range []string{"/v1/streams", "/v1/chat/completions"} {
		if resp := h.call("POST", path, chatBody, "Idempotency-Key", "never-used", "Last-Event-ID", "3"); resp.StatusCode != 404 {
			t.Errorf("%s: a cursor of a stream that never was: status %d, want 404", path, resp.StatusCode)
		}
	}
	if n := len(h.upstream.Requests()); n != asked {
		t.Errorf("a cursor started %d generations", n-asked)
	}
	one := h.call("GET", "/v1/stream?prompt=Hi&model=gpt-test&idempotency_key=k2", "")
	two := h.call("GET", "/v1/stream?prompt=Hi&model=gpt-test&idempotency_key=k2", "")
	if a, b := one.Header.Get("Weir-Stream-Id"), two.Header.Get("Weir-Stream-Id"); a == "" || a != b {
		t.Errorf("one-line start: %q and %q", a, b)
	}
	readFrames(one.Body) // to the end: the generation has asked by then
	c1 := h.call("POST", "/v1/chat/completions", chatBody, "Idempotency-Key", "k3")
	c2 := h.call("POST", "/v1/chat/completions", chatBody, "Idempotency-Key", "k3")
	if a, b := c1.Header.Get("Weir-Stream-Id"), c2.Header.Get("Weir-Stream-Id"); a == "" || a != b || text(t, c1) != text(t, c2) {
		t.Errorf("chat: %q and %q", a, b)
	}
	if n := len(h.upstream.Requests()); n != 3 {
		t.Errorf("%d generations, want 3", n)
	}

	h.upstream.Answer(upstreamtest.Status(500, `{"error":{"message":"x"}}`))
	failed := h.create(promptBody, "Idempotency-Key", "k4")
	readFrames(h.call("GET", "/v1/streams/"+failed+"/events", "").Body)
	h.upstream.Answer(upstreamtest.SSE(upstreamtest.Answer("a")))
	if again := h.create(promptBody, "Idempotency-Key", "k4"); again == failed {
		t.Error("a stream that failed before its first token keeps its key")
	}

	deleted := h.create(promptBody, "Idempotency-Key", "k5")
	readFrames(h.call("GET", "/v1/streams/"+deleted+"/events", "").Body) // its generation has asked
	h.call("DELETE", "/v1/streams/"+deleted, "")
	asked = len(h.upstream.Requests())
	if resp := h.call("POST", "/v1/streams", promptBody, "Idempotency-Key", "k5"); resp.StatusCode != 410 || len(h.upstream.Requests()) != asked {
		t.Errorf("the key of a deleted stream: status %d", resp.StatusCode)
	}
}

// Fifty at once with one key start one generation.
func TestIdempotencyKeyRace(t *testing.T) {
	h := newHarness(t)
	h.upstream.Answer(upstreamtest.SSE(upstreamtest.Answer("a")))
	var ids sync.Map
	var callers sync.WaitGroup
	for range 50 {
		callers.Go(func() {
			resp, err := h.try(t.Context(), "POST", "/v1/streams", promptBody, "Idempotency-Key", "same")
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			ids.Store(resp.Header.Get("Weir-Stream-Id"), true)
		})
	}
	callers.Wait()
	n := 0
	ids.Range(func(id, _ any) bool { n++; return id != "" })
	if asked := len(h.upstream.Requests()); n != 1 || asked > 1 {
		t.Errorf("%d streams, %d generations", n, asked)
	}
}

func TestRequestsPerMinute(t *testing.T) {
	h := newHarness(t, withKeys("alice-key", "bob-key"), func(s *setup) { s.options.RPM = 2 })
	h.upstream.Answer(upstreamtest.SSE(upstreamtest.Answer("a")))
	alice := []string{"Authorization", "Bearer alice-key"}
	for i, want := range []string{"1", "0"} {
		resp := h.call("POST", "/v1/chat/completions", chatBody, alice...)
		if resp.StatusCode != 200 || resp.Header.Get("X-Ratelimit-Limit-Requests") != "2" || resp.Header.Get("X-Ratelimit-Remaining-Requests") != want {
			t.Errorf("call %d: status %d, %v", i, resp.StatusCode, resp.Header)
		}
		text(t, resp)
	}
	resp := h.call("POST", "/v1/streams", promptBody, alice...)
	e, _ := object(t, resp)["error"].(map[string]any)
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" || resp.Header.Get("X-Ratelimit-Reset-Requests") != "1m0s" || e["type"] != "rate_limit_error" {
		t.Errorf("status %d, %v, %v", resp.StatusCode, resp.Header, e)
	}
	// Reading costs nothing, a repeat of what was started neither, and Bob has
	// a bucket of his own.
	list := object(t, h.call("GET", "/v1/streams", "", alice...))["data"].([]any)
	id := list[0].(map[string]any)["id"].(string)
	for range 5 {
		if resp := h.call("GET", "/v1/streams/"+id+"/events", "", alice...); resp.StatusCode != 200 {
			t.Errorf("reading: status %d", resp.StatusCode)
		}
	}
	if resp := h.call("POST", "/v1/streams", promptBody, "Authorization", "Bearer bob-key"); resp.StatusCode != 201 {
		t.Errorf("bob: status %d", resp.StatusCode)
	}
}

// Keys that came over one connection stay what they were: the server reuses a
// connection's buffers.
func TestKeysOutliveTheirRequest(t *testing.T) {
	h := newHarness(t)
	h.client.Transport.(*http.Transport).MaxConnsPerHost = 1
	h.upstream.Answer(upstreamtest.SSE(upstreamtest.Answer("a")))
	ids := map[string]string{}
	for _, key := range []string{"key-aaaa", "key-bbbb", "key-cccc"} {
		resp := h.call("POST", "/v1/streams", promptBody, "Idempotency-Key", key)
		ids[key] = object(t, resp)["id"].(string)
	}
	for key, id := range ids {
		if again := object(t, h.call("POST", "/v1/streams", promptBody, "Idempotency-Key", key))["id"]; again != id {
			t.Errorf("%s: stream %v, want %s", key, again, id)
		}
	}
}

// Who starts a stream by a JSON call does not read it: nobody does.
func TestJSONCreateDoesNotRead(t *testing.T) {
	h := newHarness(t, func(s *setup) { s.options.OrphanLimit = 50 * time.Millisecond })
	h.upstream.Answer(upstreamtest.Silent(upstreamtest.Chunk("a")))
	h.create(promptBody)
	eventually(t, wait, "the unread stream is cancelled", func() bool { return onlyStream(h).State() == stream.StateCancelled })
	h.upstream.AwaitIdle()
}

func TestLimitedAddress(t *testing.T) {
	for ip, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "::ffff:192.0.2.7": "::ffff:192.0.2.7", "?": "?",
	} {
		if got := limitedAddress(ip); got != want {
			t.Errorf("%s: got %s, want %s", ip, got, want)
		}
	}
}
