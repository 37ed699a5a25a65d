package redislog

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"weir/internal/redistest"
	"weir/internal/stream"
)

// A create whose answer is lost makes a stream that nobody produces: it ends
// soon, and its idempotency key is free again.
func TestCreateWithoutAnswer(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	var client *watched
	o := Options{URL: server.URL(), Prefix: prefix(), Lease: time.Minute}
	b := open(t, o)
	o.wrap = func(c rueidis.Client) rueidis.Client {
		client = &watched{Client: c}
		return client
	}
	a := open(t, o)
	meta := newMeta("ann")
	meta.IdempotencyKey = "key"
	answered := func(_ []string, answer rueidis.RedisResult) rueidis.RedisResult {
		if words, err := answer.AsStrSlice(); err == nil && len(words) == 1 && words[0] == "created" {
			client.answered.Store(nil)
			return rueidis.NewErrorResult(context.DeadlineExceeded)
		}
		return answer
	}
	client.answered.Store(&answered)
	if _, err := a.Create(t.Context(), meta); !errors.Is(err, stream.ErrUnavailable) {
		t.Fatalf("Create: %v", err)
	}
	awaitEnd(t, b, meta.ID)
	again := newMeta("ann")
	again.IdempotencyKey = "key"
	create(t, b, again)
}
