package redislog

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"weir/internal/stream"
)

// ticksPerRenewal: a lease is renewed every fourth of it, and lapsed ones are
// looked for twice as often.
const (
	ticksPerRenewal = 2
	ticksPerLease   = 4 * ticksPerRenewal
)

// keep holds the lease, and ends the streams of those that hold theirs no more.
func (s *Store) keep(ctx context.Context) {
	k := keeper{store: s}
	tick := s.lease / ticksPerLease
	for n := 0; ; n++ {
		// Not in step with the other replicas, which need not all look at once.
		timer := time.NewTimer(tick*3/4 + mathrand.N(tick/4))
		nudged := false
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.nudge:
			timer.Stop()
			nudged = true
		case <-timer.C:
		}
		if s.frozen.Load() {
			continue
		}
		if nudged || n%ticksPerRenewal == 0 {
			k.renew(ctx)
		}
		if !nudged {
			s.reap(ctx)
		}
	}
}

// keeper is what the keeping goroutine knows from one renewal to the next.
type keeper struct {
	store    *Store
	heeded   []string        // notices that the server may drop
	renewals int             // so far
	suspects map[string]bool // streams that nobody here produces, as it seemed last time
}

// reconcileEvery: what runs here is compared with what the server thinks when
// the numbers differ, and with so many renewals.
const reconcileEvery = 8

// renewal is the answer to a renewed lease.
type renewal struct {
	running int64    // streams of this replica, as the server knows it
	notices []string // of them, those that others have ended
}

func (s *Store) renew(ctx context.Context, heeded ...string) (renewal, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := renewScript.Exec(ctx, s.client,
		[]string{s.keys.replicas(), s.keys.running(s.token), s.keys.notices(s.token), s.keys.secret(), s.keys.born()},
		append([]string{s.token, milliseconds(s.lease), s.theSecret()}, heeded...)).ToArray()
	if err != nil {
		return renewal{}, fmt.Errorf("renew the lease: %w", storeError(err))
	}
	if len(answer) != 2 {
		return renewal{}, fmt.Errorf("renew the lease: %w: an answer of %d parts", stream.ErrUnavailable, len(answer))
	}
	var r renewal
	if r.running, err = answer[0].AsInt64(); err == nil {
		r.notices, err = answer[1].AsStrSlice()
	}
	if err != nil {
		return renewal{}, fmt.Errorf("renew the lease: %w: %w", stream.ErrUnavailable, err)
	}
	return r, nil
}

func (k *keeper) renew(ctx context.Context) {
	s := k.store
	r, err := s.renew(ctx, k.heeded...)
	if err != nil {
		s.logger.Debug("redis: the lease is not renewed", "error", err)
		return
	}
	k.heeded = k.heeded[:0]
	// All at once: a lease must not lapse while one after the other is looked at.
	if _, errs := s.lookAll(ctx, r.notices); !errors.Is(errors.Join(errs...), stream.ErrUnavailable) {
		k.heeded = append(k.heeded, r.notices...)
	}
	if len(k.heeded) > 0 {
		s.nudgeKeeper() // there may be more, and these may go
	}
	if s.doubted.CompareAndSwap(true, false) && s.lookFor(ctx, slices.Collect(maps.Keys(s.running()))) != nil {
		s.doubted.Store(true)
	}
	// The same number may be of other streams: now and then it is looked at, and
	// a suspect is looked at twice.
	if k.renewals++; int(r.running) == len(s.running()) && k.renewals%reconcileEvery != 0 && len(k.suspects) == 0 && !s.abandonedAny() {
		return
	}
	if err := k.reconcile(ctx); err != nil {
		s.logger.Debug("redis: compare what runs here with what the server thinks", "error", err)
	}
}

// doubt has the keeper look at everything that runs here: the connection was
// lost, and what answers now may be a server that has less than the one before.
// Without a token to send, nobody else would notice.
func (s *Store) doubt() {
	s.doubted.Store(true)
	s.nudgeKeeper()
}

// lookChunk is how many streams are looked at in one go.
const lookChunk = 200

// running returns the ids of the streams that are produced here.
func (s *Store) running() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make(map[string]bool, len(s.writers))
	for id, w := range s.writers {
		select {
		case <-w.sealed:
		default:
			ids[id] = true
		}
	}
	return ids
}

