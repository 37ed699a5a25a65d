package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Log is a store and what is known about its streams.
type Log interface {
	Store
	Catalog
}

// Emit adds events to a generation's log, as many at a time as arrived
// together; none of a terminal type. No events at all say that the upstream is
// alive, though it has no token yet. Emit keeps nothing of the slice or the data.
// Its error ends the generation. It is for one goroutine.
type Emit func(events []Event) error

// Outcome is what a provider knows of an answer once it is over. Usage is nil
// when nothing came that could be counted.
type Outcome struct {
	FinishReason string
	Usage        *Usage
}

// Generate produces one answer: it emits its events and returns after the last
// one. A nil error means that the answer is whole. It ends soon after ctx does.
type Generate func(ctx context.Context, emit Emit) (Outcome, error)

// Spec is a generation to start.
type Spec struct {
	Meta
	// Unread is how long the generation may go on while nobody reads it,
	// before it is cancelled.
	Unread time.Duration
	// Generate produces the answer, under a context of the runner's.
	Generate Generate
}

// Limits bound every generation. Zero means no limit.
type Limits struct {
	FirstToken time.Duration // upstream silence before the first token
	Idle       time.Duration // upstream silence between tokens
	MaxBytes   int64         // payload of one stream
}

// Observer is told what becomes of generations. Its methods must not block.
type Observer interface {
	Started(meta Meta)
	FirstToken(meta Meta, after time.Duration)
	Ended(end End)
}

// End is a generation that is over.
type End struct {
	Meta
	Ending
	Events int
	Bytes  int64
	Err    error // why it ended early, or why its end could not be written; nil on a good end
}

// ErrDraining is Start's error once the runner is shutting down.
var ErrDraining = errors.New("stream: the server is stopping and starts nothing new")

// Reasons for which a runner ends a generation early: causes of its context.
var (
	errUnread      = errors.New("nobody read the stream for too long")
	errInterrupted = errors.New("the server stopped")
)

// Runner owns every generation of this process: it starts them, watches over
// them, and ends each in exactly one terminal event.
type Runner struct {
	log      Log
	limits   Limits
	observer Observer

	running  sync.WaitGroup     // one for each generation; added to under mu, before stopping closes
	stopping chan struct{}      // closed under mu by the first StopStarting
	grace    context.Context    // ends when a drain's grace is over
	endGrace context.CancelFunc // called under mu

	mu          sync.Mutex
	generations map[string]*generation // guarded by mu; those that run here
}

// NewRunner returns a runner that writes to log. The observer may be nil.
func NewRunner(log Log, limits Limits, observer Observer) *Runner {
	if observer == nil {
		observer = unobserved{}
	}
	r := &Runner{
		log: log, limits: limits, observer: observer,
		stopping: make(chan struct{}), generations: map[string]*generation{},
	}
	r.grace, r.endGrace = context.WithCancel(context.Background())
	return r
}

// Start creates the stream, with its start event in the log, and begins its
// generation, which outlives ctx. The caller counts as a reader until it calls
// detach, so that the shortest patience can't end the stream before its creator
// reads it. Start returns ErrDraining, or what the store says to the create or to
// the first append.
func (r *Runner) Start(ctx context.Context, spec Spec) (detach func(), err error) {
	if !r.admit() {
		return nil, ErrDraining
	}
	genCtx, cancel := context.WithCancelCause(context.Background())
	g := newGeneration(spec, r.limits, cancel)
	detach = g.attach()
	r.register(g) // before anyone can find the stream, and attach in vain
	if g.writer, err = r.log.Create(ctx, spec.Meta); err != nil {
		r.unregister(g)
		cancel(err)
		r.running.Done()
		return nil, err
	}
	refused := g.writer.Append(ctx, []Event{startEvent(spec.Meta)})
	if refused != nil {
		// The stream exists already: it ends as any other that failed.
		refused = fmt.Errorf("append the start event: %w", refused)
		g.generate = func(context.Context, Emit) (Outcome, error) { return Outcome{}, refused }
	}
	r.observer.Started(g.meta)
	go func() {
		defer r.running.Done()
		defer r.unregister(g)
		r.run(genCtx, g)
	}()
	if refused != nil && !errors.Is(refused, ErrSealed) { // what was cancelled meanwhile is there to read
		detach()
		return nil, refused
	}
	return detach, nil
}

