package sse

import (
	"bytes"
	"strconv"
)

// AppendEvent appends one event, its blank line included. Data that holds CR,
// LF or CRLF goes out in as many data: lines. The id comes last: some clients
// take it as seen when they read its line, before the event is whole. Type and
// ID must hold no line break. An event without data is nothing to a browser and
// breaks other clients: nothing is appended.
func AppendEvent(dst []byte, e Event) []byte {
	if len(e.Data) == 0 {
		return dst
	}
	if len(e.Type) > 0 {
		dst = append(dst, "event: "...)
		dst = append(dst, e.Type...)
		dst = append(dst, '\n')
	}
	dst = appendData(dst, e.Data)
	if len(e.ID) > 0 {
		dst = append(dst, "id: "...)
		dst = append(dst, e.ID...)
		dst = append(dst, '\n')
	}
	return append(dst, '\n')
}

func appendData(dst, data []byte) []byte {
	for {
		line, rest, more := cutLine(data)
		dst = append(dst, "data: "...)
		dst = append(dst, line...)
		dst = append(dst, '\n')
		if !more {
			return dst
		}
		data = rest
	}
}

// cutLine splits data at its first line break.
func cutLine(data []byte) (line, rest []byte, more bool) {
	lf := bytes.IndexByte(data, '\n')
	head := data
	if lf >= 0 {
		head = data[:lf]
	}
	if cr := bytes.IndexByte(head, '\r'); cr >= 0 {
		if cr+1 == lf {
			return data[:cr], data[lf+1:], true
		}
		return data[:cr], data[cr+1:], true
	}
	if lf < 0 {
		return data, nil, false
	}
	return head, data[lf+1:], true
}

// AppendRetry appends the line that sets a client's reconnection time, in
// milliseconds. It is part of the event that follows, or takes effect by itself
// when the connection ends there; a block of its own breaks some clients.
func AppendRetry(dst []byte, milliseconds int) []byte {
	dst = append(dst, "retry: "...)
	dst = strconv.AppendInt(dst, int64(milliseconds), 10)
	return append(dst, '\n')
}

// AppendComment appends a comment, which clients skip: a heartbeat. The text
// must hold no line break.
func AppendComment(dst []byte, text string) []byte {
	dst = append(dst, ": "...)
	dst = append(dst, text...)
	return append(dst, "\n\n"...)
}
