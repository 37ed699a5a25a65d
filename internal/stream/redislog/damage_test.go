package redislog

import (
	"testing"
	"time"

	"weir/internal/redistest"
	"weir/internal/stream"
)

// spoil makes a key what the store never made it.
func spoil(t *testing.T, s *Store, key string) {
	t.Helper()
	if err := s.client.Do(t.Context(), s.client.B().Set().Key(key).Value("x").Build()).Error(); err != nil {
		t.Fatal(err)
	}
}

// awaitEnd waits until the stream has ended.
func awaitEnd(t *testing.T, s *Store, id string) {
	t.Helper()
	for began := time.Now(); ; pass(10 * time.Millisecond) {
		status, err := s.Status(t.Context(), id)
		if err == nil && !status.Running() {
			return
		}
		if time.Since(began) > soon {
			t.Fatalf("it runs on: %+v, %v", status, err)
		}
	}
}

// A stream that was tampered with keeps no other one of a lost replica running.
func TestReapPastDamage(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	o := Options{URL: server.URL(), Prefix: prefix(), Lease: shortLease}
	lost, left := open(t, o), open(t, o)
	log, meta, good := newMeta("ann"), newMeta("ann"), newMeta("ann")
	for _, m := range []stream.Meta{log, meta, good} {
		create(t, lost, m)
	}
	spoil(t, left, left.keys.log(log.ID))
	spoil(t, left, left.keys.meta(meta.ID))
	crash(lost)
	awaitEnd(t, left, good.ID)
	for began := time.Now(); ; pass(10 * time.Millisecond) {
		running, err := left.client.Do(t.Context(), left.client.B().Scard().Key(left.keys.running(lost.token)).Build()).AsInt64()
		if err == nil && running == 0 {
			break
		}
		if time.Since(began) > soon {
			t.Fatalf("%d streams of the lost replica are looked at for ever, %v", running, err)
		}
	}
	for _, key := range []string{left.keys.log(log.ID), left.keys.meta(log.ID), left.keys.meta(meta.ID)} {
		ttl, err := left.client.Do(t.Context(), left.client.B().Pttl().Key(key).Build()).AsInt64()
		if err != nil || ttl <= 0 {
			t.Errorf("%s is kept for %d ms, %v", key, ttl, err)
		}
	}
}

// Nor does it keep one from its events that is appended to in the same call.
func TestAppendPastDamage(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix()})
	log, meta := newMeta("ann"), newMeta("ann")
	bad := []*writer{create(t, s.a, log).(*writer), create(t, s.a, meta).(*writer)}
	spoil(t, s.b, s.b.keys.log(log.ID))
	spoil(t, s.b, s.b.keys.meta(meta.ID))
	event := []stream.Event{{Seq: 1, Data: []byte(token(1))}}
	refusals, err := s.a.appendCall(s.ctx, []part{{bad[0], event}, {s.w.(*writer), event}, {bad[1], event}})
	if err != nil || len(refusals) != 2 || refusals[0].why == "" || refusals[2].why == "" {
		t.Fatalf("refused: %+v, %v", refusals, err)
	}
	if status, err := s.b.Status(s.ctx, s.meta.ID); err != nil || status.LastSeq != 1 {
		t.Errorf("the good one has %d events, %v", status.LastSeq, err)
	}
	for _, w := range bad {
		if err := w.Append(s.ctx, []stream.Event{{Data: []byte(token(1))}}); err == nil {
			t.Error("a damaged stream takes an event")
		}
	}
}

// A lease that was given by a clock that ran ahead does not outlast its replica
// for so long.
func TestServersClockSetBack(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	o := Options{URL: server.URL(), Prefix: prefix(), Lease: shortLease}
	lost, left := open(t, o), open(t, o)
	meta := newMeta("ann")
	create(t, lost, meta)
	crash(lost)
	ahead := left.client.B().Zincrby().Key(left.keys.replicas()).Increment(float64(time.Hour.Milliseconds())).Member(lost.token).Build()
	if err := left.client.Do(t.Context(), ahead).Error(); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, left, meta.ID)
}
