package segment_test

import (
	"context"
	"testing"

	"weir/internal/stream"
	"weir/internal/stream/segment"
	"weir/internal/stream/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T, o storetest.Options) stream.Log {
		return open(t, segment.Options{Dir: t.TempDir(), Retention: o.Retention, Now: o.Now})
	})
}

// The same when what has ended is read back from disk every time, and when the
// streams lie in many small segments.
func TestStoreCold(t *testing.T) {
	storetest.Run(t, func(t *testing.T, o storetest.Options) stream.Log {
		return cold{open(t, segment.Options{
			Dir: t.TempDir(), Retention: o.Retention, Now: o.Now, SegmentSize: 4 << 10,
		})}
	})
}

// cold is a store that keeps no ended stream in memory.
type cold struct{ *segment.Store }

func (c cold) Open(ctx context.Context, id string, after uint64) (stream.Reader, error) {
	c.Chill()
	return c.Store.Open(ctx, id, after)
}

func (c cold) Status(ctx context.Context, id string) (stream.Status, error) {
	c.Chill()
	return c.Store.Status(ctx, id)
}

func (c cold) Claimed(ctx context.Context, owner, key string) (stream.Status, error) {
	c.Chill()
	return c.Store.Claimed(ctx, owner, key)
}

func (c cold) List(ctx context.Context, owner, before string, limit int) ([]stream.Status, error) {
	c.Chill()
	return c.Store.List(ctx, owner, before, limit)
}

func open(t testing.TB, o segment.Options) *segment.Store {
	t.Helper()
	s, err := segment.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.Crashed() {
			return
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}
