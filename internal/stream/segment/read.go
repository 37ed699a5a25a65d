package segment

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"weir/internal/stream"
	"weir/internal/stream/live"
)

// errDamaged is the error of a record that was whole when the store opened, or
// was written since, and is not any more.
var errDamaged = errors.New("segment: a record is damaged")

// How much is read at once: for a record alone, and on the way back through a
// stream.
const (
	recordBlock = 2 << 10
	chainBlock  = 64 << 10
)

// block is a part of a segment in memory. On the way back through a stream,
// whose records often lie close together, it saves most of the reads.
type block struct {
	shelf   *shelf
	size    int // of one read, at least
	number  uint32
	file    file
	release func()
	from    int64
	data    []byte
}

func (b *block) close() {
	if b.release != nil {
		b.release()
	}
	b.release, b.file = nil, nil
}

// record reads the record at p. Its payload is valid until the next call.
func (b *block) record(at position) (record, error) {
	if b.file == nil || b.number != at.segment {
		b.close()
		f, release, err := b.shelf.file(at.segment)
		if err != nil {
			return record{}, err
		}
		b.number, b.file, b.release, b.from, b.data = at.segment, f, release, 0, b.data[:0]
	}
	head, err := b.bytes(int64(at.offset), headerSize)
	if err != nil {
		return record{}, err
	}
	h, ok := parseHeader(head, at)
	if !ok {
		return record{}, fmt.Errorf("%w: no header at %s", errDamaged, at)
	}
	all, err := b.bytes(int64(at.offset), headerSize+int(h.length))
	if err != nil {
		return record{}, err
	}
	payload := all[headerSize:]
	if checksum(payload) != h.sum {
		return record{}, fmt.Errorf("%w: the payload at %s does not match its checksum", errDamaged, at)
	}
	return record{h, at, payload}, nil
}

// bytes returns n bytes of the file, from the block or by a read that ends
// soon after them, as the next ones asked for stand before.
func (b *block) bytes(offset int64, n int) ([]byte, error) {
	end := offset + int64(n)
	if offset < b.from || end > b.from+int64(len(b.data)) {
		const behind = 1 << 10 // the payload, when the header is asked for
		size := max(n+behind, b.size)
		if len(b.data) > 0 && end+chainBlock < b.from {
			size = max(n+behind, recordBlock) // the stream's records lie far apart
		}
		b.from = max(0, end+behind-int64(size))
		b.data = slices.Grow(b.data[:0], size)[:size]
		read, err := b.file.ReadAt(b.data, b.from)
		if b.data = b.data[:read]; end > b.from+int64(read) {
			b.data = b.data[:0]
			return nil, fmt.Errorf("%w: read at %d:%d: %w", errDamaged, b.number, offset, err)
		}
	}
	return b.data[offset-b.from:][:n], nil
}

// readRecord reads one record of a kind.
func (s *Store) readRecord(at position, want kind) (record, error) {
	b := block{shelf: s.shelf, size: recordBlock}
	defer b.close()
	r, err := b.record(at)
	if err == nil && r.kind != want {
		err = fmt.Errorf("%w: kind %d at %s, not %d", errDamaged, r.kind, at, want)
	}
	return r, err
}

func (s *Store) readMeta(at position) (stream.Meta, error) {
	r, err := s.readRecord(at, kindCreate)
	if err != nil {
		return stream.Meta{}, err
	}
	return parseMeta(r.payload)
}

func (s *Store) readEnd(at position) (time.Time, stream.Event, error) {
	r, err := s.readRecord(at, kindEnd)
	if err != nil {
		return time.Time{}, stream.Event{}, err
	}
	return parseEnd(r.header, r.payload)
}

func (s *Store) readSummary(at position) (stream.Summary, error) {
	r, err := s.readRecord(at, kindBook)
	if err != nil {
		return stream.Summary{}, err
	}
	return parseSummary(r.payload)
}

// chain calls visit for the records of a stream's events, the newest first.
func (s *Store) chain(last position, visit func(record) error) error {
	b := block{shelf: s.shelf, size: chainBlock}
	defer b.close()
	for at := last; !at.none(); {
		r, err := b.record(at)
		if err != nil {
			return err
		}
		if err := visit(r); err != nil {
			return err
		}
		at = r.previous
	}
	return nil
}

// load reads a stream from disk, but for the events that readers have in memory.
func (s *Store) load(e *entry) (*warm, error) {
	e.mu.Lock()
	events, last, lastSeq, booked := e.read.Value(), e.last, e.lastSeq, e.booked
	e.mu.Unlock()
	w := &warm{Log: events}
	var err error
	if w.meta, err = s.readMeta(e.created); err != nil {
		return nil, err
	}
	if !booked.none() {
		if w.booked, err = s.readSummary(booked); err != nil {
			return nil, err
		}
	}
	if w.Log == nil {
		w.Log, err = s.loadEvents(e.created, last, lastSeq)
	}
	return w, err
}

// loadEvents reads the events of a stream, up to the one of seq lastSeq, with
// which the record at last ends.
func (s *Store) loadEvents(of, last position, lastSeq uint32) (*live.Log, error) {
	var batches [][]stream.Event // the newest first
	next := uint64(lastSeq) + 1
	err := s.chain(last, func(r record) error {
		r.payload = slices.Clone(r.payload) // the block is used again
		events, err := eventsOf(r)
		if err != nil {
			return err
		}
		if r.stream != of || uint64(r.seq)+uint64(len(events)) != next {
			return fmt.Errorf("%w: at %s stands seq %d of stream %s", errDamaged, r.at, r.seq, r.stream)
		}
		next = uint64(r.seq)
		batches = append(batches, events)
		return nil
	})
	if err == nil && next != 1 {
		err = fmt.Errorf("%w: the first %d events of stream %s are missing", errDamaged, next-1, of)
	}
	if err != nil {
		return nil, err
	}
	log := live.New()
	return log, fill(log, batches)
}

func eventsOf(r record) ([]stream.Event, error) {
	switch r.kind {
	case kindEvents:
		return parseEvents(r.header, r.payload)
	case kindEnd:
		_, terminal, err := parseEnd(r.header, r.payload)
		return []stream.Event{terminal}, err
	default:
		return nil, fmt.Errorf("%w: kind %d among the events, at %s", errDamaged, r.kind, r.at)
	}
}

// fill appends the batches, the last one first.
func fill(log *live.Log, batches [][]stream.Event) error {
	for _, events := range slices.Backward(batches) {
		var err error
		if events[0].Terminal() {
			_, err = log.Seal(events[0])
		} else {
			_, err = log.Append(events)
		}
		if err != nil {
			return fmt.Errorf("%w: events follow the terminal one", errDamaged)
		}
	}
	return nil
}
