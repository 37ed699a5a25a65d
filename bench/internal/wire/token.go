package wire

import (
	"bytes"
	"fmt"
)

// A token's content is its number and the time it was sent, both of fixed
// width, so that one buffer serves every token.
const (
	seqWidth  = 6
	timeWidth = 19
	idWidth   = 10
)

// The shape of OpenAI's chunks: about 300 bytes for a token of a few letters.
const (
	chunkHead   = `data: {"id":"chatcmpl-Bq2vNfJ8xLw4T6yRzKcU`
	chunkModel  = `","object":"chat.completion.chunk","created":1760000000,"model":"bench-2026-01-01","service_tier":"default","system_fingerprint":"fp_62a23a81ef","choices":[{"index":0,"delta":`
	contentMark = `{"content":"`
	chunkTail   = `"},"logprobs":null,"finish_reason":null}],"obfuscation":"x7Gk"}` + "\n\n"
	finishTail  = `{},"logprobs":null,"finish_reason":"stop"}],"obfuscation":"x7Gk"}` + "\n\n"
	doneEvent   = "data: [DONE]\n\n"
	lastChunk   = "0\r\n\r\n"
)

// Head begins an answer of the upstream.
const Head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"

// Encoder makes the chunks of answers. What it returns is good until its next
// call.
type Encoder struct {
	token, end             []byte
	tokenID, seq, at, end1 int // where in them the variable parts stand
}

// NewEncoder returns an encoder.
func NewEncoder() *Encoder {
	zeros := func(n int) string { return fmt.Sprintf("%0*d", n, 0) }
	event := chunkHead + zeros(idWidth) + chunkModel + contentMark + zeros(seqWidth) + " " + zeros(timeWidth) + chunkTail
	size := fmt.Sprintf("%x\r\n", len(event))
	e := &Encoder{token: []byte(size + event + "\r\n")}
	e.tokenID = len(size) + len(chunkHead)
	e.seq = e.tokenID + idWidth + len(chunkModel) + len(contentMark)
	e.at = e.seq + seqWidth + 1

	event = chunkHead + zeros(idWidth) + chunkModel + finishTail + doneEvent
	size = fmt.Sprintf("%x\r\n", len(event))
	e.end = []byte(size + event + "\r\n" + lastChunk)
	e.end1 = len(size) + len(chunkHead)
	return e
}

// Token returns the HTTP chunk with one token's event.
func (e *Encoder) Token(stream, seq int, at int64) []byte {
	putDigits(e.token[e.tokenID:][:idWidth], int64(stream))
	putDigits(e.token[e.seq:][:seqWidth], int64(seq))
	putDigits(e.token[e.at:][:timeWidth], at)
	return e.token
}

// End returns what follows the last token: the finish reason, [DONE], and the
// end of the body.
func (e *Encoder) End(stream int) []byte {
	putDigits(e.end[e.end1:][:idWidth], int64(stream))
	return e.end
}

var (
	contentMarker = []byte(contentMark)
	finishMarker  = []byte(`"finish_reason":"stop"`)
)

// ReadToken returns the number and the time in a token's data, and false for
// data that is no token.
func ReadToken(data []byte) (seq int, at int64, ok bool) {
	i := bytes.Index(data, contentMarker)
	if i < 0 || len(data) < i+len(contentMark)+seqWidth+1+timeWidth {
		return 0, 0, false
	}
	content := data[i+len(contentMark):]
	number, ok1 := digits(content[:seqWidth])
	at, ok2 := digits(content[seqWidth+1:][:timeWidth])
	return int(number), at, ok1 && ok2
}

// IsFinish reports whether an event's data is the chunk with the finish reason.
func IsFinish(data []byte) bool { return bytes.Contains(data, finishMarker) }

// IsDone reports whether an event's data is the end marker.
func IsDone(data []byte) bool { return string(data) == "[DONE]" }

func putDigits(dst []byte, v int64) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = byte('0' + v%10)
		v /= 10
	}
}

func digits(b []byte) (v int64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int64(c-'0')
	}
	return v, len(b) > 0
}
