package upstream

import "time"

// wheel holds streams by when their next token is due: a slot for each tick, and
// after the last slot the first one again. A stream that is due later than a
// whole turn is passed over until its time has come.
type wheel struct {
	tick  int64
	slots [][]*stream
	next  int64 // the tick to look at next, counted from 1970
}

const slots = 1 << 13

func newWheel(tick time.Duration) *wheel {
	return &wheel{tick: int64(tick), slots: make([][]*stream, slots), next: time.Now().UnixNano() / int64(tick)}
}

// add puts a stream to its time; into the next slot when that is past.
func (w *wheel) add(st *stream) {
	at := max(st.due/w.tick, w.next) & (slots - 1)
	w.slots[at] = append(w.slots[at], st)
}

// advance sends what is due by now. A stream that has more to send gets its new
// place.
func (w *wheel) advance(now int64, send func(*stream, int64) bool) {
	for ; w.next <= now/w.tick; w.next++ {
		at := w.next & (slots - 1)
		due := w.slots[at]
		// What is kept for a later turn goes to the front of the slot that is
		// walked over, so it never overtakes the walk. What is added lands in
		// slots to come.
		kept := due[:0]
		for _, st := range due {
			switch {
			case st.gone:
			case st.due/w.tick > w.next:
				kept = append(kept, st)
			case send(st, time.Now().UnixNano()):
				w.move(st)
			}
		}
		clear(due[len(kept):])
		w.slots[at] = kept
	}
}

// move puts a stream that has just sent to its next time, which is after the
// slot being walked over even when it is late already.
func (w *wheel) move(st *stream) {
	at := max(st.due/w.tick, w.next+1)
	if at-w.next >= slots && at&(slots-1) == w.next&(slots-1) {
		at++ // a whole turn later is the slot being walked over: one tick does not matter
	}
	w.slots[at&(slots-1)] = append(w.slots[at&(slots-1)], st)
}
