package stream

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// generation is one answer in the making. The goroutine that produces it and
// the one that watches over it share only what mu guards.
type generation struct {
	meta     Meta
	limits   Limits
	unread   time.Duration
	generate Generate
	writer   Writer
	cancel   context.CancelCauseFunc
	started  time.Time

	changed chan struct{} // one slot: readers came or went, or the first token came

	mu          sync.Mutex
	readers     int       // guarded by mu
	unreadSince time.Time // guarded by mu; meaningless while there are readers
	firstToken  time.Time // guarded by mu; zero before it
	lastHeard   time.Time // guarded by mu; of the upstream: a token, or a sign of life
	appending   bool      // guarded by mu; the store has the floor, not the upstream
	events      int       // guarded by mu
	bytes       int64     // guarded by mu
}

func newGeneration(spec Spec, limits Limits, cancel context.CancelCauseFunc) *generation {
	now := time.Now()
	return &generation{
		meta: spec.Meta, limits: limits, unread: spec.Unread, generate: spec.Generate, cancel: cancel,
		started: now, unreadSince: now, lastHeard: now, changed: make(chan struct{}, 1),
	}
}

// produce runs the provider. A panic in it is a failure of this generation,
// not of the process.
func (g *generation) produce(ctx context.Context, observer Observer) (outcome Outcome, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	var refused error // what emit said first: a provider that overlooks it has not ended well
	outcome, err = g.generate(ctx, func(events []Event) error {
		err := g.emit(ctx, observer, events)
		if err != nil && refused == nil {
			refused = err
		}
		return err
	})
	if err == nil {
		err = refused
	}
	return outcome, err
}

// emit appends what the provider has produced.
func (g *generation) emit(ctx context.Context, observer Observer, events []Event) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if len(events) == 0 {
		g.heard()
		return nil
	}
	size, err := g.measure(events)
	if err != nil {
		return err
	}
	if err := g.append(ctx, events); err != nil {
		return fmt.Errorf("append: %w", err)
	}
	if g.account(len(events), size) {
		g.nudge() // the watch sleeps towards the limit before the first token, or for ever
		observer.FirstToken(g.meta, time.Since(g.started))
	}
	return nil
}

// append is the writer's. Who appends does not read from the upstream, so a store
// that is slow, or gone for a minute, is not the upstream's silence.
func (g *generation) append(ctx context.Context, events []Event) error {
	g.setAppending(true)
	defer g.setAppending(false)
	return g.writer.Append(ctx, events)
}

func (g *generation) setAppending(now bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.appending = now
	g.lastHeard = time.Now()
}

// measure returns the events' size and refuses those that may not be appended.
func (g *generation) measure(events []Event) (size int64, err error) {
	for _, e := range events {
		if e.Terminal() {
			return 0, fmt.Errorf("the provider emitted an event of type %q, which only ends a stream", e.Type)
		}
		size += int64(len(e.Data))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limits.MaxBytes > 0 && g.bytes+size > g.limits.MaxBytes {
		return 0, &Error{
			Message: fmt.Sprintf("The answer is larger than the %d bytes a stream may hold.", g.limits.MaxBytes),
			Type:    "server_error", Code: CodeTooLarge,
		}
	}
	return size, nil
}

// heard notes that the upstream is alive.
func (g *generation) heard() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lastHeard = time.Now()
}

// account counts appended events in, and reports whether they were the first.
func (g *generation) account(events int, size int64) (first bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if first = g.events == 0; first {
		g.firstToken = time.Now()
	}
	g.events += events
	g.bytes += size
	return first
}

// watch cancels the generation when there is a reason to: sealed by somebody
// else, nobody reads it, here or elsewhere, the upstream is silent. It ends with
// ctx.
func (g *generation) watch(ctx context.Context, elsewhere func(ctx context.Context, id string) bool) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.writer.Sealed():
			g.cancel(ErrSealed)
			return
		case <-g.changed:
		case <-timer.C:
		}
		wait, reason := g.patience(time.Now())
		if errors.Is(reason, errUnread) && wait <= 0 && elsewhere(ctx, g.meta.ID) {
			g.read()
			wait, reason = g.patience(time.Now())
		}
		if reason != nil && wait <= 0 {
			g.cancel(reason)
			return
		}
		if reason != nil {
			timer.Reset(wait)
		}
	}
}

// patience returns how long the generation may go on if nothing changes, and
// the reason to end it then; a nil reason means for ever.
func (g *generation) patience(now time.Time) (wait time.Duration, reason error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	consider := func(since time.Time, limit time.Duration, why error) {
		if left := since.Add(limit).Sub(now); reason == nil || left < wait {
			wait, reason = left, why
		}
	}
	if g.readers == 0 {
		consider(g.unreadSince, g.unread, errUnread)
	}
	heard := g.lastHeard
	if g.appending {
		// The clock starts again when the append returns, which is later: until
		// then a look in time is all that is needed.
		heard = now
	}
	if g.events == 0 && g.limits.FirstToken > 0 {
		consider(heard, g.limits.FirstToken, silence("before its first token", g.limits.FirstToken))
	}
	if g.events > 0 && g.limits.Idle > 0 {
		consider(heard, g.limits.Idle, silence("between two tokens", g.limits.Idle))
	}
	return wait, reason
}

func silence(where string, limit time.Duration) *Error {
	return &Error{
		Message: fmt.Sprintf("The upstream was silent for %s %s.", limit, where),
		Type:    "server_error", Code: CodeUpstreamTimeout, Retryable: true,
	}
}

// attach counts a reader in, until detach is called.
func (g *generation) attach() (detach func()) {
	g.addReader(1)
	return sync.OnceFunc(func() { g.addReader(-1) })
}

func (g *generation) addReader(delta int) {
	g.mu.Lock()
	g.readers += delta
	if g.readers == 0 {
		g.unreadSince = time.Now()
	}
	g.mu.Unlock()
	g.nudge()
}

// read notes that somebody has read the stream just now.
func (g *generation) read() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unreadSince = time.Now()
}

// nudge makes the watch look again at how long to wait.
func (g *generation) nudge() {
	select {
	case g.changed <- struct{}{}:
	default: // it has yet to look at the last change
	}
}

// conclude says how the generation ends if nobody has sealed it already.
func (g *generation) conclude(outcome Outcome, err error) End {
	g.mu.Lock()
	defer g.mu.Unlock()
	end := End{Meta: g.meta, Events: g.events, Bytes: g.bytes, Err: err}
	end.Summary = Summary{
		FinishReason: outcome.FinishReason,
		Usage:        outcome.Usage,
		Timings:      &Timings{TotalMS: milliseconds(time.Since(g.started))},
	}
	if g.events > 0 {
		end.Timings.FirstTokenMS = milliseconds(g.firstToken.Sub(g.started))
	}
	switch {
	case err == nil:
		end.State = StateDone
	case errors.Is(err, errUnread), errors.Is(err, ErrSealed):
		end.State = StateCancelled
	case errors.Is(err, errInterrupted):
		end.State = StateError
		end.Error = Interrupted()
	default:
		end.State = StateError
		end.Error = AsError(err)
	}
	return end
}

// event returns the ending as a terminal event.
func (e Ending) event() Event {
	switch e.State {
	case StateDone:
		return DoneEvent(e.Summary)
	case StateCancelled:
		return CancelledEvent(e.Summary)
	default:
		return e.Error.Event(e.Summary)
	}
}