// reconcile finds streams that the server thinks run here and that don't, and
// the other way round.
func (k *keeper) reconcile(ctx context.Context) error {
	s := k.store
	began, before, abandoned := time.Now(), s.running(), s.abandonedIDs()
	there := map[string]bool{}
	for cursor := uint64(0); ; {
		scan := s.client.B().Sscan().Key(s.keys.running(s.token)).Cursor(cursor).Count(1000).Build()
		entry, err := s.client.Do(ctx, scan).AsScanEntry()
		if err != nil {
			return storeError(err)
		}
		for _, id := range entry.Elements {
			there[id] = true
		}
		if cursor = entry.Cursor; cursor == 0 {
			break
		}
	}
	after := s.running()
	suspects := map[string]bool{}
	sealed := 0
	for id := range there {
		switch {
		case after[id]:
		case (k.suspects[id] || abandoned[id]) && sealed < maxSeals:
			// A create that was given up, or an end that could not be written.
			if err := s.sealLost(ctx, id); err != nil {
				return err
			}
			sealed++
		default:
			suspects[id] = true // it may be on its way
		}
	}
	k.suspects = suspects
	s.dropAbandoned(began.Add(-s.lease))
	var missing []string
	for id := range before {
		if !there[id] && after[id] {
			missing = append(missing, id)
		}
	}
	return s.lookFor(ctx, missing)
}

// maxSeals is how many orphans are ended between two renewals of the lease.
const maxSeals = 20

// lookFor looks at streams that run here and that the server may not know, which
// tells their writers of an end; those that it has lost are written again.
func (s *Store) lookFor(ctx context.Context, ids []string) error {
	for part := range slices.Chunk(ids, lookChunk) {
		_, errs := s.lookAll(ctx, part)
		for i, err := range errs {
			if w := s.writer(part[i]); w != nil && unknown(err) && !w.over() {
				w.resendAll()
			} else if errors.Is(err, stream.ErrUnavailable) {
				return err
			}
		}
	}
	return nil
}

func (s *Store) sealLost(ctx context.Context, id string) error {
	end := lostEvent()
	err := s.Seal(ctx, id, end)
	if errors.Is(err, stream.ErrSealed) || errors.Is(err, stream.ErrNotFound) || errors.Is(err, stream.ErrGone) {
		return nil
	}
	return err
}

func lostEvent() stream.Event {
	end := stream.ProducerLost().Event(stream.Summary{})
	end.Recovery = 1
	return end
}

// reapChunk bounds how long one script runs: about 2 ms.
const reapChunk = 100

// reap ends the streams of replicas that have been silent for a lease.
func (s *Store) reap(ctx context.Context) {
	end, total := lostEvent(), 0
	defer func() {
		if total > 0 {
			s.logger.Warn("redis: ended the streams of a replica that is lost", "streams", total)
		}
	}()
	for ctx.Err() == nil {
		answer, err := s.run(ctx, reapScript, []string{s.keys.replicas(), s.keys.pulse()}, []string{
			string(s.keys), s.token, milliseconds(s.lease), strconv.Itoa(reapChunk), end.Type, string(end.Data),
			strconv.Itoa(int(end.Recovery)), strconv.FormatInt(s.now().UnixMilli(), 10), s.retentionMS(), rand.Text(),
		})
		if err != nil {
			s.logger.Debug("redis: look for lapsed leases", "error", err)
			return
		}
		ended, _ := strconv.Atoi(answer[0])
		total += ended
		if answer[1] == "0" {
			return
		}
	}
}

// hearNotice takes in a published notice; one too many comes with the lease.
func (s *Store) hearNotice(notice string) {
	if s.frozen.Load() {
		return
	}
	select {
	case s.notices <- notice:
	default:
		s.nudgeKeeper()
	}
}

func (s *Store) nudgeKeeper() {
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}

// heed shows the ends that others have written, as soon as they say so.
func (s *Store) heed(ctx context.Context) {
	for {
		select {
		case notice := <-s.notices:
			id, news, _ := strings.Cut(notice, "\n")
			events, err := parseNews(news)
			if err != nil || len(events) != 1 || !events[0].Terminal() {
				s.logger.Error("redis: a foreign message on the channel for notices", "error", err)
				continue
			}
			if w := s.writer(id); w != nil {
				w.finish(events[0])
			}
		case <-ctx.Done():
			return
		}
	}
}
