package segment

import (
	"bytes"
	"fmt"
)

// record is one record as it stands in a segment.
type record struct {
	header
	at      position
	payload []byte
}

// Damage is a place of a data directory that can't be read.
type Damage struct {
	Segment uint32
	Offset  int64
	Length  int64  // bytes, as far as they can be told
	Stream  string // the id, or where its create record stood; empty when unknown
	What    string
}

func (d Damage) String() string {
	whose := d.Stream
	if whose == "" {
		whose = "unknown"
	}
	return fmt.Sprintf("segment %d, offset %d, %d bytes: %s (stream: %s)", d.Segment, d.Offset, d.Length, d.What, whose)
}

// scanned is what a pass over one segment found besides its records.
type scanned struct {
	damages []foundDamage
	end     int64 // where the last whole record ends
	foreign bool  // nothing in it is ours: another version's, or another file's
}

// foundDamage is a Damage before it is known whose position stands for which id.
type foundDamage struct {
	Damage
	stream position
}

// scan calls visit for every intact record of a segment, in order. A record
// that is damaged is passed over: the next one is found by its header's
// checksum, wherever the damaged one said it ends. The payloads are data's.
func scan(number uint32, data []byte, visit func(record)) (s scanned) {
	damaged := func(from, to int, whose position, what string) {
		s.damages = append(s.damages, foundDamage{
			Damage: Damage{Segment: number, Offset: int64(from), Length: int64(to - from), What: what}, stream: whose,
		})
	}
	offset := min(segmentHeaderSize, len(data))
	records := 0
	s.end = int64(offset)
	if !bytes.Equal(data[:offset], segmentHeader(number)[:offset]) {
		damaged(0, offset, position{}, "the segment's header is not what it was")
		if blank := len(bytes.Trim(data, "\x00")) == 0; blank {
			s.end = 0 // a loss of power, before anything but the size got to the disk
		} else {
			defer func() { s.foreign = records == 0 }()
		}
	}
	for offset < len(data) {
		at := position{number, uint32(offset)}
		h, ok := parseHeader(data[offset:], at)
		if end := offset + headerSize + int(h.length); ok && end <= len(data) {
			payload := data[offset+headerSize : end]
			if checksum(payload) == h.sum {
				visit(record{h, at, payload})
				records++
				s.end = int64(end)
			} else {
				damaged(offset, end, h.stream, "a payload does not match its checksum")
			}
			offset = end
			continue
		}
		next := nextHeader(number, data, offset+1)
		damaged(offset, next, position{}, "no record begins here")
		offset = next
	}
	return s
}

// nextHeader returns where the next intact record begins, or the data's end.
func nextHeader(number uint32, data []byte, from int) int {
	for {
		skip := bytes.IndexByte(data[min(from, len(data)):], magic0)
		if skip < 0 {
			return len(data)
		}
		from += skip
		h, ok := parseHeader(data[from:], position{number, uint32(from)})
		if ok && from+headerSize+int(h.length) <= len(data) {
			return from
		}
		from++
	}
}

// tornTail returns the damage at the very end, which a crash in mid-write
// leaves, apart from the rest.
func (s scanned) tornTail() (torn int64, rest []foundDamage) {
	rest = s.damages
	for n := len(rest); n > 0 && rest[n-1].Offset >= s.end; n = len(rest) {
		torn += rest[n-1].Length
		rest = rest[:n-1]
	}
	return torn, rest
}
