package segment_test

import (
	"bytes"
	"fmt"
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
