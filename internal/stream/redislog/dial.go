package redislog

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// client is rueidis's, but for a server that was demoted. After a failover its
// name leads to another one, while the connections that there are stay with the
// server that only reads now, and live: nobody else would ever close them.
type client struct {
	rueidis.Client
	conns *conns
}

// Do implements rueidis.Client.
func (c client) Do(ctx context.Context, command rueidis.Completed) rueidis.RedisResult {
	result := c.Client.Do(ctx, command)
	c.conns.heed(result)
	return result
}

// DoMulti implements rueidis.Client.
func (c client) DoMulti(ctx context.Context, commands ...rueidis.Completed) []rueidis.RedisResult {
	results := c.Client.DoMulti(ctx, commands...)
	for _, result := range results {
		c.conns.heed(result)
	}
	return results
}

// conns are the connections that there are.
type conns struct {
	logger *slog.Logger

	mu   sync.Mutex
	open map[*conn]struct{} // guarded by mu
	left time.Time          // guarded by mu; when the last ones were closed
}

// leaveEvery is how often the connections are closed while the name still leads
// to a server that was demoted.
const leaveEvery = time.Second

// heed closes the connections when an answer says that the server takes no
// writes, or has nothing to tell. Callers try again anyway.
func (c *conns) heed(result rueidis.RedisResult) {
	answer, ok := rueidis.IsRedisErr(result.Error())
	if !ok || !strings.HasPrefix(answer.Error(), "READONLY") && !strings.HasPrefix(answer.Error(), "MASTERDOWN") {
		return
	}
	c.mu.Lock()
	before := time.Since(c.left)
	if before < leaveEvery {
		c.mu.Unlock()
		return
	}
	c.left = time.Now()
	leaving := make([]*conn, 0, len(c.open))
	for conn := range c.open {
		leaving = append(leaving, conn)
	}
	c.mu.Unlock()
	level := slog.LevelWarn
	if before < time.Minute {
		level = slog.LevelDebug // it has been said
	}
	c.logger.Log(context.Background(), level, "redis: the server takes no writes any more; it is looked for anew", "error", answer)
	for _, conn := range leaving {
		_ = conn.Close()
	}
}

// conn is known to conns until it is closed.
type conn struct {
	net.Conn
	conns *conns
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.conns.mu.Lock()
	delete(c.conns.open, c)
	c.conns.mu.Unlock()
	return c.Conn.Close()
}

// track has the client's connections known. TLS goes over them, so that nothing
// has to be said to close one.
func (c *conns) track(o *rueidis.ClientOption) {
	dial := o.DialCtxFn // set when it is no TCP
	if dial == nil {
		dial = func(ctx context.Context, addr string, dialer *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", addr)
		}
	}
	o.DialCtxFn = func(ctx context.Context, addr string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
		if dialer.Timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, dialer.Timeout)
			defer cancel()
		}
		plain, err := dial(ctx, addr, dialer, config)
		if err != nil {
			return nil, err
		}
		tracked := &conn{plain, c}
		c.mu.Lock()
		c.open[tracked] = struct{}{}
		c.mu.Unlock()
		if config == nil {
			return tracked, nil
		}
		secure := tls.Client(tracked, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = tracked.Close()
			return nil, fmt.Errorf("TLS: %w", err)
		}
		return secure, nil
	}
}
