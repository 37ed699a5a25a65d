package httpapi

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"weir/internal/stream"
	"weir/internal/upstreamtest"
)

func pieces(n int) []string {
	p := make([]string, n)
	for i := range p {
		p[i] = fmt.Sprintf("tok%d ", i)
	}
	return p
}

// Resuming after each id gives exactly the suffix, on a finished stream.
func TestResumeFinishedAfterEveryID(t *testing.T) {
	h := newHarness(t)
	id := h.finished(pieces(40)...)
	all, err := readFrames(h.call("GET", "/v1/streams/"+id+"/events", "").Body)
	if err != nil {
		t.Fatal(err)
	}
	if want := 40 + 3; len(all) != want { // start, the finish chunk, done
		t.Fatalf("%d frames, want %d", len(all), want)
	}
	for i, f := range all {
		if want := fmt.Sprintf("%s.%d", id, i+1); f.ID != want {
			t.Fatalf("frame %d has id %q, want %q", i, f.ID, want)
		}
		for _, cursor := range []string{f.ID, fmt.Sprint(i + 1)} {
			resp := h.call("GET", "/v1/streams/"+id+"/events", "", "Last-Event-ID", cursor)
			if i == len(all)-1 {
				if resp.StatusCode != http.StatusNoContent {
					t.Errorf("at the end: status %d, want 204", resp.StatusCode)
				}
				continue
			}
			rest, err := readFrames(resp.Body)
			if err != nil || !slices.Equal(rest, all[i+1:]) {
				t.Fatalf("after %s: %v, %v", cursor, rest, err)
			}
		}
	}
}

// The same while the stream is live: each reader comes with another cursor
// while the upstream still sends.
func TestResumeLiveAfterEveryID(t *testing.T) {
	const n = 30
	h := newHarness(t)
	steps := make(chan string)
	h.upstream.Answer(upstreamtest.Stepwise(steps))
	id := h.create(promptBody)

	suffixes := make([][]frame, n+1)
	var readers sync.WaitGroup
	for i, piece := range pieces(n) {
		steps <- upstreamtest.Chunk(piece)
		cursor := fmt.Sprintf("%s.%d", id, i+1)
		eventually(t, wait, "the log has the event", func() bool {
			status, err := h.server.status(id)
			return err == nil && status.LastSeq >= uint64(i+1)
		})
		resp := h.call("GET", "/v1/streams/"+id+"/events", "", "Last-Event-ID", cursor)
		readers.Go(func() {
			var err error
			if suffixes[i], err = readFrames(resp.Body); err != nil {
				t.Errorf("after %s: %v", cursor, err)
			}
		})
	}
	steps <- upstreamtest.Finish("stop") + upstreamtest.Done
	close(steps)
	readers.Wait()
	all, err := readFrames(h.call("GET", "/v1/streams/"+id+"/events", "").Body)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if !slices.Equal(suffixes[i], all[i+1:]) {
			t.Errorf("after %d: got %v", i+1, suffixes[i])
		}
	}
}

// A hundred readers from random cursors, finished by reading on from where a
// cut connection left off, assemble the same text.
func TestHundredReadersAssembleTheSameText(t *testing.T) {
	const n = 200
	h := newHarness(t)
	steps := make(chan string)
	h.upstream.Answer(upstreamtest.Stepwise(steps))
	id := h.create(promptBody)
	words := pieces(n)
	want := strings.Join(words, "")

	var readers sync.WaitGroup
	for range 100 {
		stopAfter := 1 + rand.IntN(n)
		readers.Go(func() {
			resp, err := h.try(t.Context(), "GET", "/v1/streams/"+id+"/events", "")
			if err != nil {
				t.Error(err)
				return
			}
			first := readSome(t, resp.Body, stopAfter)
			resp.Body.Close()
			last := first[len(first)-1]
			resp, err = h.try(t.Context(), "GET", "/v1/streams/"+id+"/events", "", "Last-Event-ID", last.ID)
			if err != nil {
				t.Error(err)
				return
			}
			rest, err := readFrames(resp.Body)
			resp.Body.Close()
			if err != nil {
				t.Error(err)
			}
			if got := assembled(t, append(first, rest...)); got != want {
				t.Errorf("a reader that broke off after %d frames got %d bytes of %d", len(first), len(got), len(want))
			}
		})
	}
	for _, w := range words {
		steps <- upstreamtest.Chunk(w)
	}
	steps <- upstreamtest.Finish("stop") + upstreamtest.Done
	close(steps)
	readers.Wait()
}

