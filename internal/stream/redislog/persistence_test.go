package redislog

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weir/internal/redistest"
	"weir/internal/stream"
	"weir/internal/stream/storetest"
)

// The server's process and the owner's die in the same moment, in the midst of
// appends. With an AOF that is always written what was acknowledged is there,
// and another replica ends it; without an AOF nothing is left. In between is
// "everysec", whose file gets the events before their answer goes out unless the
// disk is slow, and then within 2 s: how many are lost is logged.
func TestServerAndOwnerKilled(t *testing.T) {
	for _, aof := range []string{"always", "everysec", ""} {
		t.Run("with AOF "+aof, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, redistest.Config{AOF: aof})
			o := Options{URL: server.URL(), Prefix: prefix(), Lease: shortLease}
			owner, err := Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			other := open(t, o)
			const streams = 50
			var ids [streams]string
			var acknowledged [streams]atomic.Uint64
			var all sync.WaitGroup
			var enough sync.Once
			plenty := make(chan struct{})
			for i := range streams {
				meta := newMeta("ann")
				ids[i] = meta.ID
				w := create(t, owner, meta)
				all.Go(func() {
					for {
						e := []stream.Event{{Data: []byte(token(acknowledged[i].Load() + 1))}}
						if err := w.Append(t.Context(), e); err != nil {
							return
						}
						if acknowledged[i].Add(1) == 200 {
							enough.Do(func() { close(plenty) })
						}
					}
				})
			}
			<-plenty
			server.Kill()
			var atKill [streams]uint64
			for i := range streams {
				atKill[i] = acknowledged[i].Load()
			}
			crash(owner)
			all.Wait()
			pass(100 * time.Millisecond)
			server.Start()

			lost := 0
			for i, id := range ids {
				r, err := openAfterLoss(t.Context(), other, id, 0)
				if errors.Is(err, stream.ErrNotFound) {
					lost += int(atKill[i])
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				events, err := storetest.Follow(t.Context(), r)
				r.Close()
				if err != nil {
					t.Fatal(err)
				}
				kept := uint64(len(events)) - 1
				wantTokens(t, id, events[:kept], 1)
				lost += int(atKill[i] - min(atKill[i], kept))
			}
			total := 0
			for _, n := range atKill {
				total += int(n)
			}
			t.Logf("%d of %d acknowledged events are lost", lost, total)
			if aof == "always" && lost > 0 || aof == "" && lost != total {
				t.Errorf("%d of %d acknowledged events are lost", lost, total)
			}
		})
	}
}
