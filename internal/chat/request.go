// Package chat is the openai.chat dialect: the little that Weir must know of a
// chat-completions request and of its chunks. What it does not know passes
// through untouched.
package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/tidwall/gjson" // finds values in JSON and where they stand, so that all other bytes stay as they came
)

// Request is a chat-completions request body and where in it the few fields
// stand that Weir looks at.
type Request struct {
	Body   []byte // as the client sent it; read it only
	Model  string // empty when it names none; the caller may fill in a default
	Stream bool

	named         string // the model that the body names
	model, stream value
	streamOptions value
}

// value is a field's place in the body; zero when the body has no such field.
type value struct{ from, to int }

// RequestError is what is wrong with a request, for the client to read.
type RequestError struct {
	Message string
	Param   string // the field it is about, or empty
}

func (e *RequestError) Error() string { return e.Message }

// maxModel is far above any model's name. The name stands in logs.
const maxModel = 256

// ParseRequest reads a request body. Its error is a *RequestError.
func ParseRequest(body []byte) (*Request, error) {
	if err := checkObject(body); err != nil {
		return nil, err
	}
	r := &Request{Body: body}
	var messages gjson.Result
	var prompt bool
	seen := map[string]bool{}
	var err error
	gjson.ParseBytes(body).ForEach(func(key, v gjson.Result) bool {
		at := value{v.Index, v.Index + len(v.Raw)}
		switch key.Str {
		case "model":
			r.model, r.named, r.Model = at, v.Str, v.Str
			if v.Type != gjson.String && v.Type != gjson.Null {
				err = &RequestError{"`model` must be a string such as \"gpt-5-mini\" or \"demo\".", "model"}
			}
			if len(v.Str) > maxModel {
				err = &RequestError{fmt.Sprintf("`model` has at most %d characters.", maxModel), "model"}
			}
		case "stream":
			r.stream, r.Stream = at, v.Bool()
			if !v.IsBool() && v.Type != gjson.Null {
				err = &RequestError{"`stream` must be true or false.", "stream"}
			}
		case "stream_options":
			r.streamOptions = at
		case "messages":
			messages = v
		case "prompt":
			prompt = true
			return true
		default:
			return true
		}
		if seen[key.Str] && err == nil {
			// Parsers differ in which one they take: what is checked here
			// must be what the upstream sees.
			err = &RequestError{fmt.Sprintf("`%s` appears twice in the request; send it once.", key.Str), key.Str}
		}
		seen[key.Str] = true
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	return r, checkMessages(messages, prompt)
}

func checkObject(body []byte) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return &RequestError{"The request body is empty; send a JSON object with `messages`.", ""}
	}
	// encoding/json bounds the nesting, which the scan below does not.
	if !json.Valid(body) {
		var syntax *json.SyntaxError
		if err := json.Unmarshal(body, new(json.RawMessage)); errors.As(err, &syntax) {
			return &RequestError{fmt.Sprintf("The request body is not valid JSON: %s at byte %d.", syntax.Error(), syntax.Offset), ""}
		}
		return &RequestError{"The request body is not valid JSON.", ""}
	}
	if bytes.TrimLeft(body, " \t\r\n")[0] != '{' {
		return &RequestError{"The request body must be a JSON object with `messages`.", ""}
	}
	return nil
}

func checkMessages(messages gjson.Result, prompt bool) error {
	switch {
	case !messages.Exists() && prompt:
		return &RequestError{"`messages` is missing. A `prompt` alone is taken by POST /v1/streams; here send " +
			`"messages": [{"role": "user", "content": "…"}].`, "messages"}
	case !messages.Exists():
		return &RequestError{"`messages` is missing: send an array such as " + `[{"role": "user", "content": "Hello"}].`, "messages"}
	case !messages.IsArray() || len(messages.Raw) == 0 || !messages.Get("0").Exists():
		return &RequestError{"`messages` must be a non-empty array such as " + `[{"role": "user", "content": "Hello"}].`, "messages"}
	case !messages.Get("0").IsObject():
		return &RequestError{"Each of `messages` must be an object such as " + `{"role": "user", "content": "Hello"}.`, "messages.0"}
	}
	return nil
}

