package segment_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"weir/internal/stream"
	"weir/internal/stream/segment"
	"weir/internal/stream/storetest"
)

// original is what a directory held before it was damaged.
type original struct {
	dir     string
	events  map[string][]stream.Event
	running map[string]bool
	deleted []string
	files   []string // the segments, oldest first
}

const damageSegment = 12 << 10

// newOriginal leaves a directory as a crash does: streams that ended, one way
// or another, some deleted, some running, mixed over several segments.
func newOriginal(t *testing.T) *original {
	t.Helper()
	o := &original{dir: t.TempDir(), events: map[string][]stream.Event{}, running: map[string]bool{}}
	s, err := segment.Open(segment.Options{Dir: o.dir, SegmentSize: damageSegment})
	if err != nil {
		t.Fatal(err)
	}
	type open struct {
		id string
		w  stream.Writer
	}
	var streams []open
	for i := range 30 {
		id := stream.NewID()
		w, err := s.Create(t.Context(), stream.Meta{ID: id, Owner: "ann", IdempotencyKey: fmt.Sprint("key ", i)})
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, open{id, w})
	}
	for n := range 12 {
		for i, st := range streams {
			if i%8 == n && i >= 8 { // ends early, somewhere in the middle of the others
				continue
			}
			data := strings.Repeat(fmt.Sprintf("%s.%d ", st.id, n), 1+i%5)
			if err := st.w.Append(t.Context(), []stream.Event{{Data: []byte(data)}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, st := range streams {
		if o.running[st.id] = i%4 == 0; !o.running[st.id] {
			if err := s.Seal(t.Context(), st.id, stream.DoneEvent(stream.Summary{FinishReason: "stop"})); err != nil {
				t.Fatal(err)
			}
			if err := st.w.Book(t.Context(), stream.Summary{FinishReason: "stop"}); err != nil {
				t.Fatal(err)
			}
		}
		o.events[st.id] = storetest.CheckLog(t, s, st.id)
		if i%8 == 5 {
			if err := s.Delete(t.Context(), st.id); err != nil {
				t.Fatal(err)
			}
			o.deleted = append(o.deleted, st.id)
			delete(o.events, st.id)
		}
	}
	s.Crash()
	if o.files, err = filepath.Glob(filepath.Join(o.dir, "*.seg")); err != nil || len(o.files) < 4 {
		t.Fatalf("%d segments, %v: too few to test with", len(o.files), err)
	}
	return o
}

// damaged makes a directory like the original, with one file's bytes changed.
func (o *original) damaged(t *testing.T, file string, change func(data []byte) []byte) (dir string) {
	t.Helper()
	dir = scratch(t)
	for _, name := range o.files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if name == file {
			data = change(data)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// scratch is a directory in memory if there is one: thousands of small
// directories take a disk most of the test's time.
func scratch(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "weir-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// check opens a damaged directory and compares. It returns which of the
// finished streams did not come through whole.
func (o *original) check(t *testing.T, dir string) (hit []string) {
	t.Helper()
	s, err := segment.Open(segment.Options{Dir: dir, SegmentSize: damageSegment})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer os.RemoveAll(dir)
	defer s.Crash() // it syncs nothing, which would take most of the test's time
	named := fmt.Sprint(s.Recovery())
	for id, want := range o.events {
		if _, err := s.Status(t.Context(), id); errors.Is(err, stream.ErrNotFound) {
			hit = append(hit, id)
			if !strings.Contains(named, "stream began is lost") && s.Recovery().Torn == 0 {
				t.Errorf("stream %s is gone without a word: %s", id, named)
			}
			continue
		}
		events := storetest.CheckLog(t, s, id)
		if !o.running[id] && slices.EqualFunc(events, want, sameEvent) {
			continue
		}
		if !o.running[id] {
			hit = append(hit, id)
		}
		if !strings.Contains(named, id) {
			t.Errorf("stream %s is damaged without a word: %s", id, named)
		}
		last := events[len(events)-1]
		if last.Type != stream.TypeError || last.Recovery == 0 ||
			len(events)-1 > len(want) || !slices.EqualFunc(events[:len(events)-1], want[:len(events)-1], sameEvent) {
			t.Errorf("stream %s is no prefix with a recovery's end: %d events of %d, the last %q %s",
				id, len(events), len(want), last.Type, last.Data)
		}
	}
	for _, id := range o.deleted {
		_, err := s.Status(t.Context(), id)
		if err == nil {
			t.Errorf("deleted stream %s is back", id)
		}
	}
	return hit
}

func sameEvent(a, b stream.Event) bool {
	return a.Seq == b.Seq && a.Type == b.Type && string(a.Data) == string(b.Data) && a.Recovery == b.Recovery
}

// What a crash in mid-write leaves: the newest segment, cut at any byte.
func TestSegmentCutAtEveryByte(t *testing.T) {
	o := newOriginal(t)
	newest := o.files[len(o.files)-1]
	info, err := os.Stat(newest)
	if err != nil {
		t.Fatal(err)
	}
	const last = 4 << 10
	if info.Size() < last {
		t.Fatalf("the newest segment has %d bytes", info.Size())
	}
	inParallel(t, last+1, func(t *testing.T, cut int) {
		dir := o.damaged(t, newest, func(data []byte) []byte { return data[:len(data)-cut] })
		if hit := o.check(t, dir); len(hit) > 0 && cut == 0 {
			t.Errorf("nothing was cut, and yet: %v", hit)
		}
	})
}

func TestBitFlips(t *testing.T) {
	o := newOriginal(t)
	var hits atomic.Int32
	inParallel(t, 1000, func(t *testing.T, n int) {
		random := rand.New(rand.NewPCG(1, uint64(n)))
		where := ""
		dir := o.damaged(t, o.files[random.IntN(len(o.files))], func(data []byte) []byte {
			at, bit := random.IntN(len(data)), random.IntN(8)
			data[at] ^= 1 << bit
			where = fmt.Sprintf("flip %d: byte %d, bit %d", n, at, bit)
			return data
		})
		hit := o.check(t, dir)
		if len(hit) > 1 {
			t.Errorf("one bit hit %d streams: %v", len(hit), hit)
		}
		hits.Add(int32(len(hit)))
		if t.Failed() {
			t.Log(where)
		}
	})
	if n := hits.Load(); n < 300 {
		t.Errorf("only %d flips hit a stream that had ended: what was tested?", n)
	}
}

// Half a segment overwritten, and one that is missing.
func TestGreatDamage(t *testing.T) {
	o := newOriginal(t)
	for i, file := range o.files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			dir := o.damaged(t, file, func(data []byte) []byte {
				clear(data[len(data)/4 : len(data)*3/4])
				return data
			})
			if hit := o.check(t, dir); len(hit) == 0 && i < len(o.files)-1 {
				t.Error("no stream was hit")
			}
		})
	}
}

// inParallel runs n trials on all processors.
func inParallel(t *testing.T, n int, trial func(t *testing.T, n int)) {
	t.Run("trials", func(t *testing.T) {
		for shard := range 4 {
			t.Run(fmt.Sprint(shard), func(t *testing.T) {
				t.Parallel()
				for i := shard; i < n && !t.Failed(); i += 4 {
					trial(t, i)
				}
			})
		}
	})
}
