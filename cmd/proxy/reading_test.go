package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// try sends a request; headers come in pairs.
func try(t *testing.T, method, url, body string, headers ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return http.DefaultClient.Do(req)
}

// call is try where an answer must come.
func call(t *testing.T, method, url, body string, headers ...string) *http.Response {
	t.Helper()
	resp, err := try(t, method, url, body, headers...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// reading is a client that reads a body as it comes.
type reading struct {
	t      *testing.T
	name   string
	status int
	stream string
	over   chan struct{} // closed when the body has ended

	mu    sync.Mutex
	seen  []byte    // guarded by mu
	err   error     // guarded by mu; nil for a clean end; meaningful once over
	ended time.Time // guarded by mu
}

// read sends a request and reads its answer until that ends.
func read(t *testing.T, name, method, url, body string, headers ...string) *reading {
	t.Helper()
	resp := call(t, method, url, body, append(headers, "Accept", "text/event-stream")...)
	r := &reading{t: t, name: name, status: resp.StatusCode, stream: resp.Header.Get("Weir-Stream-Id"), over: make(chan struct{})}
	go func() {
		defer close(r.over)
		buf := make([]byte, 32<<10)
		for {
			n, err := resp.Body.Read(buf)
			if r.took(buf[:n], err) {
				return
			}
		}
	}()
	return r
}

func (r *reading) took(part []byte, err error) (over bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, part...)
	if err == nil {
		return false
	}
	if r.ended = time.Now(); err != io.EOF {
		r.err = err
	}
	return true
}

// aside is what a connection adds to the log: when to come back, and heartbeats.
var aside = regexp.MustCompile(`(?m)^(retry: [0-9]+\n|: ping\n\n)`)

// events returns what was seen of the log: whole events only.
func (r *reading) events() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return wholeEvents(r.seen)
}

func wholeEvents(body []byte) []byte {
	body = aside.ReplaceAll(body, nil)
	return body[:bytes.LastIndex(append([]byte("\n\n"), body...), []byte("\n\n"))]
}

// pings returns how many heartbeats came.
func (r *reading) pings() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Count(r.seen, []byte(": ping\n\n"))
}

// await waits until so many events were seen.
func (r *reading) await(events int) {
	r.t.Helper()
	eventually(r.t, wait, fmt.Sprintf("%s has seen %d events", r.name, events), func() bool {
		return len(eventID.FindAll(r.events(), -1)) >= events
	})
}

// end waits for the body's end, and says when and how it came.
func (r *reading) end(within time.Duration) (time.Time, error) {
	r.t.Helper()
	select {
	case <-r.over:
	case <-time.After(within):
		r.t.Fatalf("%s: the body has not ended within %s:\n%s", r.name, within, tailOf(r.events()))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended, r.err
}

// tailOf is as much of a log as a failure should show.
func tailOf(log []byte) []byte { return log[max(0, len(log)-600):] }

// behind returns the part of a log that follows an event.
func behind(t *testing.T, log []byte, id string) []byte {
	t.Helper()
	_, rest, found := bytes.Cut(log, []byte("id: "+id+"\n\n"))
	if !found {
		t.Fatalf("the log has no event %s", id)
	}
	return rest
}

// oneEnd checks that a log has one terminal event, its last one.
func oneEnd(t *testing.T, log []byte, says ...string) {
	t.Helper()
	ends := terminalFrame.FindAllIndex(log, -1)
	if len(ends) != 1 {
		t.Errorf("%d terminal events:\n%s", len(ends), tailOf(log))
		return
	}
	last := log[ends[0][0]:]
	if bytes.Count(last, []byte("\n\n")) != 1 {
		t.Errorf("something follows the end:\n%s", last)
	}
	for _, words := range says {
		if !bytes.Contains(last, []byte(words)) {
			t.Errorf("the end does not say %q:\n%s", words, last)
		}
	}
}

// same checks that a reader came to a clean end, having seen what the log says.
func (r *reading) same(log []byte, within time.Duration) {
	r.t.Helper()
	if _, err := r.end(within); err != nil {
		r.t.Errorf("%s: the body ended with %v", r.name, err)
	}
	if seen := r.events(); !bytes.Equal(seen, log) {
		r.t.Errorf("%s saw %d bytes, which are not the log's %d:\n%s\nthe log's:\n%s", r.name, len(seen), len(log), tailOf(seen), tailOf(log))
	}
}
