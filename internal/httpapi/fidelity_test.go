package httpapi

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	goopenai "github.com/sashabaranov/go-openai"

	openaigo "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"weir/internal/sse"
	"weir/internal/upstreamtest"
)

// Request bodies reach the upstream byte for byte, zero values, unknown fields
// and odd spacing included; only a routed model name is rewritten.
func TestRequestBodiesReachUpstreamWhole(t *testing.T) {
	h := newHarness(t)
	h.upstream.Answer(upstreamtest.SSE(upstreamtest.Answer("x")))
	tests := []struct{ name, path, sent, want string }{
		{"as it came", "/v1/chat/completions",
			"{ \"stream\":true,\t\"temperature\": 0, \"store\":false,\"model\":\"gpt-test\", \"messages\":[{\"role\":\"user\",\"content\":\"\\u00e9 \U0001F600\"}],\n\"top_k\":0,\"thinking\":{\"type\":\"enabled\"},\"stop\":\"x\",\"max_tokens\":1.0e2 }",
			""},
		{"only the model", "/v1/chat/completions",
			`{"messages":[{"role":"user","content":"model"}], "model" : "openai/gpt-5" ,"stream":true,"x":{"model":"openai/gpt-5"}}`,
			`{"messages":[{"role":"user","content":"model"}], "model" : "gpt-5" ,"stream":true,"x":{"model":"openai/gpt-5"}}`},
		{"another owner's prefix stays", "/v1/chat/completions",
			`{"messages":[{"role":"user","content":"x"}],"model":"meta-llama/llama","stream":true}`, ""},
		{"native: stream and usage are asked for", "/v1/streams",
			`{"model":"gpt-test","messages":[{"role":"user","content":"x"}],"temperature":0}`,
			`{"stream":true,"stream_options":{"include_usage":true},"model":"gpt-test","messages":[{"role":"user","content":"x"}],"temperature":0}`},
		{"native: the client's choice of usage stays", "/v1/streams",
			`{"model":"gpt-test","stream":false,"stream_options":{"include_usage":false},"messages":[{"role":"user","content":"x"}]}`,
			`{"model":"gpt-test","stream":true,"stream_options":{"include_usage":false},"messages":[{"role":"user","content":"x"}]}`},
	}
	for _, tt := range tests {
		want := tt.want
		if want == "" {
			want = tt.sent
		}
		resp := h.call("POST", tt.path, tt.sent, "Accept", "text/event-stream")
		if _, err := readFrames(resp.Body); err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: status %d, %v", tt.name, resp.StatusCode, err)
		}
		requests := h.upstream.Requests()
		if got := string(requests[len(requests)-1].Body); got != want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, want)
		}
	}
}

func TestHeadersAndQueryReachUpstream(t *testing.T) {
	h := newHarness(t)
	h.upstream.Answer(upstreamtest.SSE(upstreamtest.Answer("x")))
	resp := h.call("POST", "/v1/chat/completions?api-version=3&resumable=true&token=x", chatBody,
		"OpenAI-Organization", "org", "Anthropic-Beta", "b", "X-Request-Id", "r1", "Cookie", "c=1", "Authorization", "Bearer client-key")
	text(t, resp)
	got := h.upstream.Requests()[0]
	for name, want := range map[string]string{
		"Openai-Organization": "org", "Anthropic-Beta": "b", "X-Request-Id": "r1", "Cookie": "", "Authorization": "Bearer sk-upstream-secret",
	} {
		if value := got.Header.Get(name); value != want {
			t.Errorf("%s: %q, want %q", name, value, want)
		}
	}
	if got.Query != "api-version=3" || got.Path != "/chat/completions" {
		t.Errorf("path %q, query %q", got.Path, got.Query)
	}
}

