// Package histogram counts durations in buckets whose width grows with the
// value, as HdrHistogram does: any quantile is known within 1.6 %, whatever was
// recorded, in 20 KiB.
package histogram

import (
	"math/bits"
	"time"
)

const (
	subBits = 6            // sub-buckets of each power of two: 64, so a value is known to 1/64
	subSize = 1 << subBits // values below it have a bucket each
	maxBits = 40           // 2^40 ns are 18 minutes; what is longer counts as that
	buckets = (maxBits - subBits + 1) * subSize
)

// Histogram is for one goroutine. The zero value is empty.
type Histogram struct {
	counts [buckets]uint64
	n      uint64
	max    time.Duration
}

// Record counts a duration in. One below zero counts as zero: clocks of two
// processes are read some nanoseconds apart.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	h.counts[index(d)]++
	h.n++
	h.max = max(h.max, d)
}

// Count returns how many durations were recorded.
func (h *Histogram) Count() uint64 { return h.n }

// Max returns the longest one, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile returns the duration that a share q of all does not exceed; zero when
// there is none.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := max(uint64(q*float64(h.n)+0.5), 1)
	var seen uint64
	for i, c := range h.counts {
		if seen += c; seen >= rank {
			return min(middle(i), h.max)
		}
	}
	return h.max
}

// index is the bucket of a duration: below subSize the value itself, above it
// the power of two and the subBits bits that follow its highest one.
func index(d time.Duration) int {
	v := min(uint64(d), 1<<maxBits-1)
	if v < subSize {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return (shift+1)<<subBits + int(v>>shift) - subSize
}

// middle is the middle of a bucket.
func middle(i int) time.Duration {
	if i < subSize {
		return time.Duration(i)
	}
	shift := i>>subBits - 1
	low := uint64(i&(subSize-1)+subSize) << shift
	return time.Duration(low + (1<<shift)/2)
}
