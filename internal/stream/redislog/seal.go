package redislog

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"strconv"

	"weir/internal/stream"
)

// Seal implements stream.Store. Of a stream that is produced here it comes
// after the events that were accepted before.
func (s *Store) Seal(ctx context.Context, id string, terminal stream.Event) error {
	if _, ok := stream.IDTime(id); !ok {
		return fmt.Errorf("seal: %w", stream.ErrNotFound)
	}
	terminal.Data = bytes.Clone(terminal.Data)
	by := rand.Text()
	for {
		again, err := s.seal(ctx, id, terminal, by)
		if err != nil {
			return fmt.Errorf("seal: %w", err)
		}
		if !again {
			return nil
		}
	}
}

// seal tries once; again says that the server has to get back first what it
// lost.
func (s *Store) seal(ctx context.Context, id string, terminal stream.Event, by string) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	w, shown := s.writer(id), uint64(0)
	if w != nil {
		if err := w.flushed(ctx); err != nil {
			return false, err
		}
		if broken := w.broken(); broken != nil {
			// Events that were accepted, or shown, will never be in the log:
			// it does not end as the producer thinks.
			terminal = stream.AsError(broken).Event(stream.Summary{})
			terminal.Recovery = 1
			defer func() {
				if err == nil && !again {
					err = stream.ErrSealed
				}
			}()
		} else if !w.over() {
			shown, _ = w.log.Last()
		}
	}
	answer, err := s.run(ctx, sealScript, []string{s.keys.log(id), s.keys.meta(id)}, []string{
		string(s.keys), id, s.token, strconv.FormatUint(shown, 10), terminal.Type, string(terminal.Data),
		strconv.Itoa(int(terminal.Recovery)), strconv.FormatInt(s.now().UnixMilli(), 10), s.retentionMS(), by,
	})
	if err != nil {
		return false, err
	}
	switch answer[0] {
	case "ok":
		if terminal.Seq, err = strconv.ParseUint(answer[1], 10, 64); err != nil {
			return false, fmt.Errorf("%w: %w", stream.ErrUnavailable, err)
		}
		if w != nil {
			w.finish(terminal)
		}
		return false, nil
	case "last": // only what is produced here may be behind
		last, err := strconv.ParseUint(answer[1], 10, 64)
		if err != nil {
			return false, fmt.Errorf("%w: %w", stream.ErrUnavailable, err)
		}
		w.resend(last)
		return true, nil
	}
	// Sealed, or missing; the look tells a writer here of it.
	status, err := s.look(ctx, id)
	switch {
	case err == nil && status.Running():
		return true, nil // written again by its producer meanwhile
	case err == nil:
		return false, stream.ErrSealed
	case w != nil && unknown(err) && !w.over():
		w.resendAll()
		return true, nil
	case w != nil && unknown(err):
		w.vanish(err) // it can't be written again: nobody is to wait for its end
		return false, err
	}
	return false, s.orLost(ctx, id, err)
}

// broken is why the log can't become what its producer made, though it has no
// end yet; nil otherwise.
func (w *writer) broken() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.sealed:
		return nil
	default:
		return w.err
	}
}

// over reports whether nothing can be appended any more.
func (w *writer) over() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err != nil
}

// resend has the senders send again what follows last.
func (w *writer) resend(last uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stored = min(w.stored, last)
	w.enqueue()
}

// resendAll has the senders restore the stream.
func (w *writer) resendAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost = true
	w.enqueue()
}