func startEvent(m Meta) Event {
	return Event{Type: TypeStart, Data: mustMarshal(struct {
		ID       string `json:"id"`
		Model    string `json:"model"`
		Provider string `json:"provider"`
		Created  int64  `json:"created"`
	}{m.ID, m.Model, m.Provider, m.Created.Unix()})}
}

// Cancel ends a running stream, on whatever replica it runs. A stream that has
// ended already stays as it is.
func (r *Runner) Cancel(ctx context.Context, id string) error {
	err := r.log.Seal(ctx, id, CancelledEvent(Summary{}))
	if errors.Is(err, ErrSealed) {
		return nil
	}
	return err
}

// Attach says that somebody reads the stream, until detach is called. A stream
// that does not run here takes no notice.
func (r *Runner) Attach(id string) (detach func()) {
	r.mu.Lock()
	g := r.generations[id]
	r.mu.Unlock()
	if g == nil {
		return func() {}
	}
	return g.attach()
}

// Runs reports whether the stream's generation runs here. Once it does not, its
// end is in the log, as far as the store could be reached.
func (r *Runner) Runs(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.generations[id] != nil
}

// Stopping is closed when the runner starts nothing any more.
func (r *Runner) Stopping() <-chan struct{} { return r.stopping }

// Draining reports whether the runner starts nothing any more.
func (r *Runner) Draining() bool {
	select {
	case <-r.stopping:
		return true
	default:
		return false
	}
}

// Running returns how many generations run here.
func (r *Runner) Running() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.generations)
}

// StopStarting makes Start answer ErrDraining from now on. What runs goes on.
func (r *Runner) StopStarting() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.Draining() {
		close(r.stopping)
	}
}

// Drain starts nothing new, waits for the running generations until ctx ends,
// seals the rest as interrupted, and returns when every one is over.
func (r *Runner) Drain(ctx context.Context) {
	r.StopStarting()
	over := make(chan struct{})
	go func() {
		r.running.Wait()
		close(over)
	}()
	select {
	case <-over:
		return
	case <-ctx.Done():
	}
	r.mu.Lock()
	r.endGrace()
	for _, g := range r.generations {
		g.cancel(errInterrupted)
	}
	r.mu.Unlock()
	<-over
}

func (r *Runner) admit() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Draining() {
		return false
	}
	r.running.Add(1)
	return true
}

// register makes g known. A drain that interrupted the others before it looked
// here would wait for g for ever.
func (r *Runner) register(g *generation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.generations[g.meta.ID] = g
	if r.grace.Err() != nil {
		g.cancel(errInterrupted)
	}
}

func (r *Runner) unregister(g *generation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.generations, g.meta.ID)
}

// run is a generation's life: produce, then end in one terminal event, then
// book what is known of it.
func (r *Runner) run(ctx context.Context, g *generation) {
	g.heard() // the upstream is asked only now, however long the store took
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		g.watch(ctx, r.readElsewhere)
	}()
	outcome, err := g.produce(ctx, r.observer)
	if err != nil && context.Cause(ctx) != nil {
		// Only the cause tells why; the provider just saw its context end.
		err = context.Cause(ctx)
	}
	g.cancel(context.Canceled) // ends the watch, and whatever the provider left behind
	<-watched

	end := g.conclude(outcome, err)
	if !errors.Is(err, ErrFenced) { // then the log's end is its new owner's to write
		end.Ending, end.Err = r.seal(g, end)
	}
	r.observer.Ended(end)
}

// readElsewhere asks a shared log whether another replica has a reader of the
// stream. One that does not answer can't have a generation cancelled that
// somebody reads.
func (r *Runner) readElsewhere(ctx context.Context, id string) bool {
	shared, ok := r.log.(Shared)
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	read, err := shared.ReadElsewhere(ctx, id)
	return read || err != nil
}

type unobserved struct{}

func (unobserved) Started(Meta)                   {}
func (unobserved) FirstToken(Meta, time.Duration) {}
func (unobserved) Ended(End)                      {}
