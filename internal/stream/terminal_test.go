package stream_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"weir/internal/stream"
)

func providerUsage() *stream.Usage {
	return &stream.Usage{Source: stream.UsageProvider, Counts: json.RawMessage(
		`{"prompt_tokens":12,"completion_tokens":34,"total_tokens":46,` +
			`"prompt_tokens_details":{"cached_tokens":0},"cost":0.000123,"queue_time":null,"big":12345678901234567890}`)}
}

func TestTerminalEventsGolden(t *testing.T) {
	failure := &stream.Error{Message: "no more", Type: "server_error", Code: stream.CodeInterrupted, Retryable: true}
	upstream := &stream.Error{
		Message: "Rate limit reached", Type: "requests", Code: "rate_limit_exceeded", Param: "model", Retryable: true,
		UpstreamStatus: 429, RetryAfter: 1500 * time.Millisecond, Upstream: json.RawMessage(`{"error":{"code":"rate_limit_exceeded","x":1}}`),
	}
	tests := []struct {
		name  string
		event stream.Event
		typ   string
		data  string
	}{
		{
			"done keeps every field of the provider's usage",
			stream.DoneEvent(stream.Summary{
				FinishReason: "stop", Usage: providerUsage(), Timings: &stream.Timings{FirstTokenMS: 120.5, TotalMS: 2000},
			}),
			stream.TypeDone,
			`{"state":"done","finish_reason":"stop","usage":{"big":12345678901234567890,"completion_tokens":34,"cost":0.000123,` +
				`"prompt_tokens":12,"prompt_tokens_details":{"cached_tokens":0},"queue_time":null,"source":"provider","total_tokens":46},` +
				`"timings":{"first_token_ms":120.5,"total_ms":2000}}`,
		},
		{"done of nothing known", stream.DoneEvent(stream.Summary{}), stream.TypeDone, `{"state":"done"}`},
		{
			"done before any token",
			stream.DoneEvent(stream.Summary{FinishReason: "content_filter", Timings: &stream.Timings{TotalMS: 1}}),
			stream.TypeDone, `{"state":"done","finish_reason":"content_filter","timings":{"total_ms":1}}`,
		},
		{"cancelled by a stranger", stream.CancelledEvent(stream.Summary{}), stream.TypeDone, `{"state":"cancelled"}`},
		{
			"cancelled by the owner",
			stream.CancelledEvent(stream.Summary{Usage: stream.EstimatedUsage(stream.UsagePartial, 3, 4)}),
			stream.TypeDone,
			`{"state":"cancelled","usage":{"completion_tokens":4,"prompt_tokens":3,"source":"partial","total_tokens":7}}`,
		},
		{
			"error of our own", failure.Event(stream.Summary{}), stream.TypeError,
			`{"error":{"message":"no more","type":"server_error","code":"interrupted","param":null,"retryable":true}}`,
		},
		{
			"error with nothing in it", (&stream.Error{}).Event(stream.Summary{}), stream.TypeError,
			`{"error":{"message":"","type":"","code":null,"param":null,"retryable":false}}`,
		},
		{
			"error of the upstream's",
			upstream.Event(stream.Summary{Usage: stream.EstimatedUsage(stream.UsagePartial, 1, 0), Timings: &stream.Timings{TotalMS: 7}}),
			stream.TypeError,
			`{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded","param":"model","retryable":true,` +
				`"upstream_status":429,"retry_after":1.5,"upstream":{"error":{"code":"rate_limit_exceeded","x":1}}},` +
				`"usage":{"completion_tokens":0,"prompt_tokens":1,"source":"partial","total_tokens":1},"timings":{"total_ms":7}}`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.event.Type != test.typ || string(test.event.Data) != test.data {
				t.Errorf("%q\n%s\nwant %q\n%s", test.event.Type, test.event.Data, test.typ, test.data)
			}
			if !test.event.Terminal() || test.event.Seq != 0 || test.event.Recovery != 0 {
				t.Errorf("terminal %v, seq %d, recovery %d", test.event.Terminal(), test.event.Seq, test.event.Recovery)
			}
			// What was written is read, and written the same again.
			ending, err := stream.ReadEnding(test.event)
			if err != nil {
				t.Fatal(err)
			}
			if again := write(ending); string(again.Data) != test.data || again.Type != test.typ {
				t.Errorf("after ReadEnding\n%s", again.Data)
			}
		})
	}
}

func write(e stream.Ending) stream.Event {
	switch e.State {
	case stream.StateError:
		return e.Error.Event(e.Summary)
	case stream.StateCancelled:
		return stream.CancelledEvent(e.Summary)
	default:
		return stream.DoneEvent(e.Summary)
	}
}

