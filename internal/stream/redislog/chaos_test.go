package redislog

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"weir/internal/redistest"
	"weir/internal/stream"
	"weir/internal/stream/storetest"
)

// Three replicas, many streams, readers that come and go with their cursors,
// cancels from anywhere, and a server whose connections are cut, that stops for
// a while and that is killed: every reader sees one log, once.
func TestChaos(t *testing.T) {
	server := redistest.Start(t, redistest.Config{AOF: "always"})
	o := Options{URL: server.URL(), Prefix: prefix()}
	c := &chaos{T: t, stores: []*Store{open(t, o), open(t, o), open(t, o)}}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	calm := make(chan struct{})
	var all, faults sync.WaitGroup
	for range 30 {
		all.Go(func() { c.stream(ctx, calm) })
	}
	faults.Go(func() {
		for range 12 {
			pass(time.Duration(100+rand.IntN(200)) * time.Millisecond)
			switch rand.IntN(4) {
			case 0:
				c.kill(ctx, "pubsub")
			case 1:
				c.kill(ctx, "normal")
			case 2:
				server.Pause()
				pass(time.Duration(rand.IntN(1500)) * time.Millisecond)
				server.Resume()
			default:
				server.Kill()
				server.Start()
			}
		}
		close(calm)
	})
	faults.Wait()
	all.Wait()
}

type chaos struct {
	*testing.T
	stores []*Store
}

func (c *chaos) any() *Store { return c.stores[rand.IntN(len(c.stores))] }

func (c *chaos) kill(ctx context.Context, kind string) {
	s := c.any()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = s.client.Do(ctx, s.client.B().Arbitrary("CLIENT", "KILL", "TYPE", kind).Build()).Error() // which may kill the caller's
}

// insist repeats what the server's absence made fail.
func (c *chaos) insist(ctx context.Context, what string, call func() error) {
	for {
		err := call()
		if err == nil {
			return
		}
		if !errors.Is(err, stream.ErrUnavailable) || ctx.Err() != nil {
			c.Errorf("%s: %v", what, err)
			return
		}
	}
}

// stream is one generation's life, read from all sides.
func (c *chaos) stream(ctx context.Context, calm <-chan struct{}) {
	owner, meta := c.any(), newMeta("ann")
	var w stream.Writer
	c.insist(ctx, "Create", func() (err error) {
		meta.ID = stream.NewID()
		w, err = owner.Create(ctx, meta)
		return err
	})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() { c.reader(ctx, meta.ID) })
	}
	acknowledged := uint64(0)
	for over := false; !over; {
		if err := w.Append(ctx, []stream.Event{{Data: []byte(token(acknowledged + 1))}}); err != nil {
			c.Errorf("Append: %v", err)
			return
		}
		acknowledged++
		select {
		case <-time.After(time.Duration(rand.IntN(5)) * time.Millisecond):
		case <-calm:
			over = true
		}
	}
	sealer := c.any()
	if sealer != owner { // else what is in hand would not be in the log
		c.insist(ctx, "wait", func() error { return w.(*writer).flushed(ctx) })
	}
	c.insist(ctx, "Seal", func() error {
		err := sealer.Seal(ctx, meta.ID, stream.DoneEvent(stream.Summary{}))
		if errors.Is(err, stream.ErrSealed) {
			err = nil // by an attempt whose answer was lost
		}
		return err
	})
	c.insist(ctx, "Book", func() error { return w.Book(ctx, stream.Summary{FinishReason: "stop"}) })
	readers.Wait()
	if events := storetest.CheckLog(c, c.any(), meta.ID); uint64(len(events)) != acknowledged+1 {
		c.Errorf("%d events, %d were acknowledged", len(events), acknowledged)
	}
}

// reader reads a stream to its end, as a client that comes back does.
func (c *chaos) reader(ctx context.Context, id string) {
	seen := uint64(0)
	for {
		var r stream.Reader
		c.insist(ctx, "Open", func() (err error) {
			r, err = c.any().Open(ctx, id, seen)
			return err
		})
		if r == nil {
			return
		}
		visit, leave := context.WithTimeout(ctx, time.Duration(rand.IntN(1000))*time.Millisecond)
		events, err := storetest.Follow(visit, r)
		leave()
		r.Close()
		tokens := events
		if n := len(events); n > 0 && events[n-1].Terminal() {
			tokens = events[:n-1]
		}
		wantTokens(c.T, "a reader", tokens, seen+1)
		seen += uint64(len(tokens))
		switch {
		case err == nil:
			return
		case ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
			c.Errorf("a reader: %v", err)
			return
		}
	}
}
