package storetest

import (
	"errors"
	"fmt"
	"sync"

	"weir/internal/stream"
)

var createTests = []test{
	{"an id is used once", testUsedID},
	{"an id is used once by concurrent creates", testUsedIDRace},
	{"an idempotency key is one stream's", testKey},
	{"an idempotency key has one winner", testKeyRace},
	{"owners and keys do not clash", testKeysApart},
	{"a failure before the first token frees the key", testKeyFreed},
	{"no other end frees the key", testKeyKept},
	{"a forgotten stream keeps its key", testKeyForgotten},
	{"a refused create leaves no trace", testRefusedCreate},
}

func testUsedID(f *fixture) {
	meta := f.meta("ann")
	w := f.mustCreate(meta)
	again := func(when string) {
		f.Helper()
		for _, owner := range []string{"ann", "bob"} {
			meta.Owner = owner
			_, err := f.tryCreate(meta)
			f.wantErr("Create of an id that is "+when, err, stream.ErrExists)
		}
	}
	again("empty")
	w.append(2)
	again("running")
	w.seal(done())
	again("ended")
	f.wantEvents("the log", w.id, CheckLog(f, f.log, w.id), 1, 3)
	f.must("Delete", f.log.Delete(f.ctx, w.id))
	again("forgotten")
}

func testUsedIDRace(f *fixture) {
	for range 20 {
		meta := f.meta("ann")
		won := f.raceCreate(nil, 8, func(int) stream.Meta { return meta }, stream.ErrExists)
		if len(won) != 1 {
			f.Errorf("%d creates of one id won", len(won))
		}
	}
}

// raceCreate creates n streams at once, every other one at the other store when
// there is one, and returns those that it could. The others must fail with want;
// nil is a *ClaimedError.
func (f *fixture) raceCreate(other *fixture, n int, meta func(i int) stream.Meta, want error) (won []stream.Meta) {
	var (
		mu    sync.Mutex
		all   sync.WaitGroup
		start = make(chan struct{})
		lost  []*stream.ClaimedError
	)
	for i := range n {
		m, at := meta(i), f
		if other != nil && i%2 == 1 {
			at = other
		}
		all.Go(func() {
			<-start
			_, err := at.tryCreate(m)
			mu.Lock()
			defer mu.Unlock()
			var claimed *stream.ClaimedError
			switch {
			case err == nil:
				won = append(won, m)
			case want != nil:
				f.wantErr("Create", err, want)
			case errors.As(err, &claimed):
				lost = append(lost, claimed)
			default:
				f.Errorf("Create: %v, want a *ClaimedError", err)
			}
		})
	}
	close(start)
	all.Wait()
	for _, claimed := range lost {
		if len(won) == 1 {
			f.wantMeta("ClaimedError", claimed.By.Meta, won[0])
		}
	}
	return won
}

