package ratelimit

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// step is one call of Allow and its decision.
type step struct {
	after     time.Duration // since the step before
	key       string
	allowed   bool
	remaining int
	reset     time.Duration
	retry     time.Duration
}

func TestAllow(t *testing.T) {
	tests := []struct {
		name      string
		perMinute int
		steps     []step
	}{
		{"one a minute", 1, []step{
			{0, "a", true, 0, time.Minute, 0},
			{0, "a", false, 0, time.Minute, time.Minute},
			{59 * time.Second, "a", false, 0, time.Second, time.Second},
			{time.Second, "a", true, 0, time.Minute, 0},
		}},
		{"a burst, then evenly", 60, []step{
			{0, "a", true, 59, time.Second, 0},
			{0, "a", true, 58, 2 * time.Second, 0},
			{time.Second, "a", true, 58, 2 * time.Second, 0},
			{2 * time.Second, "a", true, 59, time.Second, 0},
			{time.Hour, "a", true, 59, time.Second, 0},
		}},
		{"keys are apart", 2, []step{
			{0, "a", true, 1, 30 * time.Second, 0},
			{0, "a", true, 0, time.Minute, 0},
			{0, "a", false, 0, time.Minute, 30 * time.Second},
			{0, "b", true, 1, 30 * time.Second, 0},
			{0, "", true, 1, 30 * time.Second, 0},
			{30 * time.Second, "a", true, 0, time.Minute, 0},
		}},
		{"a refusal takes nothing", 1, []step{
			{0, "a", true, 0, time.Minute, 0},
			{30 * time.Second, "a", false, 0, 30 * time.Second, 30 * time.Second},
			{30 * time.Second, "a", true, 0, time.Minute, 0},
		}},
		{"time steps back", 2, []step{
			{0, "a", true, 1, 30 * time.Second, 0},
			{-time.Hour, "a", true, 0, time.Minute, 0},
			{0, "a", false, 0, time.Minute, 30 * time.Second},
			{time.Hour, "a", false, 0, time.Minute, 30 * time.Second},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, now := New(tt.perMinute), epoch
			for i, s := range tt.steps {
				now = now.Add(s.after)
				got := l.Allow(s.key, now)
				want := Decision{s.allowed, tt.perMinute, s.remaining, s.reset, s.retry}
				if got != want {
					t.Errorf("step %d:\n got %+v\nwant %+v", i, got, want)
				}
			}
			checkRings(t, l)
		})
	}
}

// What a decision promises comes true, at odd rates too.
func TestPromises(t *testing.T) {
	for _, perMinute := range []int{1, 2, 3, 7, 11, 59, 60, 61, 97, 600, 1009, 86_399} {
		t.Run(fmt.Sprint(perMinute), func(t *testing.T) {
			l, now := New(perMinute), epoch
			var d Decision
			for i := range perMinute {
				if d = l.Allow("a", now); !d.Allowed || d.Remaining != perMinute-1-i {
					t.Fatalf("request %d: %+v", i, d)
				}
			}
			for range 50 {
				if d = l.Allow("a", now); d.Allowed || d.RetryAfter <= 0 {
					t.Fatalf("one too many: %+v", d)
				}
				if early := l.Allow("a", now.Add(d.RetryAfter*9/10)); early.Allowed {
					t.Fatalf("allowed before RetryAfter %v", d.RetryAfter)
				}
				now = now.Add(d.RetryAfter)
				if d = l.Allow("a", now); !d.Allowed {
					t.Fatalf("refused after RetryAfter: %+v", d)
				}
			}
			now = now.Add(d.Reset)
			if d = l.Allow("a", now); d.Remaining != perMinute-1 {
				t.Errorf("not full after Reset: %+v", d)
			}
		})
	}
}

func TestNewRefusesNoLimit(t *testing.T) {
	for _, perMinute := range []int{0, -1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("New(%d) did not panic", perMinute)
				}
			}()
			New(perMinute)
		}()
	}
}

// However many ask at once, exactly the limit gets through, even if the clocks
// of late callers lag.
func TestConcurrentCallersOfOneKey(t *testing.T) {
	const limit, callers = 600, 10_000
	for name, lag := range map[string]time.Duration{"same time": 0, "lagging": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			l := New(limit)
			if !l.Allow("a", epoch).Allowed {
				t.Fatal("the first was refused")
			}
			var allowed atomic.Int64
			var wg sync.WaitGroup
			start := make(chan struct{})
			for i := range callers {
				wg.Go(func() {
					<-start
					if l.Allow("a", epoch.Add(-lag*time.Duration(i%10))).Allowed {
						allowed.Add(1)
					}
				})
			}
			close(start)
			wg.Wait()
			if got := allowed.Load() + 1; got != limit {
				t.Errorf("%d were allowed, want %d", got, limit)
			}
		})
	}
}

