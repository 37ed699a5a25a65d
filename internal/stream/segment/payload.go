package segment

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"weir/internal/stream"
)

// errPayload is the error of a payload whose checksum is right but which is not
// what its kind says: another version wrote it.
var errPayload = errors.New("the payload is not of this version")

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// fields reads what appendText and binary.AppendVarint wrote, and remembers
// whether anything was missing.
type fields struct {
	rest []byte
	bad  bool
}

func (f *fields) bytes() []byte {
	n, size := binary.Uvarint(f.rest)
	if size <= 0 || n > uint64(len(f.rest)-size) {
		f.bad, f.rest = true, nil
		return nil
	}
	value := f.rest[size : size+int(n) : size+int(n)]
	f.rest = f.rest[size+int(n):]
	return value
}

func (f *fields) text() string { return string(f.bytes()) }

func (f *fields) int() int64 {
	n, size := binary.Varint(f.rest)
	if size <= 0 {
		f.bad, f.rest = true, nil
		return 0
	}
	f.rest = f.rest[size:]
	return n
}

func appendMeta(b []byte, m stream.Meta) []byte {
	b = binary.AppendVarint(b, m.Created.UnixNano())
	for _, text := range []string{m.ID, m.Owner, m.Dialect, m.Model, m.Provider, m.IdempotencyKey, m.Fingerprint} {
		b = appendText(b, text)
	}
	return b
}

func parseMeta(payload []byte) (stream.Meta, error) {
	f := fields{rest: payload}
	m := stream.Meta{Created: time.Unix(0, f.int())}
	for _, text := range []*string{&m.ID, &m.Owner, &m.Dialect, &m.Model, &m.Provider, &m.IdempotencyKey, &m.Fingerprint} {
		*text = f.text()
	}
	if f.bad {
		return stream.Meta{}, fmt.Errorf("meta: %w", errPayload)
	}
	return m, nil
}

func appendEvents(b []byte, events []stream.Event) []byte {
	for i := range events {
		b = appendText(b, events[i].Type)
		b = binary.AppendUvarint(b, uint64(len(events[i].Data)))
		b = append(b, events[i].Data...)
	}
	return b
}

// parseEvents returns the events of a record; their data is the payload's.
func parseEvents(h header, payload []byte) ([]stream.Event, error) {
	var events []stream.Event
	f := fields{rest: payload}
	for len(f.rest) > 0 {
		e := stream.Event{Seq: uint64(h.seq) + uint64(len(events)), Recovery: h.recovery}
		e.Type, e.Data = f.text(), f.bytes()
		events = append(events, e)
	}
	if f.bad || len(events) == 0 {
		return nil, fmt.Errorf("events: %w", errPayload)
	}
	return events, nil
}

func appendEnd(b []byte, ended time.Time, terminal stream.Event) []byte {
	b = binary.AppendVarint(b, ended.UnixNano())
	return appendEvents(b, []stream.Event{terminal})
}

func parseEnd(h header, payload []byte) (ended time.Time, terminal stream.Event, err error) {
	f := fields{rest: payload}
	at := f.int()
	events, err := parseEvents(h, f.rest)
	if err != nil || f.bad || len(events) != 1 || !events[0].Terminal() {
		return time.Time{}, stream.Event{}, fmt.Errorf("end: %w", errPayload)
	}
	return time.Unix(0, at), events[0], nil
}

func appendSummary(b []byte, s stream.Summary) ([]byte, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("summary: %w", err)
	}
	return append(b, data...), nil
}

func parseSummary(payload []byte) (s stream.Summary, err error) {
	if err := json.Unmarshal(payload, &s); err != nil {
		return stream.Summary{}, fmt.Errorf("summary: %w", errPayload)
	}
	return s, nil
}

// grave is what is remembered of a stream that is no more.
type grave struct{ id, owner, key string }

func appendGrave(b []byte, g grave) []byte {
	return appendText(appendText(appendText(b, g.id), g.owner), g.key)
}

func parseGrave(payload []byte) (grave, error) {
	f := fields{rest: payload}
	g := grave{id: f.text(), owner: f.text(), key: f.text()}
	if f.bad {
		return grave{}, fmt.Errorf("grave: %w", errPayload)
	}
	return g, nil
}

// maxSeq is how many events a stream may have.
const maxSeq = math.MaxUint32
