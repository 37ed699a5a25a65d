package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"weir/internal/providers"
	"weir/internal/providers/demo"
	"weir/internal/stream"
	"weir/internal/upstreamtest"
)

// Every client error has OpenAI's shape and says what to do.
func TestClientErrors(t *testing.T) {
	h := newHarness(t, func(s *setup) {
		s.options.BodyLimit = 64 << 10
		s.options.Registry = providers.NewRegistry("")
		s.options.Registry.Add(providers.Demo, demo.New())
	})
	const chatPath, native = "/v1/chat/completions", "/v1/streams"
	message := `"messages":[{"role":"user","content":"x"}]`
	tests := []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		param, says              string
	}{
		{"bad JSON", "POST", chatPath, `{"model":`, nil, 400, "", "not valid JSON"},
		{"bad JSON, native", "POST", native, `{"prompt":"x"`, nil, 400, "", "not valid JSON"},
		{"no object", "POST", chatPath, `[1]`, nil, 400, "", "JSON object"},
		{"nested too deep", "POST", chatPath, strings.Repeat("[", 20000), nil, 400, "", "not valid JSON"},
		{"empty", "POST", chatPath, " ", nil, 400, "", "empty"},
		{"missing messages", "POST", chatPath, `{"model":"demo"}`, nil, 400, "messages", "`messages` is missing"},
		{"empty messages", "POST", chatPath, `{"model":"demo","messages":[]}`, nil, 400, "messages", "non-empty array"},
		{"messages of strings", "POST", chatPath, `{"model":"demo","messages":["x"]}`, nil, 400, "messages.0", "object"},
		{"a prompt is native", "POST", chatPath, `{"model":"demo","prompt":"x"}`, nil, 400, "messages", "/v1/streams"},
		{"model no string", "POST", chatPath, `{"model":7,` + message + `}`, nil, 400, "model", "must be a string"},
		{"model too long", "POST", chatPath, `{"model":"` + strings.Repeat("m", 300) + `",` + message + `}`, nil, 400, "model", "256"},
		{"model twice", "POST", chatPath, `{"model":"demo","model":"gpt-5",` + message + `}`, nil, 400, "model", "twice"},
		{"stream no boolean", "POST", chatPath, `{"stream":"yes",` + message + `}`, nil, 400, "stream", "true or false"},
		{"unknown model", "POST", chatPath, `{"model":"gpt-5","stream":true,` + message + `}`, nil, 404, "model", "OPENAI_API_KEY"},
		{"unknown model, not streaming", "POST", chatPath, `{"model":"gpt-5",` + message + `}`, nil, 404, "model", "OPENAI_API_KEY"},
		{"unknown model, native", "POST", native, `{"model":"gpt-5","prompt":"x"}`, nil, 404, "model", "OPENAI_API_KEY"},
		{"unknown model, one line", "GET", "/v1/stream?prompt=x&model=gpt-5", "", nil, 404, "model", "OPENAI_API_KEY"},
		{"empty prompt", "POST", native, `{"prompt":""}`, nil, 400, "prompt", "empty"},
		{"prompt and more", "POST", native, `{"prompt":"x","temperature":0}`, nil, 400, "temperature", "messages"},
		{"no prompt in the query", "GET", "/v1/stream", "", nil, 400, "prompt", "prompt"},
		{"body too large", "POST", chatPath, `{"x":"` + strings.Repeat("x", 5<<20) + `"}`, nil, 413, "", "65536 bytes"},
		{"wrong content type", "POST", chatPath, `{}`, []string{"Content-Type", "text/plain"}, 415, "", "application/json"},
		{"a form", "POST", native, `prompt=x`, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "", "application/json"},
		{"compressed", "POST", native, `{}`, []string{"Content-Encoding", "gzip"}, 415, "", "uncompressed"},
		{"bad choice", "POST", native, `{"prompt":"x"}`, []string{"Weir-On-Disconnect", "maybe"}, 400, "Weir-On-Disconnect", "continue"},
		{"key too long", "POST", native, `{"prompt":"x"}`, []string{"Idempotency-Key", strings.Repeat("k", 300)}, 400, "Idempotency-Key", "255"},
		{"nothing there", "GET", "/v2/x", "", nil, 404, "", "/v1"},
		{"wrong method", "PUT", native, `{}`, nil, 405, "", "not allowed"},
		{"a HEAD reads nothing", "HEAD", native + "/" + stream.NewID() + "/events", "", nil, 405, "", ""},
		{"a HEAD starts nothing", "HEAD", "/v1/stream?prompt=x", "", nil, 405, "", ""},
		{"unknown stream", "GET", native + "/" + stream.NewID(), "", nil, 404, "", "no such stream"},
		{"bad page", "GET", native + "?limit=0", "", nil, 400, "limit", "1 to 100"},
		{"unlisted model", "GET", "/v1/models/gpt-5", "", nil, 404, "model", "lists"},
		{"headers too large", "GET", "/livez", "", []string{"X-Large", strings.Repeat("x", 20<<10)}, 431, "", "16384 bytes"},
	}
	for _, tt := range tests {
		resp := h.call(tt.method, tt.path, tt.body, tt.headers...)
		if resp.StatusCode != tt.status {
			t.Errorf("%s: status %d, want %d: %s", tt.name, resp.StatusCode, tt.status, text(t, resp))
			continue
		}
		if tt.method == "HEAD" {
			continue
		}
		e, ok := object(t, resp)["error"].(map[string]any)
		if !ok {
			t.Errorf("%s: no error object", tt.name)
			continue
		}
		if e["type"] == "" || e["code"] == nil || !strings.Contains(e["message"].(string), tt.says) {
			t.Errorf("%s: %v, want a message with %q", tt.name, e, tt.says)
		}
		if param, _ := e["param"].(string); param != tt.param {
			t.Errorf("%s: param %q, want %q", tt.name, param, tt.param)
		}
	}
	if h.runner.Running() != 0 {
		t.Error("a refused request started a generation")
	}
}

