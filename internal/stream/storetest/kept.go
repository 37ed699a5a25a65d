package storetest

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"weir/internal/stream"
)

// What has ended before a crash.
var keptTests = []durableTest{
	{"ended streams are what they were", testEndedKept},
	{"any type and any data", testPayloadsKept},
	{"long logs", testLongKept},
	{"ids stay taken", testIDsKept},
	{"keys stay claimed", testKeysKept},
	{"the forgotten stay gone", testForgottenKept},
	{"the retention goes on", testRetentionKept},
}

func testEndedKept(f *durable) {
	var was []snapshot
	listed := map[string][]string{}
	for i, terminal := range []stream.Event{done(), cancelled(), failed(), done(), {Type: stream.TypeDone}} {
		owner := []string{"ann", "a \"name\" in 日本語\x00"}[i%2]
		meta := f.keyed(owner, fmt.Sprintf("key \"%d\" 日本", i))
		meta.Model = "models/with \"quotes\"\nand 日本語"
		w := f.mustCreate(meta)
		w.append(3 * i)
		w.append(1)
		w.seal(terminal)
		if i%3 == 0 {
			f.must("Book", w.Book(f.ctx, bookedSummary()))
		}
		f.clock.advance(time.Minute)
		was = append(was, f.settle(w.id))
		listed[owner] = append([]string{w.id}, listed[owner]...)
	}
	for range 2 {
		f.crash()
		for _, s := range was {
			f.wantSame("after a crash", s)
			claimed, err := f.log.Claimed(f.ctx, s.status.Owner, s.status.IdempotencyKey)
			f.must("Claimed", err)
			f.wantStatus("Claimed", claimed, s.status)
			last := uint64(len(s.events))
			f.wantEvents("a suffix", s.status.ID, f.follow(f.open(s.status.ID, last-1)), last, last)
			f.wantErr("Seal", f.log.Seal(f.ctx, s.status.ID, done()), stream.ErrSealed)
		}
		for owner, ids := range listed {
			f.wantList("after a crash", f.listIDs(owner, "", 10), ids)
			f.wantList("after a crash, a page", f.listIDs(owner, ids[0], 1), ids[1:2])
		}
	}
}

func testPayloadsKept(f *durable) {
	ended, running := f.create(), f.create()
	f.appendPayloads(ended)
	f.appendPayloads(running)
	ended.seal(done())
	f.crash()
	f.wantPayloads("an ended stream", f.settle(ended.id).events, 1)
	recovered := f.settle(running.id)
	f.wantPayloads("a recovered stream", recovered.events, 1)
	f.wantRecovery(recovered)
}

// More than fits into one file, page or message of whatever the place is made
// of, of several streams in turn.
func testLongKept(f *durable) {
	var was []snapshot
	pens := []*pen{f.create(), f.create(), f.create()}
	large := bytes.Repeat([]byte("x"), 100<<10)
	for round := range 60 {
		for i, w := range pens {
			if i == 0 && round%3 == 0 {
				f.must("Append", w.Append(f.ctx, []stream.Event{{Type: "large", Data: large}}))
				w.n++
				continue
			}
			w.append(1 + (round+i)%40)
		}
	}
	for _, w := range pens[:2] {
		w.seal(done())
		was = append(was, f.settle(w.id))
	}
	f.crash()
	for _, s := range was {
		f.wantSame("a long log", s)
	}
	f.recovered(pens[2].id, pens[2].n, 0)
}

func testIDsKept(f *durable) {
	metas := []stream.Meta{f.meta("ann"), f.meta("ann"), f.meta("ann")}
	for i, meta := range metas {
		w := f.mustCreate(meta)
		w.append(i)
		if i > 0 {
			w.seal(done())
		}
	}
	f.must("Delete", f.log.Delete(f.ctx, metas[2].ID))
	f.crash()
	for _, when := range []string{"at once", "after the recovery"} {
		for i, meta := range metas {
			_, err := f.tryCreate(meta)
			f.wantErr(fmt.Sprintf("Create of used id %d %s", i, when), err, stream.ErrExists)
		}
		f.settle(metas[0].ID)
	}
	// What follows a crash is a store like any other.
	w := f.create()
	r := f.open(w.id, 0)
	w.append(3)
	f.wantEvents("a new stream", w.id, f.awaitEvents(r, 1, 3), 1, 3)
	w.seal(done())
	f.wantEvents("a new stream's end", w.id, f.follow(r), 4, 4)
}

