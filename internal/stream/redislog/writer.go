package redislog

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"

	"weir/internal/stream"
	"weir/internal/stream/live"
)

// errTail is what readers get who have seen events that the server lost: they
// come back with a cursor, which will find itself beyond the end.
var errTail = fmt.Errorf("%w: the server lost events of the stream's end", stream.ErrUnavailable)

var errClosed = fmt.Errorf("%w: the store is closed", stream.ErrUnavailable)

// writer is a stream that is produced here. What was accepted goes to the
// server in order, and what the server is known to have had goes to log, where
// the readers are.
type writer struct {
	store    *Store
	meta     stream.Meta
	by       string // names the call that created the stream
	log      *live.Log
	turn     chan struct{}       // one slot: one append at a time
	room     *semaphore.Weighted // what the stream may have in hand
	resolved chan struct{}       // one slot: the batch of the append whose turn it is may be through
	sealed   chan struct{}       // closed when nothing can follow
	created  bool                // guarded by the store's mu; the server has the stream

	mu       sync.Mutex
	accepted uint64         // guarded by mu; events that have a seq
	stored   uint64         // guarded by mu; of them, what the server has; less than log when it lost some
	pending  []*batch       // guarded by mu; accepted, not in log
	queued   bool           // guarded by mu; with the senders
	doubtful bool           // guarded by mu; an append's answer was lost, and none came since
	lost     bool           // guarded by mu; the server does not know the stream any more
	err      error          // guarded by mu; why nothing can be appended any more
	changed  chan struct{}  // guarded by mu; nil unless somebody waits for a change
	scratch  []stream.Event // guarded by mu; settle's
}

// batch is what one Append brought.
type batch struct {
	events []stream.Event
	size   int64
	inHand bool  // guarded by the writer's mu; its Append has returned
	err    error // guarded by the writer's mu; why it was refused
	over   bool  // guarded by the writer's mu
}

func (s *Store) newWriter(meta stream.Meta, by string) *writer {
	return &writer{
		store: s, meta: meta, by: by, log: live.New(),
		turn: make(chan struct{}, 1), room: semaphore.NewWeighted(s.streamBacklog),
		resolved: make(chan struct{}, 1), sealed: make(chan struct{}),
	}
}

// Sealed implements stream.Writer.
func (w *writer) Sealed() <-chan struct{} { return w.sealed }

// Append implements stream.Writer. While the server does not answer, the
// events stay in hand, and a sender goes on trying.
func (w *writer) Append(ctx context.Context, events []stream.Event) error {
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return fmt.Errorf("append: %w: %w", stream.ErrUnavailable, context.Cause(ctx))
	}
	b := newBatch(events)
	if err := w.takeRoom(ctx, b.size); err != nil {
		return err
	}
	if err := w.accept(b, events); err != nil || len(events) == 0 {
		w.giveRoom(b.size)
		return err
	}
	for {
		select {
		case <-w.resolved:
		case <-ctx.Done():
			return w.takeInHand(b)
		case <-w.store.health.failing():
			return w.takeInHand(b)
		case <-w.store.done:
			return w.takeInHand(b)
		}
		w.mu.Lock()
		over, err := b.over, b.err
		w.mu.Unlock()
		if over {
			return err
		}
	}
}

func newBatch(events []stream.Event) *batch {
	b := &batch{events: make([]stream.Event, len(events))}
	copy(b.events, events)
	for _, e := range events {
		b.size += int64(len(e.Data)) + live.EventOverhead
	}
	// One piece of memory for all: it is let go of as one.
	slab := make([]byte, 0, b.size-int64(len(events))*live.EventOverhead)
	for i, e := range events {
		from := len(slab)
		slab = append(slab, e.Data...)
		b.events[i].Data = slab[from:len(slab):len(slab)]
		b.events[i].Recovery = 0
	}
	return b
}

// takeRoom waits until so much more may be in hand.
func (w *writer) takeRoom(ctx context.Context, size int64) error {
	if err := w.room.Acquire(ctx, w.roomFor(size)); err != nil {
		return fmt.Errorf("append: the stream's backlog is full: %w: %w", stream.ErrUnavailable, err)
	}
	if err := w.store.backlog.Acquire(ctx, min(size, w.store.backlogSize)); err != nil {
		w.room.Release(w.roomFor(size))
		return fmt.Errorf("append: the backlog is full: %w: %w", stream.ErrUnavailable, err)
	}
	return nil
}

func (w *writer) giveRoom(size int64) {
	w.room.Release(w.roomFor(size))
	w.store.backlog.Release(min(size, w.store.backlogSize))
}

// roomFor is what a batch counts for in its stream: one that is larger than the
// bound goes alone.
func (w *writer) roomFor(size int64) int64 { return min(size, w.store.streamBacklog) }

