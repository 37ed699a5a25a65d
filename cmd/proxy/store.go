package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"time"

	"weir/internal/config"
	"weir/internal/stream"
	"weir/internal/stream/memory"
	"weir/internal/stream/redislog"
	"weir/internal/stream/segment"
)

// store is where the logs are kept, with what a process needs of it besides.
type store interface {
	stream.Log
	// Secret returns what signs read tokens: the same for everybody who has the
	// same logs, as long as they are there.
	Secret(ctx context.Context) (string, error)
	// Close ends the store; nothing uses it any more.
	Close() error
}

// openStore opens the store that the configuration names.
func openStore(cfg config.Config, logger *slog.Logger) (store, error) {
	switch cfg.Store {
	case config.StoreDisk:
		return openDisk(cfg, logger)
	case config.StoreMemory:
		return inMemory{memory.New(memory.Options{Retention: cfg.Retention, MaxBytes: cfg.MemoryLimit})}, nil
	case config.StoreRedis:
		return openRedis(cfg, logger)
	default:
		return nil, fmt.Errorf("there is no %q store", cfg.Store)
	}
}

// redisTimeout is how long a Redis may take to answer for the first time.
const redisTimeout = 10 * time.Second

func openRedis(cfg config.Config, logger *slog.Logger) (store, error) {
	ctx, cancel := context.WithTimeout(context.Background(), redisTimeout)
	defer cancel()
	s, err := redislog.Open(ctx, redislog.Options{
		URL: cfg.RedisURL, Prefix: cfg.RedisPrefix, Retention: cfg.Retention,
		MaxMemory: cfg.MemoryLimit, Logger: logger,
	})
	if err != nil {
		return nil, fmt.Errorf("%w (WEIR_REDIS_URL says where it is)", err)
	}
	return inRedis{s}, nil
}

// inRedis is a store that other replicas share; closing it leaves them theirs.
type inRedis struct{ *redislog.Store }

func (r inRedis) Close() error {
	r.Store.Close()
	return nil
}

func openDisk(cfg config.Config, logger *slog.Logger) (store, error) {
	s, err := segment.Open(segment.Options{
		Dir: cfg.DataDir, Sync: cfg.DiskSync, Retention: cfg.Retention,
		MaxBytes: cfg.DiskLimit, MaxMemory: cfg.MemoryLimit, Logger: logger,
	})
	if err != nil {
		return nil, fmt.Errorf("%w (WEIR_DATA_DIR sets another directory; WEIR_STORE=memory keeps nothing)", err)
	}
	r := s.Recovery()
	if r.Streams > 0 {
		logger.Info("streams are back from disk", "streams", r.Streams, "interrupted", len(r.Interrupted), "took", r.Took)
	}
	for _, d := range r.Damages {
		logger.Warn("the log is damaged", "where", d.String())
	}
	if len(r.Damages) > 0 {
		logger.Warn("streams lost events to damage, and say so at their end", "streams", r.Lost)
	}
	return s, nil
}

// inMemory is a store that forgets its streams with the process, and the
// secret that opens them as well.
type inMemory struct{ *memory.Store }

func (inMemory) Secret(context.Context) (string, error) { return rand.Text(), nil }
func (inMemory) Close() error                           { return nil }
