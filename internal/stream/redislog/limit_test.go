package redislog

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"weir/internal/redistest"
	"weir/internal/stream"
	"weir/internal/stream/storetest"
)

// What is in hand is bounded, for a stream and for all.
func TestBacklogIsBounded(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix(), StreamBacklog: 4 << 10, Backlog: 6 << 10})
	other := create(t, s.a, newMeta("ann"))
	server.Pause()
	fill := func(w stream.Writer) (events int) {
		for {
			ctx, cancel := context.WithTimeout(s.ctx, 1500*time.Millisecond)
			err := w.Append(ctx, []stream.Event{{Data: make([]byte, 1000)}})
			cancel()
			if err != nil {
				if !errors.Is(err, stream.ErrUnavailable) {
					t.Errorf("Append: %v", err)
				}
				return events
			}
			events++
		}
	}
	first, second := fill(s.w), fill(other)
	if first != 3 || second != 2 {
		t.Errorf("%d and %d events of 1 KiB in hand, the bounds are 4 and 6 KiB", first, second)
	}
	blocked := make(chan error, 1)
	go func() { blocked <- s.w.Append(s.ctx, []stream.Event{{Data: make([]byte, 1000)}}) }()
	server.Resume()
	if err := <-blocked; err != nil {
		t.Errorf("an append that waited for room: %v", err)
	}
	if events := storetest.CheckLog(t, s.b, s.meta.ID); len(events) != 4 {
		t.Errorf("%d events", len(events))
	}
}

// An event that is larger than what a stream may have in hand counts for all of
// its size among the others.
func TestBacklogOfLargeEvent(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix(), StreamBacklog: 4 << 10, Backlog: 10 << 10})
	other := create(t, s.a, newMeta("ann"))
	server.Pause()
	s.must("Append", s.w.Append(s.ctx, []stream.Event{{Data: make([]byte, 9<<10)}}))
	ctx, cancel := context.WithTimeout(s.ctx, 100*time.Millisecond)
	defer cancel()
	if err := other.Append(ctx, []stream.Event{{Data: make([]byte, 2<<10)}}); !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("Append beyond the bound of all: %v", err)
	}
	server.Resume()
	s.must("Append", other.Append(s.ctx, []stream.Event{{Data: make([]byte, 2<<10)}}))
}

// A full server refuses what is new, and ends what there is.
func TestServerFull(t *testing.T) {
	server := redistest.Start(t, redistest.Config{MaxMemory: "8mb"})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix()})
	appended := 0
	for _, size := range []int{100 << 10, 10 << 10, 1 << 10, 0} {
		err := error(nil)
		for ; err == nil; appended++ {
			err = s.w.Append(s.ctx, []stream.Event{{Data: make([]byte, size)}})
		}
		if appended--; !errors.Is(err, stream.ErrFull) {
			t.Fatalf("Append: %v", err)
		}
	}
	for { // a connection's buffer that was let go of may still be room for some
		if _, err := s.b.Create(s.ctx, newMeta("ann")); err != nil {
			if !errors.Is(err, stream.ErrFull) {
				t.Errorf("Create: %v", err)
			}
			break
		}
	}
	if events := storetest.CheckLog(t, s.b, s.meta.ID); len(events) != appended {
		t.Errorf("%d events, %d were acknowledged", len(events), appended)
	}
	s.must("Seal", s.a.Seal(s.ctx, s.meta.ID, stream.DoneEvent(stream.Summary{})))
	s.must("Book", s.w.Book(s.ctx, stream.Summary{FinishReason: "length"}))
	if events := storetest.CheckLog(t, s.b, s.meta.ID); len(events) != appended+1 {
		t.Errorf("%d events with the end, want %d", len(events), appended+1)
	}
	s.must("Delete", s.b.Delete(s.ctx, s.meta.ID))
	for began := time.Now(); ; pass(50 * time.Millisecond) { // it lingers, and then there is room
		_, err := s.a.Create(s.ctx, newMeta("bob"))
		if err == nil {
			break
		}
		if !errors.Is(err, stream.ErrFull) || time.Since(began) > soon {
			t.Fatalf("Create: %v", err)
		}
	}
}

