package chat

import (
	"encoding/json"
	"strings"
	"testing"

	"weir/internal/stream"
)

func TestUpstreamChangesOnlyWhatItMust(t *testing.T) {
	const messages = `"messages":[{"role":"user","content":"x"}]`
	tests := []struct {
		name, body string
		change     Change
		want       string // empty: the body itself
	}{
		{"nothing", `{ "model" : "a" , ` + messages + ` }`, Change{}, ""},
		{"the same model", `{"model":"a",` + messages + `}`, Change{Model: "a"}, ""},
		{"another model", `{"model" : "a" ,` + messages + `}`, Change{Model: "b/c"}, `{"model" : "b/c" ,` + messages + `}`},
		{"no model", `{` + messages + `}`, Change{Model: "b"}, `{"model":"b",` + messages + `}`},
		{"null model", `{"model":null,` + messages + `}`, Change{Model: "b"}, `{"model":"b",` + messages + `}`},
		{"a name in need of escapes", `{"model":"a",` + messages + `}`, Change{Model: `q"`}, `{"model":"q\"",` + messages + `}`},
		{"an escaped key", `{"mod\u0065l":"a",` + messages + `}`, Change{Model: "b"}, `{"mod\u0065l":"b",` + messages + `}`},
		{"inner fields stay", `{"x":{"model":"a","stream":false},` + messages + `,"model":"a"}`, Change{Model: "b", Stream: true},
			`{"stream":true,"x":{"model":"a","stream":false},` + messages + `,"model":"b"}`},
		{"all of it", ` {` + messages + `,"stream":false,"model":"a"}`, Change{Model: "b", Stream: true, AskUsage: true},
			` {"stream_options":{"include_usage":true},` + messages + `,"stream":true,"model":"b"}`},
	}
	for _, tt := range tests {
		r, err := ParseRequest([]byte(tt.body))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		want := tt.want
		if want == "" {
			want = tt.body
		}
		if got := string(r.Upstream(tt.change)); got != want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, want)
		}
	}
}