func TestConcurrentCallersOfManyKeys(t *testing.T) {
	const limit, keys, callers = 5, 1000, 20
	l := New(limit)
	var allowed [keys]atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for k := range keys {
				if l.Allow(fmt.Sprint("key", k), epoch).Allowed {
					allowed[k].Add(1)
				}
			}
		})
	}
	wg.Wait()
	for k := range allowed {
		if got := allowed[k].Load(); got != limit {
			t.Errorf("key %d: %d were allowed, want %d", k, got, limit)
		}
	}
	checkRings(t, l)
}

// A flood of keys stays within the cap, refuses none of them, and does not
// free an exhausted key.
func TestFlood(t *testing.T) {
	l := New(60)
	for range 60 {
		l.Allow("exhausted", epoch)
	}
	for i := range 2 * maxKeys {
		if !l.Allow(fmt.Sprint("flood", i), epoch).Allowed {
			t.Fatalf("key %d was refused", i)
		}
	}
	if n := checkRings(t, l); n > maxKeys || n < maxKeys/2 {
		t.Errorf("%d keys are remembered, the cap is %d", n, maxKeys)
	}
	if d := l.Allow("exhausted", epoch); d.Allowed {
		t.Errorf("the flood freed the exhausted key: %+v", d)
	}
}

// What says nothing any more goes, two for one that comes.
func TestFullBucketsAreForgotten(t *testing.T) {
	const keys = 10_000
	l := New(60)
	for i := range keys {
		l.Allow(fmt.Sprint("old", i), epoch)
	}
	later := epoch.Add(time.Second) // one request has come back: full
	for i := range keys {
		l.Allow(fmt.Sprint("new", i), later)
	}
	if n := checkRings(t, l); n > keys+keys/10 {
		t.Errorf("%d keys are remembered", n)
	}
	before := checkRings(t, l)
	l.Allow("new0", later) // a known key pays for nothing
	if n := checkRings(t, l); n != before {
		t.Errorf("%d keys after a known one, %d before", n, before)
	}
}

// A bucket that is not full yet is not forgotten while there is room.
func TestRecentBucketsStay(t *testing.T) {
	l := New(1)
	l.Allow("used", epoch)
	for i := range 10_000 {
		l.Allow(fmt.Sprint(i), epoch.Add(59*time.Second))
	}
	if l.Allow("used", epoch.Add(59*time.Second)).Allowed {
		t.Error("the bucket was forgotten before it was full")
	}
}

// At the cap, the fullest of the longest unused goes, not the emptiest.
func TestEvictionSparesTheEmptiest(t *testing.T) {
	var s shard
	s.init()
	for id := range uint64(keysPerShard) {
		b := s.add(id, nil)
		b.fullAt = epoch.Add(time.Hour - time.Duration(id)*time.Second) // the oldest is the emptiest
	}
	s.makeRoom(epoch)
	if _, there := s.buckets[evictionSample-1]; there || len(s.buckets) != keysPerShard-1 {
		t.Errorf("bucket %d should have gone; %d are left", evictionSample-1, len(s.buckets))
	}
}

// checkRings checks that each shard's map and ring hold the same buckets, and
// counts them.
func checkRings(t *testing.T, l *Limiter) int {
	t.Helper()
	total := 0
	for i := range l.shards {
		s := &l.shards[i]
		n := 0
		for b := s.uses.next; b != &s.uses; b = b.next {
			if s.buckets[b.id] != b || b.next.prev != b {
				t.Fatalf("shard %d: bucket %x is torn", i, b.id)
			}
			n++
		}
		if n != len(s.buckets) || n > keysPerShard {
			t.Fatalf("shard %d: %d in the ring, %d in the map", i, n, len(s.buckets))
		}
		total += n
	}
	return total
}

func BenchmarkAllow(b *testing.B) {
	keys := make([]string, 1<<18)
	for i := range keys {
		keys[i] = fmt.Sprint("sk-weir-0123456789-", i)
	}
	for _, bb := range []struct {
		name string
		keys int
	}{{"one key", 1}, {"1000 keys", 1000}, {"flood", len(keys)}} {
		b.Run(bb.name, func(b *testing.B) {
			l := New(600)
			var offset atomic.Int64
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				now := time.Now()
				for i := int(offset.Add(7919)); pb.Next(); i++ {
					l.Allow(keys[i%bb.keys], now)
				}
			})
		})
	}
}
