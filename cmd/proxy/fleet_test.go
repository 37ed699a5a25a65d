package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"weir/internal/redistest"
	"weir/internal/upstreamtest"
)

// fleet is three replicas over one Redis, in front of one model API.
type fleet struct {
	t        *testing.T
	redis    *redistest.Server
	upstream *upstreamtest.Upstream
	environ  []string
	replicas [3]*replica
}

// Names of the replicas, as the tests tell their stories.
const (
	inA = iota
	inB
	inC
)

func newFleet(t *testing.T, environ ...string) *fleet {
	t.Helper()
	f := &fleet{t: t, redis: redistest.Start(t, redistest.Config{AOF: "everysec"}), upstream: upstreamtest.New(t)}
	f.environ = append([]string{"WEIR_REDIS_URL=" + f.redis.URL(), "OPENAI_BASE_URL=" + f.upstream.URL}, environ...)
	for i := range f.replicas {
		// A port of the kind that no client is given while the replica is away.
		f.start(i, fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(t)))
	}
	return f
}

// in is the fleet within a subtest.
func (f *fleet) in(t *testing.T) *fleet {
	inner := *f
	inner.t = t
	return &inner
}

// replica is a process whose log is read as it comes: a full pipe would stop it.
type replica struct {
	*process
	addr   string
	rest   bytes.Buffer  // of the log; to be read after logged
	logged chan struct{} // closed when the log has ended
}

func (f *fleet) start(i int, addr string) {
	f.t.Helper()
	r := &replica{
		process: startCommand(f.t, command(f.t, []string{"-addr", addr}, f.environ...)),
		addr:    addr, logged: make(chan struct{}),
	}
	go func() {
		defer close(r.logged)
		_, _ = io.Copy(&r.rest, r.logs) // it ends with the process
	}()
	f.replicas[i] = r
}

// restart starts a replica that has ended, where it was.
func (f *fleet) restart(i int) {
	f.t.Helper()
	f.start(i, f.replicas[i].addr)
}

func (f *fleet) url(i int) string { return f.replicas[i].url }

func (r *replica) signal(s syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatalf("%s to a replica: %v", s, err)
	}
}

// ended waits for the process's end and returns its exit code and how long
// that took.
func (r *replica) ended(within time.Duration) (code int, took time.Duration) {
	r.t.Helper()
	began := time.Now()
	select {
	case <-r.logged:
	case <-time.After(within):
		r.t.Fatalf("the replica has not ended within %s", within)
	}
	_ = r.cmd.Wait() // the exit code tells
	return r.cmd.ProcessState.ExitCode(), time.Since(began)
}

// kill ends the process as a power cut does.
func (r *replica) kill() {
	r.t.Helper()
	r.signal(syscall.SIGKILL)
	r.ended(wait)
}

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

// eventually waits until ok holds, for what no event tells.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(began) > within {
			t.Fatalf("not within %s: %s", within, what)
		}
		<-tick.C
	}
	return time.Since(began)
}

// awaitIdle waits until the upstream's calls are over.
func (f *fleet) awaitIdle(within time.Duration) (took time.Duration) {
	f.t.Helper()
	began, idle := time.Now(), make(chan struct{})
	go func() {
		f.upstream.AwaitIdle()
		close(idle)
	}()
	select {
	case <-idle:
	case <-time.After(within):
		f.t.Errorf("a call to the upstream is open %s later", within)
	}
	return time.Since(began)
}

// log returns a stream's log, as a replica replays it.
func (f *fleet) log(i int, id string) []byte {
	f.t.Helper()
	body, status := get(f.t, f.url(i)+"/v1/streams/"+id+"/events", "")
	if status != http.StatusOK {
		f.t.Errorf("replay: status %d: %s", status, body)
	}
	return wholeEvents(body)
}

// words answers a word every so often, count of them; for ever when 0. It
// leaves when the caller does.
func words(every time.Duration, count int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		upstreamtest.Begin(w)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for n := 0; n < count || count == 0; n++ {
			select {
			case <-ticker.C:
				upstreamtest.Send(w, upstreamtest.Chunk(fmt.Sprintf("word %d ", n)))
			case <-r.Context().Done():
				return
			}
		}
		upstreamtest.Send(w, upstreamtest.Finish("stop")+upstreamtest.Usage+upstreamtest.Done)
	}
}

// wordsText is the text of so many words.
func wordsText(count int) string {
	var b strings.Builder
	for n := range count {
		fmt.Fprintf(&b, "word %d ", n)
	}
	return b.String()
}
