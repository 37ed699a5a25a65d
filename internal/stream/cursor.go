package stream

import (
	"errors"
	"strconv"
	"strings"
)

// Cursor is a place in a stream: everything up to Seq was seen. On the wire it
// is "<stream>.<seq>", "<stream>.<seq>.r<n>" for an event that a recovery
// wrote, or a bare "<seq>".
type Cursor struct {
	Stream   string // empty in a bare cursor
	Seq      uint64 // 0: before the first event
	Recovery uint8
}

// ErrCursor is ParseCursor's error for what is no cursor.
var ErrCursor = errors.New("a cursor is an event's id, \"<stream>.<seq>\", or a bare seq")

// maxCursorLen bounds what a client can make ParseCursor scan.
const maxCursorLen = 64

// ParseCursor reads a cursor as clients send it back.
func ParseCursor(s string) (Cursor, error) {
	var c Cursor
	if s == "" || len(s) > maxCursorLen {
		return c, ErrCursor
	}
	rest := s
	if id, after, dotted := strings.Cut(s, "."); dotted {
		if _, ok := IDTime(id); !ok {
			return c, ErrCursor
		}
		c.Stream, rest = id, after
		if seq, mark, marked := strings.Cut(after, "."); marked {
			n, err := strconv.ParseUint(strings.TrimPrefix(mark, "r"), 10, 8)
			if err != nil || mark[0] != 'r' || mark[1] < '1' || mark[1] > '9' {
				return Cursor{}, ErrCursor
			}
			c.Recovery, rest = uint8(n), seq
		}
	}
	// ParseUint takes no sign and no space; a leading zero would be a second
	// name of the same place.
	seq, err := strconv.ParseUint(rest, 10, 63)
	if err != nil || (len(rest) > 1 && rest[0] == '0') {
		return Cursor{}, ErrCursor
	}
	c.Seq = seq
	return c, nil
}

// AppendCursor appends the id of an event, the cursor that has just seen it.
func AppendCursor(dst []byte, stream string, e Event) []byte {
	dst = append(dst, stream...)
	dst = append(dst, '.')
	dst = strconv.AppendUint(dst, e.Seq, 10)
	if e.Recovery != 0 {
		dst = append(dst, ".r"...)
		dst = strconv.AppendUint(dst, uint64(e.Recovery), 10)
	}
	return dst
}

// Place says where a cursor stands in a stream.
type Place int

const (
	PlaceInside Place = iota // events follow it, or will
	PlaceEnd                 // at the terminal event: nothing will follow
	PlaceBeyond              // it saw what the log no longer has
)

// Locate says where the cursor stands in a stream of this status.
func (s Status) Locate(c Cursor) Place {
	switch {
	case c.Seq > s.LastSeq:
		return PlaceBeyond
	case s.Running() || c.Seq < s.LastSeq:
		return PlaceInside
	case c.Stream != "" && c.Recovery != s.Terminal.Recovery:
		// Another event stood in this place before a recovery ended the
		// stream. A bare seq can't tell, and is taken as the terminal event.
		return PlaceBeyond
	default:
		return PlaceEnd
	}
}