// What the client gets when the upstream fails before its first token.
func TestUpstreamFailsBeforeFirstToken(t *testing.T) {
	openAIError := `{"error":{"message":"slow down, sk-proj-abcdef123456 used","type":"tokens","param":null,"code":"rate_limit_exceeded","extra":1}}`
	tests := []struct {
		name     string
		answer   http.HandlerFunc
		status   int
		code     any
		says     string
		hides    string
		retry    string
		upstream int // in the native error event
	}{
		{"429", upstreamtest.Status(429, openAIError, "Retry-After", "7"), 429, "rate_limit_exceeded", `"extra":1`, "abcdef", "7", 429},
		{"500 JSON", upstreamtest.Status(500, `{"error":{"message":"boom","type":"server_error"}}`), 500, "upstream_error", "boom", "", "", 500},
		{"400", upstreamtest.Status(400, `{"error":{"message":"bad temperature","type":"invalid_request_error","param":"temperature","code":null}}`), 400, "upstream_error", "bad temperature", "", "", 400},
		{"Gemini's array", upstreamtest.Status(404, `[{"error":{"code":404,"message":"no model","status":"NOT_FOUND"}}]`), 404, 404.0, "no model", "", "", 404},
		{"an error that is a string", upstreamtest.Status(404, `{"error":"model not found"}`), 404, "upstream_error", "model not found", "", "", 404},
		{"HTML", upstreamtest.Status(502, "<html><h1>nginx secret page</h1></html>", "Content-Type", "text/html"), 502, "upstream_error", "502", "nginx", "", 502},
		{"401 is our credential", upstreamtest.Status(401, `{"error":{"message":"Incorrect API key provided: sk-ups****cret"}}`), 502, "upstream_unauthorized", "OPENAI_API_KEY", "sk-ups", "", 401},
		{"403 too", upstreamtest.Status(403, `{"error":{"message":"no access"}}`), 502, "upstream_unauthorized", "credential", "no access", "", 403},
		{"a redirect is not followed", upstreamtest.Status(307, "", "Location", "http://127.0.0.1:1/"), 502, "upstream_invalid", "redirect", "", "", 307},
		{"HTML 200", upstreamtest.Status(200, "<html>login</html>", "Content-Type", "text/html"), 502, "upstream_invalid", "text/html", "login", "", 200},
		{"JSON 200 that is an error", upstreamtest.Status(200, `{"error":{"message":"quota","code":429}}`), 429, 429.0, "quota", "", "", 0},
		{"empty 200", upstreamtest.SSE(""), 502, "upstream_truncated", "stopped before", "", "", 0},
		{"an error event first", upstreamtest.SSE("event: error\ndata: {\"error\":{\"message\":\"overloaded\",\"type\":\"x\",\"code\":\"y\"}}\n\n"), 502, "y", "overloaded", "", "", 0},
		{"credentials in the stream", upstreamtest.SSE("data: {\"error\":{\"message\":\"key sk-upstream-secret is bad\"}}\n\n"), 502, "upstream_error", "is bad", "upstream-secret", "", 0},
		{"credentials in a JSON 200", upstreamtest.Status(200, `{"error":{"message":"key sk-upstream-secret is bad"}}`), 502, "upstream_error", "is bad", "upstream-secret", "", 0},
		{"our credential, in the stream", upstreamtest.SSE("data: {\"error\":{\"code\":401,\"message\":\"User not found\"}}\n\n"), 502, "upstream_unauthorized", "credential", "not found", "", 401},
		{"nested beyond all reason", upstreamtest.Status(500, `{"error":{"message":"deep","x":`+strings.Repeat("[", 9990)+strings.Repeat("]", 9990)+`}}`), 500, "upstream_error", "deep", "[[[[", "", 500},
		{"an error behind a comment", upstreamtest.SSE(": hi\n\ndata: { \"error\" : {\"message\":\"spaced\"}}\n\n"), 502, "upstream_error", "spaced", "", "", 0},
	}
	for _, tt := range tests {
		h := newHarness(t)
		h.upstream.Answer(tt.answer)
		resp := h.call("POST", "/v1/chat/completions", chatBody)
		body := text(t, resp)
		if resp.StatusCode != tt.status || !strings.Contains(body, tt.says) || (tt.hides != "" && strings.Contains(body, tt.hides)) {
			t.Errorf("%s: status %d, want %d with %q and without %q: %s", tt.name, resp.StatusCode, tt.status, tt.says, tt.hides, body)
		}
		if resp.Header.Get("Retry-After") != tt.retry || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
			t.Errorf("%s: headers %v", tt.name, resp.Header)
		}

		resp = h.call("POST", "/v1/streams", promptBody, "Accept", "text/event-stream")
		frames, err := readFrames(resp.Body)
		if err != nil || resp.StatusCode != 200 || len(frames) != 2 || frames[0].Type != "start" || frames[1].Type != "error" {
			t.Errorf("%s, native: status %d, %v, %v", tt.name, resp.StatusCode, frames, err)
			continue
		}
		if tt.hides != "" && strings.Contains(frames[1].Data, tt.hides) {
			t.Errorf("%s, native: %s", tt.name, frames[1].Data)
		}
		status := object(t, h.call("GET", "/v1/streams/"+resp.Header.Get("Weir-Stream-Id"), ""))
		e := status["error"].(map[string]any)
		if upstream, _ := e["upstream_status"].(float64); int(upstream) != tt.upstream {
			t.Errorf("%s, native: upstream_status %v, want %d", tt.name, upstream, tt.upstream)
		}
		if fmt.Sprint(e["code"]) != fmt.Sprint(tt.code) {
			t.Errorf("%s, native: code %v, want %v", tt.name, e["code"], tt.code)
		}

		plain := strings.Replace(chatBody, `"stream":true,`, "", 1)
		if resp := h.call("POST", "/v1/chat/completions", plain); resp.StatusCode != tt.status && tt.status != 502 {
			t.Errorf("%s, not streaming: status %d, want %d", tt.name, resp.StatusCode, tt.status)
		}
	}
}

