package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// storeTimeout is how long a store may take to answer one call, and how long
// one that does not answer may hold up the process's end.
const storeTimeout = 5 * time.Second

// errGivenUp is why a write that could still have succeeded was not tried again.
var errGivenUp = errors.New("given up")

// seal writes the terminal event, unless somebody else has, and books the
// summary. It returns how the stream ended in the log. A store that is out of
// reach is asked until it answers: a log without an end would hold its readers
// for ever. Only a drain whose grace is over waits no longer than storeTimeout.
func (r *Runner) seal(g *generation, end End) (Ending, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer context.AfterFunc(r.grace, func() { time.AfterFunc(storeTimeout, cancel) })()

	ending, err := end.Ending, end.Err
	terminal := ending.event()
	sealErr := persist(ctx, func(ctx context.Context) error { return r.log.Seal(ctx, g.meta.ID, terminal) })
	switch {
	case errors.Is(sealErr, ErrSealed):
		ending = r.sealedAs(ctx, g.meta.ID, ending)
	case sealErr != nil:
		err = errors.Join(err, fmt.Errorf("seal: %w", sealErr))
	}
	if errors.Is(sealErr, errGivenUp) {
		return ending, err // there is no time left for an account
	}
	if bookErr := g.book(ctx, ending.Summary); bookErr != nil {
		err = errors.Join(err, fmt.Errorf("book: %w", bookErr))
	}
	return ending, err
}

// sealedAs returns how somebody else ended the stream: by a cancel, by a
// recovery, or by a seal of ours whose answer was lost. What the owner knows of
// it stays. When the log does not tell, the ending is taken for the owner's.
func (r *Runner) sealedAs(ctx context.Context, id string, ending Ending) Ending {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	var status Status
	err := persist(ctx, func(ctx context.Context) (err error) {
		status, err = r.log.Status(ctx, id)
		return err
	})
	if err != nil {
		return ending
	}
	sealed, err := ReadEnding(status.Terminal)
	if err != nil {
		return ending
	}
	sealed.Summary = ending.Summary
	return sealed
}

// book leaves the account. It is not worth more than a moment's trying.
func (g *generation) book(ctx context.Context, summary Summary) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return persist(ctx, func(ctx context.Context) error { return g.writer.Book(ctx, summary) })
}

// The pause between two attempts doubles from the one to the other.
const (
	minPause = 50 * time.Millisecond
	maxPause = 2 * time.Second
)

// persist repeats a call to the store, each time with the store's time to
// answer, while its error is one that can pass and ctx has not ended.
func persist(ctx context.Context, call func(context.Context) error) error {
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		err := attempt(ctx, call)
		if err == nil || !passing(err) {
			return err
		}
		// Jitter: what was cut off at one moment must not come back at one.
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", errGivenUp, err)
		}
	}
}

func attempt(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return call(ctx)
}

// passing reports whether an error says nothing that holds the next time.
func passing(err error) bool {
	for _, e := range []error{ErrUnavailable, ErrFull, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
