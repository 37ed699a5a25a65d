package redislog

import (
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"weir/internal/redistest"
)

// link is the network between a store and its server, which can get slow, or
// lead elsewhere.
type link struct {
	net.Listener
	target atomic.Pointer[string]
	delay  atomic.Int64 // each way
	rate   atomic.Int64 // bytes a second, each way; as fast as can be when zero
	all    sync.WaitGroup

	mu     sync.Mutex
	conns  []net.Conn // guarded by mu
	closed bool       // guarded by mu
}

// newLink leads to the server until the test ends.
func newLink(t *testing.T, server *redistest.Server) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{Listener: listener}
	l.leadTo(server)
	t.Cleanup(l.close)
	l.all.Go(l.accept)
	return l
}

func (l *link) url() string { return "redis://" + l.Addr().String() }

// leadTo is for connections that are made from now on.
func (l *link) leadTo(server *redistest.Server) {
	addr := server.Addr()
	l.target.Store(&addr)
}

func (l *link) slow(each time.Duration) { l.delay.Store(int64(each)) }

func (l *link) close() {
	_ = l.Close()
	l.mu.Lock()
	l.closed = true
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.mu.Unlock()
	l.all.Wait()
}

func (l *link) accept() {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", *l.target.Load())
		if err != nil {
			_ = near.Close()
			continue
		}
		l.mu.Lock()
		l.conns = append(l.conns, near, far)
		if l.closed {
			_, _ = near.Close(), far.Close()
		}
		l.mu.Unlock()
		l.carry(near, far)
		l.carry(far, near)
	}
}

// packet is under way until its time has come.
type packet struct {
	due  time.Time
	data []byte
}

func (l *link) carry(from, to net.Conn) {
	wire := make(chan packet, 4096)
	l.all.Go(func() {
		defer close(wire)
		for {
			b := make([]byte, 32<<10)
			n, err := from.Read(b)
			if rate := l.rate.Load(); rate > 0 {
				pass(time.Duration(n) * time.Second / time.Duration(rate))
			}
			wire <- packet{time.Now().Add(time.Duration(l.delay.Load())), b[:n]}
			if err != nil {
				return
			}
		}
	})
	l.all.Go(func() {
		for p := range wire {
			if wait := time.Until(p.due); wait > 0 {
				pass(wait)
			}
			_, _ = to.Write(p.data) // to nobody, once that is closed
		}
		_, _ = to.Close(), from.Close()
	})
}

// watched is a client whose answers a test may see, and change, before the store
// does.
type watched struct {
	rueidis.Client
	answered atomic.Pointer[func(command []string, answer rueidis.RedisResult) rueidis.RedisResult]
}

func (w *watched) Do(ctx context.Context, command rueidis.Completed) rueidis.RedisResult {
	words := slices.Clone(command.Commands()) // the client uses its memory again
	answer := w.Client.Do(ctx, command)
	if answered := w.answered.Load(); answered != nil {
		return (*answered)(words, answer)
	}
	return answer
}
