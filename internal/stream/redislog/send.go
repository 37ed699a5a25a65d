package redislog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"weir/internal/stream"
)

// One call appends for many streams: a script's start and a round trip cost
// more than an append. While one call is under way, the next one gathers.
const (
	senders       = 2
	maxSendEvents = 1000      // about 5 ms of the server's time
	maxSendBytes  = 512 << 10 // a single append may be larger
)

// sendQueue holds the writers with something to send.
type sendQueue struct {
	wake chan struct{} // a slot for each sender

	mu      sync.Mutex
	writers []*writer // guarded by mu
}

func (q *sendQueue) push(writers ...*writer) {
	q.mu.Lock()
	q.writers = append(q.writers, writers...)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default: // every sender will look
	}
}

func (q *sendQueue) pop() *writer {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.writers) == 0 {
		q.writers = nil
		return nil
	}
	w := q.writers[0]
	q.writers[0] = nil
	q.writers = q.writers[1:]
	return w
}

// part is what one call appends to one stream.
type part struct {
	w      *writer
	events []stream.Event
}

// send brings events to the server until ctx ends.
func (s *Store) send(ctx context.Context) {
	wait, failing := minBackoff, time.Time{}
	for {
		began := time.Now()
		parts, err := s.gather(ctx)
		if len(parts) == 0 && err == nil {
			select {
			case <-s.queue.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		if len(parts) > 0 {
			err = s.sendParts(ctx, parts)
		}
		if err == nil {
			wait, failing = minBackoff, time.Time{}
			if s.health.set(true) {
				s.logger.Info("redis: the server answers again")
			}
			continue
		}
		if failing.IsZero() {
			failing = began
		}
		// A connection that was cut is worth a second try before it is news.
		if time.Since(failing) >= sendTimeout && ctx.Err() == nil {
			s.failing(err)
		}
		if wait = backOff(ctx, wait); ctx.Err() != nil {
			return
		}
	}
}

var errSlow = errors.New("an append takes long")

// failing has appends return before the server has their events.
func (s *Store) failing(why error) {
	if s.health.set(false) {
		s.logger.Warn("redis: the server does not answer; events are taken in hand", "error", why)
	}
}

const (
	minBackoff = 20 * time.Millisecond
	maxBackoff = time.Second
)

// backOff waits about so long, and returns how long to wait the next time.
func backOff(ctx context.Context, wait time.Duration) time.Duration {
	timer := time.NewTimer(wait/2 + rand.N(wait))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return min(2*wait, maxBackoff)
}

// gather takes from the queue what goes into one call. An error is that of a
// stream that could not be restored.
func (s *Store) gather(ctx context.Context) (parts []part, err error) {
	events, size := 0, 0
	for events < maxSendEvents && size < maxSendBytes {
		w := s.queue.pop()
		if w == nil {
			break
		}
		p, err := w.next(ctx)
		if isFull(err) {
			w.full(err)
			continue
		}
		if err != nil {
			s.queue.push(w)
			return parts, err
		}
		if len(p.events) == 0 {
			continue
		}
		parts = append(parts, p)
		events += len(p.events)
		for _, e := range p.events {
			size += len(e.Data)
		}
	}
	return parts, nil
}

// next returns what the writer has to send, nothing when that is over.
func (w *writer) next(ctx context.Context) (part, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost && w.err == nil {
		w.mu.Unlock()
		err := w.restore(ctx)
		w.mu.Lock()
		if err != nil {
			return part{}, err
		}
	}
	p := part{w: w}
	shown, _ := w.log.Last()
	switch {
	case w.err != nil:
	case w.stored < shown:
		// What the server has lost is still here.
		r := w.log.Open(w.stored)
		defer r.Close()
		p.events, _ = r.Next(nil)
	default:
		p.events = w.firstPending()
	}
	if len(p.events) == 0 {
		w.queued = false
		w.notify()
	}
	return p, nil
}

// firstPending returns as many batches as make a call, one at least. A batch
// is never cut: an append that is refused has written nothing. The caller holds
// mu.
func (w *writer) firstPending() []stream.Event {
	if len(w.pending) == 0 {
		return nil
	}
	events, size := w.pending[0].events, w.pending[0].size
	for i, b := range w.pending[1:] {
		size += b.size
		if size > maxSendBytes/2 || len(events)+len(b.events) > maxSendEvents/2 {
			break
		}
		if i == 0 {
			events = append([]stream.Event(nil), events...)
		}
		events = append(events, b.events...)
	}
	return events
}

// sendParts makes the call, and tells the writers what came of it. After an
// error the outcome is unknown, and they are in the queue again: the server
// takes no event twice.
func (s *Store) sendParts(ctx context.Context, parts []part) error {
	refusals, err := s.appendCall(ctx, parts)
	if err != nil && isFull(err) {
		for _, p := range parts {
			p.w.full(err)
		}
		return nil
	}
	if err != nil {
		for _, p := range parts {
			p.w.doubt()
			s.queue.push(p.w)
		}
		return err
	}
	for i, p := range parts {
		p.w.sent(p.events, refusals[i])
	}
	return nil
}

// appendCall returns the refused parts' answers.
func (s *Store) appendCall(ctx context.Context, parts []part) (map[int]refusal, error) {
	names := make([]string, 0, 2*len(parts))
	args := make([]string, 0, 1+5*len(parts))
	args = append(args, s.token)
	for _, p := range parts {
		id := p.w.meta.ID
		names = append(names, s.keys.log(id), s.keys.meta(id))
		args = append(args, strconv.FormatUint(p.events[0].Seq-1, 10), strconv.FormatUint(p.events[len(p.events)-1].Seq, 10), strconv.Itoa(len(p.events)))
		for _, e := range p.events {
			args = append(args, e.Type, rueidis.BinaryString(e.Data))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	// A slow answer is worth waiting for: to send the same again would only make
	// it slower. Meanwhile appends are taken in hand.
	slow := time.AfterFunc(sendTimeout, func() { s.failing(errSlow) })
	defer slow.Stop()
	answers, err := s.exec(ctx, appendScript, names, args).ToArray()
	if err != nil {
		return nil, fmt.Errorf("append: %w", storeError(err))
	}
	if len(answers) == 0 {
		return nil, nil
	}
	refusals := make(map[int]refusal, len(answers))
	for _, a := range answers {
		k, r, err := readRefusal(a)
		if err != nil {
			return nil, fmt.Errorf("append: %w: %w", stream.ErrUnavailable, err)
		}
		refusals[(k-1)/2] = r
	}
	return refusals, nil
}

// refusal is why a stream did not take its events; the zero value is none.
type refusal struct {
	why  string
	last uint64       // in refusal "last"
	end  stream.Event // in refusal "sealed"
}

func readRefusal(answer rueidis.RedisMessage) (key int, r refusal, err error) {
	fields, err := answer.ToArray()
	if err != nil || len(fields) < 2 {
		return 0, r, fmt.Errorf("a refusal of %d fields: %w", len(fields), err)
	}
	k, err := fields[0].AsInt64()
	if err != nil {
		return 0, r, err
	}
	var words []string
	for _, f := range fields[1:] {
		word, err := f.ToString()
		if err != nil {
			return 0, r, err
		}
		words = append(words, word)
	}
	r.why = words[0]
	switch {
	case r.why == "last" && len(words) == 2:
		r.last, err = strconv.ParseUint(words[1], 10, 64)
	case r.why == "sealed" && len(words) == 5:
		r.end, err = readEnd(words[1], words[2], words[3], words[4])
	case r.why == "broken" && len(words) == 2:
		r.why = words[1]
	}
	return int(k), r, err
}

// sent takes in what came of a call.
func (w *writer) sent(events []stream.Event, r refusal) {
	switch r.why {
	case "sealed":
		w.finish(r.end)
	case "fenced":
		w.vanish(stream.ErrFenced)
		w.store.forget(w.meta.ID)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.doubtful = false
	switch r.why {
	case "":
		w.stored = max(w.stored, events[len(events)-1].Seq)
	case "sealed", "fenced":
	case "last":
		// Less when the server lost some, more when it took an earlier call
		// whose answer was lost.
		w.store.logger.Debug("redis: the log ends elsewhere than thought", "stream", w.meta.ID, "last", r.last, "thought", w.stored)
		w.stored = r.last
	case "missing":
		w.lost = true
	default:
		w.store.logger.Error("redis: the server does not take the stream's events", "stream", w.meta.ID, "error", r.why)
		w.fail(fmt.Errorf("append: %w: %s", stream.ErrUnavailable, r.why))
	}
	w.settle()
	w.queued = false
	if shown, _ := w.log.Last(); w.err == nil && (w.lost || w.stored < shown || len(w.pending) > 0) {
		w.enqueue()
	}
	w.notify()
}

// doubt notes that nobody knows what came of a call.
func (w *writer) doubt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.doubtful = true
}

// full drops what is pending: there is no room for it.
func (w *writer) full(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil && w.doubtful {
		w.err = err // an earlier call may have written what this one refused
	}
	if shown, _ := w.log.Last(); w.err == nil && w.stored < shown {
		w.err = err // readers have seen what the server has no room for
	}
	for _, b := range w.pending {
		if b.inHand && w.err == nil {
			w.err = err // its append has returned; the log can't go on without it
		}
	}
	w.refuse(err)
	w.queued = false
	w.notify()
}
