package redislog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"weir/internal/stream"
)

// Open implements stream.Store. A stream that is produced here is read from
// memory; any other from a mirror, once that has what the server has now.
func (s *Store) Open(ctx context.Context, id string, after uint64) (stream.Reader, error) {
	if w := s.writer(id); w != nil {
		err := s.lookBriefly(ctx, id)
		if err == nil || errors.Is(err, stream.ErrUnavailable) || w.ours(err) {
			return w.log.Open(after), nil
		}
		return nil, fmt.Errorf("open: %w", err)
	}
	status, err := s.look(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("open: %w", s.orLost(ctx, id, err))
	}
	m, err := s.mirror(id, status.Running())
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	if err := m.await(ctx, status.LastSeq); err != nil {
		m.release()
		return nil, fmt.Errorf("open: %w", err)
	}
	return &reader{Reader: m.log.Open(after), release: sync.OnceFunc(m.release)}, nil
}

// lookBriefly learns whether somebody else ended the stream.
func (s *Store) lookBriefly(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	_, err := s.look(ctx, id)
	return err
}

// ours reports whether the stream is still this writer's, though the server
// does not know it: it was lost there, and will be written again.
func (w *writer) ours(err error) bool {
	return unknown(err) && !w.over()
}

// await waits until the mirror has event seq, and has looked once since it hears
// of the stream: else an end might be forgotten before it is seen. It waits while
// there is progress.
func (m *mirror) await(ctx context.Context, seq uint64) error {
	r := m.log.Open(max(seq, 1) - 1)
	defer r.Close()
	standstill := time.NewTimer(callTimeout)
	defer standstill.Stop()
	deaf := time.AfterFunc(lookTimeout, m.nudge) // what can't be heard can be read
	defer deaf.Stop()
	looked, here, hurried, had := m.looked, seq == 0, false, uint64(0)
	for {
		if !here {
			// Only a Next without news waits for some.
			events, err := r.Next(nil)
			if err != nil {
				return err
			}
			here = len(events) > 0
		}
		if here && looked == nil {
			return nil
		}
		last, _ := m.log.Last()
		if last > had {
			had = last
			standstill.Reset(callTimeout)
		}
		if last > 0 && !hurried {
			hurried = true // what is missing may have been published to nobody
			m.nudge()
		}
		select {
		case <-r.Wake():
		case <-looked:
			looked = nil
		case <-standstill.C:
			return fmt.Errorf("%w: the log can't be read", stream.ErrUnavailable)
		case <-ctx.Done():
			return fmt.Errorf("%w: read the log: %w", stream.ErrUnavailable, context.Cause(ctx))
		}
	}
}

// reader is a reader of a mirror, which lives as long as it has any.
type reader struct {
	stream.Reader
	release func()
}

// Close implements stream.Reader.
func (r *reader) Close() {
	r.Reader.Close()
	r.release()
}
