package memory_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weir/internal/stream"
	"weir/internal/stream/memory"
	"weir/internal/stream/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(_ *testing.T, o storetest.Options) stream.Log {
		return memory.New(memory.Options{Retention: o.Retention, Now: o.Now})
	})
}

// eventSize is so large that what a stream and an event take besides is no matter.
const eventSize = 4 << 10

// fill makes a stream of n events of eventSize bytes.
func fill(t testing.TB, s *memory.Store, meta stream.Meta, n int) (stream.Meta, stream.Writer) {
	t.Helper()
	if meta.ID == "" {
		meta.ID, meta.Owner = stream.NewID(), "ann"
	}
	w, err := s.Create(t.Context(), meta)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	for range n {
		if err := w.Append(t.Context(), []stream.Event{{Data: make([]byte, eventSize)}}); err != nil {
			t.Fatalf("Append: %v", err)
		}
	}
	return meta, w
}

func seal(t testing.TB, s *memory.Store, id string) {
	t.Helper()
	if err := s.Seal(t.Context(), id, stream.DoneEvent(stream.Summary{})); err != nil {
		t.Fatalf("Seal: %v", err)
	}
}

func wantStatus(t *testing.T, s *memory.Store, id string, want error) {
	t.Helper()
	if _, err := s.Status(t.Context(), id); !errors.Is(err, want) {
		t.Errorf("Status: %v, want %v", err, want)
	}
}

