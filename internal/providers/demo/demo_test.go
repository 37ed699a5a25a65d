package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weir/internal/chat"
	"weir/internal/providers"
	"weir/internal/stream"
)

// recording is what a call of Stream did, and when.
type recording struct {
	data    []string
	at      []time.Duration // since the call, of each event
	took    time.Duration
	outcome stream.Outcome
	err     error
}

// record runs Stream to its end; inside a synctest bubble that takes no time.
func record(ctx context.Context, req providers.Request) recording {
	var r recording
	start := time.Now()
	r.outcome, r.err = New().Stream(ctx, req, func(events []stream.Event) error {
		for _, e := range events {
			if e.Type != stream.TypeToken {
				return fmt.Errorf("an event of type %q", e.Type)
			}
			r.data = append(r.data, string(e.Data))
			r.at = append(r.at, time.Since(start))
		}
		return nil
	})
	r.took = time.Since(start)
	return r
}

func request(model, prompt string) providers.Request {
	content, _ := json.Marshal(prompt)
	return providers.Request{Model: model, Body: fmt.Appendf(nil, `{"model":%q,"messages":[{"role":"user","content":%s}]}`, model, content)}
}

// chunk is what tests look at; a field that is absent differs from null.
type chunk struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	Model   string `json:"model"`
	Choices []struct {
		Index        *int                       `json:"index"`
		Delta        map[string]json.RawMessage `json:"delta"`
		FinishReason json.RawMessage            `json:"finish_reason"`
	} `json:"choices"`
	Usage json.RawMessage `json:"usage"`
}

func parse(t *testing.T, r recording) []chunk {
	t.Helper()
	var chunks []chunk
	for i, data := range r.data {
		var c chunk
		if err := json.Unmarshal([]byte(data), &c); err != nil {
			t.Fatalf("chunk %d: %v\n%s", i, err, data)
		}
		if strings.ContainsAny(data, "\r\n") {
			t.Errorf("chunk %d has more than one line: %s", i, data)
		}
		chunks = append(chunks, c)
	}
	return chunks
}

// content joins the text of the chunks.
func content(t *testing.T, r recording) string {
	t.Helper()
	var b strings.Builder
	for _, c := range parse(t, r) {
		if len(c.Choices) == 0 || c.Choices[0].Delta["content"] == nil {
			continue
		}
		var piece string
		if err := json.Unmarshal(c.Choices[0].Delta["content"], &piece); err != nil {
			t.Fatal(err)
		}
		b.WriteString(piece)
	}
	return b.String()
}

func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := record(t.Context(), request("demo", "What is Weir?"))
		if r.err != nil {
			t.Fatal(r.err)
		}
		chunks := parse(t, r)
		last := len(chunks) - 1
		for i, c := range chunks {
			if !strings.HasPrefix(c.ID, "chatcmpl-demo-") || c.ID != chunks[0].ID || c.Object != "chat.completion.chunk" ||
				c.Model != "demo" || c.Created != chunks[0].Created || c.Created == 0 || c.Usage != nil {
				t.Fatalf("chunk %d: %s", i, r.data[i])
			}
			if len(c.Choices) != 1 || c.Choices[0].Index == nil || *c.Choices[0].Index != 0 {
				t.Fatalf("chunk %d has not one choice: %s", i, r.data[i])
			}
			if finish := string(c.Choices[0].FinishReason); (i < last && finish != "null") || (i == last && finish != `"stop"`) {
				t.Errorf("chunk %d: finish_reason %s", i, finish)
			}
			if role := string(c.Choices[0].Delta["role"]); (role == `"assistant"`) != (i == 0) {
				t.Errorf("chunk %d: role %s", i, role)
			}
		}
		if len(chunks[last].Choices[0].Delta) != 0 {
			t.Errorf("the last delta is not empty: %s", r.data[last])
		}
		if got, want := content(t, r), answer("What is Weir?"); got != want {
			t.Errorf("got %q\nwant %q", got, want)
		}
		want := `{"prompt_tokens":5,"completion_tokens":` + fmt.Sprint(chat.TextTokens(answer("What is Weir?")))
		if u := r.outcome.Usage; r.outcome.FinishReason != "stop" || u == nil || u.Source != stream.UsageProvider || !strings.HasPrefix(string(u.Counts), want) {
			t.Errorf("outcome %+v", r.outcome)
		}
	})
}

func TestPace(t *testing.T) {
	tests := []struct {
		model              string
		first, least, most time.Duration
	}{
		{"demo", 250 * time.Millisecond, 25 * time.Millisecond, 40 * time.Millisecond},
		{"demo/slow", slowFirstToken, 580 * time.Millisecond, 620 * time.Millisecond},
		{"demo/long", 250 * time.Millisecond, 5 * time.Millisecond, 5 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.model, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := record(t.Context(), request(tt.model, "pace"))
				if r.err != nil || r.at[0] != tt.first || r.at[1] != tt.first {
					t.Fatalf("began at %v, %v, %v; want %v", r.at[0], r.at[1], r.err, tt.first)
				}
				end := len(r.at) - 1 // comes along with the last token
				if r.at[end] != r.at[end-1] || r.took != r.at[end] {
					t.Errorf("ended at %v, returned at %v", r.at[end], r.took)
				}
				gaps := map[time.Duration]bool{}
				for i := 2; i < end; i++ {
					gap := r.at[i] - r.at[i-1]
					gaps[gap] = true
					if gap < tt.least || gap > tt.most {
						t.Fatalf("token %d came after %v", i, gap)
					}
				}
				if tt.least != tt.most && len(gaps) < 10 {
					t.Errorf("only %d different pauses", len(gaps))
				}
			})
		})
	}
}

func TestSameRequestSameAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := record(t.Context(), request("demo", "Hi"))
		b := record(t.Context(), request("demo", "Hi"))
		if content(t, a) != content(t, b) || fmt.Sprint(a.at) != fmt.Sprint(b.at) {
			t.Error("two answers differ")
		}
		if parse(t, a)[0].ID == parse(t, b)[0].ID {
			t.Error("two answers have one id")
		}
	})
}

func TestUsageChunk(t *testing.T) {
	const asked = `{"messages":[{"role":"user","content":"Hi"}],"stream_options":{"include_usage":true}}`
	tests := []struct {
		name       string
		body       string
		usageAsked bool
		want       bool
	}{
		{"not asked", `{"messages":[]}`, false, false},
		{"refused", `{"messages":[],"stream_options":{"include_usage":false}}`, false, false},
		{"by the client", asked, false, true},
		{"by the proxy", asked, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := record(t.Context(), providers.Request{Model: "demo", Body: []byte(tt.body), UsageAsked: tt.usageAsked})
				if r.err != nil {
					t.Fatal(r.err)
				}
				last := r.data[len(r.data)-1]
				got := strings.HasSuffix(last, `"choices":[],"usage":`+string(r.outcome.Usage.Counts)+`}`)
				if got != tt.want {
					t.Errorf("last chunk %s", last)
				}
				for i, data := range r.data[:len(r.data)-1] {
					if strings.HasSuffix(data, `,"usage":null}`) != tt.want {
						t.Fatalf("chunk %d: %s", i, data)
					}
				}
			})
		})
	}
}

func TestFaults(t *testing.T) {
	rateLimited := stream.Error{Code: "rate_limit_exceeded", Type: "rate_limit_error", UpstreamStatus: 429, RetryAfter: 5 * time.Second, Retryable: true}
	truncated := stream.Error{Code: stream.CodeUpstreamTruncated, Type: "upstream_error", Retryable: true}
	tests := []struct {
		model  string
		events int // the role's included
		want   stream.Error
	}{
		{"demo/error", 0, rateLimited},
		{"demo/cut", 25, truncated},
	}
	for _, tt := range tests {
		t.Run(tt.model, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := record(t.Context(), request(tt.model, "x"))
				_, err := New().Complete(t.Context(), request(tt.model, "x"))
				for _, err := range []error{r.err, err} {
					var got *stream.Error
					if !errors.As(err, &got) || !strings.Contains(got.Message, "scripted") {
						t.Fatalf("got %v", err)
					}
					if want := tt.want; got.Code != want.Code || got.Type != want.Type || got.Retryable != want.Retryable ||
						got.UpstreamStatus != want.UpstreamStatus || got.RetryAfter != want.RetryAfter {
						t.Errorf("got %+v, want %+v", got, want)
					}
				}
				if len(r.data) != tt.events || strings.Contains(strings.Join(r.data, ""), `"stop"`) {
					t.Errorf("%d events: %q", len(r.data), r.data)
				}
				if tt.events > 0 && !strings.HasPrefix(answer("x"), content(t, r)) {
					t.Errorf("the text before the fault is %q", content(t, r))
				}
			})
		})
	}
}

// A cancel ends every model at once, wherever it is, with the cause.
func TestCancel(t *testing.T) {
	cause := errors.New("the cause")
	tests := []struct {
		model string
		after time.Duration
	}{
		{"demo", 0},
		{"demo", 100 * time.Millisecond},
		{"demo", 5 * time.Second},
		{"demo/error", 10 * time.Millisecond},
		{"demo/slow", 7 * time.Second},
		{"demo/slow", 9 * time.Second},
		{"demo/stall", time.Second / 2},
		{"demo/stall", time.Hour},
		{"demo/cut", 300 * time.Millisecond},
		{"demo/long", time.Minute},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.model, " after ", tt.after), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				if tt.after == 0 {
					cancel(cause)
				}
				time.AfterFunc(tt.after, func() { cancel(cause) })
				r := record(ctx, request(tt.model, "x"))
				if !errors.Is(r.err, cause) || r.took != tt.after {
					t.Errorf("returned %v after %v", r.err, r.took)
				}
				if r.outcome.FinishReason != "" {
					t.Errorf("outcome %+v", r.outcome)
				}
			})
		})
	}
}

func TestCancelComplete(t *testing.T) {
	for _, model := range []string{"demo/slow", "demo/stall"} {
		t.Run(model, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start := time.Now()
				_, err := New().Complete(ctx, request(model, "x"))
				if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != time.Second {
					t.Errorf("returned %v after %v", err, took)
				}
			})
		})
	}
}

func TestEmitErrorEndsTheAnswer(t *testing.T) {
	sealed := errors.New("sealed")
	for _, n := range []int{1, 2, 10} {
		synctest.Test(t, func(t *testing.T) {
			calls := 0
			_, err := New().Stream(t.Context(), request("demo", "x"), func([]stream.Event) error {
				if calls++; calls == n {
					return sealed
				}
				return nil
			})
			if !errors.Is(err, sealed) || calls != n {
				t.Errorf("got %v after %d calls, want it after %d", err, calls, n)
			}
		})
	}
}