func (f *fixture) wantMeta(what string, got, want stream.Meta) {
	f.Helper()
	if !got.Created.Equal(want.Created) {
		f.Errorf("%s: created %v, want %v", what, got.Created, want.Created)
	}
	got.Created = want.Created
	if got != want {
		f.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

// wantClaimed checks that a create with the key is refused for the holder.
func (f *fixture) wantClaimed(what string, holder stream.Meta) {
	f.Helper()
	_, err := f.tryCreate(f.keyed(holder.Owner, holder.IdempotencyKey))
	var claimed *stream.ClaimedError
	if !errors.As(err, &claimed) {
		f.Errorf("%s: Create: %v, want a *ClaimedError", what, err)
		return
	}
	f.wantMeta(what, claimed.By.Meta, holder)
	got, err := f.log.Claimed(f.ctx, holder.Owner, holder.IdempotencyKey)
	f.must("Claimed", err)
	f.wantMeta(what+": Claimed", got.Meta, holder)
	if want := f.status(holder.ID); got.LastSeq != want.LastSeq || claimed.By.LastSeq != want.LastSeq ||
		!same(got.Terminal, want.Terminal) || !same(claimed.By.Terminal, want.Terminal) {
		f.Errorf("%s: Claimed, the error and Status do not say the same", what)
	}
}

func testKey(f *fixture) {
	_, err := f.log.Claimed(f.ctx, "ann", "key")
	f.wantErr("Claimed before", err, stream.ErrNotFound)
	meta := f.keyed("ann", "key")
	w := f.mustCreate(meta)
	f.wantClaimed("empty", meta)
	w.append(2)
	f.wantClaimed("running", meta)
	w.seal(done())
	f.wantClaimed("ended", meta)
}

func testKeyRace(f *fixture) {
	for round := range 20 {
		key := fmt.Sprint("key ", round)
		won := f.raceCreate(nil, 8, func(int) stream.Meta { return f.keyed("ann", key) }, nil)
		if len(won) != 1 {
			f.Fatalf("%d creates won one key", len(won))
		}
		f.wantClaimed("after the race", won[0])
	}
}

func testKeysApart(f *fixture) {
	metas := []stream.Meta{
		f.keyed("ann", "key"), f.keyed("bob", "key"), f.keyed("ann", "key2"), f.keyed("", "key"),
		// No separator may join an owner and a key to another pair.
		f.keyed("a:b", "c"), f.keyed("a", "b:c"), f.keyed("a/b", "c"), f.keyed("a", "b/c"), f.keyed("a", "b\x00c"),
		f.keyed("a\x00b", "c"), f.keyed("ab", "c"), f.keyed("a", "bc"), f.keyed("a\nb", "c"), f.keyed("a", "b\nc"),
		f.keyed("ann", "{key} with * signs, \"quotes\" and 日本語"), f.keyed("ann", "KEY"),
	}
	for _, meta := range metas {
		f.mustCreate(meta)
	}
	for _, meta := range metas {
		f.wantClaimed(fmt.Sprintf("%q %q", meta.Owner, meta.IdempotencyKey), meta)
	}
	for range 3 { // no key is no claim
		f.mustCreate(f.meta("ann"))
	}
	_, err := f.log.Claimed(f.ctx, "ann", "")
	f.wantErr("Claimed without a key", err, stream.ErrNotFound)
}

func testKeyFreed(f *fixture) {
	for events := range 2 {
		key := fmt.Sprint("key ", events)
		w := f.mustCreate(f.keyed("ann", key))
		w.append(events)
		w.seal(failed())
		if !f.status(w.id).FailedBeforeToken() {
			f.Fatal("the stream did not fail before its first token")
		}
		won := f.raceCreate(nil, 4, func(int) stream.Meta { return f.keyed("ann", key) }, nil)
		if len(won) != 1 {
			f.Fatalf("%d creates won a freed key", len(won))
		}
		f.wantClaimed("freed, and taken", won[0])
		f.wantEvents("the failed one", w.id, CheckLog(f, f.log, w.id), 1, w.n+1)
	}
}

func testKeyKept(f *fixture) {
	tests := []struct {
		key      string
		events   int
		terminal stream.Event
	}{
		{"cancelled before a token", 1, cancelled()},
		{"done before a token", 1, done()},
		{"failed after a token", 2, failed()},
		{"cancelled after a token", 2, cancelled()},
	}
	for _, test := range tests {
		meta := f.keyed("ann", test.key)
		w := f.mustCreate(meta)
		w.append(test.events)
		w.seal(test.terminal)
		f.wantClaimed(test.key, meta)
	}
}

func testKeyForgotten(f *fixture) {
	w := f.ended(f.keyed("ann", "key"))
	f.must("Delete", f.log.Delete(f.ctx, w.id))
	_, err := f.log.Claimed(f.ctx, "ann", "key")
	f.wantGone("Claimed", err, "ann")
	for range 2 {
		_, err = f.tryCreate(f.keyed("ann", "key"))
		f.wantErr("Create", err, stream.ErrGone)
	}
	f.mustCreate(f.keyed("bob", "key"))
	f.mustCreate(f.keyed("ann", "other"))
}

func testRefusedCreate(f *fixture) {
	holder := f.mustCreate(f.keyed("ann", "key"))
	refused := f.keyed("ann", "key")
	_, err := f.tryCreate(refused)
	var claimed *stream.ClaimedError
	if !errors.As(err, &claimed) {
		f.Fatalf("Create: %v, want a *ClaimedError", err)
	}
	_, err = f.log.Status(f.ctx, refused.ID)
	f.wantErr("Status", err, stream.ErrNotFound)
	list, err := f.log.List(f.ctx, "ann", "", 10)
	f.must("List", err)
	if len(list) != 1 || list[0].ID != holder.id {
		f.Errorf("%d streams listed, want the holder", len(list))
	}

	used := f.keyed("ann", "fresh key")
	used.ID = holder.id
	_, err = f.tryCreate(used)
	f.wantErr("Create of a used id", err, stream.ErrExists)
	_, err = f.log.Claimed(f.ctx, "ann", "fresh key")
	f.wantErr("Claimed of a refused create", err, stream.ErrNotFound)

	refused.IdempotencyKey = ""
	f.mustCreate(refused)
}
