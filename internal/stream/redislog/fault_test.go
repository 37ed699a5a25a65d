package redislog

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"weir/internal/redistest"
	"weir/internal/stream"
)

// pass waits for what only time can tell.
func pass(d time.Duration) { <-time.After(d) }

func TestServerFaults(t *testing.T) {
	faults := map[string]struct {
		aof   string
		fault func(s *story, server *redistest.Server)
	}{
		"paused for 3 s": {"", func(_ *story, server *redistest.Server) {
			server.Pause()
			pass(3 * time.Second)
			server.Resume()
		}},
		"restarted with AOF": {"everysec", func(_ *story, server *redistest.Server) {
			server.Stop()
			pass(200 * time.Millisecond)
			server.Start()
		}},
		"killed with AOF always": {"always", func(s *story, server *redistest.Server) {
			for range 3 {
				server.Kill()
				server.Start()
				s.await(20)
			}
		}},
		"killed with AOF everysec": {"everysec", func(_ *story, server *redistest.Server) {
			server.Kill()
			pass(1500 * time.Millisecond)
			server.Start()
		}},
		"killed without AOF": {"", func(_ *story, server *redistest.Server) {
			server.Kill()
			server.Start()
		}},
		"rolled back": {"always", func(s *story, server *redistest.Server) {
			for range 3 {
				snapshot := server.Snapshot()
				s.await(100)
				server.Rollback(snapshot)
				s.await(20)
			}
		}},
		"emptied": {"", func(s *story, server *redistest.Server) {
			for range 3 {
				server.FlushAll()
				s.await(20)
			}
		}},
	}
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, redistest.Config{AOF: f.aof})
			during(t, Options{URL: server.URL(), Prefix: prefix()}, func(s *story) { f.fault(s, server) })
		})
	}
}

func (s *story) command(words ...string) string {
	s.Helper()
	c := s.b.client.B().Arbitrary(words[0]).Args(words[1:]...).Build()
	answer, err := s.b.client.Do(s.ctx, c).ToAny()
	if err != nil && s.ctx.Err() != nil {
		s.Fatalf("%v: %v", words, err)
	}
	text, _ := answer.(string)
	return text
}

func TestConnectionFaults(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	for name, kind := range map[string]string{"subscriptions cut": "pubsub", "calls cut": "normal"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			during(t, Options{URL: server.URL(), Prefix: prefix()}, func(s *story) {
				for range 20 {
					s.command("CLIENT", "KILL", "TYPE", kind)
					s.await(20)
				}
			})
		})
	}
}

// loseTail takes events back from the server, as a failover to a replica that
// lags does.
func (s *story) loseTail(events uint64) {
	s.Helper()
	last := func() uint64 {
		status, err := s.b.Status(s.ctx, s.meta.ID)
		s.must("Status", err)
		return status.LastSeq
	}()
	script := `for seq = ARGV[1] + 1, ARGV[2] do redis.call('XDEL', KEYS[1], '0-' .. seq) end
redis.call('XSETID', KEYS[1], '0-' .. ARGV[1])
return redis.call('HSET', KEYS[2], 'last', ARGV[1])`
	s.must("lose the tail", s.b.client.Do(s.ctx, s.b.client.B().Eval().Script(script).Numkeys(2).
		Key(s.b.keys.log(s.meta.ID), s.b.keys.meta(s.meta.ID)).Arg(seqText(last-events), seqText(last)).Build()).Error())
}