// A default model that the caller fills in is sent, too.
func TestUpstreamSendsAFilledInModel(t *testing.T) {
	r, err := ParseRequest([]byte(`{"messages":[{"role":"user"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Model = "default"
	if got := string(r.Upstream(Change{Model: r.Model})); got != `{"model":"default","messages":[{"role":"user"}]}` {
		t.Errorf("got %s", got)
	}
}

// FuzzUpstream: whatever is accepted stays JSON, with the model that was asked
// for, and with everything else as it was.
func FuzzUpstream(f *testing.F) {
	f.Add([]byte(`{"model":"a","stream":false,"messages":[{}],"x":0}`), "b")
	f.Add([]byte(` { "mess\u0061ges" : [ {} ] } `), "é\"")
	f.Fuzz(func(t *testing.T, body []byte, model string) {
		r, err := ParseRequest(body)
		if err != nil || model == "" {
			return
		}
		out := r.Upstream(Change{Model: model, Stream: true, AskUsage: true})
		var before, after map[string]json.RawMessage
		if err := json.Unmarshal(out, &after); err != nil {
			t.Fatalf("%s became %s: %v", body, out, err)
		}
		if err := json.Unmarshal(body, &before); err != nil {
			t.Fatalf("accepted %s: %v", body, err)
		}
		var got string
		if err := json.Unmarshal(after["model"], &got); err != nil || got != string([]rune(model)) {
			t.Errorf("model %q, want %q", got, model)
		}
		if string(after["stream"]) != "true" {
			t.Errorf("stream is %s", after["stream"])
		}
		for name, value := range before {
			switch name {
			case "model", "stream":
			default:
				if string(after[name]) != string(value) {
					t.Errorf("%s was %s and is %s", name, value, after[name])
				}
			}
		}
	})
}

func TestParsePrompt(t *testing.T) {
	p, short, err := ParsePrompt([]byte(`{"prompt":"Hi \"you\"","model":"m","system":"s","stream":true}`))
	if err != nil || !short || p != (Prompt{`Hi "you"`, "m", "s"}) {
		t.Fatalf("got %+v, %v, %v", p, short, err)
	}
	want := `{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"Hi \"you\""}]}`
	if got := string(p.Body()); got != want {
		t.Errorf("got %s", got)
	}
	if _, short, err := ParsePrompt([]byte(`{"prompt":"x","messages":[{}]}`)); short || err != nil {
		t.Errorf("a body with messages was taken for a prompt: %v", err)
	}
	for _, bad := range []string{`{"prompt":1}`, `{"prompt":""}`, `{"prompt":"x","n":2}`, `{"prompt":"x","model":1}`, `nonsense`} {
		if _, _, err := ParsePrompt([]byte(bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestMeter(t *testing.T) {
	chunk := func(choices, rest string) string { return `{"id":"x","choices":[` + choices + `]` + rest + `}` }
	tests := []struct {
		name     string
		chunks   []string
		finished bool
		reason   string
		usage    string // counts, when the answer is whole
		source   string
	}{
		{"nothing", nil, false, "", `{"prompt_tokens":3,"completion_tokens":0,"total_tokens":3}`, stream.UsageEstimated},
		{"text, finish", []string{chunk(`{"index":0,"delta":{"content":"12345678é"}}`, ""), chunk(`{"index":0,"delta":{},"finish_reason":"stop"}`, "")},
			true, "stop", `{"prompt_tokens":3,"completion_tokens":3,"total_tokens":6}`, stream.UsageEstimated},
		{"null finish reason", []string{chunk(`{"index":0,"delta":{},"finish_reason":null}`, "")}, false, "", "", ""},
		{"empty finish reason", []string{chunk(`{"index":0,"delta":{},"finish_reason":""}`, "")}, false, "", "", ""},
		{"one choice of two", []string{chunk(`{"index":0,"delta":{},"finish_reason":"stop"},{"index":1,"delta":{}}`, "")}, false, "stop", "", ""},
		{"both", []string{chunk(`{"index":0,"delta":{},"finish_reason":"stop"},{"index":1,"delta":{},"finish_reason":"length"}`, "")}, true, "length", "", ""},
		{"no index", []string{chunk(`{"delta":{},"finish_reason":"tool_calls"}`, "")}, true, "tool_calls", "", ""},
		{"usage alone", []string{chunk(`{"index":0,"delta":{},"finish_reason":"stop"}`, ""), chunk("", `,"usage":{"total_tokens":9,"cost":0.5}`)},
			true, "stop", `{"total_tokens":9,"cost":0.5}`, stream.UsageProvider},
		{"usage null", []string{chunk(`{"index":0,"delta":{},"finish_reason":"stop"}`, `,"usage":null`)}, true, "stop", "", stream.UsageEstimated},
		{"the last usage counts", []string{chunk(`{"index":0,"delta":{}}`, `,"usage":{"total_tokens":1}`), chunk(`{"index":0,"delta":{},"finish_reason":"stop"}`, `,"usage":{"total_tokens":2}`)},
			true, "stop", `{"total_tokens":2}`, stream.UsageProvider},
		{"garbage", []string{"not JSON", `[]`, `{"choices":7}`, `{"choices":[1]}`}, false, "", "", ""},
	}
	for _, tt := range tests {
		m := NewMeter([]byte(`{"messages":[{"content":"12345678 0"}]}`))
		for _, c := range tt.chunks {
			m.Observe([]byte(c))
		}
		if tt.name == "garbage" {
			continue // it must not panic, that is all
		}
		o := m.Outcome(true)
		if m.Finished() != tt.finished || o.FinishReason != tt.reason {
			t.Errorf("%s: finished %v, reason %q", tt.name, m.Finished(), o.FinishReason)
		}
		if tt.usage != "" && string(o.Usage.Counts) != tt.usage {
			t.Errorf("%s: usage %s, want %s", tt.name, o.Usage.Counts, tt.usage)
		}
		if tt.source != "" && o.Usage.Source != tt.source {
			t.Errorf("%s: source %s, want %s", tt.name, o.Usage.Source, tt.source)
		}
		if cut := m.Outcome(false); cut.Usage.Source != stream.UsagePartial {
			t.Errorf("%s, cut short: source %s", tt.name, cut.Usage.Source)
		}
	}
}

// A choice that was asked for and never began is missing, too.
func TestMeterCountsTheChoicesAskedFor(t *testing.T) {
	m := NewMeter([]byte(`{"n":2,"messages":[]}`))
	m.Observe([]byte(`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`))
	if m.Finished() {
		t.Error("one choice of two is a whole answer")
	}
	m.Observe([]byte(`{"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}`))
	if !m.Finished() {
		t.Error("both choices are no whole answer")
	}
}

// The estimate is one pass over the bytes: nesting, which a stranger chooses,
// must not multiply them.
func TestPromptTokensIsLinear(t *testing.T) {
	const depth = 9000
	deep := `{"messages":` + strings.Repeat(`[`, depth) + `"` + strings.Repeat("x", 4<<20) + `"` + strings.Repeat("]", depth) + `}`
	if got, want := PromptTokens([]byte(deep)), 1<<20; got != want {
		t.Errorf("got %d tokens, want %d", got, want)
	}
	for body, want := range map[string]int{
		`{"messages":[{"role":"user","content":"abcd"}]}`:       2,
		`{"messages":[{"content":"a\"b" , "x" : "cd"}]}`:        2,
		`{"messages":["abcd`:                                    1,
		`{"messages":[{"content":["abcd","` + `data:,abcd"]}]}`: 1,
		`{}`: 0,
	} {
		if got := PromptTokens([]byte(body)); got != want {
			t.Errorf("%s: got %d, want %d", body, got, want)
		}
	}
}

func TestMeterFindsErrorsAndUsageChunks(t *testing.T) {
	for data, want := range map[string]struct{ err, usageOnly bool }{
		`{"error":{"message":"x"}}`: {true, false},
		`{ "error" : "x" }`:         {true, false},
		`{"error":null,"choices":[{"delta":{"content":"error"}}]}`: {false, false},
		`{"choices":[],"usage":{"total_tokens":1}}`:                {false, true},
		`{"choices":[],"usage":null}`:                              {false, false},
		`{"choices":[{"delta":{}}],"usage":{"total_tokens":1}}`:    {false, false},
	} {
		var m Meter
		got := m.Observe([]byte(data))
		if (got.Error != nil) != want.err || got.UsageOnly != want.usageOnly {
			t.Errorf("%s: got %+v", data, got)
		}
	}
}

func TestAppendText(t *testing.T) {
	for chunk, want := range map[string]string{
		`{"choices":[{"index":0,"delta":{"content":"a\u00e9"}}]}`: "aé",
		`{"choices":[{"delta":{"content":"a"}}]}`:                 "a",
		`{"choices":[{"index":1,"delta":{"content":"a"}}]}`:       "",
		`{"choices":[{"index":0,"delta":{"content":null}}]}`:      "",
		`{"choices":[]}`: "",
		`{"choices":[{"index":0,"delta":{"content":[{"type":"thinking","thinking":[]},{"type":"text","text":"b"}]}}]}`: "b",
	} {
		if got := string(AppendText(nil, []byte(chunk))); got != want {
			t.Errorf("%s: got %q, want %q", chunk, got, want)
		}
	}
}

func TestTextTokens(t *testing.T) {
	for text, want := range map[string]int{"": 0, "a": 1, "abcd": 1, "abcde": 2, "üü": 2, "abcdü": 2} {
		if got := TextTokens(text); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
	image := `{"messages":[{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,` + strings.Repeat("A", 4000) + `"}}]}]}`
	if got := PromptTokens([]byte(image)); got > 20 {
		t.Errorf("an image counts %d tokens", got)
	}
}

func BenchmarkMeter(b *testing.B) {
	chunk := []byte(`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"tok"},"finish_reason":null}]}`)
	var m Meter
	b.ReportAllocs()
	for b.Loop() {
		m.Observe(chunk)
	}
}
