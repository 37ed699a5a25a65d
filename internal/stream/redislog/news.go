package redislog

import (
	"errors"
	"io"
	"strconv"
	"strings"

	"weir/internal/stream"
)

// parseNews reads what the scripts publish: the first seq, a line feed, and for
// each event a line of two lengths and the recovery, then type and data. The
// data is the message's own memory.
func parseNews(message string) ([]stream.Event, error) {
	head, rest, _ := strings.Cut(message, "\n")
	seq, err := strconv.ParseUint(head, 10, 64)
	if err != nil {
		return nil, err
	}
	events := make([]stream.Event, 0, 1)
	for rest != "" {
		line, after, _ := strings.Cut(rest, "\n")
		kind, sizes, _ := strings.Cut(line, " ")
		data, recovery, _ := strings.Cut(sizes, " ")
		t, err1 := strconv.ParseUint(kind, 10, 31)
		d, err2 := strconv.ParseUint(data, 10, 31)
		r, err3 := strconv.ParseUint(recovery, 10, 8)
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, err
		}
		if uint64(len(after)) < t+d {
			return nil, io.ErrUnexpectedEOF
		}
		events = append(events, stream.Event{
			Seq: seq, Type: strings.Clone(after[:t]), Data: bytesOf(after[t : t+d]), Recovery: uint8(r),
		})
		rest = after[t+d:]
		seq++
	}
	return events, nil
}
