package redislog

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"weir/internal/redistest"
	"weir/internal/stream"
	"weir/internal/stream/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// prefix is a test's own.
func prefix() string { return "{" + stream.NewID() + "}:" }

func open(t testing.TB, o Options) *Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestContract(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	storetest.Run(t, func(t *testing.T, o storetest.Options) stream.Log {
		return open(t, Options{URL: server.URL(), Prefix: prefix(), Retention: o.Retention, Now: o.Now})
	})
}
