package demo

import (
	"bytes"
	"encoding/json"
	"time"

	"weir/internal/stream"
)

// The JSON of the OpenAI API, fields in the order that OpenAI sends them.

type chunkJSON struct {
	ID      string          `json:"id"`
	Object  string          `json:"object"`
	Created int64           `json:"created"`
	Model   string          `json:"model"`
	Choices []choiceJSON    `json:"choices"`
	Usage   json.RawMessage `json:"usage,omitempty"` // null before the last chunk, when usage was asked for
}

type choiceJSON struct {
	Index        int       `json:"index"`
	Delta        deltaJSON `json:"delta"`
	FinishReason *string   `json:"finish_reason"`
}

type deltaJSON struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
}

type completionChoiceJSON struct {
	Index        int         `json:"index"`
	Message      messageJSON `json:"message"`
	FinishReason string      `json:"finish_reason"`
}

type messageJSON struct {
	Role    string  `json:"role"`
	Content string  `json:"content"`
	Refusal *string `json:"refusal"`
}

type completionJSONBody struct {
	ID      string                 `json:"id"`
	Object  string                 `json:"object"`
	Created int64                  `json:"created"`
	Model   string                 `json:"model"`
	Choices []completionChoiceJSON `json:"choices"`
	Usage   json.RawMessage        `json:"usage"`
}

// chunkWriter emits the chunks of one answer. It reuses its buffers: emit keeps
// nothing of what it is given.
type chunkWriter struct {
	emit       stream.Emit
	head       chunkJSON
	wantsUsage bool
	started    bool
	sent       int // bytes of text

	buf    bytes.Buffer
	ends   []int // of the events in buf that wait to be emitted
	events []stream.Event
}

func newChunkWriter(emit stream.Emit, model string, wantsUsage bool) *chunkWriter {
	w := &chunkWriter{emit: emit, wantsUsage: wantsUsage}
	w.head = chunkJSON{ID: newID(), Object: "chat.completion.chunk", Created: time.Now().Unix(), Model: model}
	if wantsUsage {
		w.head.Usage = json.RawMessage("null")
	}
	return w
}

// token emits a piece of the answer.
func (w *chunkWriter) token(text string) error {
	if !w.started {
		w.started = true
		w.head.Created = time.Now().Unix()
		empty := ""
		if err := w.add(choiceJSON{Delta: deltaJSON{Role: "assistant", Content: &empty}}); err != nil {
			return err
		}
	}
	w.sent += len(text)
	if err := w.add(choiceJSON{Delta: deltaJSON{Content: &text}}); err != nil {
		return err
	}
	return w.flush()
}

// finish emits the end of the answer, and the usage if the client asked for it.
func (w *chunkWriter) finish(reason string, usage json.RawMessage) error {
	if err := w.add(choiceJSON{FinishReason: &reason}); err != nil {
		return err
	}
	if w.wantsUsage {
		w.head.Usage = usage
		if err := w.add(); err != nil {
			return err
		}
	}
	return w.flush()
}

// add puts a chunk into the buffer.
func (w *chunkWriter) add(choices ...choiceJSON) error {
	chunk := w.head
	chunk.Choices = choices
	if choices == nil {
		chunk.Choices = []choiceJSON{} // [] in JSON, not null
	}
	if err := encodeJSON(&w.buf, chunk); err != nil {
		return err
	}
	w.ends = append(w.ends, w.buf.Len())
	return nil
}

// flush emits what is in the buffer, at once.
func (w *chunkWriter) flush() error {
	w.events = w.events[:0]
	data, start := w.buf.Bytes(), 0
	for _, end := range w.ends {
		w.events = append(w.events, stream.Event{Type: stream.TypeToken, Data: data[start:end:end]})
		start = end
	}
	err := w.emit(w.events)
	w.buf.Reset()
	w.ends = w.ends[:0]
	return err
}

func completionJSON(model, text string, usage json.RawMessage) ([]byte, error) {
	var buf bytes.Buffer
	err := encodeJSON(&buf, completionJSONBody{
		ID: newID(), Object: "chat.completion", Created: time.Now().Unix(), Model: model,
		Choices: []completionChoiceJSON{{Message: messageJSON{Role: "assistant", Content: text}, FinishReason: "stop"}},
		Usage:   usage,
	})
	return buf.Bytes(), err
}

// encodeJSON appends v in one line, with < > & as themselves, as OpenAI does.
func encodeJSON[T chunkJSON | completionJSONBody](buf *bytes.Buffer, v T) error {
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	buf.Truncate(buf.Len() - 1) // the encoder ends with a newline
	return nil
}
