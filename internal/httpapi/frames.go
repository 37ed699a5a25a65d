package httpapi

import (
	"math/rand/v2"
	"strconv"

	"weir/internal/sse"
	"weir/internal/stream"
)

// frames turns a log's events into what one kind of connection sends. It keeps
// nothing of the data.
type frames interface {
	// append appends an event's frame; some events have none.
	append(dst []byte, e stream.Event) []byte
	// heartbeat appends what keeps an idle connection alive.
	heartbeat(dst []byte) []byte
	// comeBack appends what tells a client to come back after an abort.
	comeBack(dst []byte) []byte
}

// reconnectMS is how long an EventSource waits before it comes back.
const reconnectMS = 2000

// appendComeBack appends when to come back, for the end of a body that breaks
// off. Jitter, so that the readers of a stopped server do not all come at once.
func appendComeBack(dst []byte) []byte {
	return sse.AppendRetry(dst, reconnectMS/2+rand.IntN(reconnectMS))
}

// nativeFrames are those of the native API: every event, with its type and id.
type nativeFrames struct {
	stream  string
	started bool // the first frame, which carries retry:, is out
	cursor  []byte
}

func (f *nativeFrames) append(dst []byte, e stream.Event) []byte {
	if !f.started {
		f.started = true
		dst = sse.AppendRetry(dst, reconnectMS)
	}
	f.cursor = stream.AppendCursor(f.cursor[:0], f.stream, e)
	return sse.AppendEvent(dst, sse.Event{Type: []byte(e.Type), Data: e.Data, ID: f.cursor})
}

func (f *nativeFrames) heartbeat(dst []byte) []byte { return sse.AppendComment(dst, "ping") }

func (f *nativeFrames) comeBack(dst []byte) []byte { return appendComeBack(dst) }

// appendReset appends the event that tells a reader to forget what it has. It
// has no id: the ones that follow are the log's.
func appendReset(dst []byte) []byte {
	return sse.AppendEvent(dst, sse.Event{
		Type: []byte("reset"),
		Data: []byte(`{"reason":"the log ends before the place you have seen; it comes again from its start"}`),
	})
}

// chatFrames are those of an OpenAI-compatible stream: data lines only, closed
// by [DONE] or an error.
type chatFrames struct {
	meta   stream.Meta
	ids    bool // resumable: every frame has an id
	cursor []byte
}

func (f *chatFrames) append(dst []byte, e stream.Event) []byte {
	frame := sse.Event{Data: e.Data}
	switch e.Type {
	case stream.TypeStart:
		return dst
	case stream.TypeDone, stream.TypeError:
		frame.Data = chatEnd(e)
	}
	if f.ids {
		f.cursor = stream.AppendCursor(f.cursor[:0], f.meta.ID, e)
		frame.ID = f.cursor
	}
	return sse.AppendEvent(dst, frame)
}

var doneMarker = []byte("[DONE]")

// chatEnd is the last data of a chat stream. Only a generation that came to its
// end gets [DONE]: for clients it means that the answer is whole.
func chatEnd(terminal stream.Event) []byte {
	ending, err := stream.ReadEnding(terminal)
	if err == nil && ending.State == stream.StateDone {
		return doneMarker
	}
	return mustJSON(plainError(failureOf(ending)))
}

// failureOf returns why a stream that did not end well did not.
func failureOf(ending stream.Ending) *stream.Error {
	switch {
	case ending.Error != nil:
		return ending.Error
	case ending.State == stream.StateCancelled:
		return &stream.Error{Message: "The stream was cancelled.", Type: "invalid_request_error", Code: stream.CodeCancelled}
	default:
		return &stream.Error{Message: "The generation failed.", Type: "server_error", Code: stream.CodeInternal}
	}
}

// heartbeat is a comment, or with ids an empty chunk: a client's parser fails
// on a comment that follows an id.
func (f *chatFrames) heartbeat(dst []byte) []byte {
	if !f.ids {
		return sse.AppendComment(dst, "ping")
	}
	dst = append(dst, `data: {"id":`...)
	dst = append(dst, mustJSON("chatcmpl-"+f.meta.ID)...)
	dst = append(dst, `,"object":"chat.completion.chunk","created":`...)
	dst = strconv.AppendInt(dst, f.meta.Created.Unix(), 10)
	dst = append(dst, `,"model":`...)
	dst = append(dst, mustJSON(f.meta.Model)...)
	return append(dst, `,"choices":[{"index":0,"delta":{},"finish_reason":null}]}`+"\n\n"...)
}

// comeBack says nothing to a client that has no ids to come back with.
func (f *chatFrames) comeBack(dst []byte) []byte {
	if !f.ids {
		return dst
	}
	return appendComeBack(dst)
}
