package httpapi

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"weir/internal/stream"
	"weir/internal/upstreamtest"
)

// What a page of another site can make a browser send starts nothing; a page
// on another loopback port, and one named by the operator, works.
func TestCrossSite(t *testing.T) {
	h := newHarness(t, func(s *setup) {
		s.options.Access.AllowedHosts = []string{"host.docker.internal"}
		s.options.Access.AllowedOrigins = []string{"https://chat.example"}
	})
	h.upstream.Answer(upstreamtest.SSE(upstreamtest.Answer("x")))
	const oneLine, native, chatPath = "/v1/stream?prompt=x", "/v1/streams", "/v1/chat/completions"
	tests := []struct {
		name, method, path string
		headers            []string
		allowed            bool
	}{
		{"an <img> of another site", "GET", oneLine, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, false},
		{"a link from another site", "GET", oneLine, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, false},
		{"a form of another site", "POST", native, []string{"Origin", "https://evil.example", "Content-Type", "text/plain"}, false},
		{"a form of another site, old browser", "POST", native, []string{"Content-Type", "application/x-www-form-urlencoded"}, false},
		{"a fetch of another site", "POST", native, []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, false},
		{"an EventSource of another site", "GET", oneLine, []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, false},
		{"a sandboxed frame", "POST", chatPath, []string{"Origin", "null"}, false},
		{"a name that looks like loopback", "POST", native, []string{"Origin", "http://localhost.evil.example"}, false},
		{"a rebound name", "POST", native, []string{"Host", "evil.example", "Origin", "http://evil.example", "Sec-Fetch-Site", "same-origin"}, false},
		{"a rebound name, no Origin", "GET", oneLine, []string{"Host", "evil.example:8080"}, false},
		{"a prefetch", "GET", oneLine, []string{"Sec-Purpose", "prefetch"}, false},

		{"curl", "GET", oneLine, nil, true},
		{"our own page", "POST", native, []string{"Sec-Fetch-Site", "same-origin", "Origin", "SELF"}, true},
		{"our own page behind a proxy that renames us", "POST", native, []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://127.0.0.1:9"}, true},
		{"a dev server on another port", "POST", native, []string{"Origin", "http://localhost:3000", "Sec-Fetch-Site", "same-site"}, true},
		{"the same over IPv6", "GET", oneLine, []string{"Origin", "http://[::1]:5173", "Sec-Fetch-Site", "cross-site"}, true},
		{"a named origin", "POST", native, []string{"Origin", "https://chat.example", "Sec-Fetch-Site", "cross-site"}, true},
		{"a named host", "POST", native, []string{"Host", "host.docker.internal:8080"}, true},
		{"localhost", "POST", native, []string{"Host", "LOCALHOST:8080"}, true},
	}
	for _, tt := range tests {
		before := len(h.upstream.Requests())
		body := ""
		if tt.method == "POST" {
			body = `{"model":"gpt-test","stream":true,"messages":[{"role":"user","content":"x"}]}`
		}
		headers := append([]string{"Accept", "text/event-stream"}, tt.headers...)
		for i := range headers {
			headers[i] = strings.Replace(headers[i], "SELF", h.url, 1)
		}
		resp := h.call(tt.method, tt.path+modelFor(tt.path), body, headers...)
		text(t, resp)
		started := len(h.upstream.Requests()) > before
		if started != tt.allowed || (resp.StatusCode < 300) != tt.allowed {
			t.Errorf("%s: status %d, started a generation: %v", tt.name, resp.StatusCode, started)
		}
		if !tt.allowed && resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: CORS headers for a refused origin", tt.name)
		}
	}
}

func modelFor(path string) string {
	if strings.Contains(path, "?") {
		return "&model=gpt-test"
	}
	return ""
}

func TestCORS(t *testing.T) {
	h := newHarness(t)
	const origin = "http://localhost:5173"
	resp := h.call("OPTIONS", "/v1/streams", "", "Origin", origin, "Access-Control-Request-Method", "POST",
		"Access-Control-Request-Headers", "content-type,x-stainless-lang", "Access-Control-Request-Private-Network", "true")
	want := map[string]string{
		"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", "Access-Control-Allow-Methods": "POST",
		"Access-Control-Allow-Headers": "content-type,x-stainless-lang", "Access-Control-Allow-Private-Network": "true",
	}
	for name, value := range want {
		if got := resp.Header.Get(name); got != value {
			t.Errorf("preflight: %s is %q, want %q", name, got, value)
		}
	}
	if resp.StatusCode != 204 || !strings.Contains(resp.Header.Get("Vary"), "Origin") {
		t.Errorf("preflight: status %d, %v", resp.StatusCode, resp.Header)
	}
	// Errors, too, must be readable by the page.
	resp = h.call("GET", "/v1/streams/"+stream.NewID(), "", "Origin", origin)
	if resp.StatusCode != 404 || resp.Header.Get("Access-Control-Allow-Origin") != origin ||
		!strings.Contains(resp.Header.Get("Access-Control-Expose-Headers"), "Weir-Stream-Id") {
		t.Errorf("status %d, %v", resp.StatusCode, resp.Header)
	}
	if resp := h.call("OPTIONS", "/v1/streams", "", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST"); resp.StatusCode != 403 {
		t.Errorf("preflight of another site: status %d", resp.StatusCode)
	}
}