// UsageChosen reports whether the client said itself whether it wants the usage
// in the stream.
func (r *Request) UsageChosen() bool { return r.streamOptions != value{} }

// Change is what of a request Weir may change on its way upstream. The zero
// Change leaves every byte alone.
type Change struct {
	Model    string // the upstream's name, when not empty
	Stream   bool   // set stream to true
	AskUsage bool   // ask for the usage chunk; only when the client did not choose
}

// Upstream returns the body to send: the client's own but for the change, every
// other byte in its place.
func (r *Request) Upstream(c Change) []byte {
	var edits []edit
	if c.Model != "" && c.Model != r.named {
		name, _ := json.Marshal(c.Model) // a string always marshals
		edits = append(edits, r.set("model", r.model, name))
	}
	if c.Stream && !r.Stream {
		edits = append(edits, r.set("stream", r.stream, []byte("true")))
	}
	if c.AskUsage && !r.UsageChosen() {
		edits = append(edits, r.set("stream_options", r.streamOptions, []byte(`{"include_usage":true}`)))
	}
	if len(edits) == 0 {
		return r.Body
	}
	return splice(r.Body, edits)
}

// edit replaces the bytes of a place by others.
type edit struct {
	value
	text []byte
}

// set replaces a field's value, or adds the field in front of all others.
func (r *Request) set(name string, at value, text []byte) edit {
	if at != (value{}) {
		return edit{at, text}
	}
	start := bytes.IndexByte(r.Body, '{') + 1
	// A request has messages, so something follows.
	return edit{value{start, start}, fmt.Appendf(nil, "%q:%s,", name, text)}
}

func splice(body []byte, edits []edit) []byte {
	slices.SortStableFunc(edits, func(a, b edit) int { return a.from - b.from })
	var out []byte
	at := 0
	for _, e := range edits {
		out = append(out, body[at:e.from]...)
		out = append(out, e.text...)
		at = e.to
	}
	return append(out, body[at:]...)
}

// Prompt is the short form of a request.
type Prompt struct {
	Prompt string `json:"prompt"`
	Model  string `json:"model,omitempty"`
	System string `json:"system,omitempty"`
}

// Body returns the prompt as a chat-completions request body.
func (p Prompt) Body() []byte {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	var body struct {
		Model    string    `json:"model,omitempty"`
		Messages []message `json:"messages"`
	}
	body.Model = p.Model
	if p.System != "" {
		body.Messages = append(body.Messages, message{"system", p.System})
	}
	body.Messages = append(body.Messages, message{"user", p.Prompt})
	data, _ := json.Marshal(body) // strings always marshal
	return data
}

// ParsePrompt reads the short form. It reports false when the body is not one:
// it has messages, or no prompt.
func ParsePrompt(body []byte) (p Prompt, isPrompt bool, err error) {
	if err := checkObject(body); err != nil {
		return p, false, err
	}
	fields := gjson.ParseBytes(body)
	prompt := fields.Get("prompt")
	if !prompt.Exists() || fields.Get("messages").Exists() {
		return p, false, nil
	}
	known := map[string]bool{"prompt": true, "model": true, "system": true, "stream": true}
	fields.ForEach(func(key, v gjson.Result) bool {
		switch {
		case !known[key.Str]:
			err = &RequestError{fmt.Sprintf("`%s` does not go with `prompt`; send a chat-completions body with `messages` instead.", key.Str), key.Str}
		case key.Str != "stream" && v.Type != gjson.String:
			err = &RequestError{fmt.Sprintf("`%s` must be a string.", key.Str), key.Str}
		}
		return err == nil
	})
	if err != nil {
		return p, true, err
	}
	p = Prompt{Prompt: prompt.Str, Model: fields.Get("model").Str, System: fields.Get("system").Str}
	if p.Prompt == "" {
		return p, true, &RequestError{"`prompt` is empty.", "prompt"}
	}
	return p, true, nil
}