func TestUpstreamUnreachable(t *testing.T) {
	h := newHarness(t)
	h.upstream.Answer(func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) })
	resp := h.call("POST", "/v1/chat/completions", chatBody)
	if body := text(t, resp); resp.StatusCode != 502 || !strings.Contains(body, "upstream_unreachable") || strings.Contains(body, "127.0.0.1") {
		t.Errorf("status %d: %s", resp.StatusCode, body)
	}
}

// An error after the first token is one plain data line, with no [DONE].
func TestErrorAfterFirstToken(t *testing.T) {
	h := newHarness(t)
	h.upstream.Answer(upstreamtest.SSE(upstreamtest.Chunk("a") + "event: error\ndata: {\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\",\"code\":\"x\"}}\n\n"))
	raw := text(t, h.call("POST", "/v1/chat/completions", chatBody))
	want := `data: {"error":{"message":"overloaded","type":"server_error","param":null,"code":"x"}}` + "\n\n"
	if !strings.HasSuffix(raw, "\n\n"+want) || strings.Contains(raw, "event:") || strings.Contains(raw, "[DONE]") {
		t.Errorf("got %q", raw)
	}
}

// The status line waits for the first event, but not for ever.
func TestStatusLineWaits(t *testing.T) {
	h := newHarness(t, func(s *setup) {
		s.options.FirstEvent = 50 * time.Millisecond
		s.options.Heartbeat = 20 * time.Millisecond
	})
	steps := make(chan string)
	h.upstream.Answer(upstreamtest.Stepwise(steps))
	resp := h.call("POST", "/v1/chat/completions", chatBody) // returns with the head
	if resp.StatusCode != 200 {
		t.Fatalf("status %d", resp.StatusCode)
	}
	head := make([]byte, len(": ping\n\n"))
	if _, err := io.ReadFull(resp.Body, head); err != nil || string(head) != ": ping\n\n" {
		t.Errorf("got %q, %v", head, err)
	}
	steps <- upstreamtest.Answer("late")
	close(steps)
	frames, err := readFrames(resp.Body)
	if err != nil || assembled(t, frames) != "late" || frames[len(frames)-1].Data != "[DONE]" {
		t.Errorf("got %v, %v", frames, err)
	}
}

