package segment_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"weir/internal/stream"
	"weir/internal/stream/segment"
	"weir/internal/stream/storetest"
)

// within fails the test when do does not return.
func within(t *testing.T, do func()) {
	t.Helper()
	over := make(chan struct{})
	go func() { defer close(over); do() }()
	select {
	case <-over:
	case <-time.After(time.Minute):
		t.Fatal("it hangs")
	}
}

// endedStreams makes short streams that end, as far as there is room, and
// returns how many.
func endedStreams(t *testing.T, s *segment.Store, n int) (made int) {
	for range n {
		id := stream.NewID()
		if _, err := s.Create(t.Context(), stream.Meta{ID: id, Owner: "ann", IdempotencyKey: id}); err != nil {
			tolerate(t, "Create", err)
			return made
		}
		seal(t, s, id)
		made++
	}
	return made
}

// An eviction that failed half-way leaves a tombstone of a stream that lives on,
// in a segment that others need.
func TestTwoTombstonesOfAStream(t *testing.T) {
	o := segment.Options{Dir: t.TempDir(), SegmentSize: 32 * kib}
	s := open(t, o)
	neighbour, _ := fill(t, s, "", 2)
	seal(t, s, neighbour)
	id, _ := fill(t, s, "", 2)
	seal(t, s, id)
	if err := s.EvictHalf(id); err != nil {
		t.Fatal(err)
	}
	other, _ := fill(t, s, "", 60)
	seal(t, s, other)
	if err := s.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	s.Crash()
	s = open(t, o)
	storetest.CheckLog(t, s, neighbour)
	if err := s.Audit(); err != nil {
		t.Error(err)
	}
}

// A stream is evicted between DELETE's look and its deed.
func TestDeleteOfAnEvictedStream(t *testing.T) {
	s := open(t, segment.Options{Dir: t.TempDir(), MaxBytes: 64 * kib, SegmentSize: 16 * kib})
	id, _ := fill(t, s, "", 2)
	seal(t, s, id)
	if err := s.DeleteWhileEvicted(id); !errors.Is(err, stream.ErrGone) {
		t.Errorf("Delete: %v", err)
	}
	within(t, func() { endedStreams(t, s, 500) })
	if err := s.Audit(); err != nil {
		t.Error(err)
	}
}

// The tombstones of many small streams are more than the directory may take.
func TestTombstonesOverTheCap(t *testing.T) {
	s := open(t, segment.Options{Dir: t.TempDir(), MaxBytes: 64 * kib, SegmentSize: 16 * kib})
	within(t, func() {
		if made := endedStreams(t, s, 3000); made < 3000 {
			t.Errorf("no room after %d streams that have all ended", made)
		}
	})
	if err := s.Audit(); err != nil {
		t.Error(err)
	}
}

// What can't be had by evicting is not tried to be had so.
func TestNothingIsEvictedInVain(t *testing.T) {
	s := open(t, segment.Options{Dir: t.TempDir(), MaxBytes: 128 * kib, SegmentSize: 16 * kib})
	ended, _ := fill(t, s, "", 1)
	seal(t, s, ended)
	fill(t, s, "", 150)
	if _, err := s.Create(t.Context(), stream.Meta{ID: stream.NewID()}); !errors.Is(err, stream.ErrFull) {
		t.Errorf("Create: %v", err)
	}
	storetest.CheckLog(t, s, ended)
}

// A stream that speaks seldom keeps the segments it has records in, and no others.
func TestSlowStreamKeepsLittle(t *testing.T) {
	o := segment.Options{Dir: t.TempDir(), MaxBytes: 256 * kib, SegmentSize: 16 * kib}
	s := open(t, o)
	id, slow := fill(t, s, "", 1)
	for n := range 200 {
		other, _ := fill(t, s, "", 10)
		seal(t, s, other)
		if n%50 == 49 {
			if err := slow.Append(t.Context(), kibibyte()); err != nil {
				t.Fatal(err)
			}
		}
	}
	seal(t, s, id)
	s.Chill()
	if events := storetest.CheckLog(t, s, id); len(events) != 6 {
		t.Errorf("%d events", len(events))
	}
	if err := s.Delete(t.Context(), id); err != nil {
		t.Errorf("Delete over the holes: %v", err)
	}
}