// Data payloads reach the client byte for byte, whatever the upstream's framing
// and however it is cut on the network.
func TestPayloadsReachClientWhole(t *testing.T) {
	big := fmt.Sprintf(`{"choices":[{"index":0,"delta":{"content":%q},"finish_reason":null}],"x_unknown":{"a":[1,2.50,1e3]}}`, strings.Repeat("é", 50<<10))
	payloads := []string{
		`{"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0}]}`,
		`{"choices":[{"index":0,"delta":{"role":"assistant","content":null,"refusal":null},"finish_reason":null}], "obfuscation" : "q" }`,
		`{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":"{\"a\":1}"}}]}}],"p":"abc"}`,
		`{"choices":[{"index":0,"delta":{"content":"Grüße 😀 \u0000"},"finish_reason":null}],"usage":null}`,
		big,
		`{"choices":[{"index":0,"delta":{},"finish_reason":"stop","native_finish_reason":"STOP"}],"usage":{"total_tokens":3,"cost":0.00044968}}`,
	}
	framings := map[string]func(string) string{
		"LF":            func(p string) string { return "data: " + p + "\n\n" },
		"CRLF":          func(p string) string { return "data: " + p + "\r\n\r\n" },
		"no space":      func(p string) string { return "data:" + p + "\n\n" },
		"comments, ids": func(p string) string { return ": x\n\nid: 7\nevent: message\nretry: 1\ndata: " + p + "\n\n" },
	}
	for name, frame := range framings {
		var wire strings.Builder
		for _, p := range payloads {
			wire.WriteString(frame(p))
		}
		wire.WriteString(frame("[DONE]"))
		for _, size := range []int{1 << 20, 4096, 1023, 7} {
			h := newHarness(t)
			whole := wire.String()
			if size == 7 {
				whole = strings.Replace(whole, big, payloads[3], 1) // a hundred thousand bytes by seven take long
			}
			h.upstream.Answer(upstreamtest.Pieces(cut(whole, size)...))
			frames, err := readFrames(h.call("POST", "/v1/chat/completions", chatBody).Body)
			if err != nil {
				t.Fatalf("%s by %d: %v", name, size, err)
			}
			want := append(slices.Clone(payloads), "[DONE]")
			if size == 7 {
				want[4] = payloads[3]
			}
			if len(frames) != len(want) {
				t.Fatalf("%s by %d: %d frames, want %d", name, size, len(frames), len(want))
			}
			for i, f := range frames {
				if f.Data != want[i] || f.Type != "" || f.ID != "" {
					t.Errorf("%s by %d: frame %d: %.80q, want %.80q", name, size, i, f.Data, want[i])
				}
			}
		}
	}
}

func cut(s string, size int) []string {
	var pieces []string
	for chunk := range slices.Chunk([]byte(s), size) {
		pieces = append(pieces, string(chunk))
	}
	return pieces
}

