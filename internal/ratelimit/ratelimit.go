// Package ratelimit limits the requests a minute of each client key, in one
// process.
package ratelimit

import (
	"hash/maphash"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Keys are spread over shards so that callers of different keys seldom wait
// for one lock. At the cap a key takes about 250 bytes, all of them some 32 MB.
const (
	shardCount   = 64
	keysPerShard = 2048
	// maxKeys is the most keys that are remembered, about.
	maxKeys = shardCount * keysPerShard
)

// evictionSample is how many of the longest unused buckets a full shard looks
// at to find the one it forgets.
const evictionSample = 8

// Decision is the answer to one request.
type Decision struct {
	Allowed    bool
	Limit      int           // requests a minute, and the most at once
	Remaining  int           // requests that would be allowed right now
	Reset      time.Duration // until Remaining is Limit, if no request comes
	RetryAfter time.Duration // until one request is allowed; 0 when this one was
}

// Limiter keeps a token bucket for each key: it holds a minute's requests, and
// fills up again evenly in a minute. All methods may be called concurrently.
//
// Its memory is bounded. A full bucket says no more than none at all, so
// buckets not used for a minute are forgotten, a few with each new key. When
// there are too many all the same, one of those unused for longest makes room,
// the fullest first: its key may get up to a minute's requests early, whereas
// refusing new keys would let whoever makes many up lock everybody out. A few
// exhausted buckets outlast a flood of keys that are used once.
type Limiter struct {
	perMinute int
	seed      maphash.Seed
	shards    [shardCount]shard
}

// New returns a limiter of so many requests a minute for each key. It panics
// when perMinute is not positive: "no limit" is not to use a limiter.
func New(perMinute int) *Limiter {
	if perMinute <= 0 {
		panic("ratelimit: the limit must be positive")
	}
	l := &Limiter{perMinute: perMinute, seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].init()
	}
	return l
}

// Allow takes one request from the key's bucket if it holds one, at the time
// now. A call that comes in late, with a time before another's, counts as made
// at the other's. The key is not kept.
func (l *Limiter) Allow(key string, now time.Time) Decision {
	// Buckets go by the key's hash: nothing of a secret, or of memory that the
	// caller reuses, stays here, and long keys take no more room than short
	// ones. The seed is random, so nobody can aim at another key's bucket, and
	// two of maxKeys share one by chance in one process of two billion.
	id := maphash.String(l.seed, key)
	s := &l.shards[id%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[id]
	if b == nil {
		s.makeRoom(now)
		b = s.add(id, rate.NewLimiter(l.perSecond(), l.perMinute))
	} else {
		s.touch(b)
	}
	if now.Before(b.last) {
		// rate.Limiter would go back with it, and fill the time between twice.
		now = b.last
	}
	d := l.decide(b.limiter, now)
	b.last, b.fullAt = now, now.Add(d.Reset)
	return d
}

func (l *Limiter) perSecond() rate.Limit { return rate.Limit(float64(l.perMinute) / 60) }

// decide asks the bucket and reads what is left in it; the shard's lock makes
// that one step.
func (l *Limiter) decide(bucket *rate.Limiter, now time.Time) Decision {
	d := Decision{Allowed: bucket.AllowN(now, 1), Limit: l.perMinute}
	tokens := bucket.TokensAt(now)
	// What comes within a nanosecond counts, as it does for rate.Limiter.
	d.Remaining = int(tokens + float64(l.perSecond())*1e-9)
	d.Reset = l.refill(float64(l.perMinute) - tokens)
	if !d.Allowed {
		d.RetryAfter = max(l.refill(1-tokens), 1) // never "now" after a no
	}
	return d
}

// refill is how long so many tokens take to come. Rounding to the nanosecond
// hides the noise of floating point (1.000000001s would become "2 seconds" in a
// header); who waits for it is not early, as rate.Limiter disregards less than
// a nanosecond.
func (l *Limiter) refill(tokens float64) time.Duration {
	if tokens <= 0 {
		return 0
	}
	return time.Duration(math.Round(tokens / float64(l.perSecond()) * float64(time.Second)))
}

// shard is a part of the buckets, in the order of their last use.
type shard struct {
	mu      sync.Mutex
	buckets map[uint64]*bucket // guarded by mu, as are the buckets
	uses    bucket             // head of a ring: next was used last, prev is unused for longest
}

// bucket is one key's state, a link in its shard's ring.
type bucket struct {
	id         uint64
	limiter    *rate.Limiter
	last       time.Time // of its last use
	fullAt     time.Time // when it says no more than no bucket at all
	prev, next *bucket
}

func (s *shard) init() {
	s.buckets = map[uint64]*bucket{}
	s.uses.prev, s.uses.next = &s.uses, &s.uses
}

func (s *shard) add(id uint64, limiter *rate.Limiter) *bucket {
	b := &bucket{id: id, limiter: limiter}
	s.buckets[id] = b
	s.link(b)
	return b
}

// touch makes the bucket the one used last.
func (s *shard) touch(b *bucket) {
	b.unlink()
	s.link(b)
}

func (s *shard) link(b *bucket) {
	b.prev, b.next = &s.uses, s.uses.next
	b.prev.next, b.next.prev = b, b
}

func (b *bucket) unlink() { b.prev.next, b.next.prev = b.next, b.prev }

func (s *shard) remove(b *bucket) {
	b.unlink()
	delete(s.buckets, b.id)
}

// makeRoom forgets full buckets, two at most so that no caller pays for the
// others' flood: for one bucket that comes two go, so the garbage shrinks. It
// looks at those unused for longest, which are the first to be full within a
// minute at most. If the shard stays at its cap, one bucket must go anyway.
func (s *shard) makeRoom(now time.Time) {
	for range 2 {
		b := s.uses.prev
		if b == &s.uses || now.Before(b.fullAt) {
			break
		}
		s.remove(b)
	}
	if len(s.buckets) < keysPerShard {
		return
	}
	fullest := s.uses.prev
	b := fullest
	for range evictionSample - 1 {
		b = b.prev
		// All buckets fill equally fast: the fullest is full first.
		if b.fullAt.Before(fullest.fullAt) {
			fullest = b
		}
	}
	s.remove(fullest)
}
