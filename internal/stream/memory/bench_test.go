package memory_test

import (
	"bytes"
	"sync"
	"testing"

	"weir/internal/stream"
	"weir/internal/stream/memory"
	"weir/internal/stream/storetest"
)

// tokenData is as large as a provider's chunk.
var tokenData = bytes.Repeat([]byte("x"), 150)

func TestAppendAllocatesSeldom(t *testing.T) {
	const events = 10_000
	s := memory.New(memory.Options{})
	batch := []stream.Event{{Data: tokenData}}
	allocs := testing.AllocsPerRun(5, func() {
		_, w := fill(t, s, stream.Meta{}, 0)
		for range events {
			if err := w.Append(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
	})
	if perEvent := allocs / events; perEvent > 0.05 {
		t.Errorf("%.3f allocations an event", perEvent)
	}
}

func TestReadingAllocatesNothing(t *testing.T) {
	s := memory.New(memory.Options{})
	meta, w := fill(t, s, stream.Meta{}, 10)
	r, err := s.Open(t.Context(), meta.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	buffer := make([]stream.Event, 0, 128)
	next := func(want int) {
		got, err := r.Next(buffer)
		if err != nil || len(got) != want {
			t.Fatalf("Next: %d events, %v; want %d", len(got), err, want)
		}
	}
	next(10)
	if allocs := testing.AllocsPerRun(1000, func() { next(0) }); allocs != 0 {
		t.Errorf("Next without news: %v allocations", allocs)
	}
	batch := []stream.Event{{Data: nil}}
	wakes := testing.AllocsPerRun(1000, func() {
		if err := w.Append(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		<-r.Wake()
		next(1)
		next(0)
	})
	if wakes > 0.1 { // the log itself grows
		t.Errorf("a wait, a wake and a read: %v allocations", wakes)
	}
}

func BenchmarkAppend(b *testing.B) {
	s := memory.New(memory.Options{MaxBytes: 64 << 20})
	batch := []stream.Event{{Data: tokenData}}
	b.ReportAllocs()
	b.SetBytes(int64(len(tokenData)))
	write(b, s, batch)
}

// write appends b.N events, to streams of a thousand.
func write(b *testing.B, s *memory.Store, batch []stream.Event) {
	b.Helper()
	for n := 0; n < b.N; {
		meta, w := fill(b, s, stream.Meta{}, 0)
		for ; n < b.N && n%1000 < 999; n++ {
			if err := w.Append(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
		}
		n++
		seal(b, s, meta.ID)
	}
}

func BenchmarkAppendParallel(b *testing.B) {
	s := memory.New(memory.Options{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		batch := []stream.Event{{Data: tokenData}}
		_, w := fill(b, s, stream.Meta{}, 0)
		for n := 1; pb.Next(); n++ {
			if n%1000 == 0 {
				_, w = fill(b, s, stream.Meta{}, 0)
			}
			if err := w.Append(b.Context(), batch); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkAppendRead is one event from the append to every reader's eyes.
func BenchmarkAppendRead(b *testing.B) {
	for _, bench := range []struct {
		name    string
		readers int
	}{{"1", 1}, {"100", 100}} {
		b.Run(bench.name, func(b *testing.B) { benchmarkAppendRead(b, bench.readers) })
	}
}

func benchmarkAppendRead(b *testing.B, readers int) {
	s := memory.New(memory.Options{})
	meta, w := fill(b, s, stream.Meta{}, 0)
	var all sync.WaitGroup
	var seen sync.WaitGroup // of the last event, by every reader
	for range readers {
		r, err := s.Open(b.Context(), meta.ID, 0)
		if err != nil {
			b.Fatal(err)
		}
		all.Go(func() {
			defer r.Close()
			buffer := make([]stream.Event, 0, 128)
			for {
				events, err := r.Next(buffer[:0])
				if err != nil {
					return
				}
				for range events {
					seen.Done()
				}
				if len(events) == 0 {
					<-r.Wake()
				}
			}
		})
	}
	batch := []stream.Event{{Data: tokenData}}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		seen.Add(readers)
		if err := w.Append(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		seen.Wait()
	}
	b.StopTimer()
	seen.Add(readers)
	seal(b, s, meta.ID)
	all.Wait()
}

// BenchmarkReplay reads a finished log of a thousand events.
func BenchmarkReplay(b *testing.B) {
	s := memory.New(memory.Options{})
	meta, _ := fill(b, s, stream.Meta{}, 1000)
	seal(b, s, meta.ID)
	b.ReportAllocs()
	for b.Loop() {
		r, err := s.Open(b.Context(), meta.ID, 0)
		if err != nil {
			b.Fatal(err)
		}
		if events, err := storetest.Follow(b.Context(), r); err != nil || len(events) != 1001 {
			b.Fatalf("%d events, %v", len(events), err)
		}
		r.Close()
	}
}
