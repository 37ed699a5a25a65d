package httpapi

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"weir/internal/upstreamtest"
)

// cutWire is a stream as real upstreams shape it: comments, CRLF in places,
// multi-byte text, usage after the finish, an end marker.
func cutWire() (wire string, finished int) {
	head := ": OPENROUTER PROCESSING\n\n" + upstreamtest.Chunk("Grüß ") + upstreamtest.Chunk("dich \U0001F600") +
		strings.ReplaceAll(upstreamtest.Chunk("\r\n"), "\n\n", "\r\n\r\n")
	finish := upstreamtest.Finish("stop")
	// Whole once its JSON is: a last event whose blank line is missing counts
	// when the upstream ends the body itself.
	return head + finish + upstreamtest.Usage + upstreamtest.Done, len(head) + len(finish)
}

// An upstream cut after every byte, in each way a connection ends: exactly one
// error before the finish reason is there, exactly one good end after it, and
// [DONE] never without one.
func TestUpstreamCutAfterEveryByte(t *testing.T) {
	wire, finished := cutWire()
	kinds := map[string]upstreamtest.CutKind{
		"closed": upstreamtest.CutClose, "reset": upstreamtest.CutReset, "ended cleanly": upstreamtest.CutClean,
	}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var workers sync.WaitGroup
			cuts := make(chan int)
			for range 4 {
				h := newHarness(t)
				workers.Go(func() {
					for cut := range cuts {
						h.upstream.Answer(upstreamtest.Cut(wire[:cut], kind))
						checkCut(t, h, cut, finished, kind)
					}
				})
			}
			for cut := range len(wire) + 1 {
				cuts <- cut
			}
			close(cuts)
			workers.Wait()
		})
	}
}

func checkCut(t *testing.T, h *harness, cut, finished int, kind upstreamtest.CutKind) {
	resp, err := h.try(t.Context(), "POST", "/v1/chat/completions", chatBody)
	if err != nil {
		t.Errorf("cut at %d: %v", cut, err)
		return
	}
	defer resp.Body.Close()
	id := resp.Header.Get("Weir-Stream-Id")
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("cut at %d: our own body was cut: %v", cut, err)
		return
	}
	done, failed := strings.Count(string(body), "data: [DONE]"), strings.Count(string(body), `{"error":{`)
	good := cut >= finished
	switch {
	case kind == upstreamtest.CutReset && cut > 0 && failed == 1 && done == 0:
		// A reset may overtake what was sent before it.
	case kind == upstreamtest.CutClean && cut >= finished-2 && done == 1 && failed == 0:
		// The finish chunk was whole but for its blank line.
	case good && (done != 1 || failed != 0), !good && (done != 0 || failed != 1):
		t.Errorf("cut at %d of %d: %d [DONE], %d errors: %q", cut, finished, done, failed, body)
	}
	if done == 0 && resp.StatusCode == http.StatusOK && strings.Contains(string(body), "[DONE]") {
		t.Errorf("cut at %d: a fake end", cut)
	}
	checkNativeCut(t, h, id, cut, done)
}

// checkNativeCut reads the same log by the native API.
func checkNativeCut(t *testing.T, h *harness, id string, cut, done int) {
	resp, err := h.try(t.Context(), "GET", "/v1/streams/"+id+"/events", "")
	if err != nil {
		t.Errorf("cut at %d: %v", cut, err)
		return
	}
	defer resp.Body.Close()
	frames, err := readFrames(resp.Body)
	if err != nil {
		t.Errorf("cut at %d: %v", cut, err)
		return
	}
	terminals := 0
	for i, f := range frames {
		if f.Type == "done" || f.Type == "error" {
			terminals++
			if i != len(frames)-1 {
				t.Errorf("cut at %d: something follows the end: %v", cut, frames[i:])
			}
		}
		if want := fmt.Sprintf("%s.%d", id, i+1); f.ID != want {
			t.Errorf("cut at %d: id %q, want %q", cut, f.ID, want)
		}
	}
	last := frames[len(frames)-1].Type
	if terminals != 1 || (last == "done") != (done == 1) {
		t.Errorf("cut at %d: %d terminal events, the last frame is %q, %d [DONE]", cut, terminals, last, done)
	}
	if strings.Contains(assembled(t, frames), "�") {
		t.Errorf("cut at %d: half a rune was passed on", cut)
	}
}