func TestCursors(t *testing.T) {
	h := newHarness(t)
	id := h.finished("a", "b")
	other := h.finished("c")
	const last = 5 // start, a, b, finish, done
	old := stream.NewID()
	old = old[:3] + "00000000001" + old[14:] // 1970

	tests := []struct {
		name, path, header string
		status             int
		first              string // id or type of the first frame
	}{
		{"no cursor", "/v1/streams/" + id + "/events", "", 200, id + ".1"},
		{"zero", "/v1/streams/" + id + "/events", "0", 200, id + ".1"},
		{"header", "/v1/streams/" + id + "/events", id + ".2", 200, id + ".3"},
		{"last_event_id", "/v1/streams/" + id + "/events?last_event_id=3", "", 200, id + ".4"},
		{"lastEventId", "/v1/streams/" + id + "/events?lastEventId=" + id + ".3", "", 200, id + ".4"},
		{"starting_after", "/v1/streams/" + id + "/events?starting_after=3", "", 200, id + ".4"},
		{"the header beats the query", "/v1/streams/" + id + "/events?last_event_id=1", id + ".3", 200, id + ".4"},
		{"at the end", "/v1/streams/" + id + "/events", fmt.Sprintf("%s.%d", id, last), 204, ""},
		{"at the end, bare", "/v1/streams/" + id + "/events", fmt.Sprint(last), 204, ""},
		{"at the end, of a recovery that never was", "/v1/streams/" + id + "/events", fmt.Sprintf("%s.%d.r1", id, last), 200, "reset"},
		{"beyond the end", "/v1/streams/" + id + "/events", id + ".99", 200, "reset"},
		{"malformed", "/v1/streams/" + id + "/events", "x", 400, ""},
		{"negative", "/v1/streams/" + id + "/events", "-1", 400, ""},
		{"of another stream", "/v1/streams/" + id + "/events", other + ".1", 400, ""},
		{"unknown stream", "/v1/streams/" + stream.NewID() + "/events", "", 404, ""},
		{"no id", "/v1/streams/nonsense/events", "", 404, ""},
		{"expired", "/v1/streams/" + old + "/events", "", 410, ""},
		{"expired, its JSON", "/v1/streams/" + old, "", 410, ""},
		{"one-line start, resumed", "/v1/stream?prompt=x", id + ".2", 200, id + ".3"},
		{"one-line start, at the end", "/v1/stream?prompt=x", fmt.Sprintf("%s.%d", id, last), 204, ""},
		{"one-line start, a bare seq", "/v1/stream?prompt=x", "2", 400, ""},
		{"one-line start, unknown", "/v1/stream?prompt=x", stream.NewID() + ".1", 404, ""},
	}
	started := len(h.upstream.Requests())
	for _, tt := range tests {
		headers := []string{}
		if tt.header != "" {
			headers = append(headers, "Last-Event-ID", tt.header)
		}
		resp := h.call("GET", tt.path, "", headers...)
		if resp.StatusCode != tt.status {
			t.Errorf("%s: status %d, want %d: %s", tt.name, resp.StatusCode, tt.status, text(t, resp))
			continue
		}
		if tt.status >= 400 {
			if e, ok := object(t, resp)["error"].(map[string]any); !ok || e["message"] == "" {
				t.Errorf("%s: no error object", tt.name)
			}
			continue
		}
		frames, err := readFrames(resp.Body)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.status == 204 {
			continue
		}
		if got := frames[0]; got.ID != tt.first && got.Type != tt.first {
			t.Errorf("%s: first frame %+v, want %s", tt.name, got, tt.first)
		}
		if tt.first == "reset" && (frames[0].ID != "" || frames[1].ID != id+".1" || len(frames) != last+1) {
			t.Errorf("%s: after a reset the whole log comes: %v", tt.name, frames)
		}
	}
	if n := len(h.upstream.Requests()); n != started {
		t.Errorf("resuming started %d generations", n-started)
	}
}

// A POST repeated with a cursor, as fetch-event-source does, resumes; at the
// end it gets an empty body that ends cleanly, for it would repeat a 204.
func TestPostResumes(t *testing.T) {
	h := newHarness(t)
	id := h.finished("a", "b")
	const last = 5
	asked := len(h.upstream.Requests())
	sse := []string{"Accept", "text/event-stream", "Last-Event-ID"}

	frames, err := readFrames(h.call("POST", "/v1/streams", promptBody, append(sse, id+".3")...).Body)
	if err != nil || len(frames) != 2 || frames[0].ID != id+".4" {
		t.Errorf("got %v, %v", frames, err)
	}
	resp := h.call("POST", "/v1/streams", promptBody, append(sse, fmt.Sprintf("%s.%d", id, last))...)
	if body := text(t, resp); resp.StatusCode != 200 || body != "" {
		t.Errorf("at the end: status %d, body %q", resp.StatusCode, body)
	}
	for _, bad := range []struct {
		cursor string
		status int
	}{{"nonsense", 400}, {"7", 400}, {stream.NewID() + ".1", 404}} {
		if resp := h.call("POST", "/v1/streams", promptBody, append(sse, bad.cursor)...); resp.StatusCode != bad.status {
			t.Errorf("cursor %q: status %d, want %d", bad.cursor, resp.StatusCode, bad.status)
		}
	}
	if n := len(h.upstream.Requests()); n != asked {
		t.Errorf("%d generations were started", n-asked)
	}
}

// The terminal that a recovery wrote is told apart from an event that stood in
// its place before.
func TestCursorsOfARecoveredStream(t *testing.T) {
	h := newHarness(t)
	id := stream.NewID()
	w, err := h.store.Create(t.Context(), stream.Meta{ID: id, Owner: ownerLocal, Dialect: stream.DialectChat})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Append(t.Context(), []stream.Event{{Type: stream.TypeStart, Data: []byte("{}")}, {Data: []byte(`{"choices":[]}`)}}); err != nil {
		t.Fatal(err)
	}
	end := (&stream.Error{Message: "interrupted", Code: stream.CodeInterrupted, Retryable: true}).Event(stream.Summary{})
	end.Recovery = 1
	if err := h.store.Seal(t.Context(), id, end); err != nil {
		t.Fatal(err)
	}
	frames, err := readFrames(h.call("GET", "/v1/streams/"+id+"/events", "").Body)
	if err != nil || len(frames) != 3 || frames[2].ID != id+".3.r1" {
		t.Fatalf("got %v, %v", frames, err)
	}
	for cursor, want := range map[string]int{id + ".3.r1": 204, "3": 204, id + ".3": 200} {
		resp := h.call("GET", "/v1/streams/"+id+"/events", "", "Last-Event-ID", cursor)
		if resp.StatusCode != want {
			t.Errorf("%s: status %d, want %d", cursor, resp.StatusCode, want)
		}
		if want == 200 {
			if frames, _ := readFrames(resp.Body); len(frames) != 4 || frames[0].Type != "reset" {
				t.Errorf("%s: %v", cursor, frames)
			}
		}
	}
}
