package main

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"
)

// streamsOn checks that a replica takes new streams, which are read elsewhere.
func (f *fleet) streamsOn(i int) {
	f.t.Helper()
	f.upstream.Answer(words(10*time.Millisecond, 20))
	made := read(f.t, "a new stream's creator", "POST", f.url(i)+"/v1/streams", promptBody)
	other := read(f.t, "a new stream's reader", "GET", f.url(inB)+"/v1/streams/"+made.stream+"/events", "")
	made.end(wait)
	log := f.log(inC, made.stream)
	oneEnd(f.t, log, "event: done", `"state":"done"`)
	made.same(log, wait)
	other.same(log, wait)
}

func TestReplicasShareAStream(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.upstream.Answer(words(5*time.Millisecond, 0))
	t.Run("started on A, read on B and C, cancelled on C", func(t *testing.T) {
		onA := read(t, "the creator on A", "POST", f.url(inA)+"/v1/streams", promptBody)
		events := "/v1/streams/" + onA.stream + "/events"
		whole := []*reading{
			onA,
			read(t, "another on A", "GET", f.url(inA)+events, ""),
			read(t, "one on B", "GET", f.url(inB)+events, ""),
			read(t, "one on C", "GET", f.url(inC)+events, ""),
		}
		for _, r := range whole {
			r.await(30)
		}
		cursor := onA.stream + ".20"
		var resumed []*reading
		for i, name := range []string{"resumed on A", "resumed on B", "resumed on C"} {
			resumed = append(resumed, read(t, name, "GET", f.url(i)+events, "", "Last-Event-ID", cursor))
		}
		for _, r := range resumed {
			r.await(30)
		}

		began := time.Now()
		resp := call(t, "POST", f.url(inC)+"/v1/streams/"+onA.stream+"/cancel", "")
		f.awaitIdle(time.Second)
		t.Logf("the upstream's connection closed within %s of the cancel", time.Since(began))
		var answer struct{ State string }
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != http.StatusOK || answer.State != "cancelled" {
			t.Errorf("cancel: status %d, state %q, %v", resp.StatusCode, answer.State, err)
		}
		log := f.log(inB, onA.stream)
		oneEnd(t, log, "event: done", `"state":"cancelled"`)
		for _, r := range whole {
			r.same(log, time.Second)
		}
		for _, r := range resumed {
			r.same(behind(t, log, cursor), time.Second)
		}
	})
}

// ann is a client's credential.
const ann = "Bearer key-of-ann"

// With client keys, for these are for all replicas alike.
func TestReplicasKnowTheSame(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "WEIR_API_KEYS=key-of-ann,key-of-bob")
	f.upstream.Answer(words(10*time.Millisecond, 60))
	t.Run("an Idempotency-Key is repeated on B while the stream runs on A", func(t *testing.T) { f.in(t).joinsByKey() })
	t.Run("a read token made on A is shown to B", func(t *testing.T) { f.in(t).readsByToken() })
	t.Run("a stream that runs on A is deleted on B", func(t *testing.T) { f.in(t).deletesRunning() })
	t.Run("a stream ended on A is deleted on B", func(t *testing.T) { f.in(t).deletesEnded() })
}

func (f *fleet) streams(i int) string { return f.url(i) + "/v1/streams" }

func (f *fleet) joinsByKey() {
	t := f.t
	headers := []string{"Authorization", ann, "Idempotency-Key", "once"}
	onA := read(t, "the first on A", "POST", f.streams(inA), promptBody, headers...)
	onA.await(5)
	joined := read(t, "the second on B", "POST", f.streams(inB), promptBody, headers...)
	resumed := read(t, "the third on C", "POST", f.streams(inC), promptBody, append(headers, "Last-Event-ID", onA.stream+".3")...)
	other := call(t, "POST", f.streams(inB), `{"prompt":"another","model":"gpt-test"}`, headers...)
	if other.StatusCode != http.StatusConflict {
		t.Errorf("another body with the key: status %d", other.StatusCode)
	}
	bobs := read(t, "bob, with the same key of his own", "POST", f.streams(inB), promptBody, "Authorization", "Bearer key-of-bob", "Idempotency-Key", "once")
	onA.end(wait)
	log := onA.events()
	oneEnd(t, log, "event: done", `"state":"done"`)
	onA.same(log, wait)
	joined.same(log, time.Second)
	resumed.same(behind(t, log, onA.stream+".3"), time.Second)
	bobs.end(wait)
	if joined.stream != onA.stream || bobs.stream == onA.stream || len(f.upstream.Requests()) != 2 {
		t.Errorf("streams %s, %s, bob's %s, and %d generations", onA.stream, joined.stream, bobs.stream, len(f.upstream.Requests()))
	}
}

func (f *fleet) readsByToken() {
	t := f.t
	resp := call(t, "POST", f.streams(inA), promptBody, "Authorization", ann)
	var made struct {
		ID        string
		EventsURL string `json:"events_url"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&made); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("create: status %d, %v", resp.StatusCode, err)
	}
	onB := read(t, "with a token on B", "GET", f.url(inB)+made.EventsURL, "")
	onB.end(wait)
	oneEnd(t, onB.events(), `"state":"done"`)
	for url, want := range map[string]int{
		f.url(inB) + "/v1/streams/" + made.ID + "/events":                 http.StatusUnauthorized,
		f.url(inC) + "/v1/streams/" + made.ID + "/events?token=nonsense":  http.StatusNotFound,
		f.url(inC) + made.EventsURL + "&last_event_id=" + made.ID + ".62": http.StatusOK,
		f.url(inC) + made.EventsURL + "&last_event_id=" + made.ID + ".63": http.StatusNoContent,
	} {
		if resp := call(t, "GET", url, ""); resp.StatusCode != want {
			t.Errorf("%s: status %d, want %d", url, resp.StatusCode, want)
		}
	}
}

func (f *fleet) deletesRunning() {
	t := f.t
	for range 20 {
		onA := read(t, "its creator on A", "POST", f.streams(inA), promptBody, "Authorization", ann)
		stream := "/v1/streams/" + onA.stream
		onC := read(t, "one on C", "GET", f.url(inC)+stream+"/events", "", "Authorization", ann)
		onC.await(3)
		if resp := call(t, "DELETE", f.url(inB)+stream, "", "Authorization", ann); resp.StatusCode != http.StatusNoContent {
			t.Errorf("delete: status %d", resp.StatusCode)
		}
		f.awaitIdle(time.Second)
		onA.end(time.Second)
		oneEnd(t, onA.events(), "event: done", `"state":"cancelled"`)
		onA.same(onA.events(), time.Second)
		onC.same(onA.events(), time.Second)
		if resp := call(t, "GET", f.url(inA)+stream, "", "Authorization", ann); resp.StatusCode != http.StatusGone {
			t.Errorf("afterwards: status %d", resp.StatusCode)
		}
	}
}

func (f *fleet) deletesEnded() {
	t := f.t
	onA := read(t, "the stream on A", "POST", f.streams(inA), promptBody, "Authorization", ann)
	onA.end(wait)
	stream := "/v1/streams/" + onA.stream
	if resp := call(t, "DELETE", f.url(inB)+stream, "", "Authorization", ann); resp.StatusCode != http.StatusNoContent {
		t.Errorf("delete: status %d", resp.StatusCode)
	}
	for i := range f.replicas {
		for _, path := range []string{stream, stream + "/events"} {
			resp := call(t, "GET", f.url(i)+path, "", "Authorization", ann)
			if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusGone {
				t.Errorf("GET %s on replica %d: status %d: %s", path, i, resp.StatusCode, body)
			}
		}
	}
}
