package segment_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"weir/internal/stream"
	"weir/internal/stream/segment"
	"weir/internal/stream/storetest"
)

const kib = 1 << 10

// fill makes a stream of n events of 1 KiB.
func fill(t testing.TB, s stream.Log, key string, n int) (id string, w stream.Writer) {
	t.Helper()
	id = stream.NewID()
	w, err := s.Create(t.Context(), stream.Meta{ID: id, Owner: "ann", IdempotencyKey: key})
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	for range n {
		if err := w.Append(t.Context(), kibibyte()); err != nil {
			t.Fatalf("Append: %v", err)
		}
	}
	return id, w
}

func kibibyte() []stream.Event { return []stream.Event{{Data: make([]byte, kib)}} }

func seal(t testing.TB, s stream.Log, id string) {
	t.Helper()
	if err := s.Seal(t.Context(), id, stream.DoneEvent(stream.Summary{})); err != nil {
		t.Fatalf("Seal: %v", err)
	}
}

// A full disk: running streams get an error and can be ended, nothing that was
// shown is lost, no stream is created, and with room everything goes on.
func TestDiskFull(t *testing.T) {
	disk := segment.NewDisk(300 * kib)
	o := segment.Options{Dir: t.TempDir(), SegmentSize: 256 * kib}
	s := open(t, disk.Under(o))
	id, w := fill(t, s, "", 100)
	other, otherWriter := fill(t, s, "", 1)
	var err error
	shown := 100
	for ; shown < 400 && err == nil; shown++ {
		err = w.Append(t.Context(), kibibyte())
	}
	shown-- // the one that failed
	if !errors.Is(err, stream.ErrFull) {
		t.Fatalf("Append on a full disk, after %d KiB: %v", shown, err)
	}
	if _, err := s.Create(t.Context(), stream.Meta{ID: stream.NewID()}); !errors.Is(err, stream.ErrFull) {
		t.Errorf("Create on a full disk: %v", err)
	}
	seal(t, s, id)
	if err := w.Book(t.Context(), stream.Summary{FinishReason: "stop"}); err != nil {
		t.Errorf("Book on a full disk: %v", err)
	}
	if events := storetest.CheckLog(t, s, id); len(events) != shown+1 {
		t.Errorf("%d events, want those %d that were shown, and the end", len(events), shown)
	}

	disk.Free(10 << 20)
	if err := otherWriter.Append(t.Context(), kibibyte()); err != nil {
		t.Errorf("Append with room again: %v", err)
	}
	again, _ := fill(t, s, "", 300)
	seal(t, s, again)
	seal(t, s, other)
	s.Chill()
	for _, id := range []string{id, other, again} {
		storetest.CheckLog(t, s, id)
	}
	if found, err := segment.Inspect(o.Dir, ""); err != nil || len(found.Damages) > 0 || found.Torn > 0 {
		t.Errorf("what failed left a trace: %v, %+v", err, found)
	}
}

// A disk that fails in mid-write leaves nothing that could come back as a
// record, and no stream is hurt by another's failure.
func TestDiskBroken(t *testing.T) {
	for _, fsync := range []bool{false, true} {
		t.Run(fmt.Sprint("fsync ", fsync), func(t *testing.T) {
			disk := segment.NewDisk(1 << 30)
			o := segment.Options{Dir: t.TempDir(), Sync: fsync}
			s := open(t, disk.Under(o))
			id, w := fill(t, s, "", 3)
			for range 5 {
				disk.Break(syscall.EIO)
				if err := w.Append(t.Context(), kibibyte()); !errors.Is(err, stream.ErrUnavailable) {
					t.Fatalf("Append on a broken disk: %v", err)
				}
				if err := s.Seal(t.Context(), id, stream.DoneEvent(stream.Summary{})); !errors.Is(err, stream.ErrUnavailable) {
					t.Fatalf("Seal on a broken disk: %v", err)
				}
				disk.Break(nil)
				if err := w.Append(t.Context(), []stream.Event{{Data: []byte("whole again")}}); err != nil {
					t.Fatalf("Append on a mended disk: %v", err)
				}
			}
			seal(t, s, id)
			want := storetest.CheckLog(t, s, id)
			if len(want) != 9 {
				t.Errorf("%d events", len(want))
			}
			found, err := segment.Inspect(o.Dir, id)
			if err != nil || len(found.Damages) > 0 || found.Torn > 0 {
				t.Errorf("what failed left a trace: %v, %+v", err, found)
			}
			if st, _ := found.Find(id); len(st.Events) != len(want) {
				t.Errorf("%d events on disk", len(st.Events))
			}
		})
	}
}

