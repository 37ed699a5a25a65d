package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"weir/internal/redistest"
)

// storeSilent is how long a call may take while the store does not answer: the
// 5 s of the protocol, and a moment for a busy machine.
const storeSilent = 5500 * time.Millisecond

// readTwice starts streams on A, each with a reader there and one on B.
func (f *fleet) readTwice(count int) (onA, onB []*reading) {
	f.t.Helper()
	for range count {
		a := read(f.t, "the creator on A", "POST", f.url(inA)+"/v1/streams", promptBody)
		b := read(f.t, "one on B", "GET", f.url(inB)+"/v1/streams/"+a.stream+"/events", "")
		onA, onB = append(onA, a), append(onB, b)
	}
	for _, r := range append(onA, onB...) {
		r.await(3)
	}
	return onA, onB
}

// finishWhole checks that every reader saw the whole answer of so many words,
// though the server was away for a while.
func (f *fleet) finishWhole(onA, onB []*reading, count int) {
	f.t.Helper()
	for i := range onA {
		onA[i].end(wait)
		log := f.log(inC, onA[i].stream)
		onA[i].same(log, wait)
		onB[i].same(log, wait)
		var c client
		if err := c.read(bytes.NewReader(log)); err != io.EOF {
			f.t.Errorf("the log: %v", err)
		} else if err := c.whole(count); err != nil {
			f.t.Errorf("the log: %v", err)
		}
	}
}

var comeBackOnly = regexp.MustCompile(`^retry: [0-9]+\n$`)

// turnedAway checks what new requests get while the server is away: a start is
// refused, a reader is sent away for a while and not for good.
func (f *fleet) turnedAway(id string) {
	f.t.Helper()
	var all sync.WaitGroup
	all.Go(func() {
		resp, body, took, err := f.timed("POST", f.url(inA)+"/v1/streams", promptBody)
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || took > storeSilent {
			f.t.Errorf("a new stream: status %d, %v, %s, %v, after %s", resp.StatusCode, resp.Header, body, err, took)
		}
		f.t.Logf("a new stream was refused after %s", took.Round(time.Millisecond))
	})
	for _, i := range []int{inA, inB, inC} {
		all.Go(func() {
			resp, body, took, err := f.timed("GET", f.url(i)+"/v1/streams/"+id+"/events", "")
			if resp.StatusCode != http.StatusOK || !comeBackOnly.Match(body) || !errors.Is(err, io.ErrUnexpectedEOF) || took > storeSilent {
				f.t.Errorf("events on replica %d: status %d, %q, %v, after %s; want 200, a retry line and an abort", i, resp.StatusCode, body, err, took)
			}
		})
	}
	all.Wait()
}

// timed sends a request, and reads the whole answer.
func (f *fleet) timed(method, url, body string) (*http.Response, []byte, time.Duration, error) {
	began := time.Now()
	resp, err := try(f.t, method, url, body)
	if err != nil {
		return &http.Response{}, nil, time.Since(began), err
	}
	defer resp.Body.Close()
	seen, err := io.ReadAll(resp.Body)
	return resp, seen, time.Since(began), err
}

func TestRedisIsRestarted(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		words int // of an answer, one every 10 ms
		times int
		away  time.Duration
	}{
		"kill -9 of Redis with AOF, three times, while the answers go on": {500, 3, 700 * time.Millisecond},
		"kill -9 of Redis with AOF, away longer than answers and leases":  {200, 1, 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			f.upstream.Answer(words(10*time.Millisecond, test.words))
			onA, onB := f.readTwice(10)
			for n := range test.times {
				f.redis.Kill()
				pass(t.Context(), test.away)
				f.redis.Start()
				onB[0].await(50 * (n + 1))
			}
			f.finishWhole(onA, onB, test.words)
			f.streamsOn(inA)
		})
	}
}

func TestRedisIsPaused(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	const count = 130
	f.upstream.Answer(words(50*time.Millisecond, count))
	t.Run("SIGSTOP of Redis for 5 s", func(t *testing.T) {
		f := f.in(t)
		onA, onB := f.readTwice(10)
		f.redis.Pause()
		pass(t.Context(), 5*time.Second)
		f.redis.Resume()
		f.finishWhole(onA, onB, count)
		f.streamsOn(inA)
	})
}

// A server that is gone for as long as any of the replicas lives, in both ways:
// connections are refused, or nobody answers on them.
func TestRedisIsGone(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct{ begin, end func(*redistest.Server) }{
		"kill -9 of Redis for good": {(*redistest.Server).Kill, (*redistest.Server).Start},
		"SIGSTOP of Redis for good": {(*redistest.Server).Pause, (*redistest.Server).Resume},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, "WEIR_HEARTBEAT=1s", "WEIR_DRAIN_GRACE=1s")
			f.upstream.Answer(words(20*time.Millisecond, 0))
			onA, onB := f.readTwice(5)
			readers := append(onA, onB...)
			fault.begin(f.redis)
			f.turnedAway(onA[0].stream)
			for _, r := range readers { // which had no time for one before
				eventually(t, wait, r.name+" has had heartbeats", func() bool { return r.pings() >= 2 })
			}
			f.stopWithoutStore()
			for _, r := range readers {
				r.cutOff()
			}
			fault.end(f.redis)
			f.restart(inC)
			f.endsAfterAll(onA, onB)
		})
	}
}

// stopWithoutStore ends the replicas while the store is gone.
func (f *fleet) stopWithoutStore() {
	f.t.Helper()
	ready := call(f.t, "GET", f.url(inA)+"/readyz", "")
	f.t.Logf("/readyz without a store: %d", ready.StatusCode)
	for _, r := range f.replicas {
		r.signal(syscall.SIGTERM)
	}
	began := time.Now()
	for i, r := range f.replicas {
		code, _ := r.ended(wait)
		if took := time.Since(began); code != 0 || took > 11*time.Second { // the grace of 1 s, and 10 s
			f.t.Errorf("replica %d: exit code %d, %s after SIGTERM:\n%s", i, code, took, r.rest.String())
		}
	}
	f.t.Logf("all replicas had ended %s after SIGTERM, with a grace of 1s", time.Since(began).Round(time.Millisecond))
}

// cutOff checks that a reader was told no end, for there is none, and nothing
// else that is wrong.
func (r *reading) cutOff() {
	r.t.Helper()
	if _, err := r.end(time.Second); err == nil {
		r.t.Errorf("%s: the body ended cleanly", r.name)
	}
	var c client
	if err := c.read(bytes.NewReader(r.events())); err != io.EOF || c.end != "" {
		r.t.Errorf("%s: %v, and the end %q", r.name, err, c.end)
	}
}

// endsAfterAll checks the streams that nobody could end: all that was seen of
// them is there, and somebody ends them once the server is back.
func (f *fleet) endsAfterAll(onA, onB []*reading) {
	f.t.Helper()
	began := time.Now()
	for i := range onA {
		late := read(f.t, "one who comes late", "GET", f.url(inC)+"/v1/streams/"+onA[i].stream+"/events", "")
		late.end(wait)
		log := f.log(inC, onA[i].stream)
		late.same(log, time.Second)
		oneEnd(f.t, log, "event: error", `"code":"producer_lost"`)
		for _, r := range []*reading{onA[i], onB[i]} {
			if seen := r.events(); !bytes.HasPrefix(log, seen) {
				f.t.Errorf("what %s saw is no prefix of the log:\n%s\nthe log's:\n%s", r.name, tailOf(seen), tailOf(log))
			}
		}
	}
	f.t.Logf("the streams had ended %s after the store was back", time.Since(began).Round(time.Millisecond))
}
