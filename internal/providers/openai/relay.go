package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"weir/internal/chat"
	"weir/internal/providers"
	"weir/internal/sse"
	"weir/internal/stream"
)

// maxEvent bounds one chunk: an image may come in one.
const maxEvent = 16 << 20

// relay turns one streamed answer into events.
type relay struct {
	body    io.Reader
	request providers.Request
	emit    stream.Emit
	scrub   func([]byte) []byte

	meter *chat.Meter
	done  bool // [DONE] was seen
	batch []stream.Event
}

var doneMarker = []byte("[DONE]")

func (r *relay) run(ctx context.Context) (stream.Outcome, error) {
	decoder := sse.NewDecoder(maxEvent)
	for {
		readErr := decoder.Fill(r.body)
		err := r.takeAll(decoder)
		if err == nil && readErr != nil && !r.done {
			err = r.takeRest(decoder, readErr)
		}
		if emitErr := r.flush(); emitErr != nil {
			return r.outcome(false), emitErr
		}
		switch {
		case err != nil:
			return r.outcome(false), err
		case r.done:
			if readErr == nil {
				r.readToEnd()
			}
			return r.outcome(true), nil
		case readErr != nil:
			return r.ended(ctx, readErr)
		}
	}
}

// takeAll takes every event that has arrived.
func (r *relay) takeAll(decoder *sse.Decoder) error {
	for !r.done {
		e, ok := decoder.Next()
		if !ok {
			return nil
		}
		if err := r.take(e); err != nil {
			return err
		}
	}
	return nil
}

// takeRest takes a last event whose blank line never came, if it is whole
// nevertheless: some upstreams end so.
func (r *relay) takeRest(decoder *sse.Decoder, readErr error) error {
	if !errors.Is(readErr, io.EOF) {
		return nil
	}
	rest := decoder.Rest()
	if bytes.Equal(bytes.TrimSpace(rest), doneMarker) || json.Valid(rest) {
		return r.take(sse.Event{Data: rest})
	}
	return nil
}

func (r *relay) take(e sse.Event) error {
	if bytes.Equal(bytes.TrimSpace(e.Data), doneMarker) {
		r.done = true
		return nil
	}
	if len(e.Data) == 0 {
		return nil // means nothing, and empty data breaks clients
	}
	chunk := r.meter.Observe(e.Data)
	switch {
	case chunk.Error != nil:
		return upstreamError(r.scrub(e.Data), r.scrub(chunk.Error))
	case string(e.Type) == "error":
		return upstreamError(r.scrub(e.Data), r.scrub(e.Data))
	case chunk.UsageOnly && r.request.UsageAsked:
		return nil
	}
	r.batch = append(r.batch, stream.Event{Type: stream.TypeToken, Data: e.Data})
	return nil
}

// flush emits what has arrived. If that is no event, a comment say, it still
// tells that the upstream is alive.
func (r *relay) flush() error {
	err := r.emit(r.batch)
	clear(r.batch)
	r.batch = r.batch[:0]
	return err
}

// ended says what an end without [DONE] means: every choice finished is a good
// end, anything else a truncated answer.
func (r *relay) ended(ctx context.Context, readErr error) (stream.Outcome, error) {
	switch {
	case r.meter.Finished():
		return r.outcome(true), nil
	case ctx.Err() != nil:
		return r.outcome(false), ctx.Err()
	case errors.Is(readErr, sse.ErrTooLarge):
		return r.outcome(false), &stream.Error{
			Message: "The upstream sent an event larger than 16 MiB.", Type: "server_error", Code: stream.CodeUpstreamInvalid,
		}
	default:
		return r.outcome(false), &stream.Error{
			Message: "The upstream's answer stopped before it was complete.", Type: "server_error",
			Code: stream.CodeUpstreamTruncated, Retryable: true,
		}
	}
}

func (r *relay) outcome(whole bool) stream.Outcome {
	return r.meter.Outcome(whole)
}

// endWait is how long an answer's last bytes may take after [DONE].
const endWait = 50 * time.Millisecond

// readToEnd reads what follows [DONE], usually just the end of the body: only
// then can the connection serve another call.
func (r *relay) readToEnd() {
	if closer, ok := r.body.(io.Closer); ok {
		timer := time.AfterFunc(endWait, func() { closer.Close() })
		defer timer.Stop()
	}
	io.Copy(io.Discard, io.LimitReader(r.body, 4<<10))
}