func TestMaxBytesEvictsTheOldestEnded(t *testing.T) {
	s := memory.New(memory.Options{MaxBytes: 10 * eventSize})
	running, _ := fill(t, s, stream.Meta{}, 2)
	first, _ := fill(t, s, stream.Meta{}, 4)
	second, _ := fill(t, s, stream.Meta{}, 4)
	seal(t, s, second.ID) // the oldest is the one that ended first
	seal(t, s, first.ID)

	open, err := s.Open(t.Context(), second.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	third, _ := fill(t, s, stream.Meta{}, 0)
	var gone *stream.GoneError
	if _, err := s.Status(t.Context(), second.ID); !errors.As(err, &gone) || gone.Owner != "ann" {
		t.Errorf("Status of the evicted stream: %v, want a GoneError with its owner", err)
	}
	if _, err := s.Open(t.Context(), second.ID, 3); !errors.As(err, &gone) || gone.Owner != "ann" {
		t.Errorf("Open of the evicted stream: %v, want a GoneError with its owner", err)
	}
	for _, id := range []string{running.ID, first.ID, third.ID} {
		storetest.CheckLog(t, s, id)
	}
	if events, err := storetest.Follow(t.Context(), open); err != nil || len(events) != 5 {
		t.Errorf("a reader of the evicted stream saw %d events, %v; want 5", len(events), err)
	}
}

func TestMaxBytesEvictsNoMoreThanItMust(t *testing.T) {
	s := memory.New(memory.Options{MaxBytes: 10 * eventSize})
	var ids []string
	for range 20 {
		meta, _ := fill(t, s, stream.Meta{}, 2)
		seal(t, s, meta.ID)
		ids = append(ids, meta.ID)
	}
	for i, id := range ids {
		// The newest was made when four had left it room to begin.
		if i < len(ids)-5 {
			wantStatus(t, s, id, stream.ErrGone)
		} else {
			storetest.CheckLog(t, s, id)
		}
	}
}

func TestFullOfRunningStreams(t *testing.T) {
	s := memory.New(memory.Options{MaxBytes: 10 * eventSize})
	ended, _ := fill(t, s, stream.Meta{}, 1)
	seal(t, s, ended.ID)
	a, w := fill(t, s, stream.Meta{}, 6)
	b, _ := fill(t, s, stream.Meta{}, 5)
	refused := stream.Meta{ID: stream.NewID(), Owner: "ann", IdempotencyKey: "key"}
	if _, err := s.Create(t.Context(), refused); !errors.Is(err, stream.ErrFull) {
		t.Fatalf("Create in a full store: %v, want ErrFull", err)
	}
	wantStatus(t, s, ended.ID, stream.ErrGone)
	wantStatus(t, s, refused.ID, stream.ErrNotFound)
	if _, err := s.Claimed(t.Context(), "ann", "key"); !errors.Is(err, stream.ErrNotFound) {
		t.Errorf("the refused stream holds its key: %v", err)
	}
	// Running streams go on in a full store.
	if err := w.Append(t.Context(), []stream.Event{{Data: make([]byte, eventSize)}}); err != nil {
		t.Errorf("Append in a full store: %v", err)
	}
	storetest.CheckLog(t, s, a.ID)
	seal(t, s, a.ID)
	fill(t, s, refused, 1)
	wantStatus(t, s, a.ID, stream.ErrGone)
	storetest.CheckLog(t, s, b.ID)
}

// What is deleted and what expires makes room as what is evicted.
func TestBytesComeBack(t *testing.T) {
	now := time.Now()
	s := memory.New(memory.Options{MaxBytes: 10 * eventSize, Retention: time.Hour, Now: func() time.Time { return now }})
	for round := range 10 {
		meta, _ := fill(t, s, stream.Meta{}, 10)
		seal(t, s, meta.ID)
		if round%2 == 0 {
			if err := s.Delete(t.Context(), meta.ID); err != nil {
				t.Fatalf("Delete: %v", err)
			}
		} else {
			now = now.Add(2 * time.Hour)
		}
	}
	fill(t, s, stream.Meta{}, 10)
	if _, err := s.Create(t.Context(), stream.Meta{ID: stream.NewID()}); !errors.Is(err, stream.ErrFull) {
		t.Errorf("Create: %v, want ErrFull: the bound moved", err)
	}
}

func TestEvictedStreamKeepsItsKeyUntilItExpires(t *testing.T) {
	now := time.Now()
	s := memory.New(memory.Options{MaxBytes: 2 * eventSize, Retention: time.Hour, Now: func() time.Time { return now }})
	evicted, _ := fill(t, s, stream.Meta{ID: stream.NewID(), Owner: "ann", IdempotencyKey: "key"}, 2)
	seal(t, s, evicted.ID)
	running, _ := fill(t, s, stream.Meta{}, 0)
	repeat := stream.Meta{ID: stream.NewID(), Owner: "ann", IdempotencyKey: "key"}
	if _, err := s.Create(t.Context(), repeat); !errors.Is(err, stream.ErrGone) {
		t.Errorf("Create: %v, want ErrGone: a repeat would run it again", err)
	}
	now = now.Add(time.Hour + time.Minute)
	fill(t, s, repeat, 1)
	storetest.CheckLog(t, s, running.ID)
}

// A store that runs for months must not keep anything of what has expired.
func TestNothingStays(t *testing.T) {
	now := time.Now()
	s := memory.New(memory.Options{Retention: time.Hour, Now: func() time.Time { return now }})
	round := func() uint64 {
		for i := range 4000 {
			meta := stream.Meta{ID: stream.NewID(), Owner: fmt.Sprint("owner ", i%7)}
			if i%2 == 0 {
				meta.IdempotencyKey = stream.NewID()
			}
			meta, w := fill(t, s, meta, 3)
			seal(t, s, meta.ID)
			if err := w.Book(t.Context(), stream.Summary{}); err != nil {
				t.Fatalf("Book: %v", err)
			}
			if i%3 == 0 {
				if err := s.Delete(t.Context(), meta.ID); err != nil {
					t.Fatalf("Delete: %v", err)
				}
			}
		}
		now = now.Add(2 * time.Hour)
		meta, _ := fill(t, s, stream.Meta{}, 0) // sweeps
		seal(t, s, meta.ID)
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := round()
	var after uint64
	for range 5 {
		after = round()
	}
	if after > before+(512<<10) { // a leak of the keys alone is a megabyte
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
}

// In a bubble a reader that missed its wake-up is a deadlock, at once.
func TestReadersNeverSleepThroughNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(memory.Options{})
		meta, w := fill(t, s, stream.Meta{}, 0)
		const events = 2000
		var all sync.WaitGroup
		for i := range 50 {
			r, err := s.Open(t.Context(), meta.ID, uint64(i))
			if err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				defer r.Close()
				got, err := storetest.Follow(context.Background(), r)
				if err != nil || len(got) != events+1-i {
					t.Errorf("%d events, %v; want %d", len(got), err, events+1-i)
				}
			})
		}
		synctest.Wait()
		for i := range events {
			if err := w.Append(t.Context(), []stream.Event{{Data: []byte("token")}}); err != nil {
				t.Fatal(err)
			}
			if i%100 == 0 {
				synctest.Wait() // now and then all are asleep
			}
		}
		seal(t, s, meta.ID)
		all.Wait()
	})
}

// A stream that failed before its first token had freed its key: deleting it
// does not take the key again.
func TestDeletedFailureKeepsNoKey(t *testing.T) {
	s := memory.New(memory.Options{})
	failed, _ := fill(t, s, stream.Meta{ID: stream.NewID(), Owner: "ann", IdempotencyKey: "key"}, 1)
	if err := s.Seal(t.Context(), failed.ID, (&stream.Error{Code: "x"}).Event(stream.Summary{})); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Claimed(t.Context(), "ann", "key"); !errors.Is(err, stream.ErrNotFound) {
		t.Errorf("Claimed: %v, want ErrNotFound", err)
	}
	if err := s.Delete(t.Context(), failed.ID); err != nil {
		t.Fatal(err)
	}
	fill(t, s, stream.Meta{ID: stream.NewID(), Owner: "ann", IdempotencyKey: "key"}, 1)
}
