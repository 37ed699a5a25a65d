package memory_test

import (
	"bytes"
	"sync"
	"testing"

	"weir/internal/stream"
	"weir/internal/stream/memory"
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

// A benchmark's streams are short, and the store forgets them: b.N events at
// once would fill the machine's memory.
const streamLen = 10_000

func benchStore() *memory.Store { return memory.New(memory.Options{MaxBytes: 16 << 20}) }

func BenchmarkAppend(b *testing.B) {
	s := benchStore()
	b.ReportAllocs()
	write(b, s, func() (more bool) { return b.Loop() })
}

func BenchmarkAppendParallel(b *testing.B) {
	s := benchStore()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) { write(b, s, pb.Next) })
}

// write appends an event each time next says so.
func write(b *testing.B, s *memory.Store, next func() bool) {
	batch := []stream.Event{{Data: tokenData}}
	meta, w := fill(b, s, stream.Meta{}, 0)
	for n := 1; next(); n++ {
		if n%streamLen == 0 {
			seal(b, s, meta.ID)
			meta, w = fill(b, s, stream.Meta{}, 0)
		}
		if err := w.Append(b.Context(), batch); err != nil {
			b.Error(err)
			return
		}
	}
	seal(b, s, meta.ID)
}

// BenchmarkAppendRead is one event from the append to every reader's eyes.
func BenchmarkAppendRead(b *testing.B) {
	for _, bench := range []struct {
		name    string
		readers int
	}{{"1", 1}, {"100", 100}} {
		b.Run(bench.name, func(b *testing.B) {
			s := benchStore()
			b.ReportAllocs()
			for n := b.N; n > 0; n -= streamLen {
				appendRead(b, s, bench.readers, min(n, streamLen))
			}
		})
	}
}

// appendRead appends n events, each once every reader has seen the last.
func appendRead(b *testing.B, s *memory.Store, readers, n int) {
	meta, w := fill(b, s, stream.Meta{}, 0)
	var all, seen sync.WaitGroup
	for range readers {
		r, err := s.Open(b.Context(), meta.ID, 0)
		if err != nil {
			b.Fatal(err)
		}
		all.Go(func() {
			defer r.Close()
			read(r, make([]stream.Event, 0, 128), seen.Done)
		})
	}
	batch := []stream.Event{{Data: tokenData}}
	for range n {
		seen.Add(readers)
		if err := w.Append(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		seen.Wait()
	}
	seen.Add(readers)
	seal(b, s, meta.ID)
	all.Wait()
}

// read calls seen for every event up to the end.
func read(r stream.Reader, buffer []stream.Event, seen func()) {
	for {
		events, err := r.Next(buffer[:0])
		if err != nil {
			return
		}
		for range events {
			seen()
		}
		if len(events) == 0 {
			<-r.Wake()
		}
	}
}

// BenchmarkReplay reads a finished log of a thousand events.
func BenchmarkReplay(b *testing.B) {
	const events = 1000
	s := benchStore()
	meta, _ := fill(b, s, stream.Meta{}, events-1)
	seal(b, s, meta.ID)
	buffer := make([]stream.Event, 0, 128)
	b.ReportAllocs()
	for b.Loop() {
		r, err := s.Open(b.Context(), meta.ID, 0)
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		read(r, buffer, func() { n++ })
		if n != events {
			b.Fatalf("%d events", n)
		}
		r.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/events, "ns/event")
}
