package segment

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"weir/internal/stream"
)

// Inspection is a data directory as it stands on disk, for people to look at.
type Inspection struct {
	Streams  []Inspected // oldest first
	Segments int
	Torn     int64 // unfinished bytes at the end: a crash, or a proxy that writes just now
	Damages  []Damage
}

// Inspected is what a data directory has of a stream.
type Inspected struct {
	stream.Status
	Bytes   int64 // of its records
	Gone    bool  // deleted, or evicted for others: no reader gets it any more
	Damaged bool  // a damage hit it

	Events []stream.Event // of the one that was asked for
}

// Inspect reads a directory and changes nothing in it; a proxy may be writing to
// it meanwhile. The events of the stream with this id are kept, none if it is
// empty.
func Inspect(dir, id string) (Inspection, error) {
	r := newReplay()
	r.keep = id
	err := r.dir(dir, func(number uint32) ([]byte, error) {
		data, err := os.ReadFile(segmentPath(dir, number))
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil // removed since it was listed
		}
		return data, err
	})
	if err != nil {
		return Inspection{}, fmt.Errorf("segment: inspect %s: %w", dir, err)
	}
	found := Inspection{Segments: len(r.numbers), Torn: r.torn, Damages: r.damages}
	listed := map[string]bool{}
	for _, st := range r.order {
		listed[st.id] = true
		i := st.inspected
		i.LastSeq, i.Ended = uint64(st.lastSeq), st.ended
		i.Gone, i.Damaged = st.dead || st.erased, st.hit
		found.Streams = append(found.Streams, i)
	}
	for _, g := range r.graves {
		if !listed[g.id] { // all but the tombstone is erased
			listed[g.id] = true
			made, _ := stream.IDTime(g.id)
			found.Streams = append(found.Streams, Inspected{
				Status: stream.Status{Meta: stream.Meta{ID: g.id, Owner: g.owner, Created: made}}, Gone: true,
			})
		}
	}
	slices.SortFunc(found.Streams, func(a, b Inspected) int { return strings.Compare(a.ID, b.ID) })
	return found, nil
}

// Find returns a stream of the directory by its id.
func (i Inspection) Find(id string) (Inspected, bool) {
	for _, st := range i.Streams {
		if st.ID == id {
			return st, true
		}
	}
	return Inspected{}, false
}
