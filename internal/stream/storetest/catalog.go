package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"weir/internal/stream"
)

var catalogTests = []test{
	{"Status", testStatus},
	{"unknown and malformed ids", testUnknown},
	{"List pages from the newest", testList},
	{"List is the owner's", testListOwner},
	{"List skips the forgotten and the expired", testListGone},
}

func testStatus(f *fixture) {
	meta := f.keyed("ann", "key")
	meta.Model, meta.Provider = "models/with \"quotes\" and 日本語", "other"
	w := f.mustCreate(meta)
	for _, last := range []uint64{0, 2, 3} {
		w.append(int(last - w.n))
		got := f.status(w.id)
		f.wantMeta("Status", got.Meta, meta)
		if got.LastSeq != last || !got.Running() || got.State() != stream.StateRunning || !got.Ended.IsZero() {
			f.Errorf("last seq %d, %s, ended %v; want %d, running", got.LastSeq, got.State(), got.Ended, last)
		}
	}
	f.clock.advance(retention / 2)
	terminal := done()
	w.seal(terminal)
	got := f.status(w.id)
	f.wantMeta("Status of an ended stream", got.Meta, meta)
	terminal.Seq = 4
	if got.LastSeq != 4 || got.Running() || got.State() != stream.StateDone || !same(got.Terminal, terminal) {
		f.Errorf("last seq %d, %s, terminal %s", got.LastSeq, got.State(), show(got.Terminal))
	}
	// A store may keep the time less exactly than the clock tells it.
	if off := got.Ended.Sub(f.clock.Now()).Abs().Seconds(); off > 1 {
		f.Errorf("ended %v, want %v", got.Ended, f.clock.Now())
	}
}

// malformed are what a client may send in place of an id.
var malformed = []string{
	"", "x", "st_", ".", "..", "../../etc/passwd", "a/b", "st_\x00", "*", "st_" + strings.Repeat("0", 1000),
	strings.Repeat("0", 30), strings.ToUpper(stream.NewID()), stream.NewID() + "0", stream.NewID()[:29],
	stream.NewID() + "/..", "st_" + strings.Repeat("é", 27),
}

func testUnknown(f *fixture) {
	f.create()
	for _, id := range append([]string{stream.NewID()}, malformed...) {
		_, err := f.log.Status(f.ctx, id)
		f.wantErr(fmt.Sprintf("Status of %.40q", id), err, stream.ErrNotFound)
		_, err = f.log.Open(f.ctx, id, 0)
		f.wantErr(fmt.Sprintf("Open of %.40q", id), err, stream.ErrNotFound)
		f.wantErr(fmt.Sprintf("Seal of %.40q", id), f.log.Seal(f.ctx, id, done()), stream.ErrNotFound)
		f.wantErr(fmt.Sprintf("Delete of %.40q", id), f.log.Delete(f.ctx, id), stream.ErrNotFound)
	}
}

// listIDs returns one page.
func (f *fixture) listIDs(owner, before string, limit int) []string {
	f.Helper()
	list, err := f.log.List(f.ctx, owner, before, limit)
	f.must("List", err)
	if len(list) > limit {
		f.Errorf("List returned %d streams, the limit is %d", len(list), limit)
	}
	var ids []string
	for _, listed := range list {
		status := f.status(listed.ID)
		f.wantMeta("List", listed.Meta, status.Meta)
		if listed.LastSeq != status.LastSeq || !same(listed.Terminal, status.Terminal) || !listed.Ended.Equal(status.Ended) {
			f.Errorf("List and Status of %s do not say the same: %+v, %+v", listed.ID, listed, status)
		}
		ids = append(ids, listed.ID)
	}
	return ids
}

func (f *fixture) wantList(what string, got, want []string) {
	f.Helper()
	if !slices.Equal(got, want) {
		f.Errorf("%s: %d streams %v, want %d %v", what, len(got), got, len(want), want)
	}
}

func testList(f *fixture) {
	var metas []stream.Meta
	var newest []string
	for range 25 {
		meta := f.meta("ann")
		metas = append(metas, meta)
		newest = append([]string{meta.ID}, newest...)
	}
	// Ids made one after the other may well reach the store in another order.
	rand.Shuffle(len(metas), func(i, j int) { metas[i], metas[j] = metas[j], metas[i] })
	for i, meta := range metas {
		w := f.mustCreate(meta)
		w.append(i % 3)
		if i%2 == 0 {
			w.seal(done())
		}
	}
	f.wantList("all", f.listIDs("ann", "", 100), newest)
	f.wantList("as many as there are", f.listIDs("ann", "", len(newest)), newest)
	for _, size := range []int{1, 7, 24} {
		var paged []string
		for before := ""; len(paged) <= len(newest); {
			page := f.listIDs("ann", before, size)
			if len(page) == 0 {
				break
			}
			paged = append(paged, page...)
			before = page[len(page)-1]
		}
		f.wantList(fmt.Sprint("pages of ", size), paged, newest)
	}
	f.wantList("before the oldest", f.listIDs("ann", newest[len(newest)-1], 10), nil)
	f.wantList("before one that is not there", f.listIDs("ann", stream.NewID(), 3), newest[:3])
	f.must("Delete", f.log.Delete(f.ctx, metas[0].ID))
	at := slices.Index(newest, metas[0].ID)
	f.wantList("before a forgotten one", f.listIDs("ann", metas[0].ID, 100), newest[at+1:])
}

func testListOwner(f *fixture) {
	want := map[string][]string{}
	owners := []string{"ann", "bob", "an", "ann:", "", "{ann}*"}
	for i := range 18 {
		w := f.mustCreate(f.meta(owners[i%len(owners)]))
		w.append(1)
		want[owners[i%len(owners)]] = append([]string{w.id}, want[owners[i%len(owners)]]...)
	}
	for _, owner := range owners {
		f.wantList(fmt.Sprintf("of %q", owner), f.listIDs(owner, "", 100), want[owner])
		f.wantList(fmt.Sprintf("of %q, a page", owner), f.listIDs(owner, want[owner][0], 1), want[owner][1:2])
	}
	f.wantList("of a stranger", f.listIDs("eve", "", 100), nil)
}

func testListGone(f *fixture) {
	var old, kept []string
	for range 3 {
		old = append([]string{f.ended(f.meta("ann")).id}, old...)
	}
	running := f.create().id
	f.clock.advance(retention / 2)
	for range 3 {
		kept = append([]string{f.ended(f.meta("ann")).id}, kept...)
	}
	f.wantList("before", f.listIDs("ann", "", 10), slices.Concat(kept, []string{running}, old))
	f.must("Delete", f.log.Delete(f.ctx, kept[1]))
	f.must("Delete", f.log.Delete(f.ctx, old[0]))
	kept, old = []string{kept[0], kept[2]}, old[1:]
	f.wantList("after Delete", f.listIDs("ann", "", 10), slices.Concat(kept, []string{running}, old))
	f.wantList("a page over the gap", f.listIDs("ann", kept[0], 2), []string{kept[1], running})
	f.clock.advance(retention/2 + retention/10)
	f.wantList("after the retention", f.listIDs("ann", "", 10), append(kept, running))
	f.wantList("a page that skips the expired", f.listIDs("ann", "", 3), append(kept, running))
}
