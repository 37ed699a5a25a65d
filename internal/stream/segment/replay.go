package segment

import (
	"fmt"
	"slices"
	"time"

	"weir/internal/stream"
)

// replay is what the records of a directory add up to.
type replay struct {
	streams map[position]*replayed // by create record; the deleted and evicted, too
	order   []*replayed            // as they were created
	graves  []*tombstone
	damages []Damage
	newest  uint32 // segment; zero when there is none
	torn    int64  // unfinished bytes at the newest segment's end

	numbers []uint32
	found   []foundDamage
	keep    string // id of the stream whose events to keep
}

// replayed is a stream as its records tell it.
type replayed struct {
	id, owner, key string
	created        position
	span           span

	last    position
	lastSeq uint32
	ended   time.Time
	end     stream.Event // the terminal one
	bytes   int64        // of its records
	booked  position
	lost    bool // records of it do not follow the ones before
	buried  bool // a tombstone is there
	erased  bool // payloads of it are, so that it was deleted
	content bool // payloads of it are not erased

	meta   stream.Meta
	events []stream.Event // of the stream to keep
}

func newReplay() *replay { return &replay{streams: map[position]*replayed{}} }

// dir reads every segment, oldest first. Read returns a segment's bytes.
func (r *replay) dir(dir string, read func(number uint32) ([]byte, error)) (err error) {
	if r.numbers, err = listSegments(dir); err != nil {
		return err
	}
	for i, number := range r.numbers {
		data, err := read(number)
		if err != nil {
			return fmt.Errorf("read segment %d: %w", number, err)
		}
		s := scan(number, data, r.apply)
		if i == len(r.numbers)-1 {
			r.newest = number
			r.torn, s.damages = s.tornTail()
		}
		r.found = append(r.found, s.damages...)
	}
	r.blame()
	return nil
}

// apply takes the next record into account.
func (r *replay) apply(rec record) {
	if rec.kind == kindCreate {
		r.create(rec)
		return
	}
	if rec.kind == kindDeleted || rec.kind == kindEvicted {
		r.bury(rec)
		return
	}
	st := r.streams[rec.stream]
	if st == nil {
		r.orphan(rec)
		return
	}
	st.span.last = rec.at.segment
	st.bytes += headerSize + int64(rec.length)
	switch rec.kind {
	case kindEvents, kindEnd:
		st.content = true
		events := st.follow(rec)
		if events == nil {
			st.lost = true
		}
		if st.id == r.keep {
			st.events = append(st.events, events...)
		}
	case kindErased: // of a stream that was deleted: only the way back matters
		st.last, st.erased = rec.at, true
	case kindBook:
		st.booked = rec.at
	}
}

func (r *replay) create(rec record) {
	meta, err := parseMeta(rec.payload)
	if err != nil || rec.stream != rec.at {
		r.unreadable(rec, err)
		return
	}
	st := &replayed{
		id: meta.ID, owner: meta.Owner, key: meta.IdempotencyKey, created: rec.at, meta: meta,
		bytes: headerSize + int64(rec.length),
		span:  span{first: rec.at.segment, last: rec.at.segment},
	}
	r.streams[rec.at] = st
	r.order = append(r.order, st)
}

// follow takes in a record of events, if it is the next one of what is there,
// and returns them. One that is not follows a record that was damaged; or it is
// the end that a recovery wrote in its place, and does.
func (st *replayed) follow(rec record) []stream.Event {
	if !st.ended.IsZero() || rec.seq != st.lastSeq+1 || rec.previous != st.last {
		return nil
	}
	if rec.kind == kindEvents {
		events, err := parseEvents(rec.header, rec.payload)
		if err != nil {
			return nil
		}
		st.last, st.lastSeq = rec.at, st.lastSeq+uint32(len(events))
		return events
	}
	ended, terminal, err := parseEnd(rec.header, rec.payload)
	if err != nil {
		return nil
	}
	st.last, st.lastSeq, st.ended, st.end = rec.at, rec.seq, ended, terminal
	return []stream.Event{terminal}
}

func failedBeforeToken(terminal stream.Event, seq uint32) bool {
	return stream.Status{LastSeq: uint64(seq), Terminal: terminal}.FailedBeforeToken()
}

func (r *replay) bury(rec record) {
	g, err := parseGrave(rec.payload)
	if err != nil {
		r.unreadable(rec, err)
		return
	}
	if st := r.streams[rec.stream]; st != nil {
		st.buried = true
	}
	r.graves = append(r.graves, &tombstone{
		grave: g, kind: rec.kind, created: rec.stream,
		span: span{first: rec.at.segment, last: rec.at.segment, grave: true},
	})
}

// orphan is a record whose stream began in no record that is there.
func (r *replay) orphan(rec record) {
	if !slices.Contains(r.numbers, rec.stream.segment) {
		return // the stream expired with the segment it began in
	}
	if slices.ContainsFunc(r.found, func(d foundDamage) bool { return d.stream == rec.stream && d.What == orphaned }) {
		return // said once is enough
	}
	r.found = append(r.found, foundDamage{stream: rec.stream, Damage: Damage{
		Segment: rec.at.segment, Offset: int64(rec.at.offset), Length: int64(headerSize + rec.length), What: orphaned,
	}})
}

const orphaned = "the record with which the stream began is lost, and the stream with it"

func (r *replay) unreadable(rec record, err error) {
	r.found = append(r.found, foundDamage{stream: rec.stream, Damage: Damage{
		Segment: rec.at.segment, Offset: int64(rec.at.offset), Length: int64(headerSize + rec.length),
		What: fmt.Sprintf("a record is whole, but can't be read: %v", err),
	}})
}

// unburied returns tombstones for the deleted streams whose own was damaged.
func (r *replay) unburied() []*tombstone {
	var missing []*tombstone
	for _, st := range r.order {
		if st.erased && !st.buried {
			missing = append(missing, &tombstone{
				grave: grave{id: st.id, owner: st.owner, key: st.key}, kind: kindDeleted, created: st.created,
				span: span{grave: true},
			})
		}
	}
	return missing
}

// blame says whose the damages are, as far as it is known.
func (r *replay) blame() {
	for _, d := range r.found {
		if st := r.streams[d.stream]; st != nil {
			d.Stream = st.id
			st.lost = true
		} else if !d.stream.none() {
			d.Stream = "created at " + d.stream.String()
		}
		r.damages = append(r.damages, d.Damage)
	}
}

// living returns the streams that are neither deleted nor evicted.
func (r *replay) living() []*replayed {
	return slices.DeleteFunc(slices.Clone(r.order), func(st *replayed) bool { return st.buried || st.erased })
}