func TestReadEnding(t *testing.T) {
	failure := &stream.Error{
		Message: "Rate limit reached", Type: "requests", Code: "rate_limit_exceeded", Param: "model", Retryable: true,
		UpstreamStatus: 429, RetryAfter: 1500 * time.Millisecond, Upstream: json.RawMessage(`{"x":1}`),
	}
	got, err := stream.ReadEnding(failure.Event(stream.Summary{FinishReason: "error"}))
	if err != nil || got.State != stream.StateError || got.FinishReason != "error" || !reflect.DeepEqual(got.Error, failure) {
		t.Errorf("%+v, %v; want %+v", got, err, failure)
	}

	got, err = stream.ReadEnding(stream.CancelledEvent(stream.Summary{}))
	if err != nil || !reflect.DeepEqual(got, stream.Ending{State: stream.StateCancelled}) {
		t.Errorf("%+v, %v; want cancelled and nothing else", got, err)
	}

	got, err = stream.ReadEnding(stream.DoneEvent(stream.Summary{Usage: providerUsage(), Timings: &stream.Timings{FirstTokenMS: 1, TotalMS: 2}}))
	if err != nil || got.State != stream.StateDone || got.Error != nil || *got.Timings != (stream.Timings{FirstTokenMS: 1, TotalMS: 2}) {
		t.Errorf("%+v, %v", got, err)
	}
	var counts struct {
		Total int         `json:"total_tokens"`
		Big   json.Number `json:"big"`
	}
	if got.Usage.Source != stream.UsageProvider || json.Unmarshal(got.Usage.Counts, &counts) != nil ||
		counts.Total != 46 || counts.Big != "12345678901234567890" {
		t.Errorf("usage of %q, %s", got.Usage.Source, got.Usage.Counts)
	}

	// An error event always has an error, whatever was written.
	got, err = stream.ReadEnding(stream.Event{Seq: 3, Type: stream.TypeError, Data: []byte(`{}`)})
	if err != nil || got.State != stream.StateError || got.Error == nil || got.Error.Code != stream.CodeInternal {
		t.Errorf("%+v, %v", got, err)
	}
	for _, data := range []string{"", "garbage", `"text"`, `[]`, `{"state":1}`, `{"usage":7}`} {
		if got, err := stream.ReadEnding(stream.Event{Seq: 3, Type: stream.TypeDone, Data: []byte(data)}); err == nil {
			t.Errorf("ReadEnding of %q = %+v", data, got)
		}
	}
}

func TestUsage(t *testing.T) {
	tests := []struct {
		name  string
		usage *stream.Usage
		want  string
	}{
		{"estimated", stream.EstimatedUsage(stream.UsageEstimated, 3, 4), `{"completion_tokens":4,"prompt_tokens":3,"source":"estimated","total_tokens":7}`},
		{"a source of the provider's own", &stream.Usage{Source: "provider", Counts: []byte(`{"source":"x","a":1}`)}, `{"a":1,"source":"provider"}`},
		{"no field", &stream.Usage{Source: "provider", Counts: []byte(`{}`)}, `{"source":"provider"}`},
		{"null", &stream.Usage{Source: "provider", Counts: []byte(`null`)}, `{"source":"provider"}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			data, err := json.Marshal(test.usage)
			if err != nil || string(data) != test.want {
				t.Fatalf("%s, %v; want %s", data, err, test.want)
			}
			var read stream.Usage
			if err := json.Unmarshal(data, &read); err != nil || read.Source != test.usage.Source {
				t.Errorf("read as %+v, %v", read, err)
			}
			if again, err := json.Marshal(read); err != nil || string(again) != test.want {
				t.Errorf("written again: %s, %v", again, err)
			}
		})
	}
}

func TestStatusState(t *testing.T) {
	ended := func(e stream.Event, last uint64) stream.Status {
		e.Seq = last
		return stream.Status{LastSeq: last, Terminal: e}
	}
	failure := (&stream.Error{Message: "no"}).Event(stream.Summary{})
	tests := []struct {
		name   string
		status stream.Status
		state  stream.State
		before bool // FailedBeforeToken
	}{
		{"empty", stream.Status{}, stream.StateRunning, false},
		{"running", stream.Status{LastSeq: 2}, stream.StateRunning, false},
		{"done", ended(stream.DoneEvent(stream.Summary{}), 9), stream.StateDone, false},
		{"done without a token", ended(stream.DoneEvent(stream.Summary{}), 2), stream.StateDone, false},
		{"cancelled without a token", ended(stream.CancelledEvent(stream.Summary{}), 2), stream.StateCancelled, false},
		{"failed before its start", ended(failure, 1), stream.StateError, true},
		{"failed before its first token", ended(failure, 2), stream.StateError, true},
		{"failed after its first token", ended(failure, 3), stream.StateError, false},
		{"unreadable", ended(stream.Event{Type: stream.TypeDone, Data: []byte("?")}, 3), stream.StateError, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.status.State(); got != test.state {
				t.Errorf("state %s, want %s", got, test.state)
			}
			if got := test.status.FailedBeforeToken(); got != test.before {
				t.Errorf("failed before a token: %v, want %v", got, test.before)
			}
		})
	}
}

func TestAsError(t *testing.T) {
	own := &stream.Error{Message: "shown", Code: "its_own"}
	if got := stream.AsError(fmt.Errorf("wrapped: %w", own)); got != own {
		t.Errorf("%+v, want %+v", got, own)
	}
	got := stream.AsError(fmt.Errorf("dial 10.0.0.1: key sk-secret"))
	if got.Code != stream.CodeInternal || !got.Retryable || got.Type != "server_error" {
		t.Errorf("%+v", got)
	}
	if want := stream.CodeInternal + ": " + got.Message; got.Error() != want || strings.Contains(want, "sk-secret") {
		t.Errorf("%q, want %q", got.Error(), want)
	}
	for err, code := range map[error]string{
		stream.ErrFull: stream.CodeStoreFull, stream.ErrUnavailable: stream.CodeStoreUnavailable,
	} {
		if got := stream.AsError(fmt.Errorf("append: %w: disk /dev/sda", err)); got.Code != code || strings.Contains(got.Error(), "sda") {
			t.Errorf("%v: %+v", err, got)
		}
	}
}
