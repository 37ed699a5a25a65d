package redislog

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"github.com/redis/rueidis"

	"weir/internal/stream"
	"weir/internal/stream/live"
)

// How many events one range read asks for: about as many as make rangeBytes,
// as far as the last ones tell. The first ones tell nothing, and may be large.
const (
	firstRange = 16
	maxRange   = 2000
	rangeBytes = 512 << 10
)

func nextRange(events []stream.Event) int64 {
	size := 0
	for _, e := range events {
		size += len(e.Data) + live.EventOverhead
	}
	return int64(min(max(rangeBytes*len(events)/size, 1), maxRange))
}

// readRange reads events after seq, and how the stream stands: that first, so
// that an end it tells of is in the log. It is for who had the stream open before
// it was deleted, too.
func (s *Store) readRange(ctx context.Context, id string, after uint64, count int64) ([]stream.Event, stream.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answers := s.client.DoMulti(ctx,
		s.client.B().Hgetall().Key(s.keys.meta(id)).Build(),
		s.client.B().Hget().Key(s.keys.gone(id)).Field("owner").Build(),
		s.client.B().Xrange().Key(s.keys.log(id)).Start("(0-"+strconv.FormatUint(after, 10)).End("+").Count(count).Build())
	status, err := s.readLingering(id, answers[0])
	if unknown(err) {
		status, err = s.readStatus(id, answers[0], answers[1])
	}
	if err != nil {
		return nil, status, err
	}
	entries, err := answers[2].AsXRange()
	if err != nil {
		return nil, status, storeError(err)
	}
	events := make([]stream.Event, 0, len(entries))
	for _, entry := range entries {
		e, err := readEntry(entry)
		if err != nil {
			return nil, status, fmt.Errorf("the log of %s is damaged: %w", id, err)
		}
		events = append(events, e)
	}
	return events, status, nil
}

func readEntry(entry rueidis.XRangeEntry) (e stream.Event, err error) {
	_, seq, _ := strings.Cut(entry.ID, "-")
	if e.Seq, err = strconv.ParseUint(seq, 10, 64); err != nil {
		return e, err
	}
	e.Type, e.Data = entry.FieldValues["t"], bytesOf(entry.FieldValues["d"])
	if r := entry.FieldValues["r"]; r != "" {
		recovery, err := strconv.ParseUint(r, 10, 8)
		if err != nil {
			return e, err
		}
		e.Recovery = uint8(recovery)
	}
	return e, nil
}

// bytesOf is the string's own memory: read it only.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
