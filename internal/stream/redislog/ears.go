package redislog

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// ears is the one connection on which everything published is heard. It comes
// back after a loss; what was said meanwhile is for the subscribers to find.
type ears struct {
	client rueidis.Client
	logger *slog.Logger
	change chan struct{} // one slot
	denied atomic.Bool   // the server does not let the channels be heard

	mu   sync.RWMutex
	want map[string]*subscription // guarded by mu; channel → who listens
}

type subscription struct {
	channel string
	hear    func(message string) // must not block
	ready   func()               // called when the channel is heard from now on, after a loss again; must not block
	refused func()               // called when the server does not let it be heard, again and again; must not block
}

func newEars(client rueidis.Client, logger *slog.Logger) *ears {
	return &ears{client: client, logger: logger, change: make(chan struct{}, 1), want: map[string]*subscription{}}
}

// add subscribes. A channel has one subscriber; the last one wins.
func (e *ears) add(channel string, hear func(string), ready, refused func()) *subscription {
	sub := &subscription{channel, hear, ready, refused}
	e.mu.Lock()
	e.want[channel] = sub
	e.mu.Unlock()
	e.changed()
	if e.denied.Load() {
		refused()
	}
	return sub
}

func (e *ears) remove(sub *subscription) {
	e.mu.Lock()
	if e.want[sub.channel] == sub {
		delete(e.want, sub.channel)
	}
	e.mu.Unlock()
	e.changed()
}

func (e *ears) changed() {
	select {
	case e.change <- struct{}{}:
	default:
	}
}

// listen runs until ctx ends.
func (e *ears) listen(ctx context.Context) {
	wait := minBackoff
	for ctx.Err() == nil {
		began := time.Now()
		err := e.connected(ctx)
		if ctx.Err() != nil {
			return
		}
		e.logger.Debug("redis: the subscriptions' connection is lost", "error", err)
		if time.Since(began) > maxBackoff {
			wait = minBackoff
		}
		wait = backOff(ctx, wait)
	}
}

// connected is one connection's life.
func (e *ears) connected(ctx context.Context) error {
	client, release := e.client.Dedicate()
	defer release()
	defer client.Close()
	lost := client.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: e.message})
	heard := map[string]*subscription{}
	for {
		if err := e.update(ctx, client, heard); err != nil {
			return err
		}
		select {
		case <-e.change:
		case err := <-lost:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (e *ears) message(m rueidis.PubSubMessage) {
	e.mu.RLock()
	sub := e.want[m.Channel]
	e.mu.RUnlock()
	if sub != nil {
		sub.hear(m.Message)
	}
}

// maxChannels go into one command.
const maxChannels = 1000

// update makes what is heard what is wanted.
func (e *ears) update(ctx context.Context, client rueidis.DedicatedClient, heard map[string]*subscription) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for {
		fresh, stale := e.differences(heard)
		if len(fresh)+len(stale) == 0 {
			return nil
		}
		if len(stale) > 0 {
			if err := client.Do(ctx, client.B().Unsubscribe().Channel(stale...).Build()).Error(); err != nil {
				return fmt.Errorf("unsubscribe: %w", err)
			}
			for _, channel := range stale {
				delete(heard, channel)
			}
		}
		if len(fresh) == 0 {
			continue
		}
		channels := make([]string, len(fresh))
		for i, sub := range fresh {
			channels[i] = sub.channel
		}
		if err := client.Do(ctx, client.B().Subscribe().Channel(channels...).Build()).Error(); err != nil {
			e.refuse(fresh, err)
			return fmt.Errorf("subscribe: %w", err)
		}
		e.denied.Store(false)
		for _, sub := range fresh {
			heard[sub.channel] = sub
			sub.ready()
		}
	}
}

// refuse lets the subscribers do without, if it is the server that said no.
func (e *ears) refuse(subs []*subscription, err error) {
	if _, answered := rueidis.IsRedisErr(err); !answered {
		return
	}
	if !e.denied.Swap(true) {
		e.logger.Warn("redis: the user may not subscribe to the store's channels: readers and cancels are late", "error", err)
	}
	for _, sub := range subs {
		sub.refused()
	}
}

func (e *ears) differences(heard map[string]*subscription) (fresh []*subscription, stale []string) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for channel, sub := range e.want {
		if heard[channel] != sub && len(fresh) < maxChannels {
			fresh = append(fresh, sub)
		}
	}
	for channel := range heard {
		if e.want[channel] == nil && len(stale) < maxChannels {
			stale = append(stale, channel)
		}
	}
	return fresh, stale
}
