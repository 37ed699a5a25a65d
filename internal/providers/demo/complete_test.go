package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weir/internal/stream"
)

func TestUnknownModel(t *testing.T) {
	for _, model := range []string{"demo/x", "gpt-5", "", "demo/", "Demo", strings.Repeat("x", 10_000)} {
		_, err := New().Stream(t.Context(), request(model, "x"), nil)
		_, errComplete := New().Complete(t.Context(), request(model, "x"))
		for _, err := range []error{err, errComplete} {
			var got *stream.Error
			if !errors.As(err, &got) || got.Code != "model_not_found" || got.UpstreamStatus != 404 || got.Param != "model" || got.Retryable {
				t.Fatalf("%.20s: got %v", model, err)
			}
			for _, s := range scripts {
				if !strings.Contains(got.Message, s.name) {
					t.Errorf("%q does not name %s", got.Message, s.name)
				}
			}
			if len(got.Message) > 300 {
				t.Errorf("the message has %d bytes", len(got.Message))
			}
		}
	}
}

func TestComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for model, wait := range map[string]time.Duration{"demo": 0, "demo/long": 0, "demo/slow": slowFirstToken} {
			start := time.Now()
			res, err := New().Complete(t.Context(), request(model, "Hi"))
			if took := time.Since(start); err != nil || took != wait {
				t.Fatalf("%s: %v after %v", model, err, took)
			}
			var got struct {
				ID, Object, Model string
				Created           int64
				Choices           []struct {
					Index        int
					Message      struct{ Role, Content string }
					FinishReason string `json:"finish_reason"`
				}
				Usage map[string]int
			}
			if err := json.Unmarshal(res.Body, &got); err != nil {
				t.Fatal(err)
			}
			if got.Object != "chat.completion" || got.Model != model || got.Created == 0 || len(got.Choices) != 1 ||
				!strings.HasPrefix(got.ID, "chatcmpl-demo-") {
				t.Fatalf("got %s", res.Body)
			}
			choice := got.Choices[0]
			want := record(t.Context(), request(model, "Hi"))
			if choice.Message.Role != "assistant" || choice.FinishReason != "stop" || choice.Message.Content != content(t, want) {
				t.Errorf("%s: %+v differs from the streamed answer", model, choice)
			}
			if got.Usage["prompt_tokens"] != 2 || got.Usage["total_tokens"] != 2+got.Usage["completion_tokens"] {
				t.Errorf("usage %v", got.Usage)
			}
		}
	})
}

func TestModels(t *testing.T) {
	models, err := New().Models(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, raw := range models {
		var m struct {
			ID, Object string
			Created    int64
			OwnedBy    string `json:"owned_by"`
		}
		if err := json.Unmarshal(raw, &m); err != nil || m.Object != "model" || m.OwnedBy != "weir" || m.Created == 0 {
			t.Errorf("%s: %v", raw, err)
		}
		ids = append(ids, m.ID)
	}
	if got := strings.Join(ids, " "); got != "demo demo/slow demo/long demo/error demo/stall demo/cut" {
		t.Errorf("got %s", got)
	}
	if name, err := New().DefaultModel(t.Context()); name != "demo" || err != nil {
		t.Errorf("the default is %q, %v", name, err)
	}
}

func TestConcurrentAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, results := New(), make([]string, 20)
		var wg sync.WaitGroup
		for i := range results {
			wg.Go(func() {
				_, err := p.Stream(t.Context(), request("demo", fmt.Sprint(i)), func(events []stream.Event) error {
					for _, e := range events {
						results[i] += string(e.Data)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for i, got := range results {
			if strings.Count(got, `"stop"`) != 1 {
				t.Errorf("answer %d has no end", i)
			}
		}
	})
}
