package main

import (
	"errors"
	"log/slog"
	"time"

	"weir/internal/stream"
)

// observers tells several observers the same.
type observers []stream.Observer

func (o observers) Started(meta stream.Meta) {
	for _, each := range o {
		each.Started(meta)
	}
}

func (o observers) FirstToken(meta stream.Meta, after time.Duration) {
	for _, each := range o {
		each.FirstToken(meta, after)
	}
}

func (o observers) Ended(end stream.End) {
	for _, each := range o {
		each.Ended(end)
	}
}

// endLog writes one line for each stream's end. Nothing of a prompt or an
// answer is in it.
type endLog struct{ log *slog.Logger }

func (endLog) Started(stream.Meta)                   {}
func (endLog) FirstToken(stream.Meta, time.Duration) {}

func (l endLog) Ended(end stream.End) {
	attrs := []any{
		"id", end.ID, "owner", end.Owner, "provider", end.Provider, "model", end.Model, "state", end.State,
		"events", end.Events, "bytes", end.Bytes,
	}
	if end.Timings != nil {
		attrs = append(attrs, "first_token_ms", end.Timings.FirstTokenMS, "total_ms", end.Timings.TotalMS)
	}
	if end.FinishReason != "" {
		attrs = append(attrs, "finish_reason", end.FinishReason)
	}
	if end.Usage != nil {
		attrs = append(attrs, "usage", clip(string(end.Usage.Counts)), "usage_source", end.Usage.Source)
	}
	if end.State != stream.StateError {
		if errors.Is(end.Err, stream.ErrFull) || errors.Is(end.Err, stream.ErrUnavailable) {
			// The store did not take all of it: the log may end otherwise.
			l.log.Warn("stream ended", append(attrs, "error", end.Err)...)
			return
		}
		l.log.Info("stream ended", attrs...)
		return
	}
	attrs = append(attrs, "code", clip(end.Error.Code), "upstream_status", end.Error.UpstreamStatus)
	if own := stream.AsError(end.Err); own.Code == stream.CodeInternal || own.Code == stream.CodeStoreFull || own.Code == stream.CodeStoreUnavailable {
		attrs = append(attrs, "error", end.Err) // our own fault: the client was not told which
	}
	l.log.Warn("stream ended", attrs...)
}

// clip bounds what an upstream can put into a line.
func clip(s string) string {
	const most = 500
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
