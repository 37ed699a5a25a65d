package stream

import (
	"encoding/json"
	"fmt"
	"time"
)

// Sources of a Usage.
const (
	UsageProvider  = "provider"  // counted by the provider
	UsageEstimated = "estimated" // the provider sent none: estimated from the text
	UsagePartial   = "partial"   // the generation was cut short: estimated from what came
)

// Usage is a token count. Its JSON is the provider's own object, every field
// kept, with a "source" added.
type Usage struct {
	Source string
	Counts json.RawMessage // a JSON object, as the provider sent it
}

// EstimatedUsage is a usage of our own making.
func EstimatedUsage(source string, prompt, completion int) *Usage {
	counts := fmt.Appendf(nil, `{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`,
		prompt, completion, prompt+completion)
	return &Usage{Source: source, Counts: counts}
}

// MarshalJSON leaves out counts that are no JSON object: what an upstream makes
// up must not keep a stream from its end.
func (u Usage) MarshalJSON() ([]byte, error) {
	var fields map[string]json.RawMessage
	if !embeddable(u.Counts) || json.Unmarshal(u.Counts, &fields) != nil || fields == nil {
		fields = map[string]json.RawMessage{}
	}
	fields["source"], _ = json.Marshal(u.Source) // a string always marshals
	return json.Marshal(fields)
}

func (u *Usage) UnmarshalJSON(data []byte) error {
	var source struct {
		Source string `json:"source"`
	}
	if err := json.Unmarshal(data, &source); err != nil {
		return err
	}
	u.Source = source.Source
	u.Counts = append(json.RawMessage(nil), data...)
	return nil
}

// Timings of a generation, in milliseconds. Zero when it did not get there.
type Timings struct {
	FirstTokenMS float64 `json:"first_token_ms,omitempty"` // time to first token
	TotalMS      float64 `json:"total_ms,omitempty"`
}

// Summary is how a generation ended, as its owner knows it.
type Summary struct {
	FinishReason string   `json:"finish_reason,omitempty"`
	Usage        *Usage   `json:"usage,omitempty"`
	Timings      *Timings `json:"timings,omitempty"`
}

// DoneEvent is the terminal event of a stream that ended in state done.
func DoneEvent(s Summary) Event {
	return doneEvent(StateDone, s)
}

// CancelledEvent is the terminal event of a cancelled stream. Whoever is not
// the owner knows no summary; it is booked later.
func CancelledEvent(s Summary) Event {
	return doneEvent(StateCancelled, s)
}

func doneEvent(state State, s Summary) Event {
	return Event{Type: TypeDone, Data: mustMarshal(struct {
		State State `json:"state"`
		Summary
	}{state, s})}
}

// Event is the terminal event of a stream that failed with e.
func (e *Error) Event(s Summary) Event {
	return Event{Type: TypeError, Data: mustMarshal(struct {
		Error *Error `json:"error"`
		Summary
	}{e, s})}
}

// Ending is a terminal event, read.
type Ending struct {
	State State
	Error *Error // in StateError
	Summary
}

// ReadEnding reads a terminal event.
func ReadEnding(e Event) (Ending, error) {
	var data struct {
		State State  `json:"state"`
		Error *Error `json:"error"`
		Summary
	}
	if err := json.Unmarshal(e.Data, &data); err != nil {
		return Ending{}, fmt.Errorf("terminal event %d: %w", e.Seq, err)
	}
	ending := Ending{State: data.State, Error: data.Error, Summary: data.Summary}
	if ending.State == "" {
		ending.State = StateDone
	}
	if e.Type == TypeError {
		ending.State = StateError
		if ending.Error == nil {
			ending.Error = &Error{Message: "The generation failed.", Code: CodeInternal}
		}
	}
	return ending, nil
}

// State returns the stream's state.
func (s Status) State() State {
	if s.Running() {
		return StateRunning
	}
	ending, err := ReadEnding(s.Terminal)
	if err != nil {
		return StateError
	}
	return ending.State
}

func mustMarshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own types, which leave out raw JSON that is none
	}
	return data
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