// The process is killed while the disk is full: what was shown is there, what ran
// gets its end as soon as there is room, and what has expired makes some.
func TestCrashOnAFullDisk(t *testing.T) {
	now := time.Now()
	disk := segment.NewDisk(1 << 20)
	o := disk.Under(segment.Options{
		Dir: t.TempDir(), SegmentSize: 256 * kib, Retention: time.Hour, Now: func() time.Time { return now },
	})
	s := open(t, o)
	var ended, running []string
	for range 20 {
		id, _ := fill(t, s, "", 10)
		seal(t, s, id)
		ended = append(ended, id)
	}
	var err error
	for err == nil {
		id := stream.NewID()
		var w stream.Writer
		if w, err = s.Create(t.Context(), stream.Meta{ID: id, Owner: "ann"}); err == nil {
			running = append(running, id)
			for range 10 {
				if err = w.Append(t.Context(), kibibyte()); err != nil {
					break
				}
			}
		}
	}
	if !errors.Is(err, stream.ErrFull) || len(running) < 20 {
		t.Fatalf("%d streams run, %v", len(running), err)
	}
	disk.TakeAll(s) // not even the ends have room
	s.Crash()
	s = open(t, o)
	for _, id := range ended {
		storetest.CheckLog(t, s, id)
	}
	if _, err := s.Create(t.Context(), stream.Meta{ID: stream.NewID()}); !errors.Is(err, stream.ErrFull) {
		t.Errorf("Create: %v", err)
	}
	disk.Free(10 << 20)
	for _, id := range running {
		r, err := s.Open(t.Context(), id, 0)
		if err != nil {
			t.Fatal(err)
		}
		events, err := storetest.Follow(t.Context(), r)
		if err != nil || events[len(events)-1].Recovery == 0 {
			t.Errorf("an interrupted stream: %d events, %v", len(events), err)
		}
		r.Close()
	}
	if err := s.Audit(); err != nil {
		t.Error(err)
	}

	disk.TakeAll(s)
	s.Crash()
	now = now.Add(2 * time.Hour)
	s = open(t, o)
	fill(t, s, "", 5)
}

// Opening takes the memory of a segment, not of the directory.
func TestOpeningTakesLittleMemory(t *testing.T) {
	o := segment.Options{Dir: t.TempDir(), SegmentSize: 1 << 20}
	s := open(t, o)
	for range 60 {
		id, w := fill(t, s, "", 0)
		if err := w.Append(t.Context(), []stream.Event{{Data: make([]byte, 900*kib)}}); err != nil {
			t.Fatal(err)
		}
		seal(t, s, id)
	}
	s.Chill()
	s.Crash()
	var kept uint64
	open(t, segment.Watched(o, func() {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		kept = max(kept, stats.HeapAlloc)
	}))
	if kept > 30<<20 {
		t.Errorf("%d MiB are held while 60 MiB are read", kept>>20)
	}
}

// A segment file is lost: only the streams in it are, and they can be deleted.
func TestLostSegment(t *testing.T) {
	o := segment.Options{Dir: t.TempDir(), SegmentSize: 16 * kib}
	s := open(t, o)
	whole, _ := fill(t, s, "", 2)
	seal(t, s, whole)
	id, w := fill(t, s, "", 40)
	if err := w.Append(t.Context(), []stream.Event{{Data: []byte("the secret")}}); err != nil {
		t.Fatal(err)
	}
	seal(t, s, id)
	s.Crash()
	if err := os.Remove(filepath.Join(o.Dir, "00000002.seg")); err != nil {
		t.Fatal(err)
	}
	s = open(t, o)
	storetest.CheckLog(t, s, whole)
	if events := storetest.CheckLog(t, s, id); !strings.Contains(string(events[len(events)-1].Data), stream.CodeLogDamaged) {
		t.Errorf("it ends in %s", events[len(events)-1].Data)
	}
	if err := s.Delete(t.Context(), id); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if text := grep(t, o.Dir, "secret"); text != "" {
		t.Errorf("still on disk: %s", text)
	}
	s.Crash()
	open(t, o)
}

// What another version wrote, or nobody of ours, is left alone.
func TestForeignSegment(t *testing.T) {
	o := segment.Options{Dir: t.TempDir()}
	s := open(t, o)
	id, _ := fill(t, s, "", 4)
	seal(t, s, id)
	s.Crash()
	path := filepath.Join(o.Dir, "00000002.seg")
	foreign := append([]byte("weir log 2 000000000002\n"), bytes.Repeat([]byte("precious "), 1000)...)
	if err := os.WriteFile(path, foreign, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, o)
	storetest.CheckLog(t, s, id)
	again, _ := fill(t, s, "", 4)
	seal(t, s, again)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || !bytes.Equal(data, foreign) {
		t.Errorf("%v: %d bytes of %d are left", err, len(data), len(foreign))
	}
	if len(s.Recovery().Damages) == 0 {
		t.Error("without a word")
	}
}

// A size that reached the disk, and no data: a loss of power right after the
// first write.
func TestBlankSegment(t *testing.T) {
	o := segment.Options{Dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(o.Dir, "00000001.seg"), make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, o)
	id, _ := fill(t, s, "", 1)
	s.Crash()
	s = open(t, o)
	storetest.CheckLog(t, s, id)
	if r := s.Recovery(); len(r.Damages) > 0 {
		t.Errorf("%+v", r)
	}
}