func withKeys(keys ...string) func(*setup) {
	return func(s *setup) { s.options.Access.Keys = keys; s.options.Access.Loopback = false }
}

func TestClientKeys(t *testing.T) {
	h := newHarness(t, withKeys("alice-key", "bob-key"))
	h.upstream.Answer(upstreamtest.SSE(upstreamtest.Answer("x")))
	alice, bob := []string{"Authorization", "Bearer alice-key"}, []string{"Authorization", "bearer bob-key"}

	for _, path := range []string{"/v1/streams", "/v1/models", "/v1/models/demo", "/v1/stream?prompt=x", "/v1/streams/" + stream.NewID(), "/v1/streams/" + stream.NewID() + "/events"} {
		for _, headers := range [][]string{nil, {"Authorization", "Bearer wrong"}, {"Authorization", "alice-key"}} {
			resp := h.call("GET", path, "", headers...)
			if e, _ := object(t, resp)["error"].(map[string]any); resp.StatusCode != 401 || e["code"] != "invalid_api_key" {
				t.Errorf("%s with %q: status %d", path, headers, resp.StatusCode)
			}
		}
	}
	created := object(t, h.call("POST", "/v1/streams", promptBody, alice...))
	id := created["id"].(string)
	url := created["events_url"].(string)
	if _, err := readFrames(h.call("GET", url, "").Body); err != nil {
		t.Fatal(err)
	}
	token := url[strings.Index(url, "?"):]

	// Bob, a forged token and a token of another stream see what an unknown id
	// shows, byte for byte.
	other := object(t, h.call("POST", "/v1/streams", promptBody, alice...))["events_url"].(string)
	otherToken := other[strings.Index(other, "?"):]
	unknown := h.call("GET", "/v1/streams/"+stream.NewID(), "", bob...)
	unknownBody := text(t, unknown)
	foreign := map[string]*http.Response{
		"bob's JSON":      h.call("GET", "/v1/streams/"+id, "", bob...),
		"bob's events":    h.call("GET", "/v1/streams/"+id+"/events", "", bob...),
		"bob's cancel":    h.call("POST", "/v1/streams/"+id+"/cancel", "{}", bob...),
		"bob's delete":    h.call("DELETE", "/v1/streams/"+id, "", bob...),
		"bob's POST":      h.call("POST", "/v1/streams", promptBody, append(bob, "Last-Event-ID", id+".1")...),
		"bob's one line":  h.call("GET", "/v1/stream?prompt=Hi&model=gpt-test", "", append(bob, "Last-Event-ID", id+".1")...),
		"forged token":    h.call("GET", "/v1/streams/"+id+"/events"+token[:len(token)-2]+"xx", ""),
		"another's token": h.call("GET", "/v1/streams/"+id+"/events"+otherToken, ""),
	}
	for name, resp := range foreign {
		if body := text(t, resp); resp.StatusCode != 404 || body != unknownBody {
			t.Errorf("%s: status %d, %s", name, resp.StatusCode, body)
		}
	}
	// The token opens events and JSON, nothing else.
	if resp := h.call("GET", "/v1/streams/"+id+token, ""); resp.StatusCode != 200 {
		t.Errorf("token on the JSON: status %d", resp.StatusCode)
	}
	for name, resp := range map[string]*http.Response{
		"cancel": h.call("POST", "/v1/streams/"+id+"/cancel"+token, "{}"),
		"delete": h.call("DELETE", "/v1/streams/"+id+token, ""),
		"list":   h.call("GET", "/v1/streams"+token, ""),
		"create": h.call("GET", "/v1/stream"+token+"&prompt=x", ""),
	} {
		if resp.StatusCode != 401 {
			t.Errorf("token on %s: status %d, want 401", name, resp.StatusCode)
		}
	}
	if list := object(t, h.call("GET", "/v1/streams", "", bob...))["data"].([]any); len(list) != 0 {
		t.Errorf("bob sees %v", list)
	}
	if list := object(t, h.call("GET", "/v1/streams", "", alice...))["data"].([]any); len(list) != 2 {
		t.Errorf("alice sees %d streams, want 2", len(list))
	}
	if resp := h.call("DELETE", "/v1/streams/"+id, "", alice...); resp.StatusCode != 204 {
		t.Errorf("alice's delete: status %d", resp.StatusCode)
	}
	for name, resp := range map[string]*http.Response{
		"events": h.call("GET", "/v1/streams/"+id+"/events"+token, ""), "JSON": h.call("GET", "/v1/streams/"+id, "", alice...),
		"cancel": h.call("POST", "/v1/streams/"+id+"/cancel", "", alice...), "a resume": h.call("POST", "/v1/streams", promptBody, append(alice, "Last-Event-ID", id+".1")...),
	} {
		if resp.StatusCode != 410 {
			t.Errorf("%s of a deleted stream: status %d, want 410", name, resp.StatusCode)
		}
	}
	if resp := h.call("GET", "/v1/streams/"+id, "", bob...); resp.StatusCode != 404 {
		t.Errorf("bob sees that a stream was deleted: status %d", resp.StatusCode)
	}
}

