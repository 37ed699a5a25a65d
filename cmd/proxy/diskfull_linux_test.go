package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"weir/internal/upstreamtest"
)

// smallDisk is a file system of its own, if this process may mount one.
func smallDisk(t *testing.T, size string) (dir string, ok bool) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Logf("no file system of its own to fill (%v): the store's own tests fill one of their making", err)
		return "", false
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir, true
}

// A real disk that is full: a running stream ends in an honest error, a new one
// gets 503, what was shown is there, and with room it goes on by itself.
func TestProcessOnAFullDisk(t *testing.T) {
	dir, ok := smallDisk(t, "24m")
	if !ok {
		return
	}
	upstream := upstreamtest.New(t)
	upstream.Answer(func(w http.ResponseWriter, r *http.Request) {
		upstreamtest.Begin(w)
		for r.Context().Err() == nil {
			upstreamtest.Send(w, upstreamtest.Chunk(strings.Repeat("many words ", 10_000)))
		}
	})
	p := startProcess(t, "OPENAI_BASE_URL="+upstream.URL, "WEIR_DATA_DIR="+filepath.Join(dir, "data"))
	seen, err := io.ReadAll(post(t, p.url+"/v1/streams", promptBody).Body)
	if err != nil || !bytes.Contains(seen, []byte(`"code":"store_full"`)) || len(terminalFrame.FindAll(seen, -1)) != 1 {
		t.Fatalf("a stream that fills the disk ended with %v: %s", err, seen[max(0, len(seen)-400):])
	}
	resp := post(t, p.url+"/v1/streams", promptBody)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a new stream on a full disk: status %d", resp.StatusCode)
	}
	id := eventID.FindSubmatch(seen)[1]
	id, _, _ = bytes.Cut(id, []byte("."))
	events := p.url + "/v1/streams/" + string(id) + "/events"
	if log, _ := get(t, events, ""); !bytes.Equal(log, seen) {
		t.Errorf("a replay of %d bytes, where %d were seen", len(log), len(seen))
	}

	// Room comes from outside, and from retention or DELETE just as well.
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	upstream.Answer(upstreamtest.SSE(upstreamtest.Answer("room again")))
	body, err := io.ReadAll(post(t, p.url+"/v1/streams", promptBody).Body)
	if err != nil || !bytes.Contains(body, []byte("event: done")) {
		t.Errorf("with room again: %v: %s", err, body)
	}

	// And full once more, with a crash on top.
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 64<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	p.cmd.Process.Kill()
	p.cmd.Wait()
	p = startProcess(t, "OPENAI_BASE_URL="+upstream.URL, "WEIR_DATA_DIR="+filepath.Join(dir, "data"))
	if log, _ := get(t, p.url+"/v1/streams/"+string(id)+"/events", ""); !bytes.Equal(log, seen) {
		t.Errorf("after a crash, a replay of %d bytes, where %d were seen", len(log), len(seen))
	}
}
