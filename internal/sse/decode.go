package sse

import (
	"bytes"
	"errors"
	"io"
)

// ErrTooLarge is the decoder's error for an event above its cap.
var ErrTooLarge = errors.New("sse: the event is larger than allowed")

// Decoder reads Server-Sent Events as the WHATWG text has them: LF, CR and CRLF
// lines, comments, a byte order mark, several data lines an event.
//
// Fill and Next take turns: Fill reads once from the source, Next hands out the
// events that are complete, until there is none. So a caller always knows which
// events arrived together. Once warm it does not allocate: events point into
// its buffers and are good until the next Fill.
type Decoder struct {
	max int // bytes an incomplete event may hold

	buf     []byte
	line    int  // where the line being read begins
	scan    int  // up to here that line was searched for its end
	started bool // past the place of a byte order mark
	afterCR bool // the last line ended in CR: an LF now belongs to it

	// The event being read. Its data lines are joined in place, in buf; type
	// and id stand in side, out of their way.
	hasData bool
	data    span // in buf
	side    []byte
	typ, id span // in side
}

type span struct{ from, to int }

func (s span) of(b []byte) []byte { return b[s.from:s.to:s.to] }

// firstBuffer is enough for most chunks of most providers.
const firstBuffer = 4 << 10

// NewDecoder returns a decoder of events of at most max bytes.
func NewDecoder(max int) *Decoder { return &Decoder{max: max} }

// Fill reads once from r. It invalidates what Next returned before. It returns
// r's error, or ErrTooLarge, without reading, when the event being read is
// above the cap.
func (d *Decoder) Fill(r io.Reader) error {
	d.compact()
	if len(d.buf)+len(d.side) > d.max {
		return ErrTooLarge
	}
	if len(d.buf) == cap(d.buf) {
		grown := make([]byte, len(d.buf), max(2*cap(d.buf), firstBuffer))
		copy(grown, d.buf)
		d.buf = grown
	}
	n, err := r.Read(d.buf[len(d.buf):cap(d.buf)])
	d.buf = d.buf[:len(d.buf)+n]
	if n > 0 && err == io.EOF {
		return nil // the next Fill finds it again
	}
	return err
}

// Next returns the next complete event, and false when there is none before
// the next Fill.
func (d *Decoder) Next() (Event, bool) {
	if !d.started && !d.skipMark() {
		return Event{}, false
	}
	for {
		line, ok := d.nextLine()
		if !ok {
			return Event{}, false
		}
		if line.from < line.to {
			d.field(line)
			continue
		}
		// A blank line ends the event; without data it was none.
		e := Event{Type: d.typ.of(d.side), Data: d.data.of(d.buf), ID: d.id.of(d.side)}
		whole := d.hasData
		d.hasData, d.data, d.typ, d.id = false, span{}, span{}, span{}
		if whole {
			return e, true
		}
	}
}

// Rest returns the data of an event that the source ended in before its blank
// line; nil when there is none. It is to be dropped, as the WHATWG text says,
// unless the caller can tell that it is complete. Nothing can be decoded after.
func (d *Decoder) Rest() []byte {
	if last := (span{d.line, len(d.buf)}); last.from < last.to && d.started {
		d.field(last)
		d.line, d.scan = last.to, last.to
	}
	if !d.hasData {
		return nil
	}
	return d.data.of(d.buf)
}

// compact drops what was handed out, or read and not needed: the data of the
// event being read moves to the start of buf, the line being read behind it.
func (d *Decoder) compact() {
	kept := copy(d.buf, d.data.of(d.buf))
	d.data = span{0, kept}
	searched := d.scan - d.line
	rest := copy(d.buf[kept:], d.buf[d.line:])
	d.buf = d.buf[:kept+rest]
	d.line, d.scan = kept, kept+searched

	// Type and id change places only when they are out of order: a copy goes
	// first, so that neither overwrites the other.
	if len(d.side) > 0 {
		var pending []byte
		if typ, id := d.typ.of(d.side), d.id.of(d.side); len(typ)+len(id) > 0 {
			pending = append(append(pending, typ...), id...)
			d.typ, d.id = span{0, len(typ)}, span{len(typ), len(pending)}
		}
		d.side = append(d.side[:0], pending...)
	}
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// skipMark passes a byte order mark, and reports whether it is known by now
// that there is one or none.
func (d *Decoder) skipMark() bool {
	if len(d.buf) < len(byteOrderMark) && bytes.HasPrefix(byteOrderMark, d.buf) {
		return false
	}
	d.started = true
	if bytes.HasPrefix(d.buf, byteOrderMark) {
		d.line = len(byteOrderMark)
		d.scan = d.line
	}
	return true
}

// nextLine returns the next whole line, without its end.
func (d *Decoder) nextLine() (line span, ok bool) {
	if d.afterCR && d.line < len(d.buf) {
		d.afterCR = false
		if d.buf[d.line] == '\n' {
			d.line++
			d.scan = d.line
		}
	}
	end := indexLineEnd(d.buf[d.scan:])
	if end < 0 {
		d.scan = len(d.buf)
		return span{}, false
	}
	line = span{d.line, d.scan + end}
	d.afterCR = d.buf[line.to] == '\r'
	d.line = line.to + 1
	d.scan = d.line
	return line, true
}

func indexLineEnd(b []byte) int {
	lf := bytes.IndexByte(b, '\n')
	if lf >= 0 {
		b = b[:lf]
	}
	if cr := bytes.IndexByte(b, '\r'); cr >= 0 {
		return cr
	}
	return lf
}

// field takes one line of the event being read.
func (d *Decoder) field(line span) {
	name, value := line.of(d.buf), span{line.to, line.to}
	if colon := bytes.IndexByte(name, ':'); colon >= 0 {
		name = name[:colon]
		value.from = line.from + colon + 1
		if value.from < value.to && d.buf[value.from] == ' ' {
			value.from++
		}
	}
	switch string(name) {
	case "data":
		d.addData(value)
	case "event":
		d.typ = d.keepAside(value)
	case "id":
		if bytes.IndexByte(value.of(d.buf), 0) < 0 {
			d.id = d.keepAside(value)
		}
	}
}

// addData joins a data line to those before it. The name of its field, which
// nobody needs any more, makes the room for the LF between them.
func (d *Decoder) addData(value span) {
	if !d.hasData {
		d.hasData, d.data = true, value
		return
	}
	d.buf[d.data.to] = '\n'
	d.data.to++
	d.data.to += copy(d.buf[d.data.to:], value.of(d.buf))
}

func (d *Decoder) keepAside(value span) span {
	from := len(d.side)
	d.side = append(d.side, value.of(d.buf)...)
	return span{from, len(d.side)}
}