// A token dies with the key that it came from.
func TestTokenDiesWithItsKey(t *testing.T) {
	before := newGate(AccessOptions{Keys: []string{"alice-key"}, Secret: []byte("s")})
	var owner string
	for _, o := range before.owners {
		owner = o
	}
	after := newGate(AccessOptions{Keys: []string{"bob-key"}, Secret: []byte("s")})
	if !before.ownerExists(owner) || after.ownerExists(owner) {
		t.Error("the owner outlives its key")
	}
}

func TestAnonymous(t *testing.T) {
	h := newHarness(t, func(s *setup) { s.options.Access.Loopback = false })
	h.upstream.Answer(upstreamtest.Silent(upstreamtest.Chunk("a")))
	created := object(t, h.call("POST", "/v1/streams", promptBody))
	id, url, control := created["id"].(string), created["events_url"].(string), created["control_token"].(string)

	readSome(t, h.call("GET", url, "").Body, 2)
	for name, resp := range map[string]*http.Response{
		"without a token":               h.call("GET", "/v1/streams/"+id+"/events", ""),
		"cancel without a token":        h.call("POST", "/v1/streams/"+id+"/cancel", "{}"),
		"cancel with the read token":    h.call("POST", "/v1/streams/"+id+"/cancel", "{}", "Authorization", "Bearer "+url[strings.Index(url, "=")+1:]),
		"a cursor with another request": h.call("POST", "/v1/streams", `{"prompt":"other"}`, "Last-Event-ID", id+".1"),
	} {
		if resp.StatusCode != 404 {
			t.Errorf("%s: status %d, want 404", name, resp.StatusCode)
		}
	}
	if resp := h.call("GET", "/v1/streams", ""); resp.StatusCode != 403 {
		t.Errorf("list: status %d", resp.StatusCode)
	}
	if resp := h.call("POST", "/v1/streams", promptBody, "Idempotency-Key", "1"); resp.StatusCode != 400 {
		t.Errorf("a key that others may pick: status %d", resp.StatusCode)
	}
	if resp := h.call("POST", "/v1/streams/"+id+"/cancel", "{}", "Authorization", "Bearer "+control); resp.StatusCode != 200 {
		t.Errorf("cancel with the control token: status %d", resp.StatusCode)
	}
	// The same request may come back by its cursor, as EventSource does.
	resp := h.call("POST", "/v1/streams", promptBody, "Last-Event-ID", id+".1", "Accept", "text/event-stream")
	if frames, err := readFrames(resp.Body); err != nil || frames[len(frames)-1].Type != "done" {
		t.Errorf("resume: status %d, %v", resp.StatusCode, frames)
	}
	if resp := h.call("DELETE", "/v1/streams/"+id, "", "Authorization", "Bearer "+control); resp.StatusCode != 204 {
		t.Errorf("delete: status %d", resp.StatusCode)
	}
}

// A provider without a key of its own gets the client's, when that is switched
// on, and the client's own refusal is then its own.
func TestForwardAuth(t *testing.T) {
	h := newHarness(t, func(s *setup) { s.options.ForwardAuth = true; s.key = "" })
	h.upstream.Answer(upstreamtest.Status(401, `{"error":{"message":"Incorrect API key","code":"invalid_api_key"}}`))
	resp := h.call("POST", "/v1/chat/completions", chatBody, "Authorization", "Bearer mine")
	if body := text(t, resp); resp.StatusCode != 401 || !strings.Contains(body, "Incorrect API key") {
		t.Errorf("status %d: %s", resp.StatusCode, body)
	}
	if got := h.upstream.Requests()[0].Header.Get("Authorization"); got != "Bearer mine" {
		t.Errorf("forwarded %q", got)
	}
}

// Who has no key can't make the server hold a large body, and learns that it is
// the key that is missing.
func TestStrangersBody(t *testing.T) {
	h := newHarness(t, withKeys("alice-key"))
	large := `{"model":"gpt-test","prompt":"` + strings.Repeat("x", 1<<20) + `"}`
	if resp := h.call("POST", "/v1/streams", large); resp.StatusCode != 401 {
		t.Errorf("without a key: status %d", resp.StatusCode)
	}
	conn, r := h.raw("POST /v1/streams HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n")
	conn.SetReadDeadline(time.Now().Add(wait))
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 401 {
		t.Errorf("before its body came: %v, %v", resp, err)
	}
	h.upstream.Answer(upstreamtest.SSE(upstreamtest.Answer("x")))
	if resp := h.call("POST", "/v1/streams", large, "Authorization", "Bearer alice-key"); resp.StatusCode != 201 {
		t.Errorf("with a key: status %d", resp.StatusCode)
	}
	if h.server.BodyLimit != 20<<20 {
		t.Errorf("the limit is %d by default", h.server.BodyLimit)
	}
}