func TestTailLost(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	options := Options{URL: server.URL(), Prefix: prefix()}
	t.Run("and written again by an append", func(t *testing.T) {
		s := newStory(t, options)
		readers := []*reading{s.read("at its producer", s.a, 0), s.read("elsewhere", s.b, 0)}
		s.must("Append", s.append(300))
		s.must("the mirror", s.b.mirrors[s.meta.ID].await(s.ctx, 300))
		s.loseTail(250)
		s.must("Append", s.append(1))
		s.loseTail(1)
		s.must("Append", s.append(5))
		s.seal()
		for _, g := range append(readers, s.read("afterwards", s.b, 0)) {
			s.wantWhole(g, stream.TypeDone)
		}
	})
	t.Run("and written again by the seal", func(t *testing.T) {
		s := newStory(t, options)
		g := s.read("elsewhere", s.b, 0)
		s.must("Append", s.append(40))
		s.loseTail(3)
		s.seal()
		s.wantWhole(g, stream.TypeDone)
		s.wantWhole(s.read("afterwards", s.b, 0), stream.TypeDone)
	})
	t.Run("and ended by another before it is written again", func(t *testing.T) {
		s := newStory(t, options)
		readers := []*reading{s.read("at its producer", s.a, 0), s.read("elsewhere", s.b, 0)}
		s.must("Append", s.append(41))
		s.must("the mirror", s.b.mirrors[s.meta.ID].await(s.ctx, 41))
		s.loseTail(4)
		s.must("Seal", s.b.Seal(s.ctx, s.meta.ID, lostEvent()))
		<-s.w.Sealed()
		if err := s.append(1); !errors.Is(err, stream.ErrSealed) {
			t.Errorf("Append: %v", err)
		}
		for _, g := range readers {
			<-g.done
			if g.err == nil || len(g.events) != 41 {
				t.Errorf("%s: %d events, %v; want an abort after 41", g.name, len(g.events), g.err)
			}
		}
		for _, at := range []*Store{s.a, s.b} {
			status, err := at.Status(s.ctx, s.meta.ID)
			s.must("Status", err)
			if status.LastSeq != 38 || status.Locate(stream.Cursor{Stream: s.meta.ID, Seq: 41}) != stream.PlaceBeyond ||
				status.Locate(stream.Cursor{Stream: s.meta.ID, Seq: 38}) != stream.PlaceBeyond {
				t.Errorf("last seq %d, terminal %+v", status.LastSeq, status.Terminal)
			}
		}
		g := s.read("afterwards", s.b, 0)
		if <-g.done; g.err != nil || len(g.events) != 38 {
			t.Errorf("afterwards: %d events, %v", len(g.events), g.err)
		}
	})
}

// What can't be done now says so soon; what is appended is taken in hand, unseen.
func TestServerAway(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix()})
	ended := newMeta("ann")
	booked := create(t, s.a, ended)
	s.must("Seal", s.a.Seal(s.ctx, ended.ID, stream.DoneEvent(stream.Summary{})))
	s.must("Append", s.append(1))
	r, err := s.a.Open(s.ctx, s.meta.ID, 1)
	s.must("Open", err)
	defer r.Close()

	server.Pause()
	calls := map[string]func(ctx context.Context) error{
		"Create":  func(ctx context.Context) error { _, err := s.b.Create(ctx, newMeta("ann")); return err },
		"Open":    func(ctx context.Context) error { _, err := s.b.Open(ctx, s.meta.ID, 0); return err },
		"Seal":    func(ctx context.Context) error { return s.a.Seal(ctx, ended.ID, stream.DoneEvent(stream.Summary{})) },
		"Status":  func(ctx context.Context) error { _, err := s.b.Status(ctx, s.meta.ID); return err },
		"Claimed": func(ctx context.Context) error { _, err := s.b.Claimed(ctx, "ann", "key"); return err },
		"List":    func(ctx context.Context) error { _, err := s.b.List(ctx, "ann", "", 10); return err },
		"Delete":  func(ctx context.Context) error { return s.b.Delete(ctx, s.meta.ID) },
		"Secret":  func(ctx context.Context) error { _, err := s.b.Secret(ctx); return err },
		"Book":    func(ctx context.Context) error { return booked.Book(ctx, stream.Summary{}) },
	}
	var all sync.WaitGroup
	for name, call := range calls {
		for _, limit := range []time.Duration{300 * time.Millisecond, time.Minute} {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(s.ctx, limit)
				defer cancel()
				began := time.Now()
				err := call(ctx)
				if took := time.Since(began); !errors.Is(err, stream.ErrUnavailable) || took > min(limit+time.Second, 5*time.Second) {
					t.Errorf("%s with %v: %v after %v", name, limit, err, took)
				}
			})
		}
	}
	began := time.Now()
	s.must("Append", s.append(3))
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("Append took %v", took)
	}
	all.Wait()
	if events, err := r.Next(nil); len(events) > 0 || err != nil {
		t.Errorf("a reader has %d events that the server has not: %v", len(events), err)
	}
	server.Resume()
	s.seal()
	s.wantWhole(s.read("afterwards", s.b, 0), stream.TypeDone)
}

func seqText(seq uint64) string { return strconv.FormatUint(seq, 10) }
