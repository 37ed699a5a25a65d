package segment

import (
	"context"
	"errors"
	"fmt"

	"weir/internal/stream"
)

// Delete implements stream.Catalog. The payloads of the stream's events are
// overwritten in place; what a file system or a disk keeps of old blocks is
// beyond it.
func (s *Store) Delete(_ context.Context, id string) error {
	e, err := s.find(id)
	if err != nil {
		return err
	}
	e.changing.Lock()
	defer e.changing.Unlock()
	if e.gone {
		return &stream.GoneError{Owner: e.owner}
	}
	if e.running() {
		return stream.ErrRunning
	}
	g := newTombstone(e, kindDeleted)
	// The tombstone first: when a crash cuts the erasing short, the next
	// opening goes on with it.
	if err := s.journal.commit(g.commit()); err != nil {
		return err
	}
	e.gone = true
	s.mu.Lock()
	if s.streams[e.id] == e {
		s.forget(e)
		s.bury(g)
	}
	s.mu.Unlock()
	err = s.erase(e)
	s.shelf.release(&e.span)
	s.sweepSoon()
	return err
}

// erase overwrites the payloads of a stream's events, the newest first. Each
// stays a record, so that the chain leads on from where a crash cut it short.
func (s *Store) erase(e *entry) error {
	_, last, _ := e.current()
	err := s.chain(last, func(r record) error {
		if r.kind == kindErased {
			return nil
		}
		return s.eraseRecord(r)
	})
	if e.lost || errors.Is(err, errDamaged) {
		// The chain misses what stood behind a damage.
		err = s.eraseByScan(e)
	}
	if err == nil && s.journal.sync {
		err = s.shelf.sync(e.span)
	}
	if err != nil {
		return fmt.Errorf("segment: erase %s: %w", e.id, err)
	}
	return nil
}

func (s *Store) eraseRecord(r record) error {
	f, release, err := s.shelf.file(r.at.segment)
	if err != nil {
		return err
	}
	defer release()
	blank := make([]byte, headerSize+r.length)
	r.kind, r.sum = kindErased, checksum(blank[headerSize:])
	putHeader(blank, r.header, r.at)
	_, err = f.WriteAt(blank, int64(r.at.offset))
	return err
}

// eraseByScan looks for the stream's records everywhere they may be.
func (s *Store) eraseByScan(e *entry) error {
	for n := e.span.first; n <= e.span.last; n++ {
		data, err := s.shelf.read(n)
		if err != nil {
			return err
		}
		var failed error
		visit := func(r record) {
			if r.stream == e.created && (r.kind == kindEvents || r.kind == kindEnd) {
				failed = errors.Join(failed, s.eraseRecord(r))
			}
		}
		for _, d := range scan(n, data, visit).damages {
			at := position{n, uint32(d.Offset)}
			if h, ok := parseHeader(data[d.Offset:], at); ok && h.stream == e.created {
				failed = errors.Join(failed, s.eraseRecord(record{header: h, at: at}))
			}
		}
		if failed != nil {
			return failed
		}
	}
	return nil
}
