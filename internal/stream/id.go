package stream

import (
	"crypto/rand"
	"strings"
	"sync/atomic"
	"time"
)

// A stream id is "st_", then microseconds since 1970 as 11 digits of base 32,
// then 80 random bits as 16 digits. The alphabet is in ASCII order, so ids sort
// by creation, and an id tells its age to a store that has forgotten it.
const (
	idPrefix     = "st_"
	idAlphabet   = "0123456789abcdefghjkmnpqrstvwxyz"
	idTimeDigits = 11
	idRandDigits = 16
	idLen        = len(idPrefix) + idTimeDigits + idRandDigits
)

var lastIDTime atomic.Int64

// NewID returns a new stream id, greater than every id this process made before.
func NewID() string {
	var id [idLen]byte
	copy(id[:], idPrefix)
	t := nextIDTime(time.Now().UnixMicro())
	for i := len(idPrefix) + idTimeDigits - 1; i >= len(idPrefix); i-- {
		id[i] = idAlphabet[t&31]
		t >>= 5
	}
	random := id[len(idPrefix)+idTimeDigits:]
	rand.Read(random) // never fails: crypto/rand ends the process instead
	for i, b := range random {
		random[i] = idAlphabet[b&31]
	}
	return string(id[:])
}

// nextIDTime returns now, or one more than the last time it returned when the
// clock stands still or steps back.
func nextIDTime(now int64) int64 {
	for {
		last := lastIDTime.Load()
		if now <= last {
			now = last + 1
		}
		if lastIDTime.CompareAndSwap(last, now) {
			return now
		}
	}
}

// IDTime returns when a stream id was made, and whether it is well-formed.
func IDTime(id string) (time.Time, bool) {
	if len(id) != idLen || id[:len(idPrefix)] != idPrefix {
		return time.Time{}, false
	}
	var t int64
	for i := len(idPrefix); i < idLen; i++ {
		digit := strings.IndexByte(idAlphabet, id[i])
		if digit < 0 {
			return time.Time{}, false
		}
		if i < len(idPrefix)+idTimeDigits {
			t = t<<5 | int64(digit)
		}
	}
	return time.UnixMicro(t), true
}

// Expired reports whether a well-formed id is older than the retention, which
// is all that can be said of a stream nobody remembers.
func Expired(id string, now time.Time, retention time.Duration) bool {
	made, ok := IDTime(id)
	return ok && now.Sub(made) > retention
}