// The usage we asked for is in done, not among the tokens; one that came unasked,
// or that the client asked for, passes.
func TestUsage(t *testing.T) {
	wire := upstreamtest.Chunk("a") + upstreamtest.Finish("stop") + upstreamtest.Usage + upstreamtest.Done
	asked := `{"model":"gpt-test","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"x"}]}`
	for _, tt := range []struct {
		name, path, body string
		passes           bool
	}{
		{"native", "/v1/streams", promptBody, false},
		{"native, the client asked", "/v1/streams", asked, true},
		{"compatible", "/v1/chat/completions", chatBody, true}, // we did not ask: it is the upstream's wire
		{"compatible, the client asked", "/v1/chat/completions", asked, true},
	} {
		h := newHarness(t)
		h.upstream.Answer(upstreamtest.SSE(wire))
		resp := h.call("POST", tt.path, tt.body, "Accept", "text/event-stream")
		frames, err := readFrames(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		passed := slices.ContainsFunc(frames, func(f frame) bool { return f.Type == "" && strings.Contains(f.Data, `"total_tokens":12`) })
		if passed != tt.passes {
			t.Errorf("%s: the usage chunk passed: %v, want %v", tt.name, passed, tt.passes)
		}
		status := object(t, h.call("GET", "/v1/streams/"+resp.Header.Get("Weir-Stream-Id"), ""))
		usage, _ := status["usage"].(map[string]any)
		if usage["source"] != "provider" || usage["total_tokens"] != 12.0 || usage["prompt_tokens_details"] == nil {
			t.Errorf("%s: usage %v", tt.name, usage)
		}
	}
}

// Go's SDKs read through us what they read directly.
func TestGoClientsReadTheSame(t *testing.T) {
	h := newHarness(t)
	wires := map[string]string{
		"an answer": upstreamtest.Answer("Hello ", "wörld"),
		"an error":  upstreamtest.Chunk("Hello") + `data: {"error":{"message":"overloaded","type":"server_error","param":null,"code":"x"}}` + "\n\n",
		"truncated": upstreamtest.Chunk("Hello"),
	}
	for name, wire := range wires {
		h.upstream.Answer(upstreamtest.SSE(wire))
		for sdk, read := range map[string]func(string) (string, error){"go-openai": readGoOpenAI, "openai-go": readOpenAIGo} {
			direct, directErr := read(h.upstream.URL)
			through, throughErr := read(h.url + "/v1")
			if direct != through {
				t.Errorf("%s, %s: directly %q, through us %q", name, sdk, direct, through)
			}
			switch name {
			case "an answer":
				if directErr != nil || throughErr != nil {
					t.Errorf("%s, %s: directly %v, through us %v", name, sdk, directErr, throughErr)
				}
			case "an error":
				if throughErr == nil || !strings.Contains(throughErr.Error(), "overloaded") {
					t.Errorf("%s, %s: through us %v", name, sdk, throughErr)
				}
			case "truncated": // directly it looks like an end; that is what we are for
				if throughErr == nil {
					t.Errorf("%s, %s: a truncated answer passed for a whole one", name, sdk)
				}
			}
		}
	}
}

func readGoOpenAI(base string) (string, error) {
	config := goopenai.DefaultConfig("key")
	config.BaseURL = base
	s, err := goopenai.NewClientWithConfig(config).CreateChatCompletionStream(testContext, goopenai.ChatCompletionRequest{
		Model: "gpt-test", Messages: []goopenai.ChatCompletionMessage{{Role: "user", Content: "Hi"}}})
	if err != nil {
		return "", err
	}
	defer s.Close()
	var b strings.Builder
	for {
		chunk, err := s.Recv()
		if err != nil {
			if err.Error() == "EOF" {
				err = nil
			}
			return b.String(), err
		}
		raw, _ := json.Marshal(chunk)
		b.Write(raw)
	}
}

func readOpenAIGo(base string) (string, error) {
	client := openaigo.NewClient(option.WithBaseURL(base), option.WithAPIKey("key"), option.WithMaxRetries(0))
	s := client.Chat.Completions.NewStreaming(testContext, openaigo.ChatCompletionNewParams{
		Model: "gpt-test", Messages: []openaigo.ChatCompletionMessageParamUnion{openaigo.UserMessage("Hi")}})
	defer s.Close()
	var b strings.Builder
	for s.Next() {
		b.WriteString(s.Current().RawJSON())
	}
	return b.String(), s.Err()
}

// Real answers pass byte for byte: an extra check for who has a folder of some
// and names it.
func TestRecordings(t *testing.T) {
	dir := os.Getenv("WEIR_TEST_RECORDINGS")
	if dir == "" {
		return
	}
	files, err := filepath.Glob(filepath.Join(dir, "chat-*.sse"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings in %s: %v", dir, err)
	}
	for _, file := range files {
		wire, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		source, err := readFrames(strings.NewReader(string(wire)))
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{len(wire), 7} {
			h := newHarness(t)
			h.upstream.Answer(upstreamtest.Pieces(cut(string(wire), size)...))
			frames, err := readFrames(h.call("POST", "/v1/chat/completions", chatBody).Body)
			if err != nil {
				t.Errorf("%s: %v", file, err)
			}
			got, want := payloadsOf(frames), payloadsOf(source)
			if want[len(want)-1] != "[DONE]" {
				want = append(want, "[DONE]") // after a finish reason it is a good end, and we say so
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s by %d: %d payloads, want %d; the last is %q", filepath.Base(file), size, len(got), len(want), got[len(got)-1])
			}
		}
	}
}

func payloadsOf(frames []frame) []string {
	var p []string
	for _, f := range frames {
		p = append(p, f.Data)
	}
	return p
}

// A frame larger than one network write is still one event, its id last.
func TestLargeEventKeepsItsID(t *testing.T) {
	h := newHarness(t)
	id := h.finished(strings.Repeat("x", 300<<10))
	raw := text(t, h.call("GET", "/v1/streams/"+id+"/events", ""))
	d := sse.NewDecoder(1 << 20)
	if err := d.Fill(strings.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(raw, "\nid: "+id+".2\n\n") {
		t.Error("the large event has no id line behind its data")
	}
}
