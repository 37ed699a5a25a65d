package httpapi

import (
	"context"
	"errors"
	"io"

	"weir/internal/chat"
	"weir/internal/stream"
)

// streamBody is the JSON of a stream. What is not known yet is absent.
type streamBody struct {
	ID           string          `json:"id"`
	Object       string          `json:"object"`
	State        stream.State    `json:"state"`
	Dialect      string          `json:"dialect"`
	Model        string          `json:"model"`
	Provider     string          `json:"provider"`
	Created      int64           `json:"created"`
	LastSeq      uint64          `json:"last_seq"`
	EventsURL    string          `json:"events_url,omitempty"`
	ControlToken string          `json:"control_token,omitempty"`
	Text         *string         `json:"text,omitempty"`
	FinishReason string          `json:"finish_reason,omitempty"`
	Usage        *stream.Usage   `json:"usage,omitempty"`
	Error        *stream.Error   `json:"error,omitempty"`
	Timings      *stream.Timings `json:"timings,omitempty"`
}

type listBody[T any] struct {
	Object  string `json:"object"`
	Data    []T    `json:"data"`
	HasMore *bool  `json:"has_more,omitempty"`
}

// describe tells what a status knows; reading the text takes the log.
func describe(status stream.Status) streamBody {
	b := streamBody{
		ID: status.ID, Object: "stream", State: stream.StateRunning, Dialect: status.Dialect, Model: status.Model,
		Provider: status.Provider, Created: status.Created.Unix(), LastSeq: status.LastSeq,
	}
	if status.Running() {
		return b
	}
	ending, err := stream.ReadEnding(status.Terminal)
	if err != nil {
		ending.State = stream.StateError
	}
	b.State, b.Error = ending.State, ending.Error
	// What the terminal event could not know was booked by the owner later.
	b.FinishReason, b.Usage, b.Timings = ending.FinishReason, ending.Usage, ending.Timings
	if b.FinishReason == "" {
		b.FinishReason = status.Booked.FinishReason
	}
	if b.Usage == nil {
		b.Usage = status.Booked.Usage
	}
	if b.Timings == nil {
		b.Timings = status.Booked.Timings
	}
	return b
}

// textOf assembles the text of a stream up to the status's last event.
func textOf(ctx context.Context, log stream.Log, status stream.Status) (string, error) {
	reader, err := log.Open(ctx, status.ID, 0)
	if err != nil {
		return "", err
	}
	defer reader.Close()
	var text []byte
	var events []stream.Event
	for {
		events, err = reader.Next(events[:0])
		for _, e := range events {
			if e.Seq > status.LastSeq {
				return string(text), nil
			}
			if e.Type == stream.TypeToken {
				text = chat.AppendText(text, e.Data)
			}
		}
		if errors.Is(err, io.EOF) || (err == nil && len(events) == 0) {
			return string(text), nil
		}
		if err != nil {
			return "", err
		}
	}
}