// The cap on disk: what ended first makes room, is gone for its owner, holds its
// key, and its files are removed.
func TestMaxBytes(t *testing.T) {
	o := segment.Options{Dir: t.TempDir(), MaxBytes: 256 * kib, SegmentSize: 32 * kib}
	s := open(t, o)
	running, w := fill(t, s, "", 1)
	var ids []string
	for n := range 100 {
		id, _ := fill(t, s, fmt.Sprint("key ", n), 10)
		seal(t, s, id)
		ids = append(ids, id)
	}
	var gone *stream.GoneError
	if _, err := s.Status(t.Context(), ids[0]); !errors.As(err, &gone) || gone.Owner != "ann" {
		t.Errorf("Status of the oldest: %v, want a GoneError with its owner", err)
	}
	_, err := s.Create(t.Context(), stream.Meta{ID: stream.NewID(), Owner: "ann", IdempotencyKey: "key 0"})
	if !errors.Is(err, stream.ErrGone) {
		t.Errorf("Create with an evicted stream's key: %v", err)
	}
	for _, id := range ids[len(ids)-10:] {
		storetest.CheckLog(t, s, id)
	}
	// The first segment has the running stream in it, and stays.
	if err := w.Append(t.Context(), kibibyte()); err != nil {
		t.Error(err)
	}
	storetest.CheckLog(t, s, running)
	wantSize(t, o.Dir, 256*kib+2*32*kib)

	// It is the same after a crash.
	s.Crash()
	s = open(t, o)
	if _, err := s.Status(t.Context(), ids[0]); !errors.As(err, &gone) || gone.Owner != "ann" {
		t.Errorf("after a crash, Status of the oldest: %v, want a GoneError with its owner", err)
	}
	for _, id := range ids[len(ids)-10:] {
		storetest.CheckLog(t, s, id)
	}
	if found := s.Recovery(); len(found.Damages) > 0 || len(found.Interrupted) != 1 {
		t.Errorf("recovery: %+v", found)
	}
}

func TestMaxBytesFullOfRunningStreams(t *testing.T) {
	s := open(t, segment.Options{Dir: t.TempDir(), MaxBytes: 64 * kib, SegmentSize: 16 * kib})
	id, w := fill(t, s, "", 80)
	if _, err := s.Create(t.Context(), stream.Meta{ID: stream.NewID()}); !errors.Is(err, stream.ErrFull) {
		t.Errorf("Create: %v, want ErrFull", err)
	}
	if err := w.Append(t.Context(), kibibyte()); err != nil {
		t.Errorf("a running stream does not go on: %v", err)
	}
	seal(t, s, id)
	again, _ := fill(t, s, "", 1)
	storetest.CheckLog(t, s, again)
}

// wantSize waits until a directory takes no more than so many bytes: files are
// removed by a goroutine of the store's.
func wantSize(t *testing.T, dir string, most int64) {
	t.Helper()
	var size int64
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		size = 0
		files, err := filepath.Glob(filepath.Join(dir, "*.seg"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if info, err := os.Stat(name); err == nil {
				size += info.Size()
			}
		}
		if size <= most {
			return
		}
	}
	t.Errorf("the directory takes %d bytes, more than %d", size, most)
}

// What is past its retention takes its files along.
func TestRetentionRemovesFiles(t *testing.T) {
	now := time.Now()
	o := segment.Options{Dir: t.TempDir(), SegmentSize: 16 * kib, Retention: time.Hour, Now: func() time.Time { return now }}
	s := open(t, o)
	for range 20 {
		id, _ := fill(t, s, "", 10)
		seal(t, s, id)
		if err := s.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		id, _ = fill(t, s, "", 10)
		seal(t, s, id)
	}
	now = now.Add(2 * time.Hour)
	fill(t, s, "", 1)
	wantSize(t, o.Dir, 2*16*kib)
}

// What was used longest ago leaves the memory, and is read back unchanged.
func TestMaxMemory(t *testing.T) {
	s := open(t, segment.Options{Dir: t.TempDir(), MaxMemory: 100 * kib})
	want := map[string][]stream.Event{}
	for range 30 {
		id, _ := fill(t, s, "", 10)
		seal(t, s, id)
		want[id] = storetest.CheckLog(t, s, id)
	}
	if warm := s.WarmBytes(); warm > 100*kib {
		t.Errorf("%d bytes are in memory", warm)
	}
	for id, events := range want {
		if got := storetest.CheckLog(t, s, id); !slices.EqualFunc(got, events, sameEvent) {
			t.Errorf("stream %s was read back differently", id)
		}
	}
	id, w := fill(t, s, "", 101)
	if _, err := s.Create(t.Context(), stream.Meta{ID: stream.NewID()}); !errors.Is(err, stream.ErrFull) {
		t.Errorf("Create while running streams take all the memory: %v", err)
	}
	if err := w.Append(t.Context(), kibibyte()); err != nil {
		t.Error(err)
	}
	seal(t, s, id)
	fill(t, s, "", 1)
}

