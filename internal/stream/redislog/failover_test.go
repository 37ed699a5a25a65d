package redislog

import (
	"net"
	"testing"

	"weir/internal/redistest"
)

// replicate makes a server another's replica.
func replicate(t *testing.T, replica, primary *redistest.Server) {
	t.Helper()
	host, port, err := net.SplitHostPort(primary.Addr())
	if err != nil {
		t.Fatal(err)
	}
	replica.Command("REPLICAOF " + host + " " + port)
}

// The server's name leads to its replica, and the server, which becomes the
// replica, keeps its connections: nobody writes to it for long.
func TestFailoverByName(t *testing.T) {
	for name, late := range map[string]bool{"the name changes first": false, "the name changes late": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			atOnce := redistest.Config{Args: []string{"--repl-diskless-sync-delay", "0"}}
			first, second := redistest.Start(t, atOnce), redistest.Start(t, atOnce)
			replicate(t, second, first)
			l := newLink(t, first)
			during(t, Options{URL: l.url(), Prefix: prefix()}, func(s *story) {
				for {
					wait := s.b.client.B().Wait().Numreplicas(1).Timeout(1000).Build()
					if n, err := s.b.client.Do(s.ctx, wait).AsInt64(); err == nil && n == 1 {
						break
					}
					s.must("replicate", s.ctx.Err())
				}
				if !late {
					l.leadTo(second)
				}
				second.Command("REPLICAOF NO ONE")
				replicate(t, first, second)
				if late {
					pass(3 * leaveEvery)
					l.leadTo(second)
				}
				created := make(chan error, 1)
				go func() {
					for {
						if _, err := s.b.Create(s.ctx, newMeta("bob")); err == nil || s.ctx.Err() != nil {
							created <- err
							return
						}
					}
				}()
				s.must("Create", <-created)
			})
		})
	}
}
