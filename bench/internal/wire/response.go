package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Event is one Server-Sent Event. Its slices are good during the callback only.
type Event struct {
	Type, Data, ID []byte
}

// Response reads an HTTP/1.1 answer with a chunked body of Server-Sent Events
// from the pieces that a connection yields. It reads no more of HTTP and SSE
// than proxies of such streams write: LF line ends, one data line an event. What
// is cut in two between pieces is kept; nothing else is copied.
type Response struct {
	// OnEvent is called for every event. Its error ends Feed.
	OnEvent func(Event) error

	Status int    // zero until the head has come
	head   []byte // of the response
	state  state
	left   int    // of the chunk
	rest   []byte // of an event that is not complete
}

type state uint8

const (
	inHead state = iota
	inSize
	inSizeLine // behind the digits: an extension, or the CR
	inData
	inDataEnd // the CRLF behind a chunk
	inTrailer
	ended
)

// Limits on what is kept of an answer that is not what it should be.
const (
	maxHead  = 16 << 10
	maxEvent = 1 << 20
)

// Ended reports whether the body has come to its proper end.
func (r *Response) Ended() bool { return r.state == ended }

// Header returns a header's value, or nothing.
func (r *Response) Header(name string) string {
	for line := range strings.SplitSeq(string(r.head), "\r\n") {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(key, name) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// Feed reads the next piece.
func (r *Response) Feed(p []byte) error {
	for len(p) > 0 {
		var err error
		switch r.state {
		case inHead:
			p, err = r.readHead(p)
		case inSize:
			p, err = r.readSize(p)
		case inData:
			n := min(r.left, len(p))
			err = r.body(p[:n])
			p = p[n:]
			if r.left -= n; r.left == 0 {
				r.state = inDataEnd
			}
		case inSizeLine, inDataEnd, inTrailer:
			p = r.skipLine(p)
		case ended:
			err = errors.New("bytes behind the end of the body")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// skipLine drops what is left of a line.
func (r *Response) skipLine(p []byte) []byte {
	i := bytes.IndexByte(p, '\n')
	if i < 0 {
		return nil
	}
	switch {
	case r.state == inDataEnd:
		r.state, r.left = inSize, 0
	case r.state == inTrailer:
		r.state = ended // trailers are not written to streams: the line is the empty one
	case r.left == 0:
		r.state = inTrailer
	default:
		r.state = inData
	}
	return p[i+1:]
}

func (r *Response) readSize(p []byte) ([]byte, error) {
	for i, c := range p {
		switch {
		case c >= '0' && c <= '9':
			r.left = r.left<<4 | int(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r.left = r.left<<4 | int(c|0x20-'a'+10)
		case c == '\r' || c == ';':
			r.state = inSizeLine
			return p[i:], nil
		default:
			return nil, fmt.Errorf("%q in the size of a chunk", c)
		}
		if r.left > 1<<30 {
			return nil, errors.New("a chunk above 1 GiB")
		}
	}
	return nil, nil
}

func (r *Response) readHead(p []byte) ([]byte, error) {
	before := len(r.head)
	r.head = append(r.head, p...)
	end := bytes.Index(r.head, []byte("\r\n\r\n"))
	if end < 0 {
		if len(r.head) > maxHead {
			return nil, errors.New("a response head above 16 KiB")
		}
		return nil, nil
	}
	p = p[end+len("\r\n\r\n")-before:]
	r.head = r.head[:end]
	if len(r.head) < len("HTTP/1.1 200") {
		return nil, fmt.Errorf("no HTTP: %q", r.head)
	}
	r.Status, _ = strconv.Atoi(string(r.head[len("HTTP/1.1 "):][:3]))
	if r.Status != 200 {
		return nil, fmt.Errorf("status %d", r.Status)
	}
	if !strings.EqualFold(r.Header("Transfer-Encoding"), "chunked") {
		return nil, errors.New("the body is not chunked")
	}
	r.state = inSize
	return p, nil
}

// body takes a piece of the decoded body.
func (r *Response) body(p []byte) error {
	if len(r.rest) > 0 {
		// The separator may stand on both sides of the seam.
		from := len(r.rest) - 1
		r.rest = append(r.rest, p...)
		i := bytes.Index(r.rest[from:], separator)
		if i < 0 {
			return r.checkRest()
		}
		end := from + i + len(separator)
		p = p[len(p)-(len(r.rest)-end):]
		err := r.event(r.rest[:end])
		if r.rest = r.rest[:0]; err != nil {
			return err
		}
	}
	for len(p) > 0 {
		i := bytes.Index(p, separator)
		if i < 0 {
			r.rest = append(r.rest, p...)
			return r.checkRest()
		}
		if err := r.event(p[:i+len(separator)]); err != nil {
			return err
		}
		p = p[i+len(separator):]
	}
	return nil
}

func (r *Response) checkRest() error {
	if len(r.rest) > maxEvent {
		return errors.New("an event above 1 MiB")
	}
	return nil
}

var separator = []byte("\n\n")

// event reads a block of lines. One without data is a comment or a retry time.
func (r *Response) event(block []byte) error {
	var e Event
	for len(block) > 0 {
		end := bytes.IndexByte(block, '\n')
		name, value, _ := bytes.Cut(block[:end], []byte(": "))
		block = block[end+1:]
		switch string(name) {
		case "data":
			e.Data = value
		case "event":
			e.Type = value
		case "id":
			e.ID = value
		}
	}
	if len(e.Data) == 0 {
		return nil
	}
	return r.OnEvent(e)
}
