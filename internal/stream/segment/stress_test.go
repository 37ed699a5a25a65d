package segment_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weir/internal/stream"
	"weir/internal/stream/segment"
	"weir/internal/stream/storetest"
)

// Everything at once, for a while, again and again over the same directory:
// nothing that is there is cut short, and the books balance.
func TestStress(t *testing.T) {
	for _, capped := range []bool{false, true} {
		t.Run(fmt.Sprint("capped ", capped), func(t *testing.T) {
			t.Parallel()
			st := &stress{whole: map[string]int{}}
			st.now.Store(time.Now().UnixNano())
			o := segment.Options{
				Dir: t.TempDir(), SegmentSize: 8 * kib, MaxMemory: 64 * kib, Retention: time.Minute,
				Now: func() time.Time { return time.Unix(0, st.now.Load()) },
			}
			if capped {
				o.MaxBytes = 256 * kib
			}
			for round := range 6 {
				s := open(t, o)
				if r := s.Recovery(); len(r.Damages)+len(r.Damaged) > 0 {
					t.Errorf("round %d: %+v", round, r)
				}
				st.compare(t, s)
				st.run(t, s, uint64(round))
				if err := s.Audit(); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
				if round%2 == 0 {
					s.Crash()
				} else if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

type stress struct {
	now atomic.Int64

	mu     sync.Mutex
	recent []string       // guarded by mu
	whole  map[string]int // guarded by mu; how many events an ended stream has
}

// compare reads what ended before, as far as it was not forgotten.
func (st *stress) compare(t *testing.T, s *segment.Store) {
	t.Helper()
	for id, events := range st.whole {
		if _, err := s.Status(t.Context(), id); errors.Is(err, stream.ErrGone) || errors.Is(err, stream.ErrNotFound) {
			delete(st.whole, id)
			continue
		}
		if got := storetest.CheckLog(t, s, id); len(got) != events {
			t.Errorf("stream %s has %d events, it had %d", id, len(got), events)
		}
	}
}

func (st *stress) run(t *testing.T, s *segment.Store, seed uint64) {
	var all sync.WaitGroup
	until := time.Now().Add(400 * time.Millisecond)
	for worker := range uint64(4) {
		generate, disturb := rand.New(rand.NewPCG(seed, worker)), rand.New(rand.NewPCG(seed, 100+worker))
		all.Go(func() {
			for time.Now().Before(until) {
				st.generate(t, s, generate)
			}
		})
		all.Go(func() {
			for time.Now().Before(until) {
				st.disturb(t, s, disturb)
			}
		})
	}
	all.Wait()
}

// generate is one stream's life. A tenth of them never end.
func (st *stress) generate(t *testing.T, s *segment.Store, random *rand.Rand) {
	meta := stream.Meta{ID: stream.NewID(), Owner: "ann"}
	if random.IntN(2) == 0 {
		meta.IdempotencyKey = fmt.Sprint(random.IntN(50))
	}
	w, err := s.Create(t.Context(), meta)
	if err != nil {
		tolerate(t, "Create", err)
		return
	}
	st.mu.Lock()
	st.recent = append(st.recent, meta.ID)
	st.recent = st.recent[max(0, len(st.recent)-60):]
	st.mu.Unlock()
	events := 1
	for range random.IntN(6) {
		if err := w.Append(t.Context(), []stream.Event{{Data: make([]byte, random.IntN(1500))}}); err != nil {
			tolerate(t, "Append", err)
			return
		}
		events++
	}
	if random.IntN(10) == 0 {
		return
	}
	terminal := stream.DoneEvent(stream.Summary{})
	if random.IntN(4) == 0 {
		terminal = stream.Interrupted().Event(stream.Summary{})
	}
	if err := s.Seal(t.Context(), meta.ID, terminal); err != nil {
		tolerate(t, "Seal", err)
		return
	}
	st.mu.Lock()
	st.whole[meta.ID] = events
	st.mu.Unlock()
	tolerate(t, "Book", w.Book(t.Context(), stream.Summary{FinishReason: "stop"}))
}

// disturb is what others do meanwhile, and time.
func (st *stress) disturb(t *testing.T, s *segment.Store, random *rand.Rand) {
	st.mu.Lock()
	if len(st.recent) == 0 {
		st.mu.Unlock()
		return
	}
	id := st.recent[random.IntN(len(st.recent))]
	st.mu.Unlock()
	var err error
	switch random.IntN(7) {
	case 0:
		err = s.Delete(t.Context(), id)
	case 1:
		var r stream.Reader
		if r, err = s.Open(t.Context(), id, 0); err == nil {
			_, _ = r.Next(nil)
			r.Close()
		}
	case 2:
		_, err = s.Status(t.Context(), id)
	case 3:
		_, err = s.List(t.Context(), "ann", "", 20)
	case 4:
		_, err = s.Claimed(t.Context(), "ann", fmt.Sprint(random.IntN(50)))
	case 5:
		s.Chill()
	case 6:
		st.now.Add(int64(100 * time.Millisecond))
	}
	tolerate(t, "a disturbance", err)
}

// tolerate takes the answers that a caller must expect.
func tolerate(t *testing.T, what string, err error) {
	t.Helper()
	var claimed *stream.ClaimedError
	for _, expected := range []error{stream.ErrGone, stream.ErrNotFound, stream.ErrRunning, stream.ErrSealed, stream.ErrFull} {
		if err == nil || errors.Is(err, expected) || errors.As(err, &claimed) {
			return
		}
	}
	t.Errorf("%s: %v", what, err)
}
