package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
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
	f.t.Cleanup(r.checkLog)
	f.replicas[i] = r
}

// checkLog ends the process, and looks for what no answer shows: a panic that
// was recovered, a data race, an error of the proxy's own.
func (r *replica) checkLog() {
	_ = r.cmd.Process.Kill() // unless it has ended
	<-r.logged
	for _, words := range []string{"panic", "DATA RACE", "level=ERROR"} {
		if strings.Contains(r.rest.String(), words) {
			r.t.Errorf("a replica's log says %q:\n%s", words, r.rest.String())
		}
	}
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
