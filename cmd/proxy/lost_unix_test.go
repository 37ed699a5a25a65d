//go:build unix

package main

import (
	"bytes"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lossNoticed is how long after a replica's loss its readers elsewhere may wait
// for the end: its lease, and a look at it.
const lossNoticed = 10 * time.Second

// watched is a stream that runs on A, with readers on all replicas.
type watched struct {
	key                    string // its idempotency key
	onA, onB, onC, resumed *reading
}

// watch starts streams on A.
func (f *fleet) watch(count int) []watched {
	f.t.Helper()
	var all []watched
	for n := range count {
		key := strings.Repeat("k", n+1)
		w := watched{key: key, onA: read(f.t, "the creator on A", "POST", f.url(inA)+"/v1/streams", promptBody, "Idempotency-Key", key)}
		events := "/v1/streams/" + w.onA.stream + "/events"
		w.onB = read(f.t, "one on B", "GET", f.url(inB)+events, "")
		w.onC = read(f.t, "one on C", "GET", f.url(inC)+events, "")
		w.onC.await(5)
		w.resumed = read(f.t, "resumed on B", "GET", f.url(inB)+events, "", "Last-Event-ID", w.onA.stream+".3")
		all = append(all, w)
	}
	for _, w := range all {
		for _, r := range []*reading{w.onA, w.onB, w.onC, w.resumed} {
			r.await(20)
		}
	}
	return all
}

// awaitLoss waits for the end on B and C, and checks that all who read there saw
// the same, in time. It returns the log.
func (w watched) awaitLoss(f *fleet, lost time.Time) []byte {
	f.t.Helper()
	var took time.Duration
	for _, r := range []*reading{w.onB, w.onC, w.resumed} {
		ended, _ := r.end(lossNoticed + 5*time.Second) // later than allowed is measured, too
		took = max(took, ended.Sub(lost))
	}
	f.t.Logf("the end on B and C came %s after the loss of A", took.Round(time.Millisecond))
	if took > lossNoticed {
		f.t.Errorf("that is longer than %s", lossNoticed)
	}
	log := f.log(inB, w.onA.stream)
	w.onB.same(log, time.Second)
	w.onC.same(log, time.Second)
	w.resumed.same(behind(f.t, log, w.onA.stream+".3"), time.Second)
	oneEnd(f.t, log, "event: error", `"code":"producer_lost"`, `"retryable":true`)
	if !recoveryID.Match(log) {
		f.t.Errorf("the end's id has no mark of a recovery:\n%s", tailOf(log))
	}
	if seen := w.onA.events(); !bytes.HasPrefix(log, seen) {
		f.t.Errorf("what was seen on A is no prefix of the log:\n%s\nthe log's:\n%s", tailOf(seen), tailOf(log))
	}
	return log
}

func TestReplicaIsKilled(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.upstream.Answer(words(5*time.Millisecond, 0))
	t.Run("kill -9 of A under live streams", func(t *testing.T) {
		f := f.in(t)
		all := f.watch(5)
		lost := time.Now()
		f.replicas[inA].kill()
		f.awaitIdle(time.Second)
		logs := map[string][]byte{}
		for _, w := range all {
			if _, err := w.onA.end(time.Second); err == nil {
				t.Error("a body on A ended cleanly")
			}
			logs[w.onA.stream] = w.awaitLoss(f, lost)
		}
		t.Run("the keys of its streams are repeated on B", func(t *testing.T) { f.in(t).joinLost(all, logs) })
		f.restart(inA)
		for id, log := range logs {
			if again := f.log(inA, id); !bytes.Equal(again, log) {
				t.Errorf("the log on a new A:\n%s\nwant\n%s", tailOf(again), tailOf(log))
			}
		}
		f.streamsOn(inA)
	})
}

// joinLost repeats the requests that started the streams.
func (f *fleet) joinLost(all []watched, logs map[string][]byte) {
	generations := len(f.upstream.Requests())
	for _, w := range all {
		log := logs[w.onA.stream]
		url := f.url(inB) + "/v1/streams"
		joined := read(f.t, "joined on B", "POST", url, promptBody, "Idempotency-Key", w.key)
		joined.same(log, wait)
		if joined.stream != w.onA.stream {
			f.t.Errorf("the key's stream is %s, and was %s", joined.stream, w.onA.stream)
		}
		ids := eventID.FindAllSubmatch(w.onA.events(), -1)
		last := string(ids[len(ids)-1][1])
		resumed := read(f.t, "come back from A to B", "POST", url, promptBody, "Idempotency-Key", w.key, "Last-Event-ID", last)
		resumed.same(behind(f.t, log, last), wait)
		ids = eventID.FindAllSubmatch(log, -1)
		end := string(ids[len(ids)-1][1])
		if _, status := get(f.t, f.url(inC)+"/v1/streams/"+w.onA.stream+"/events", end); status != http.StatusNoContent {
			f.t.Errorf("resumed at the end %s: status %d", end, status)
		}
		other := call(f.t, "POST", url, `{"prompt":"another","model":"gpt-test"}`, "Idempotency-Key", w.key)
		if other.StatusCode != http.StatusConflict {
			f.t.Errorf("another body with the key: status %d", other.StatusCode)
		}
	}
	if n := len(f.upstream.Requests()); n != generations {
		f.t.Errorf("%d generations were started", n-generations)
	}
}

func TestReplicaIsFrozen(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.upstream.Answer(words(5*time.Millisecond, 0))
	t.Run("SIGSTOP of A for longer than its lease, then SIGCONT", func(t *testing.T) {
		f := f.in(t)
		all := f.watch(3)
		lost := time.Now()
		f.replicas[inA].signal(syscall.SIGSTOP)
		logs := map[string][]byte{}
		for _, w := range all {
			logs[w.onA.stream] = w.awaitLoss(f, lost)
		}
		began := time.Now()
		f.replicas[inA].signal(syscall.SIGCONT)
		for _, w := range all {
			w.onA.same(logs[w.onA.stream], 5*time.Second)
		}
		t.Logf("A's own readers had the end %s after SIGCONT", time.Since(began).Round(time.Millisecond))
		f.awaitIdle(5 * time.Second)
		t.Logf("A's upstream calls were closed %s after SIGCONT", time.Since(began).Round(time.Millisecond))
		for i := range f.replicas {
			for id, log := range logs {
				if now := f.log(i, id); !bytes.Equal(now, log) {
					t.Errorf("the log on replica %d, after A came back:\n%s\nbefore:\n%s", i, tailOf(now), tailOf(log))
				}
			}
		}
		f.streamsOn(inA)
	})
}