// An expired stream's end goes with its segment, while its beginning is kept for
// the sake of another: it does not come back as one that was interrupted.
func TestExpiredStaysGone(t *testing.T) {
	now := time.Now()
	o := segment.Options{
		Dir: t.TempDir(), SegmentSize: 16 * kib, Retention: time.Minute, Now: func() time.Time { return now },
	}
	s := open(t, o)
	fill(t, s, "", 1) // says no more, and runs on
	id, _ := fill(t, s, "key", 40)
	seal(t, s, id)
	next, _ := fill(t, s, "", 20)
	seal(t, s, next)
	now = now.Add(2 * time.Minute)
	fill(t, s, "", 1)
	wantSize(t, o.Dir, 2*16*kib)
	s.Crash()
	s = open(t, o)
	if _, err := s.Status(t.Context(), id); !errors.Is(err, stream.ErrGone) {
		t.Errorf("Status: %v", err)
	}
	fill(t, s, "key", 0)
}

// What stands in a record whose header is damaged is deleted, too.
func TestDeleteErasesWhatIsDamaged(t *testing.T) {
	for at, what := range map[int]string{-10: "header", 3: "payload"} {
		t.Run(what, func(t *testing.T) {
			o := segment.Options{Dir: t.TempDir()}
			s := open(t, o)
			id, w := fill(t, s, "", 0)
			for n := range 5 {
				if err := w.Append(t.Context(), []stream.Event{{Data: fmt.Appendf(nil, "the secret %d", n)}}); err != nil {
					t.Fatal(err)
				}
			}
			seal(t, s, id)
			if err := w.Book(t.Context(), stream.Summary{FinishReason: "stop"}); err != nil {
				t.Fatal(err)
			}
			s.Crash()
			path := filepath.Join(o.Dir, "00000001.seg")
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			data[bytes.Index(data, []byte("the secret 2"))+at] ^= 4
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			s = open(t, o)
			if status, err := s.Status(t.Context(), id); err != nil || status.Booked.FinishReason != "" {
				t.Errorf("%v: a damaged stream has the account of the whole one: %+v", err, status.Booked)
			}
			if err := s.Delete(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			if text := grep(t, o.Dir, "secret"); text != "" {
				t.Errorf("still on disk: %s", text)
			}
		})
	}
}

// Readers of one stream share what they read, however little the store may keep.
func TestReadersShareMemory(t *testing.T) {
	s := open(t, segment.Options{Dir: t.TempDir(), MaxMemory: 1 << 20})
	id, w := fill(t, s, "", 0)
	for range 8 {
		if err := w.Append(t.Context(), []stream.Event{{Data: make([]byte, 1<<20)}}); err != nil {
			t.Fatal(err)
		}
	}
	seal(t, s, id)
	var readers []stream.Reader
	for range 20 {
		r, err := s.Open(t.Context(), id, 6)
		if err != nil {
			t.Fatal(err)
		}
		readers = append(readers, r)
	}
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	if stats.HeapAlloc > 40<<20 {
		t.Errorf("20 readers of 8 MiB hold %d MiB", stats.HeapAlloc>>20)
	}
	for _, r := range readers {
		if events, err := storetest.Follow(t.Context(), r); err != nil || len(events) != 3 {
			t.Errorf("%d events, %v", len(events), err)
		}
		r.Close()
	}
}

// Two creates with one key, while the first one's record is on its way.
func TestCreatesShareSyncs(t *testing.T) {
	disk := segment.NewDisk(1 << 30)
	s := open(t, disk.Under(segment.Options{Dir: t.TempDir(), Sync: true}))
	fill(t, s, "", 0)
	resume := disk.HoldSyncs()
	results := make(chan error, 30)
	for n := range cap(results) {
		go func() {
			_, err := s.Create(t.Context(), stream.Meta{ID: stream.NewID(), Owner: "ann", IdempotencyKey: fmt.Sprint(n % 10)})
			results <- err
		}()
	}
	// Nobody who looks for something else waits for them.
	if _, err := s.Status(t.Context(), stream.NewID()); !errors.Is(err, stream.ErrNotFound) {
		t.Error(err)
	}
	for s.Pending() < 10 {
		runtime.Gosched()
	}
	syncs := resume()
	won, lost := 0, 0
	for range cap(results) {
		var claimed *stream.ClaimedError
		switch err := <-results; {
		case err == nil:
			won++
		case errors.As(err, &claimed):
			lost++
		default:
			t.Error(err)
		}
	}
	if won != 10 || lost != 20 {
		t.Errorf("%d creates won the 10 keys, %d did not", won, lost)
	}
	if n := syncs(); n > 5 {
		t.Errorf("30 creates at once took %d syncs", n)
	}
}

func TestCloseTwice(t *testing.T) {
	s, err := segment.Open(segment.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Create(t.Context(), stream.Meta{ID: stream.NewID()}); !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("Create in a closed store: %v", err)
	}
}