// With ids on there are no comments: the heartbeat is an empty chunk, and the
// log's start is not sent.
func TestResumableChat(t *testing.T) {
	h := newHarness(t, func(s *setup) { s.options.Heartbeat = 30 * time.Millisecond })
	steps := make(chan string)
	h.upstream.Answer(upstreamtest.Stepwise(steps))
	resumable := []string{"Weir-Resumable", "true"}
	type result struct {
		raw string
		err error
	}
	got := make(chan result, 1)
	resp, err := func() (*http.Response, error) {
		go func() { steps <- upstreamtest.Chunk("a") }()
		return h.try(t.Context(), "POST", "/v1/chat/completions", chatBody, resumable...)
	}()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	id := resp.Header.Get("Weir-Stream-Id")
	beat := make([]byte, 4096)
	var seen strings.Builder
	for !strings.Contains(seen.String(), `"delta":{}`) {
		n, err := resp.Body.Read(beat)
		if err != nil {
			t.Fatal(err)
		}
		seen.Write(beat[:n])
	}
	go func() {
		rest, err := io.ReadAll(resp.Body)
		got <- result{seen.String() + string(rest), err}
	}()
	steps <- upstreamtest.Chunk("b") + upstreamtest.Finish("stop") + upstreamtest.Done
	close(steps)
	r := <-got
	if r.err != nil {
		t.Fatal(r.err)
	}
	frames, _ := readFrames(strings.NewReader(r.raw))
	var ids []string
	for _, f := range frames {
		if f.ID != "" {
			ids = append(ids, strings.TrimPrefix(f.ID, id))
		}
	}
	if fmt.Sprint(ids) != "[.2 .3 .4 .5]" || strings.Contains(r.raw, ": ping") || frames[len(frames)-1].Data != "[DONE]" || assembled(t, frames) != "ab" {
		t.Errorf("ids %v in %q", ids, r.raw)
	}
	for cursor, want := range map[string]string{".2": "b", ".4": ""} {
		frames, err := readFrames(h.call("POST", "/v1/chat/completions", chatBody, append(resumable, "Last-Event-ID", id+cursor)...).Body)
		if err != nil || assembled(t, frames) != want || frames[len(frames)-1].Data != "[DONE]" {
			t.Errorf("after %s: %v, %v", cursor, frames, err)
		}
	}
	if body := text(t, h.call("POST", "/v1/chat/completions", chatBody, "Last-Event-ID", id+".5")); body != "data: [DONE]\nid: "+id+".5\n\n" {
		t.Errorf("at the end: %q", body)
	}
	if resp := h.call("POST", "/v1/chat/completions", chatBody, "Last-Event-ID", id+".9"); resp.StatusCode != 410 {
		t.Errorf("beyond the end: status %d", resp.StatusCode)
	}
}

