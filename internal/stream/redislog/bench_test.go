package redislog

import (
	"bytes"
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

// BenchmarkAppend is b.N events of 150 bytes, by 1000 streams at once, each
// append waiting for its answer.
func BenchmarkAppend(b *testing.B) {
	server := redistest.Start(b, redistest.Config{})
	s := open(b, Options{URL: server.URL(), Prefix: prefix()})
	const streams = 1000
	writers := make([]stream.Writer, streams)
	for i := range writers {
		w, err := s.Create(b.Context(), stream.Meta{ID: stream.NewID(), Owner: "ann"})
		if err != nil {
			b.Fatal(err)
		}
		writers[i] = w
	}
	data := bytes.Repeat([]byte("x"), 150)
	var left atomic.Int64
	left.Store(int64(b.N))
	serverBefore, clientBefore, began := serverCPU(b, s), clientCPU(b), time.Now()
	b.ResetTimer()
	var all sync.WaitGroup
	for _, w := range writers {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				if err := w.Append(b.Context(), []stream.Event{{Data: data}}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	perEvent := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(b.N) }
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "events/s")
	b.ReportMetric(perEvent(clientCPU(b)-clientBefore), "client-µs/event")
	b.ReportMetric(perEvent(serverCPU(b, s)-serverBefore), "server-µs/event")
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