// Nothing is left of streams that have expired, however they ended.
func TestNothingLeaks(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix(), Retention: 500 * time.Millisecond, Lease: shortLease})
	lost, err := Open(s.ctx, Options{URL: server.URL(), Prefix: string(s.a.keys), Retention: 500 * time.Millisecond, Lease: shortLease})
	s.must("Open", err)
	end := func(at *Store, by *Store, owner string, terminal stream.Event) stream.Meta {
		meta := newMeta(owner)
		meta.IdempotencyKey = "key"
		w := create(t, at, meta)
		s.must("Append", w.Append(s.ctx, []stream.Event{{}, {}, {}}))
		s.must("Seal", by.Seal(s.ctx, meta.ID, terminal))
		s.must("Book", w.Book(s.ctx, stream.Summary{}))
		return meta
	}
	end(s.a, s.a, "ann", stream.DoneEvent(stream.Summary{}))
	end(s.a, s.b, "bob", stream.CancelledEvent(stream.Summary{}))
	end(s.a, s.a, "eve", lostEvent())
	s.must("Delete", s.b.Delete(s.ctx, end(s.a, s.a, "joe", stream.DoneEvent(stream.Summary{})).ID))
	create(t, lost, newMeta("ann"))
	s.must("Append", s.append(1))
	crash(lost)
	s.seal()

	constant := map[string]bool{s.a.keys.replicas(): true, s.a.keys.pulse(): true, s.a.keys.born(): true}
	for {
		names, err := s.b.client.Do(s.ctx, s.b.client.B().Keys().Pattern("*").Build()).AsStrSlice()
		s.must("KEYS", err)
		var left []string
		for _, name := range names {
			if !constant[name] {
				left = append(left, name)
			}
		}
		if len(left) == 0 {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-s.ctx.Done():
			t.Fatalf("left: %q", left)
		}
	}
	replicas, err := s.b.client.Do(s.ctx, s.b.client.B().Zrange().Key(s.b.keys.replicas()).Min("0").Max("-1").Build()).AsStrSlice()
	if s.must("ZRANGE", err); len(replicas) != 2 {
		t.Errorf("%d replicas have a lease, 2 live", len(replicas))
	}
	s.a.Close()
	s.b.Close()
}

// An owner's list does not outgrow the streams there are.
func TestListIsTrimmed(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix(), Retention: 10 * time.Millisecond}) // which runs on: the list lives
	for range 200 {
		meta := newMeta("ann")
		create(t, s.a, meta)
		s.must("Seal", s.a.Seal(s.ctx, meta.ID, stream.DoneEvent(stream.Summary{})))
	}
	pass(20 * time.Millisecond)
	for range 100 {
		create(t, s.a, newMeta("ann"))
	}
	listed, err := s.a.client.Do(s.ctx, s.a.client.B().Zcard().Key(s.a.keys.owned(ownerHash("ann"))).Build()).AsInt64()
	if s.must("ZCARD", err); listed > 110 {
		t.Errorf("%d streams listed, 101 are there", listed)
	}
}

func TestOpenFails(t *testing.T) {
	secured := redistest.Start(t, redistest.Config{Args: []string{"--requirepass", "pass"}})
	closed := redistest.Start(t, redistest.Config{})
	closed.Stop()
	paused := redistest.Start(t, redistest.Config{})
	paused.Pause()
	for name, url := range map[string]string{
		"not a URL": "redis//x", "wrong password": "redis://:secret@" + secured.Addr(), "nobody there": closed.URL(), "silent": paused.URL(),
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			_, err := Open(t.Context(), Options{URL: url})
			if err == nil || strings.Contains(err.Error(), "secret") {
				t.Errorf("Open: %v", err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("after %v: %v", took, err)
			}
			t.Log(err)
		})
	}
	open(t, Options{URL: "redis://default:pass@" + secured.Addr()})
}

func TestEvictionIsWarnedOf(t *testing.T) {
	for _, test := range []struct {
		max, policy string
		warn        bool
	}{{"0", "allkeys-lru", false}, {"100mb", "allkeys-lru", true}, {"100mb", "noeviction", false}} {
		server := redistest.Start(t, redistest.Config{Args: []string{"--maxmemory", test.max, "--maxmemory-policy", test.policy}})
		var log bytes.Buffer
		s := open(t, Options{URL: server.URL(), Logger: slog.New(slog.NewTextHandler(&log, nil))})
		s.Close()
		if strings.Contains(log.String(), "noeviction") != test.warn {
			t.Errorf("%+v: logged %q", test, log.String())
		}
	}
}

// What runs here takes a bounded amount of memory: beyond it nothing new begins,
// and what has ended makes room.
func TestMemoryIsBounded(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := open(t, Options{URL: server.URL(), Prefix: prefix(), MaxMemory: 10 << 10})
	meta := newMeta("ann")
	w := create(t, s, meta)
	if err := w.Append(t.Context(), []stream.Event{{Data: make([]byte, 11<<10)}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), newMeta("ann")); !errors.Is(err, stream.ErrFull) {
		t.Errorf("Create: %v, want ErrFull", err)
	}
	if err := w.Append(t.Context(), []stream.Event{{Data: []byte("goes on")}}); err != nil {
		t.Errorf("a running stream: %v", err)
	}
	if err := s.Seal(t.Context(), meta.ID, stream.DoneEvent(stream.Summary{})); err != nil {
		t.Fatal(err)
	}
	if err := w.Book(t.Context(), stream.Summary{}); err != nil {
		t.Fatal(err)
	}
	create(t, s, newMeta("ann"))
	if left := s.memory.Load(); left != 0 {
		t.Errorf("%d bytes are counted for nothing", left)
	}
}