func testKeysKept(f *durable) {
	kept := f.keyed("ann", "kept")
	f.ended(kept)
	freed := f.mustCreate(f.keyed("ann", "freed"))
	freed.append(1)
	freed.seal(failed())
	deleted := f.ended(f.keyed("ann", "deleted"))
	f.must("Delete", f.log.Delete(f.ctx, deleted.id))
	f.crash()

	f.wantClaimed("after a crash", kept)
	_, err := f.log.Claimed(f.ctx, "ann", "freed")
	f.wantErr("Claimed of a freed key", err, stream.ErrNotFound)
	_, err = f.log.Claimed(f.ctx, "ann", "deleted")
	f.wantGone("Claimed of a deleted stream's key", err, "ann")
	_, err = f.tryCreate(f.keyed("ann", "deleted"))
	f.wantErr("Create with a deleted stream's key", err, stream.ErrGone)

	taken := f.keyed("ann", "freed")
	f.ended(taken)
	f.crash()
	f.wantClaimed("taken after a crash, and crashed again", taken)
	f.wantClaimed("after two crashes", kept)
}

func testForgottenKept(f *durable) {
	before, after, neighbour := f.ended(f.meta("ann")), f.ended(f.meta("ann")), f.ended(f.meta("ann"))
	running := f.create()
	running.append(2)
	f.must("Delete", f.log.Delete(f.ctx, before.id))
	f.crash()
	f.wantAllGone("deleted before the crash", before.id, "ann")
	f.must("Delete", f.log.Delete(f.ctx, after.id))
	f.wantAllGone("deleted after the crash", after.id, "ann")
	f.recovered(running.id, 2, 0)
	f.must("Delete", f.log.Delete(f.ctx, running.id))
	f.crash()
	for _, id := range []string{before.id, after.id, running.id} {
		f.wantAllGone("after another crash", id, "ann")
	}
	f.wantList("after two crashes", f.listIDs("ann", "", 10), []string{neighbour.id})
	f.wantEvents("the neighbour", neighbour.id, f.settle(neighbour.id).events, 1, 3)

	// The place remembers a forgotten stream for as long as its id needs it.
	f.clock.advance(retention + time.Minute)
	f.crash()
	_, err := f.log.Status(f.ctx, before.id)
	f.wantErr("Status of what was deleted long ago", err, stream.ErrGone)
}

func testRetentionKept(f *durable) {
	old := f.ended(f.keyed("ann", "key"))
	f.clock.advance(retention / 2)
	young := f.ended(f.meta("ann"))
	running := f.create()
	running.append(2)
	f.place.Crash(f.log)
	f.clock.advance(retention/2 + time.Minute) // while no store was there
	f.log = f.place.Open()

	_, err := f.log.Status(f.ctx, old.id)
	f.wantErr("Status of what expired meanwhile", err, stream.ErrGone)
	_, err = f.log.Open(f.ctx, old.id, 0)
	f.wantErr("Open of what expired meanwhile", err, stream.ErrGone)
	f.mustCreate(f.keyed("ann", "key")).seal(done())
	f.wantEvents("a younger one", young.id, f.settle(young.id).events, 1, 3)
	f.recovered(running.id, 2, 0)
	if ids := f.listIDs("ann", "", 10); slices.Contains(ids, old.id) || !slices.Contains(ids, young.id) {
		f.Errorf("listed %v, want %s and not %s", ids, young.id, old.id)
	}

	// A recovered stream's time begins with its end, not with the crash.
	f.clock.advance(retention/2 + time.Minute)
	f.create().seal(done())
	_, err = f.log.Status(f.ctx, young.id)
	f.wantErr("Status of what expires after the crash", err, stream.ErrGone)
	f.wantEvents("the recovered one", running.id, f.settle(running.id).events, 1, 3)
	f.clock.advance(retention/2 + time.Minute)
	_, err = f.log.Status(f.ctx, running.id)
	f.wantErr("Status of the recovered one, later", err, stream.ErrGone)
}
