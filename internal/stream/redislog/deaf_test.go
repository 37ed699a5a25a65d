package redislog

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"weir/internal/redistest"
	"weir/internal/stream"
)

// A reader of an empty log hears of the stream by the time that it is open.
func TestOpenHears(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix()})
	r, err := s.b.Open(s.ctx, s.meta.ID, 0)
	s.must("Open", err)
	defer r.Close()
	said := s.b.client.B().PubsubNumsub().Channel(s.b.keys.log(s.meta.ID)).Build()
	heard, err := s.b.client.Do(s.ctx, said).ToArray()
	s.must("PUBSUB NUMSUB", err)
	if n, err := heard[1].AsInt64(); err != nil || n != 1 {
		t.Errorf("%d listen, %v", n, err)
	}
}

// Who may not subscribe reads what there is at once, and the rest later.
func TestNoSubscriptions(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	server.Command("ACL SETUSER deaf on >pass ~* &* +@all -subscribe")
	s := newStory(t, Options{URL: server.URL(), Prefix: prefix()})
	var log bytes.Buffer
	deaf := open(t, Options{
		URL: "redis://deaf:pass@" + server.Addr(), Prefix: string(s.a.keys), Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	readers := []*reading{s.read("before the first event", deaf, 0)}
	s.must("Append", s.append(3))
	for range 5 {
		began := time.Now()
		readers = append(readers, s.read("elsewhere", deaf, 0))
		if took := time.Since(began); took > 2*lookTimeout {
			t.Errorf("Open took %v", took)
		}
	}
	s.must("Append", s.append(3))
	s.seal()
	for _, g := range readers {
		s.wantWhole(g, stream.TypeDone)
	}
	deaf.Close()
	if n := strings.Count(log.String(), "may not subscribe"); n != 1 {
		t.Errorf("warned %d times: %s", n, log.String())
	}
}
