package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"weir/internal/upstreamtest"
)

// crashRounds is how often a process is killed; each restart is checked.
const crashRounds = 100

// What a client has seen is in the log after kill -9, at whatever moment.
func TestKilledProcessLosesNothing(t *testing.T) {
	for _, sync := range []string{"os", "fsync"} {
		t.Run("kill -9, WEIR_DISK_SYNC="+sync, func(t *testing.T) {
			rounds := crashRounds
			if sync == "fsync" || testing.Short() {
				rounds = crashRounds / 10
			}
			upstream := upstreamtest.New(t)
			upstream.Answer(paced)
			environ := []string{
				"OPENAI_BASE_URL=" + upstream.URL, "WEIR_DATA_DIR=" + t.TempDir(), "WEIR_DISK_SYNC=" + sync,
			}
			tally := map[string]int{}
			p := startProcess(t, environ...)
			for round := range rounds {
				seen := p.killUnderLoad(50, time.Duration(rand.Int64N(int64(300*time.Millisecond))))
				p = startProcess(t, environ...)
				for _, s := range seen {
					tally[s.check(t, p.url)]++
				}
				if t.Failed() {
					t.Fatalf("in round %d", round)
				}
			}
			t.Logf("kill -9 ×%d under 50 streams: %v", rounds, tally)
			if tally["finished"] < rounds || tally["interrupted"] < rounds {
				t.Errorf("the moments were not well chosen: %v", tally)
			}
		})
	}
}

// paced answers a token every few milliseconds, some ten or some hundred of them.
func paced(w http.ResponseWriter, r *http.Request) {
	upstreamtest.Begin(w)
	ticker := time.NewTicker(time.Duration(2+rand.IntN(10)) * time.Millisecond)
	defer ticker.Stop()
	for n := range 1 + rand.IntN(60) {
		select {
		case <-ticker.C:
			upstreamtest.Send(w, upstreamtest.Chunk(fmt.Sprintf("token %d ", n)))
		case <-r.Context().Done():
			return
		}
	}
	upstreamtest.Send(w, upstreamtest.Finish("stop")+upstreamtest.Usage+upstreamtest.Done)
}

// sight is what a client saw of a stream until its server was killed.
type sight struct {
	id    string
	bytes []byte
}

// killUnderLoad starts streams, each with a reader, and kills the process after
// a while. It returns what the readers saw.
func (p *process) killUnderLoad(streams int, after time.Duration) []sight {
	var mu sync.Mutex
	var seen []sight
	var all sync.WaitGroup
	for range streams {
		all.Go(func() {
			s, err := p.watchNew()
			if err != nil {
				return // killed before the answer's head
			}
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, s)
		})
	}
	<-time.After(after)
	p.cmd.Process.Kill()
	p.cmd.Wait()
	all.Wait()
	return seen
}

// watchNew starts a stream and reads it until it ends or breaks off.
func (p *process) watchNew() (sight, error) {
	req, err := http.NewRequest(http.MethodPost, p.url+"/v1/streams", strings.NewReader(promptBody))
	if err != nil {
		return sight{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return sight{}, err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body) // an error is the kill
	return sight{resp.Header.Get("Weir-Stream-Id"), body}, nil
}

// whole is the part of what was seen that is whole frames.
func (s sight) whole() []byte { return s.bytes[:bytes.LastIndex(s.bytes, []byte("\n\n"))+2] }

var (
	terminalFrame = regexp.MustCompile(`(?m)^event: (done|error)$`)
	recoveryID    = regexp.MustCompile(`(?m)^id: \S+\.[0-9]+\.r1$`)
	eventID       = regexp.MustCompile(`(?m)^id: (\S+)$`)
)

// check compares what was seen with the log, and says how the stream ended.
func (s sight) check(t *testing.T, url string) string {
	t.Helper()
	if !bytes.Contains(s.bytes, []byte("\n\n")) {
		return "nothing seen"
	}
	log, _ := get(t, url+"/v1/streams/"+s.id+"/events", "")
	if !bytes.HasPrefix(log, s.whole()) {
		t.Errorf("what a client saw is no prefix of the log\nseen: %s\nlog:  %s", s.whole(), log)
	}
	if n := len(terminalFrame.FindAll(log, -1)); n != 1 {
		t.Errorf("%d terminal events:\n%s", n, log)
	}
	s.checkResume(t, url, log)
	if terminalFrame.Match(s.bytes) {
		if !bytes.Equal(log, s.bytes) {
			t.Errorf("a finished stream changed\nseen: %s\nlog:  %s", s.bytes, log)
		}
		return "finished"
	}
	if recoveryID.Match(log) {
		if !bytes.Contains(log, []byte(`"code":"interrupted"`)) || !bytes.Contains(log, []byte(`"retryable":true`)) {
			t.Errorf("an interrupted stream's end: %s", log)
		}
		return "interrupted"
	}
	return "finished, unseen"
}

// checkResume comes back with the last id, as EventSource does.
func (s sight) checkResume(t *testing.T, url string, log []byte) {
	t.Helper()
	ids := eventID.FindAllSubmatch(s.whole(), -1)
	if len(ids) == 0 {
		return
	}
	rest, status := get(t, url+"/v1/streams/"+s.id+"/events", string(ids[len(ids)-1][1]))
	if terminalFrame.Match(s.bytes) {
		if status != http.StatusNoContent {
			t.Errorf("resumed at the end: status %d", status)
		}
		return
	}
	_, rest, _ = bytes.Cut(rest, []byte("\n")) // its own retry line
	if want := log[len(s.whole()):]; !bytes.Equal(rest, want) {
		t.Errorf("resumed: %s\nwant: %s", rest, want)
	}
}

func get(t *testing.T, url, lastEventID string) ([]byte, int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if lastEventID != "" {
		req.Header.Set("Last-Event-ID", lastEventID)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("read %s: %v", url, err)
	}
	return body, resp.StatusCode
}
