//go:build !windows

package segment_test

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"weir/internal/stream"
	"weir/internal/stream/segment"
)

// BenchmarkAppend is the store at saturation: so many streams append one event
// at a time, each as fast as it can.
func BenchmarkAppend(b *testing.B) {
	for _, bench := range []struct {
		name    string
		streams int
		fsync   bool
	}{{"os/1", 1, false}, {"os/1000", 1000, false}, {"fsync/1", 1, true}, {"fsync/1000", 1000, true}} {
		b.Run(bench.name, func(b *testing.B) { appendFrom(b, bench.streams, bench.fsync) })
	}
}

func appendFrom(b *testing.B, streams int, fsync bool) {
	s := open(b, segment.Options{Dir: b.TempDir(), Sync: fsync, MaxBytes: 2 << 30, MaxMemory: 1 << 30})
	data := bytes.Repeat([]byte("x"), 150)
	b.ReportAllocs()
	began, cpu := time.Now(), cpuTime(b)
	b.ResetTimer()
	var all sync.WaitGroup
	for i := range streams {
		events := b.N / streams
		if i < b.N%streams {
			events++
		}
		all.Go(func() { appendEvents(b, s, data, events) })
	}
	all.Wait()
	b.StopTimer()
	took, used := time.Since(began), cpuTime(b)-cpu
	b.ReportMetric(float64(b.N)/took.Seconds(), "events/s")
	b.ReportMetric(float64(used.Nanoseconds())/float64(b.N), "cpu-ns/event")
}

// streamLen keeps a stream of the benchmark about as long as a long answer.
const streamLen = 5000

func appendEvents(b *testing.B, s *segment.Store, data []byte, n int) {
	batch := []stream.Event{{Data: data}}
	for n > 0 {
		id := stream.NewID()
		w, err := s.Create(b.Context(), stream.Meta{ID: id, Owner: "ann"})
		if err != nil {
			b.Error(fmt.Errorf("create: %w", err))
			return
		}
		for range min(n, streamLen) {
			if err := w.Append(b.Context(), batch); err != nil {
				b.Error(fmt.Errorf("append: %w", err))
				return
			}
		}
		n -= streamLen
		if err := s.Seal(b.Context(), id, stream.DoneEvent(stream.Summary{})); err != nil {
			b.Error(fmt.Errorf("seal: %w", err))
		}
	}
}

func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// benchDir is a directory of ended streams, their records well mixed.
func benchDir(b *testing.B, streams, events int) (dir string, ids []string) {
	dir = b.TempDir()
	s, err := segment.Open(segment.Options{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	batch := []stream.Event{{Data: bytes.Repeat([]byte("x"), 150)}}
	writers := make([]stream.Writer, streams)
	for i := range writers {
		id := stream.NewID()
		if writers[i], err = s.Create(b.Context(), stream.Meta{ID: id, Owner: "ann"}); err != nil {
			b.Fatal(err)
		}
		ids = append(ids, id)
	}
	for range events {
		for _, w := range writers {
			if err := w.Append(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, id := range ids {
		if err := s.Seal(b.Context(), id, stream.DoneEvent(stream.Summary{})); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	return dir, ids
}

// BenchmarkOpen reads a directory at the start: two thousand streams of five
// hundred events.
func BenchmarkOpen(b *testing.B) {
	dir, _ := benchDir(b, 2000, 500)
	var before, after runtime.MemStats
	var s *segment.Store
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		var err error
		if s, err = segment.Open(segment.Options{Dir: dir}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&after)
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	perOp := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
	b.ReportMetric(perOp/(2000*500), "ns/event")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/2000, "heap-bytes/stream")
}

// BenchmarkReadCold opens a stream that is on disk only, and reads it: five
// hundred events that lie far apart, or one behind the other.
func BenchmarkReadCold(b *testing.B) {
	for _, bench := range []struct {
		name    string
		streams int
	}{{"mixed", 2000}, {"alone", 1}} {
		b.Run(bench.name, func(b *testing.B) {
			dir, ids := benchDir(b, bench.streams, 500)
			s := open(b, segment.Options{Dir: dir})
			buffer := make([]stream.Event, 0, 128)
			n := 0
			for b.Loop() {
				s.Chill()
				r, err := s.Open(b.Context(), ids[n%len(ids)], 0)
				if err != nil {
					b.Fatal(err)
				}
				for n++; err == nil; {
					buffer, err = r.Next(buffer[:0])
				}
				if err != io.EOF {
					b.Fatal(err)
				}
				r.Close()
			}
		})
	}
}
