package segment

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"weir/internal/stream"
)

// tombstone is a grave in the index, until its id is old enough to tell by
// itself that the stream is no more.
type tombstone struct {
	grave
	kind    kind
	created position // the stream's name on disk
	span    span     // of the tombstone's record
}

// maxGraves bounds the memory of forgotten streams, and gravePart the disk they
// take: of one more, only the age of its id will tell.
const (
	maxGraves = 100_000
	gravePart = 8
)

// How often expired streams are looked for while nobody creates any, and what
// could not be written is tried again.
const (
	sweepEvery = time.Minute
	retryEvery = time.Second
)

// sweep removes files that nobody needs, and goes on with what there was no
// room for, until the store is closed.
func (s *Store) sweep() {
	defer close(s.swept)
	expiry, retry := time.NewTicker(sweepEvery), time.NewTicker(retryEvery)
	defer expiry.Stop()
	defer retry.Stop()
	for {
		select {
		case <-s.closed:
			return
		case <-s.sweeping:
		case <-retry.C:
			s.endLeftOver()
			continue
		case <-expiry.C:
			s.mu.Lock()
			s.dropExpired()
			s.mu.Unlock()
			s.eraseLeftOver()
			s.checkDir()
		}
		if err := s.shelf.sweep(); err != nil {
			s.logger.Error("can't remove a log file", "err", err)
		}
	}
}

// checkDir says so when the directory was removed under us: what is written
// would be gone with the process.
func (s *Store) checkDir() {
	if _, err := os.Stat(filepath.Join(s.dir, lockName)); errors.Is(err, os.ErrNotExist) {
		s.logger.Error("the data directory is not there any more: what is written will be lost", "dir", s.dir)
	}
}

// sweepSoon wakes the sweeper.
func (s *Store) sweepSoon() {
	select {
	case s.sweeping <- struct{}{}:
	default:
	}
}

// dropExpired forgets what is past its retention. The caller holds mu.
func (s *Store) dropExpired() {
	now := s.now()
	for len(s.ended) > 0 && s.ended[0].expired(now, s.retention) {
		e := s.ended[0]
		s.forget(e)
		s.freeKey(e.owner, e.key, e.id)
		s.leave(e)
	}
	for len(s.buried) > 0 && (s.tooManyGraves() || stream.Expired(s.buried[0].id, now, s.retention)) {
		g := s.buried[0]
		s.buried[0] = nil
		s.buried = s.buried[1:]
		s.graveBytes -= g.size()
		delete(s.graves, g.id)
		s.freeKey(g.owner, g.key, g.id)
		s.shelf.release(&g.span)
	}
	s.sweepSoon()
}

func (s *Store) tooManyGraves() bool {
	return len(s.buried) > maxGraves || s.maxBytes > 0 && s.graveBytes > s.maxBytes/gravePart
}

func (s *Store) freeKey(owner, key, id string) {
	if c := (claim{owner, key}); key != "" && s.claims[c] == id {
		delete(s.claims, c)
	}
}

// forget takes an ended stream out of the index. Readers that have it open may
// finish. The caller holds mu, and lets its records go.
func (s *Store) forget(e *entry) {
	s.chill(e)
	delete(s.streams, e.id)
	s.removeEnded(e)
	list := s.owned[e.owner]
	if at, found := slices.BinarySearchFunc(list, e.id, byID); found && len(list) == 1 {
		delete(s.owned, e.owner)
	} else if found {
		s.owned[e.owner] = slices.Delete(list, at, at+1)
	}
	if e.freedKey() {
		s.freeKey(e.owner, e.key, e.id)
	}
}

// leave lets go of a stream's records. If the one with which it began stays, for
// the sake of others, while its end goes, it must not look like one that runs.
func (s *Store) leave(e *entry) {
	alone := len(s.shelf.numbers(&e.span)) == 1
	s.shelf.release(&e.span)
	if alone {
		return // beginning and end go together
	}
	if err := s.markForgotten(e.created); err != nil {
		s.logger.Error("can't mark a stream as forgotten", "stream", e.id, "err", err)
	}
}

// markForgotten makes a create record, if it is there, one of a stream that is
// no more.
func (s *Store) markForgotten(created position) error {
	f, release, err := s.shelf.file(created.segment)
	if err != nil {
		return nil // it went with its segment
	}
	defer release()
	var b [headerSize]byte
	if _, err := f.ReadAt(b[:], int64(created.offset)); err != nil {
		return err
	}
	h, ok := parseHeader(b[:], created)
	if !ok {
		return errDamaged
	}
	h.kind = kindForgotten
	putHeader(b[:], h, created)
	_, err = f.WriteAt(b[:], int64(created.offset))
	return err
}

// bury remembers a stream that is no more. The caller holds mu.
func (s *Store) bury(g *tombstone) {
	s.graves[g.id] = g
	at, _ := s.findGrave(g.id)
	s.buried = slices.Insert(s.buried, at, g)
	s.graveBytes += g.size()
}

func (s *Store) findGrave(id string) (int, bool) {
	return slices.BinarySearchFunc(s.buried, id, func(g *tombstone, id string) int { return strings.Compare(g.id, id) })
}

func newTombstone(e *entry, k kind) *tombstone {
	g := &tombstone{
		grave: grave{id: e.id, owner: e.owner, key: e.key}, kind: k, created: e.created, span: span{grave: true},
	}
	if e.freedKey() {
		g.key = ""
	}
	return g
}

// commit is the tombstone's record.
func (g *tombstone) commit() *commit {
	return &commit{
		header:  header{kind: g.kind, stream: g.created},
		payload: appendGrave(nil, g.grave), span: &g.span,
	}
}

// size is about what its record takes.
func (g *tombstone) size() int64 {
	return headerSize + int64(len(g.id)+len(g.owner)+len(g.key)) + 3
}
