package segment

import (
	"bytes"
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
	foreign []uint32

	numbers []uint32
	found   []foundDamage
	orphans map[position]bool // create records that are lost, and said to be
	keep    string            // id of the stream whose events to keep
}

// replayed is a stream as its records tell it.
type replayed struct {
	id, owner, key string
	created        position
	span           span

	last    position
	lastSeq uint32
	ended   time.Time
	failed  bool
	booked  position
	hit     bool // by a damage, or records of it do not follow the ones before
	dead    bool // deleted, evicted or expired
	buried  bool // a tombstone is there
	erased  bool // payloads of it are, so that it was deleted
	content bool // payloads of it are not erased

	inspected Inspected // for people
}

func newReplay() *replay {
	return &replay{streams: map[position]*replayed{}, orphans: map[position]bool{}}
}

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
		if s.foreign {
			r.foreign = append(r.foreign, number)
		} else if i == len(r.numbers)-1 {
			r.torn, s.damages = s.tornTail()
		}
		r.newest = number
		r.found = append(r.found, s.damages...)
	}
	r.blame()
	return nil
}

// apply takes the next record into account.
func (r *replay) apply(rec record) {
	switch rec.kind {
	case kindCreate:
		r.create(rec)
		return
	case kindForgotten:
		r.streams[rec.at] = &replayed{created: rec.at, dead: true}
		return
	case kindDeleted, kindEvicted:
		r.bury(rec)
		return
	}
	st := r.streams[rec.stream]
	if st == nil {
		r.orphan(rec)
		return
	}
	st.span.note(rec.at.segment)
	st.inspected.Bytes += headerSize + int64(rec.length)
	switch rec.kind {
	case kindEvents, kindEnd:
		st.content = true
		r.follow(st, rec)
	case kindErased: // of a stream that was deleted: only the way back matters
		if rec.seq > 0 {
			st.last = rec.at
		}
		st.erased = true
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
	st := &replayed{id: meta.ID, owner: meta.Owner, key: meta.IdempotencyKey, created: rec.at}
	st.span.note(rec.at.segment)
	st.inspected.Meta, st.inspected.Bytes = meta, headerSize+int64(rec.length)
	r.streams[rec.at] = st
	r.order = append(r.order, st)
}

// follow takes in a record of events, if it is the next one of what is there.
// One that is not follows a record that was damaged; or it is the end that a
// recovery wrote in its place, and does.
func (r *replay) follow(st *replayed, rec record) {
	if !st.ended.IsZero() || rec.seq != st.lastSeq+1 || rec.previous != st.last {
		st.hit = true
		return
	}
	events, err := eventsOf(rec)
	if err != nil {
		st.hit = true
		return
	}
	st.last, st.lastSeq = rec.at, st.lastSeq+uint32(len(events))
	if last := events[len(events)-1]; last.Terminal() {
		st.ended, _, _ = parseEnd(rec.header, rec.payload)
		st.failed = failedBeforeToken(last, st.lastSeq)
		last.Data = bytes.Clone(last.Data) // the segment's bytes must not stay for its sake
		st.inspected.Terminal = last
	}
	if r.keep != "" && st.id == r.keep {
		st.inspected.Events = append(st.inspected.Events, events...)
	}
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
		st.buried, st.dead = true, true
	}
	r.graves = append(r.graves, &tombstone{
		grave: g, kind: rec.kind, created: rec.stream,
		span: span{numbers: []uint32{rec.at.segment}, grave: true},
	})
}

// orphan is a record whose stream began in no record that is there.
func (r *replay) orphan(rec record) {
	if !slices.Contains(r.numbers, rec.stream.segment) {
		return // the stream expired with the segment it began in
	}
	if r.orphans[rec.stream] {
		return // said once is enough
	}
	r.orphans[rec.stream] = true
	r.found = append(r.found, foundDamage{stream: rec.stream, Damage: Damage{
		Segment: rec.at.segment, Offset: int64(rec.at.offset), Length: int64(headerSize + rec.length),
		What: "the record with which the stream began is lost, and the stream with it",
	}})
}

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
			g := grave{id: st.id, owner: st.owner, key: st.key}
			if st.failed {
				g.key = "" // it had freed it
			}
			missing = append(missing, &tombstone{grave: g, kind: kindDeleted, created: st.created, span: span{grave: true}})
		}
	}
	return missing
}

// blame says whose the damages are, as far as it is known.
func (r *replay) blame() {
	for _, d := range r.found {
		if st := r.streams[d.stream]; st != nil {
			d.Stream = st.id
			st.hit = true
		} else if !d.stream.none() {
			d.Stream = "created at " + d.stream.String()
		}
		r.damages = append(r.damages, d.Damage)
	}
}

// living returns the streams that are neither deleted nor evicted.
func (r *replay) living() []*replayed {
	return slices.DeleteFunc(slices.Clone(r.order), func(st *replayed) bool { return st.dead || st.erased })
}
