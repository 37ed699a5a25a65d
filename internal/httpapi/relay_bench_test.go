package httpapi

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"weir/internal/chat"
	"weir/internal/sse"
	"weir/internal/stream"
	"weir/internal/stream/memory"
	"weir/internal/upstreamtest"
)

// relayed is one stream on its whole way through the process, without a network:
// upstream bytes → decoder → meter → runner → log in memory → tail.
type relayed struct {
	upstream chan []byte
	tail     *tail
	buf      []byte
}

func newRelayed(t testing.TB, store *memory.Store, frames func(stream.Meta) frames) *relayed {
	r := &relayed{upstream: make(chan []byte), buf: make([]byte, 4<<10)}
	meta := stream.Meta{ID: stream.NewID(), Model: "gpt-test", Provider: "openai", Created: time.Now()}
	runner := stream.NewRunner(store, stream.Limits{FirstToken: time.Minute, Idle: time.Minute, MaxBytes: 1 << 40}, nil)
	detach, err := runner.Start(t.Context(), stream.Spec{Meta: meta, Unread: time.Minute, Generate: r.generate})
	if err != nil {
		t.Fatal(err)
	}
	reader, err := store.Open(t.Context(), meta.ID, 1) // after the start event
	if err != nil {
		t.Fatal(err)
	}
	r.tail = &tail{
		reader: reader, frames: frames(meta), beat: 15 * time.Second,
		gone: make(chan struct{}), stop: make(chan struct{}), timer: time.NewTimer(time.Hour),
		release: func() { reader.Close(); detach() },
	}
	return r
}

// generate does with a token what the OpenAI provider does.
func (r *relayed) generate(_ context.Context, emit stream.Emit) (stream.Outcome, error) {
	decoder, meter := sse.NewDecoder(1<<20), chat.NewMeter([]byte(`{}`))
	var batch []stream.Event
	for {
		if err := decoder.Fill(r); err != nil {
			return meter.Outcome(true), nil
		}
		for e, ok := decoder.Next(); ok; e, ok = decoder.Next() {
			meter.Observe(e.Data)
			batch = append(batch, stream.Event{Type: stream.TypeToken, Data: e.Data})
		}
		if err := emit(batch); err != nil {
			return stream.Outcome{}, err
		}
		batch = batch[:0]
	}
}

// Read implements io.Reader for the decoder.
func (r *relayed) Read(p []byte) (int, error) {
	piece, more := <-r.upstream
	if !more {
		return 0, io.EOF
	}
	return copy(p, piece), nil
}

// step sends a chunk and reads its frame.
func (r *relayed) step(t testing.TB, chunk []byte) {
	r.upstream <- chunk
	if n, err := r.tail.Read(r.buf); n < len(chunk) || err != nil {
		t.Fatalf("read %d bytes, %v", n, err)
	}
}

// close ends the stream and reads it to its end.
func (r *relayed) close(t testing.TB) {
	close(r.upstream)
	for {
		_, err := r.tail.Read(r.buf)
		if errors.Is(err, io.EOF) {
			r.tail.Close()
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

var relayFrames = map[string]func(stream.Meta) frames{
	"chat":   func(m stream.Meta) frames { return &chatFrames{meta: m} },
	"native": func(m stream.Meta) frames { return &nativeFrames{stream: m.ID} },
}

// BenchmarkRelay is one token from the upstream's bytes to its reader's frame,
// with both goroutines it meets, and without a network.
func BenchmarkRelay(b *testing.B) {
	const streamLen = 10_000 // the store forgets ended streams, and b.N tokens would fill the memory
	chunk := []byte(upstreamtest.Chunk("token"))
	for name, frames := range relayFrames {
		b.Run(name, func(b *testing.B) {
			store := memory.New(memory.Options{MaxBytes: 16 << 20})
			b.ReportAllocs()
			b.SetBytes(int64(len(chunk)))
			for done := 0; done < b.N; {
				r := newRelayed(b, store, frames)
				for n := min(streamLen, b.N-done); n > 0; n-- {
					r.step(b, chunk)
					done++
				}
				r.close(b)
			}
		})
	}
}

// A token costs one allocation, the meter's copy of it as a string, and its share
// of the log's growth.
func TestRelayingAllocatesSeldom(t *testing.T) {
	const tokens = 5000
	chunk := []byte(upstreamtest.Chunk("token"))
	for name, frames := range relayFrames {
		r := newRelayed(t, memory.New(memory.Options{}), frames)
		for range 100 {
			r.step(t, chunk)
		}
		allocs := testing.AllocsPerRun(1, func() {
			for range tokens {
				r.step(t, chunk)
			}
		})
		r.close(t)
		if perToken := allocs / tokens; perToken > 1.1 {
			t.Errorf("%s: %.2f allocations a token", name, perToken)
		}
	}
}
