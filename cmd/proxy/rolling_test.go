package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// crowd is clients that ask for one answer after the other.
type crowd struct {
	ctx     context.Context
	fleet   *fleet
	http    *http.Client
	count   int // words of an answer
	leaving atomic.Bool
	all     sync.WaitGroup

	mu      sync.Mutex
	trips   trips // guarded by mu
	answers int   // guarded by mu
}

// gather has so many clients come, each on its own.
func (f *fleet) gather(ctx context.Context, clients, count int) *crowd {
	c := &crowd{ctx: ctx, fleet: f, count: count, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}}
	f.t.Cleanup(c.http.CloseIdleConnections)
	var urls []string
	for _, r := range f.replicas {
		urls = append(urls, r.url)
	}
	for n := range clients {
		c.all.Go(func() {
			for round := 0; !c.leaving.Load() && ctx.Err() == nil; round++ {
				c.answer(&client{
					http: c.http, urls: urls, key: fmt.Sprintf("client %d, round %d", n, round), moves: (n+round)%2 == 0,
				})
			}
		})
	}
	return c
}

// answer has a client read one answer.
func (c *crowd) answer(one *client) {
	err := one.run(c.ctx)
	if err == nil {
		err = one.whole(c.count)
	}
	if err != nil {
		c.fleet.t.Errorf("%s: %v", one.key, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trips.add(one.trips)
	c.answers++
}

// leave lets the clients finish, and says what they did.
func (c *crowd) leave() (answers int, t trips) {
	c.leaving.Store(true)
	c.all.Wait()
	return c.answers, c.trips
}

func TestRollingRestart(t *testing.T) {
	f := newFleet(t, "WEIR_DRAIN_GRACE=10s")
	const count = 10
	f.upstream.Answer(words(150*time.Millisecond, count))
	t.Run("all replicas restarted, one after the other, under 200 clients", func(t *testing.T) {
		f := f.in(t)
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		crowd := f.gather(ctx, 200, count)
		for i := range f.replicas {
			pass(ctx, 500*time.Millisecond)
			began := time.Now()
			f.replicas[i].signal(syscall.SIGTERM)
			code, _ := f.replicas[i].ended(wait)
			if code != 0 {
				t.Errorf("replica %d: exit code %d:\n%s", i, code, f.replicas[i].rest.String())
			}
			gone := time.Since(began)
			pass(ctx, 200*time.Millisecond) // as a scheduler takes its time
			f.restart(i)
			t.Logf("replica %d was gone after %s and back after %s", i, gone.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		}
		pass(ctx, 500*time.Millisecond)
		answers, trips := crowd.leave()
		t.Logf("%d answers, with %s", answers, trips)
		if trips.aborted == 0 || trips.refused == 0 || trips.unready == 0 {
			t.Error("the clients did not have to come back in every way")
		}
		if started := len(f.upstream.Requests()); started != answers {
			t.Errorf("%d generations for %d answers", started, answers)
		}
	})
}

// pass lets time go by.
func pass(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func TestReplicaInterrupts(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "WEIR_DRAIN_GRACE=1s")
	f.upstream.Answer(words(10*time.Millisecond, 0))
	t.Run("SIGTERM of A, whose streams are longer than the grace", func(t *testing.T) {
		f := f.in(t)
		onA := read(t, "the creator on A", "POST", f.url(inA)+"/v1/streams", promptBody)
		events := "/v1/streams/" + onA.stream + "/events"
		onB := read(t, "one on B", "GET", f.url(inB)+events, "")
		onC := read(t, "one on C", "GET", f.url(inC)+events, "")
		for _, r := range []*reading{onA, onB, onC} {
			r.await(10)
		}
		f.replicas[inA].signal(syscall.SIGTERM)
		code, took := f.replicas[inA].ended(wait)
		if code != 0 || took > 4*time.Second {
			t.Errorf("exit code %d after %s", code, took)
		}
		f.awaitIdle(time.Second)
		log := f.log(inB, onA.stream)
		oneEnd(t, log, "event: error", `"code":"interrupted"`, `"retryable":true`)
		for _, r := range []*reading{onA, onB, onC} {
			r.same(log, time.Second)
		}
		if recoveryID.Match(log) {
			t.Errorf("the end that A wrote is marked as a recovery's:\n%s", tailOf(log))
		}
		t.Logf("A ended %s after SIGTERM, with a grace of 1s", took.Round(time.Millisecond))
	})
}
