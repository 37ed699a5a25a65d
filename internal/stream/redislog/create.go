package redislog

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"weir/internal/stream"
)

// Create implements stream.Store.
func (s *Store) Create(ctx context.Context, meta stream.Meta) (stream.Writer, error) {
	w := s.newWriter(meta, rand.Text())
	if err := s.admit(w); err != nil {
		return nil, err
	}
	if err := s.create(ctx, w); err != nil {
		s.forget(meta.ID)
		if errors.Is(err, stream.ErrUnavailable) {
			s.abandon(meta.ID)
		}
		return nil, err
	}
	s.mu.Lock()
	w.created = true
	s.mu.Unlock()
	return w, nil
}

// admit makes the writer known, before the keeper can find its stream and take
// it for an orphan.
func (s *Store) admit(w *writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosed() {
		return fmt.Errorf("create: %w", errClosed)
	}
	if s.writers[w.meta.ID] != nil {
		return fmt.Errorf("create: %w", stream.ErrExists)
	}
	if s.maxMemory > 0 && s.memory.Load() > s.maxMemory {
		return fmt.Errorf("create: running streams take all the memory they may: %w", stream.ErrFull)
	}
	s.writers[w.meta.ID] = w
	return nil
}

// create asks the server, again when the idempotency key's holder turns out to
// hold it no more.
func (s *Store) create(ctx context.Context, w *writer) error {
	steal := ""
	for {
		answer, err := s.createCall(ctx, w, steal)
		if err != nil {
			return fmt.Errorf("create: %w", err)
		}
		switch answer[0] {
		case "created":
			return nil
		case "exists":
			return fmt.Errorf("create: %w", stream.ErrExists)
		}
		holder := answer[1]
		status, err := s.holder(ctx, holder)
		switch {
		case err == nil:
			return &stream.ClaimedError{By: status}
		case !errors.Is(err, stream.ErrNotFound):
			return fmt.Errorf("create: the idempotency key's stream: %w", err)
		}
		steal = holder
	}
}

// holder returns the stream that holds a claim; ErrNotFound when it does so no
// more.
func (s *Store) holder(ctx context.Context, id string) (stream.Status, error) {
	status, err := s.look(ctx, id)
	switch {
	case err == nil && status.FailedBeforeToken():
		return stream.Status{}, stream.ErrNotFound
	case errors.Is(err, stream.ErrGone) && stream.Expired(id, s.now(), s.retention):
		return stream.Status{}, stream.ErrNotFound // forgotten, and the key with it
	}
	return status, err
}

func (s *Store) createCall(ctx context.Context, w *writer, steal string) ([]string, error) {
	m, owner := w.meta, ownerHash(w.meta.Owner)
	names := []string{
		s.keys.log(m.ID), s.keys.meta(m.ID), s.keys.gone(m.ID), s.keys.owned(owner), s.keys.open(owner),
		s.keys.replicas(), s.keys.running(s.token),
	}
	args := []string{
		string(s.keys), m.ID, s.token, w.by, steal, milliseconds(s.lease),
		"id", m.ID, "owner", m.Owner, "dialect", m.Dialect, "model", m.Model, "provider", m.Provider,
		"created", strconv.FormatInt(m.Created.UnixNano(), 10), "owner_hash", owner,
	}
	if m.IdempotencyKey != "" {
		claim := claimHash(m.Owner, m.IdempotencyKey)
		names = append(names, s.keys.claim(claim))
		args = append(args, "claim_hash", claim, "key", m.IdempotencyKey, "fingerprint", m.Fingerprint)
	} else if m.Fingerprint != "" {
		args = append(args, "fingerprint", m.Fingerprint)
	}
	return s.run(ctx, createScript, names, args)
}

// anyHolder lets a stream be created though its key is another's by now.
const anyHolder = "*"

// restore creates the stream once more, empty: the server has lost it.
func (w *writer) restore(ctx context.Context) error {
	s := w.store
	answer, err := s.createCall(ctx, w, anyHolder)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if answer[0] != "created" {
		_, err := s.look(ctx, w.meta.ID)
		if errors.Is(err, stream.ErrUnavailable) {
			return err
		}
		if err == nil || unknown(err) {
			err = stream.ErrFenced
		}
		w.vanish(err)
		return nil
	}
	s.logger.Warn("redis: the server had lost a running stream; it is written again", "stream", w.meta.ID)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost, w.stored = false, 0
	return nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
