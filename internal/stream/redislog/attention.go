package redislog

import (
	"context"
	"errors"
	"fmt"
)

// attention is how long a stream counts as read after a mirror has said so,
// which it does with every look at the log.
const attention = 3 * checkEvery

// ReadElsewhere implements stream.Shared.
func (s *Store) ReadElsewhere(ctx context.Context, id string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	n, err := s.client.Do(ctx, s.client.B().Exists().Key(s.keys.read(id)).Build()).AsInt64()
	if err != nil {
		return false, fmt.Errorf("ask who reads %s: %w", id, storeError(err))
	}
	return n > 0, nil
}

// payAttention tells the stream's producer that somebody reads it here.
func (m *mirror) payAttention(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	set := m.store.client.B().Set().Key(m.store.keys.read(m.id)).Value("1").Px(attention).Build()
	if err := m.store.client.Do(ctx, set).Error(); err != nil && !errors.Is(err, context.Canceled) {
		m.store.logger.Debug("redis: say that a stream is read", "stream", m.id, "error", err)
	}
}
