//go:build unix

package redislog

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"weir/internal/redistest"
	"weir/internal/stream"
)

const benchStreams = 1000

var benchData = bytes.Repeat([]byte("x"), 150)

// BenchmarkAppend is b.N events of 150 bytes, by 1000 streams at once, each
// append waiting for its answer.
func BenchmarkAppend(b *testing.B) {
	server := redistest.Start(b, redistest.Config{})
	s := open(b, Options{URL: server.URL(), Prefix: prefix()})
	writers := benchWriters(b, s)
	measure(b, s, b.N, func() { appendAll(b, writers) })
}

// BenchmarkFollow is the same with a reader of each stream at another replica,
// which is in this process too.
func BenchmarkFollow(b *testing.B) {
	server := redistest.Start(b, redistest.Config{})
	o := Options{URL: server.URL(), Prefix: prefix()}
	s, other := open(b, o), open(b, o)
	writers := benchWriters(b, s)
	var all sync.WaitGroup
	for _, w := range writers {
		r, err := other.Open(b.Context(), w.meta.ID, 0)
		if err != nil {
			b.Fatal(err)
		}
		all.Go(func() {
			defer r.Close()
			for events := []stream.Event(nil); ; {
				var err error
				if events, err = r.Next(events[:0]); err != nil {
					if !errors.Is(err, io.EOF) {
						b.Error(err)
					}
					return
				}
				if len(events) == 0 {
					<-r.Wake()
				}
			}
		})
	}
	measure(b, s, b.N, func() {
		appendAll(b, writers)
		for _, w := range writers {
			if err := s.Seal(b.Context(), w.meta.ID, stream.DoneEvent(stream.Summary{})); err != nil {
				b.Error(err)
			}
		}
		all.Wait()
	})
}

// BenchmarkIdle is b.N seconds of two replicas, with 1000 streams that say
// nothing and have a reader each at the other.
func BenchmarkIdle(b *testing.B) {
	server := redistest.Start(b, redistest.Config{})
	o := Options{URL: server.URL(), Prefix: prefix()}
	s, other := open(b, o), open(b, o)
	before := memory()
	for _, w := range benchWriters(b, s) {
		if _, err := other.Open(b.Context(), w.meta.ID, 0); err != nil {
			b.Fatal(err)
		}
	}
	took := memory() - before
	measure(b, s, b.N, func() { pass(time.Duration(b.N) * time.Second) })
	b.ReportMetric(float64(took)/benchStreams, "B/stream+mirror")
}

func memory() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc + stats.StackInuse
}

func benchWriters(b *testing.B, s *Store) []*writer {
	b.Helper()
	writers := make([]*writer, benchStreams)
	for i := range writers {
		writers[i] = create(b, s, newMeta("ann")).(*writer)
	}
	return writers
}

// appendAll has the writers append b.N events, one at a time each.
func appendAll(b *testing.B, writers []*writer) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var all sync.WaitGroup
	for _, w := range writers {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				if err := w.Append(b.Context(), []stream.Event{{Data: benchData}}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// measure reports what n of something took of time, and of both sides' CPU.
func measure(b *testing.B, s *Store, n int, work func()) {
	b.Helper()
	serverBefore, clientBefore, began := serverCPU(b, s), clientCPU(b), time.Now()
	b.ResetTimer()
	work()
	b.StopTimer()
	each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(n) }
	b.ReportMetric(float64(n)/time.Since(began).Seconds(), "op/s")
	b.ReportMetric(each(clientCPU(b)-clientBefore), "client-µs/op")
	b.ReportMetric(each(serverCPU(b, s)-serverBefore), "server-µs/op")
}

// clientCPU is what this process has used.
func clientCPU(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// serverCPU is what the server says that it has used.
func serverCPU(b *testing.B, s *Store) time.Duration {
	b.Helper()
	info, err := s.client.Do(b.Context(), s.client.B().Info().Section("cpu").Build()).ToString()
	if err != nil {
		b.Fatal(err)
	}
	var used time.Duration
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_user" || name == "used_cpu_sys" {
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			used += time.Duration(seconds * float64(time.Second))
		}
	}
	return used
}