// accept numbers the events and gives them to the senders.
func (w *writer) accept(b *batch, events []stream.Event) error {
	select {
	case <-w.resolved: // of an append that did not wait for it
	default:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || len(events) == 0 {
		return w.err
	}
	if w.store.isClosed() {
		return errClosed
	}
	for i := range events {
		w.accepted++
		events[i].Seq, b.events[i].Seq = w.accepted, w.accepted
	}
	w.pending = append(w.pending, b)
	w.enqueue()
	return nil
}

// enqueue gives the writer to the senders. The caller holds mu.
func (w *writer) enqueue() {
	if !w.queued {
		w.queued = true
		w.store.queue.push(w)
	}
}

// takeInHand ends the wait for a batch, which stays pending.
func (w *writer) takeInHand(b *batch) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b.over {
		return b.err
	}
	if w.store.isClosed() {
		return errClosed // nobody will send it
	}
	b.inHand = true
	return nil
}

// settle shows what the server has, up to w.stored. The caller holds mu.
func (w *writer) settle() {
	for len(w.pending) > 0 && w.pending[0].events[0].Seq <= w.stored {
		b := w.pending[0]
		n := min(w.stored-b.events[0].Seq+1, uint64(len(b.events)))
		// A copy, for the log sets the seqs again, and a sender may be reading.
		w.scratch = append(w.scratch[:0], b.events[:n]...)
		added, err := w.log.Append(w.scratch)
		w.store.memory.Add(added)
		clear(w.scratch)
		if err != nil {
			return // sealed: finish has shown what there was
		}
		if b.events = b.events[n:]; len(b.events) > 0 {
			return
		}
		w.resolve(nil)
	}
}

// resolve takes the first pending batch away. The caller holds mu.
func (w *writer) resolve(err error) {
	b := w.pending[0]
	w.pending[0] = nil
	w.pending = w.pending[1:]
	b.over, b.err = true, err
	w.giveRoom(b.size)
}

// refuse drops all that is pending. The caller holds mu.
func (w *writer) refuse(err error) {
	for len(w.pending) > 0 {
		w.accepted -= uint64(len(w.pending[0].events))
		w.resolve(err)
	}
}

// notify wakes whoever waits for the writer. The caller holds mu.
func (w *writer) notify() {
	select {
	case w.resolved <- struct{}{}:
	default:
	}
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

// fail ends the writer without an end of its log. The caller holds mu.
func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
	w.refuse(err)
	w.notify()
}

// finish shows the stream's end as the server has it, whoever wrote it.
func (w *writer) finish(end stream.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.sealed:
		return
	default:
	}
	// Only this writer appends: what stands before the end is what it sent.
	w.stored = end.Seq - 1
	w.settle()
	switch last, _ := w.log.Last(); {
	case last == end.Seq-1:
		added, _ := w.log.Seal(end) // nobody else does
		w.store.memory.Add(added)
	case last >= end.Seq:
		w.store.logger.Warn("redis: a stream ended before events that its readers have seen", "stream", w.meta.ID, "seen", last, "end", end.Seq)
		w.log.Fail(errTail)
	default:
		w.store.logger.Error("redis: a stream ended after events that its producer did not make", "stream", w.meta.ID, "made", last, "end", end.Seq)
		w.log.Fail(errTail)
	}
	w.end(stream.ErrSealed)
}

// vanish ends the writer of a stream that the server has forgotten on purpose.
func (w *writer) vanish(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.sealed:
		return
	default:
	}
	w.log.Fail(err)
	w.end(err)
}

// end closes sealed, once. The caller holds mu.
func (w *writer) end(err error) {
	w.fail(err)
	close(w.sealed)
}

// flushed waits until the server has what was accepted before the call.
func (w *writer) flushed(ctx context.Context) error {
	w.mu.Lock()
	target := w.accepted
	if w.lost && w.err == nil {
		w.enqueue() // there may be room by now for what was refused
	}
	for {
		shown, _ := w.log.Last()
		if w.err != nil || w.stored >= target && shown >= target && !w.lost {
			w.mu.Unlock()
			return nil
		}
		if w.changed == nil {
			w.changed = make(chan struct{})
		}
		changed := w.changed
		w.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the events before: %w: %w", stream.ErrUnavailable, context.Cause(ctx))
		}
		w.mu.Lock()
		target = min(target, w.accepted) // what was refused does not come
	}
}

// Book implements stream.Writer.
func (w *writer) Book(ctx context.Context, summary stream.Summary) error {
	s := w.store
	select {
	case <-w.sealed:
		s.forget(w.meta.ID)
	default: // its end could not be written, and may be yet
	}
	data, err := json.Marshal(summary)
	if err != nil {
		return fmt.Errorf("book %s: %w", w.meta.ID, err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	booked := s.exec(ctx, bookScript, []string{s.keys.meta(w.meta.ID)}, []string{string(data)})
	if err := booked.Error(); err != nil {
		return fmt.Errorf("book %s: %w", w.meta.ID, storeError(err))
	}
	return nil
}
