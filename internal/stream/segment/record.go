package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// position is where a record begins. The zero position is none: a segment's
// own header stands at offset 0.
type position struct {
	segment uint32 // its number
	offset  uint32
}

func (p position) none() bool     { return p == position{} }
func (p position) String() string { return fmt.Sprintf("%d:%d", p.segment, p.offset) }

func (p position) encode() uint64 { return uint64(p.segment)<<32 | uint64(p.offset) }

func decodePosition(v uint64) position {
	return position{segment: uint32(v >> 32), offset: uint32(v)}
}

// kind says what a record holds.
type kind uint8

const (
	kindCreate    kind = 1 + iota // a stream begins: its Meta
	kindEvents                    // events, none of them terminal
	kindEnd                       // the terminal event, and when it was
	kindBook                      // what the owner booked
	kindDeleted                   // a stream was deleted: its payloads are to be erased
	kindEvicted                   // a stream made room for others
	kindErased                    // what was another kind, of a deleted stream
	kindForgotten                 // what was the beginning of a stream that is no more
	kindLast      = kindForgotten
)

// header stands before every record's payload.
//
//	0  magic, 2 bytes   kind   recovery
//	4  length of the payload
//	8  stream: the position of its create record, its name in these files
//	16 seq of the first event
//	20 previous record of the stream's events
//	28 CRC-32C of the payload
//	32 CRC-32C of the header before, and of where it stands
//
// The chain of previous positions leads through a stream backwards, so that no
// index of its events is needed. The header's own checksum keeps a damaged
// payload from hiding the records behind it, and the position in it makes a
// header true in one place only: what a payload happens to contain is no record.
type header struct {
	kind     kind
	recovery uint8
	length   uint32
	stream   position
	seq      uint32
	previous position
	sum      uint32 // of the payload
}

const (
	headerSize = 36
	magic0     = 0xFF // in no UTF-8 text, so that a search for it seldom stops in a payload
	magic1     = 'W'
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// putHeader writes h, which stands at p, into b.
func putHeader(b []byte, h header, at position) {
	b[0], b[1], b[2], b[3] = magic0, magic1, byte(h.kind), h.recovery
	binary.LittleEndian.PutUint32(b[4:], h.length)
	binary.LittleEndian.PutUint64(b[8:], h.stream.encode())
	binary.LittleEndian.PutUint32(b[16:], h.seq)
	binary.LittleEndian.PutUint64(b[20:], h.previous.encode())
	binary.LittleEndian.PutUint32(b[28:], h.sum)
	binary.LittleEndian.PutUint32(b[32:], headerSum(b, at))
}

// parseHeader reads the header at p, and reports whether there is one.
func parseHeader(b []byte, at position) (h header, ok bool) {
	if len(b) < headerSize || b[0] != magic0 || b[1] != magic1 ||
		binary.LittleEndian.Uint32(b[32:]) != headerSum(b, at) {
		return header{}, false
	}
	h = header{
		kind: kind(b[2]), recovery: b[3],
		length:   binary.LittleEndian.Uint32(b[4:]),
		stream:   decodePosition(binary.LittleEndian.Uint64(b[8:])),
		seq:      binary.LittleEndian.Uint32(b[16:]),
		previous: decodePosition(binary.LittleEndian.Uint64(b[20:])),
		sum:      binary.LittleEndian.Uint32(b[28:]),
	}
	return h, h.kind >= kindCreate && h.kind <= kindLast
}

func headerSum(b []byte, at position) uint32 {
	where := uint32(at.encode() * 0x9E3779B97F4A7C15 >> 32) // a hash of it, for the sum to begin with
	return crc32.Update(where, castagnoli, b[:headerSize-4])
}

func checksum(payload []byte) uint32 { return crc32.Checksum(payload, castagnoli) }

// A segment begins with these bytes, and its number as text: for people, and
// for a later format to be told apart by.
const segmentMagic = "weir log 1 "

const segmentHeaderSize = 24

func segmentHeader(number uint32) []byte {
	return fmt.Appendf(nil, "%s%012d\n", segmentMagic, number)
}
