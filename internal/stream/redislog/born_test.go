package redislog

import (
	"context"
	"errors"
	"testing"
	"time"

	"weir/internal/redistest"
	"weir/internal/stream"
)

// openAfterLoss opens a stream once the server can tell whether there is one.
func openAfterLoss(ctx context.Context, s *Store, id string, after uint64) (stream.Reader, error) {
	for {
		r, err := s.Open(ctx, id, after)
		if !errors.Is(err, stream.ErrUnavailable) || ctx.Err() != nil {
			return r, err
		}
		pass(10 * time.Millisecond)
	}
}

// A server that has lost everything says of no older stream that there is none
// before its producer has had the time to write it again.
func TestUnknownAfterLoss(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix(), Lease: 2 * shortLease})
	s.must("Append", s.append(50))
	forgotten := stream.NewID()
	pass(2 * shortLease) // the first lease of all
	if _, err := s.b.Status(s.ctx, forgotten); !errors.Is(err, stream.ErrNotFound) {
		t.Errorf("Status of nothing: %v", err)
	}
	server.FlushAll()
	calls := map[string]func() error{
		"Status": func() error { _, err := s.b.Status(s.ctx, forgotten); return err },
		"Open":   func() error { _, err := s.b.Open(s.ctx, forgotten, 0); return err },
		"Seal":   func() error { return s.b.Seal(s.ctx, forgotten, stream.CancelledEvent(stream.Summary{})) },
		"Delete": func() error { return s.b.Delete(s.ctx, forgotten) },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, stream.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for began := time.Now(); ; pass(time.Millisecond) {
		status, err := s.b.Status(s.ctx, s.meta.ID)
		if err == nil && status.LastSeq == 50 {
			break
		}
		if err != nil && !errors.Is(err, stream.ErrUnavailable) || time.Since(began) > soon {
			t.Fatalf("Status of what runs: %+v, %v", status, err)
		}
	}
	if _, err := s.b.Status(s.ctx, stream.NewID()); !errors.Is(err, stream.ErrNotFound) {
		t.Errorf("Status of what is younger than the loss: %v", err)
	}
	for began := time.Now(); ; pass(10 * time.Millisecond) {
		_, err := s.b.Status(s.ctx, forgotten)
		if errors.Is(err, stream.ErrNotFound) {
			break
		}
		if time.Since(began) > soon {
			t.Fatalf("Status of what nobody writes again: %v", err)
		}
	}
	s.seal()
	s.wantWhole(s.read("afterwards", s.b, 0), stream.TypeDone)
}

// What one replica signs holds at one that starts after the server lost it all.
func TestSecretOutlivesLoss(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	o := Options{URL: server.URL(), Prefix: prefix(), Lease: shortLease}
	s := open(t, o)
	before, err := s.Secret(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	server.FlushAll()
	for began := time.Now(); ; pass(10 * time.Millisecond) {
		known, err := s.client.Do(t.Context(), s.client.B().Exists().Key(s.keys.secret()).Build()).AsBool()
		if err == nil && known {
			break
		}
		if time.Since(began) > soon {
			t.Fatalf("nobody gives the secret back, %v", err)
		}
	}
	if after, err := open(t, o).Secret(t.Context()); err != nil || after != before {
		t.Errorf("%q before the loss, %q after it, %v", before, after, err)
	}
}
