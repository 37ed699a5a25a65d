package redislog

import (
	"context"
	"fmt"
	"strings"
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

func TestContractOfReplicas(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	storetest.RunShared(t, func(t *testing.T, o storetest.Options) (a, b stream.Log) {
		options := Options{URL: server.URL(), Prefix: prefix(), Retention: o.Retention, Now: o.Now}
		return open(t, options), open(t, options)
	})
}

// place is a prefix of a server's: what outlives a replica.
type place struct {
	t       *testing.T
	options Options
}

// Open implements storetest.Durable.
func (p place) Open() stream.Log { return open(p.t, p.options) }

// Crash implements storetest.Durable: the store's last word has been said.
func (p place) Crash(log stream.Log) { crash(log.(*Store)) }

func crash(s *Store) {
	s.frozen.Store(true)
	s.mu.Lock()
	close(s.done)
	s.mu.Unlock()
	s.client.Close()
	s.cancel()
	s.all.Wait()
	s.calls.Wait()
}

func TestContractAcrossCrashes(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	storetest.RunDurable(t, func(t *testing.T, o storetest.Options) storetest.Durable {
		t.Parallel() // most of the time they wait for a lease to lapse
		return place{t, Options{
			URL: server.URL(), Prefix: prefix(), Retention: o.Retention, Now: o.Now, Lease: time.Second,
		}}
	})
}

// One node of a cluster is enough to refuse keys of two slots in one script.
func TestContractInClusterMode(t *testing.T) {
	server := redistest.Start(t, redistest.Config{Args: []string{"--cluster-enabled", "yes", "--cluster-port", fmt.Sprint(redistest.FreePort(t))}})
	server.Command("CLUSTER ADDSLOTSRANGE 0 16383")
	if _, err := Open(t.Context(), Options{URL: server.URL(), Prefix: "weir:"}); err == nil || !strings.Contains(err.Error(), "{weir:}") {
		t.Errorf("Open with a prefix of many slots: %v", err)
	}
	storetest.RunShared(t, func(t *testing.T, o storetest.Options) (a, b stream.Log) {
		options := Options{URL: server.URL(), Prefix: prefix(), Retention: o.Retention, Now: o.Now}
		return open(t, options), open(t, options)
	})
}