// Deleted means that the text is nowhere in the files.
func TestDeleteErases(t *testing.T) {
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprint("crash ", crash), func(t *testing.T) {
			o := segment.Options{Dir: t.TempDir(), SegmentSize: 16 * kib}
			s := open(t, o)
			id := stream.NewID()
			w, err := s.Create(t.Context(), stream.Meta{ID: id, Owner: "ann"})
			if err != nil {
				t.Fatal(err)
			}
			for n := range 100 {
				text := fmt.Sprintf("a secret %d. ", n)
				if err := w.Append(t.Context(), []stream.Event{{Data: []byte(strings.Repeat(text, 20))}}); err != nil {
					t.Fatal(err)
				}
			}
			end := &stream.Error{Message: "the secret end"}
			if err := s.Seal(t.Context(), id, end.Event(stream.Summary{})); err != nil {
				t.Fatal(err)
			}
			if !crash {
				if err := s.Delete(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			} else {
				if err := s.DeleteHalf(id, 50); err != nil {
					t.Fatal(err)
				}
				s.Crash()
				s = open(t, o)
			}
			if text := grep(t, o.Dir, "secret"); text != "" {
				t.Errorf("still on disk: %s", text)
			}
			if _, err := s.Status(t.Context(), id); !errors.Is(err, stream.ErrGone) {
				t.Errorf("Status: %v", err)
			}
			if found, err := segment.Inspect(o.Dir, ""); err != nil || len(found.Damages) > 0 {
				t.Errorf("%v, %v", err, found.Damages)
			}
		})
	}
}

// grep returns where the segments of a directory have the word.
func grep(t *testing.T, dir, word string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d segments, %v", len(files), err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // removed by now: nothing is left in it
		}
		if err != nil {
			t.Fatal(err)
		}
		if at := strings.Index(string(data), word); at >= 0 {
			return fmt.Sprintf("%s: %q", name, data[at:min(at+40, len(data))])
		}
	}
	return ""
}

func TestOneProcessADirectory(t *testing.T) {
	o := segment.Options{Dir: t.TempDir()}
	s, err := segment.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := segment.Open(o); err == nil || !strings.Contains(err.Error(), o.Dir) {
		t.Errorf("a second Open: %v, want an error that names the directory", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, o)
}

func TestSecretStays(t *testing.T) {
	o := segment.Options{Dir: t.TempDir()}
	s := open(t, o)
	first, err := s.Secret(t.Context())
	if err != nil || len(first) < 16 {
		t.Fatalf("%q, %v", first, err)
	}
	s.Crash()
	again, err := open(t, o).Secret(t.Context())
	if err != nil || again != first {
		t.Errorf("%q, %v; want %q", again, err, first)
	}
	info, err := os.Stat(filepath.Join(o.Dir, "secret"))
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("%v, %v: others may read it", info.Mode(), err)
	}
}

// Room is kept for the end of every stream that runs, however many do.
func TestRoomForEveryEnd(t *testing.T) {
	disk := segment.NewDisk(64 << 20)
	s := open(t, disk.Under(segment.Options{Dir: t.TempDir()}))
	ids := make([]string, 10_000)
	writers := make([]stream.Writer, len(ids))
	for i := range ids {
		ids[i], writers[i] = fill(t, s, "", 0)
	}
	var err error
	for n := 0; err == nil; n++ {
		err = writers[n%len(writers)].Append(t.Context(), kibibyte())
	}
	if !errors.Is(err, stream.ErrFull) {
		t.Fatal(err)
	}
	end := stream.AsError(err).Event(stream.Summary{Timings: &stream.Timings{FirstTokenMS: 123.4, TotalMS: 23456.7}})
	for i, id := range ids {
		if err := s.Seal(t.Context(), id, end); err != nil {
			t.Fatalf("the end of stream %d: %v", i, err)
		}
		if err := writers[i].Book(t.Context(), stream.Summary{FinishReason: "stop"}); err != nil {
			t.Fatalf("the account of stream %d: %v", i, err)
		}
	}
}
