package wire

import (
	"bytes"
	"fmt"
)

// Token is what a token's content says. All of it is of fixed width, so that one
// buffer serves every token.
type Token struct {
	Seq    int   // from 1
	Sent   int64 // when, in Unix nanoseconds
	Waited int64 // how long the upstream let the request wait, in nanoseconds, below a second; zero after the first token
}

const (
	seqWidth    = 6
	timeWidth   = 19
	waitedWidth = 9
	idWidth     = 10

	contentWidth = seqWidth + 1 + timeWidth + 1 + waitedWidth
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
	token, end         []byte
	id, content, endID int // where in them the variable parts stand
}

// NewEncoder returns an encoder.
func NewEncoder() *Encoder {
	zeros := func(n int) string { return fmt.Sprintf("%0*d", n, 0) }
	event := chunkHead + zeros(idWidth) + chunkModel + contentMark +
		zeros(seqWidth) + " " + zeros(timeWidth) + " " + zeros(waitedWidth) + chunkTail
	size := fmt.Sprintf("%x\r\n", len(event))
	e := &Encoder{token: []byte(size + event + "\r\n")}
	e.id = len(size) + len(chunkHead)
	e.content = e.id + idWidth + len(chunkModel) + len(contentMark)

	event = chunkHead + zeros(idWidth) + chunkModel + finishTail + doneEvent
	size = fmt.Sprintf("%x\r\n", len(event))
	e.end = []byte(size + event + "\r\n" + lastChunk)
	e.endID = len(size) + len(chunkHead)
	return e
}

// Token returns the HTTP chunk with one token's event.
func (e *Encoder) Token(stream int, t Token) []byte {
	putDigits(e.token[e.id:][:idWidth], int64(stream))
	content := e.token[e.content:][:contentWidth]
	putDigits(content[:seqWidth], int64(t.Seq))
	putDigits(content[seqWidth+1:][:timeWidth], t.Sent)
	putDigits(content[contentWidth-waitedWidth:], t.Waited)
	return e.token
}

// End returns what follows the last token: the finish reason, [DONE], and the
// end of the body.
func (e *Encoder) End(stream int) []byte {
	putDigits(e.end[e.endID:][:idWidth], int64(stream))
	return e.end
}

var (
	contentMarker = []byte(contentMark)
	finishMarker  = []byte(`"finish_reason":"stop"`)
)

// ReadToken returns what a token's data says, and false for data that is no
// token.
func ReadToken(data []byte) (t Token, ok bool) {
	i := bytes.Index(data, contentMarker)
	if i < 0 || len(data) < i+len(contentMark)+contentWidth {
		return t, false
	}
	content := data[i+len(contentMark):][:contentWidth]
	seq, ok1 := digits(content[:seqWidth])
	sent, ok2 := digits(content[seqWidth+1:][:timeWidth])
	waited, ok3 := digits(content[contentWidth-waitedWidth:])
	return Token{int(seq), sent, waited}, ok1 && ok2 && ok3
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