// A stream cancelled from elsewhere is no complete answer to its reader.
func TestChatCancelledFromElsewhere(t *testing.T) {
	h := newHarness(t)
	h.upstream.Answer(upstreamtest.Silent(upstreamtest.Chunk("a")))
	resp := h.call("POST", "/v1/chat/completions", chatBody)
	id := resp.Header.Get("Weir-Stream-Id")
	if r := h.call("POST", "/v1/streams/"+id+"/cancel", "{}"); r.StatusCode != 200 || object(t, r)["state"] != "cancelled" {
		t.Errorf("cancel: status %d", r.StatusCode)
	}
	frames, err := readFrames(resp.Body)
	if last := frames[len(frames)-1]; err != nil || !strings.Contains(last.Data, `"code":"cancelled"`) {
		t.Errorf("got %v, %v", frames, err)
	}
	h.upstream.AwaitIdle()
}

// A call that does not stream passes through whole, without a stream.
func TestNotStreaming(t *testing.T) {
	h := newHarness(t)
	answer := `{ "id":"x","object":"chat.completion","unknown":0, "choices":[{"index":0,"message":{"role":"assistant","content":"é"},"finish_reason":"stop"}]}`
	h.upstream.Answer(upstreamtest.Status(200, answer, "X-Request-Id", "r7", "Set-Cookie", "c=1"))
	body := strings.Replace(chatBody, `"stream":true`, `"stream":false`, 1)
	resp := h.call("POST", "/v1/chat/completions", body)
	if got := text(t, resp); got != answer || resp.Header.Get("Weir-Stream-Id") != "" || resp.Header.Get("X-Request-Id") != "r7" || resp.Header.Get("Set-Cookie") != "" {
		t.Errorf("got %q, %v", got, resp.Header)
	}
	if sent := string(h.upstream.Requests()[0].Body); sent != body {
		t.Errorf("sent %q", sent)
	}

	// A client that leaves takes the call with it, at once.
	h.upstream.Answer(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithCancel(t.Context())
	asked := len(h.upstream.Requests())
	left := make(chan error, 1)
	go func() {
		_, err := h.try(ctx, "POST", "/v1/chat/completions", body)
		left <- err
	}()
	eventually(t, wait, "the call reaches the upstream", func() bool { return len(h.upstream.Requests()) > asked })
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	h.upstream.AwaitIdle()
}

// What an upstream says may quote the prompt: it is for the client, not the log.
func TestLogsHoldNoWordsOfAnybody(t *testing.T) {
	var logged bytes.Buffer
	h := newHarness(t, func(s *setup) { s.options.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
	h.upstream.Answer(upstreamtest.Status(400, `{"error":{"message":"Invalid content: SECRETPROMPT"}}`))
	text(t, h.call("POST", "/v1/chat/completions?api_key=QUERYSECRET", strings.Replace(chatBody, "true", "false", 1)))
	h.call("GET", "/v1/models", "")
	h.upstream.Close()
	h.provider.Close()
	text(t, h.call("POST", "/v1/chat/completions?api_key=QUERYSECRET", strings.Replace(chatBody, "true", "false", 1)))
	h.stop()
	if log := logged.String(); !strings.Contains(log, "completion failed") || strings.Contains(log, "SECRET") {
		t.Errorf("the log says: %s", log)
	}
}
