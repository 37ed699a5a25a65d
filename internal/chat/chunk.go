package chat

import (
	"bytes"
	"encoding/json"
	"math/bits"
	"strings"

	"github.com/tidwall/gjson"

	"weir/internal/stream"
)

// Meter watches the chunks of one answer go by and remembers what its terminal
// event needs: the finish reason, the usage, and enough of the text's size to
// estimate a usage when the provider sends none.
type Meter struct {
	request      []byte
	choices      int // that were asked for
	finishReason string
	usage        []byte
	seen, ended  uint64 // one bit a choice
	text         size
}

// NewMeter returns a meter for the answer to a request, which it keeps.
func NewMeter(request []byte) *Meter {
	return &Meter{request: request, choices: max(1, int(gjson.GetBytes(request, "n").Int()))}
}

// Chunk is what a Meter found in one chunk.
type Chunk struct {
	// Error is the raw error object of a chunk that is one; nil otherwise.
	Error []byte
	// UsageOnly says that the chunk holds the usage and no choice.
	UsageOnly bool
}

// maxUsage is far above any real usage; what is larger is not kept.
const maxUsage = 16 << 10

// Observe takes the data of the next chunk. It keeps nothing of it.
func (m *Meter) Observe(data []byte) Chunk {
	var c Chunk
	var usage bool
	choices := 0
	gjson.ParseBytes(data).ForEach(func(key, v gjson.Result) bool {
		switch key.Str {
		case "error":
			if v.Type != gjson.Null {
				c.Error = []byte(v.Raw)
			}
		case "usage":
			if usage = v.IsObject() && len(v.Raw) < maxUsage && json.Valid([]byte(v.Raw)); usage {
				m.usage = append(m.usage[:0], v.Raw...)
			}
		case "choices":
			v.ForEach(func(_, choice gjson.Result) bool {
				choices++
				m.choice(choice)
				return true
			})
		}
		return true
	})
	c.UsageOnly = usage && choices == 0
	return c
}

func (m *Meter) choice(choice gjson.Result) {
	var bit uint64 = 1
	var finish gjson.Result
	choice.ForEach(func(key, v gjson.Result) bool {
		switch key.Str {
		case "index":
			bit = 1 << (v.Uint() & 63)
		case "finish_reason":
			finish = v
		case "delta":
			m.text.addStrings(v.Raw)
		}
		return true
	})
	m.seen |= bit
	if finish.Type == gjson.String && finish.Str != "" {
		m.ended |= bit
		m.finishReason = finish.Str
	}
}

// Finished reports whether every choice that was asked for, or began, has its
// finish reason.
func (m *Meter) Finished() bool {
	return m.seen == m.ended && bits.OnesCount64(m.ended) >= min(m.choices, 64)
}

// Outcome returns what is known of the answer. When the provider sent no usage
// it is estimated, from the text that came and the request; ended says whether
// the answer is whole.
func (m *Meter) Outcome(ended bool) stream.Outcome {
	source := stream.UsageEstimated
	switch {
	case !ended:
		source = stream.UsagePartial
	case m.usage != nil:
		source = stream.UsageProvider
	}
	o := stream.Outcome{FinishReason: m.finishReason}
	if m.usage != nil {
		o.Usage = &stream.Usage{Source: source, Counts: bytes.Clone(m.usage)}
	} else {
		o.Usage = stream.EstimatedUsage(source, PromptTokens(m.request), m.text.tokens())
	}
	return o
}

// PromptTokens estimates the tokens of a request's messages.
func PromptTokens(request []byte) int {
	var text size
	text.addStrings(gjson.GetBytes(request, "messages").Raw)
	return text.tokens()
}

// TextTokens estimates the tokens of a text.
func TextTokens(text string) int {
	var s size
	s.add(text)
	return s.tokens()
}

// size of a text, for an estimate of its tokens: a token for four ASCII
// characters, one for any other.
type size struct{ ascii, other int }

func (s *size) tokens() int { return (s.ascii+3)/4 + s.other }

func (s *size) add(text string) {
	for i := range len(text) {
		switch b := text[i]; {
		case b < 0x80:
			s.ascii++
		case b >= 0xC0: // the first byte of a rune
			s.other++
		}
	}
}

// addStrings counts the strings in JSON, names of fields left out. It goes over
// the bytes once, however they nest; an escape counts as what it is written as.
func (s *size) addStrings(json string) {
	for i := 0; i < len(json); i++ {
		if json[i] != '"' {
			continue
		}
		from := i + 1
		for i = from; i < len(json) && json[i] != '"'; i++ {
			if json[i] == '\\' {
				i++
			}
		}
		text := json[min(from, len(json)):min(i, len(json))]
		isName := strings.HasPrefix(strings.TrimLeft(json[min(i+1, len(json)):], " \t\r\n"), ":")
		isFile := strings.HasPrefix(text, "data:") // an image, say: its bytes are no measure of its tokens
		if !isName && !isFile {
			s.add(text)
		}
	}
}

// AppendText appends the text that a chunk adds to the first choice.
func AppendText(dst, chunk []byte) []byte {
	choice := gjson.GetBytes(chunk, "choices.0")
	if choice.Get("index").Int() != 0 {
		return dst
	}
	content := choice.Get("delta.content")
	if !content.IsArray() {
		return append(dst, content.Str...)
	}
	content.ForEach(func(_, part gjson.Result) bool { // Mistral's, between thinking and text
		dst = append(dst, part.Get("text").Str...)
		return true
	})
	return dst
}
