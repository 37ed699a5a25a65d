package upstream

import (
	"testing"
	"time"

	"weir/bench/internal/wire"
)

func TestEveryStreamIsDueInItsTime(t *testing.T) {
	const tick = time.Millisecond
	w := newWheel(tick)
	start := w.next * int64(tick)
	// Gaps below a tick, of a few, of exactly a turn, and of several.
	gaps := []time.Duration{tick / 3, tick, 7*tick + 1, slots * tick, 3*slots*tick + tick/2}
	sent := make([]int, len(gaps))
	var now int64
	for i, gap := range gaps {
		w.add(&stream{number: i, plan: wire.Plan{Gap: gap}, due: start + int64(gap)})
	}
	send := func(st *stream, _ int64) bool {
		if early := st.due - now; early > int64(tick) {
			t.Fatalf("gap %v: %v too early", st.plan.Gap, time.Duration(early))
		}
		sent[st.number]++
		st.due += int64(st.plan.Gap)
		return true
	}
	const turns = 10
	for now = start; now < start+turns*slots*int64(tick); now += int64(tick) {
		w.advance(now, send)
	}
	for i, gap := range gaps {
		want := int(turns * slots * tick / gap)
		if gap < tick {
			want = turns * slots // one a tick
		}
		if sent[i] < want-2 || sent[i] > want+1 {
			t.Errorf("gap %v: sent %d, want %d", gap, sent[i], want)
		}
	}
}

func TestWhoHasLeftIsForgotten(t *testing.T) {
	w := newWheel(time.Millisecond)
	w.add(&stream{gone: true, due: time.Now().Add(time.Millisecond).UnixNano()})
	w.advance(time.Now().Add(slots*time.Millisecond).UnixNano(), func(*stream, int64) bool {
		t.Error("sent to a stream that is gone")
		return false
	})
	for _, slot := range w.slots {
		if len(slot) > 0 {
			t.Fatal("still there")
		}
	}
}
