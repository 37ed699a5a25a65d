package histogram

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestQuantilesAreThoseOfTheSortedValues(t *testing.T) {
	var h Histogram
	random := rand.New(rand.NewPCG(1, 2))
	values := make([]time.Duration, 100_000)
	for i := range values {
		values[i] = time.Duration(math.Exp(random.NormFloat64()*2 + 10)) // around 22 µs, over six decades
		h.Record(values[i])
	}
	slices.Sort(values)
	for _, q := range []float64{0.001, 0.5, 0.9, 0.99, 0.999, 1} {
		want := values[int(q*float64(len(values)))-1]
		got := h.Quantile(q)
		if off := math.Abs(float64(got-want)) / float64(want); off > 1.0/subSize {
			t.Errorf("quantile %v: got %v, want %v: off by %.1f %%", q, got, want, off*100)
		}
	}
	if h.Count() != uint64(len(values)) || h.Max() != values[len(values)-1] {
		t.Errorf("count %d, max %v; want %d, %v", h.Count(), h.Max(), len(values), values[len(values)-1])
	}
}

func TestEveryValueHasItsBucket(t *testing.T) {
	last := -1
	for v := time.Duration(0); v < 1<<(maxBits+2); v += v/200 + 1 {
		i := index(v)
		if i < last || i >= buckets {
			t.Fatalf("index(%d) = %d after %d, of %d buckets", v, i, last, buckets)
		}
		last = i
		if v < 1<<maxBits && index(middle(i)) != i {
			t.Fatalf("the middle of bucket %d is %d, which is in bucket %d", i, middle(i), index(middle(i)))
		}
	}
}

func TestExtremes(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 {
		t.Error("an empty histogram has a median")
	}
	h.Record(-time.Second)
	if got := h.Quantile(0.5); got != 0 {
		t.Errorf("below zero: %v", got)
	}
	h.Record(time.Hour)
	if got := h.Quantile(1); got < 18*time.Minute || h.Max() != time.Hour {
		t.Errorf("an hour: quantile %v, max %v", got, h.Max())
	}
}
