package storetest

import (
	"bytes"
	"sync"

	"weir/internal/stream"
)

var appendTests = []test{
	{"numbers events from 1 without gaps", testNumbers},
	{"an empty append is nothing", testEmptyAppend},
	{"keeps a copy of the data", testCopies},
	{"carries any type and any data", testPayloads},
	{"large events", testLargeEvents},
	{"streams do not mix", testStreamsApart},
}

func testNumbers(f *fixture) {
	w := f.create()
	for _, n := range []int{1, 1, 3, 1, 200, 2, 1} {
		w.append(n)
		if got := f.status(w.id).LastSeq; got != w.n {
			f.Fatalf("Status has last seq %d after %d events", got, w.n)
		}
	}
	w.seal(done())
	f.wantEvents("the log", w.id, CheckLog(f, f.log, w.id), 1, w.n+1)
}

func testEmptyAppend(f *fixture) {
	w := f.create()
	f.must("Append of nil", w.Append(f.ctx, nil))
	w.append(1)
	f.must("Append of nothing", w.Append(f.ctx, []stream.Event{}))
	w.append(1)
	f.wantEvents("the log", w.id, CheckLog(f, f.log, w.id), 1, 2)
}

func testCopies(f *fixture) {
	w := f.create()
	before := f.open(w.id, 0)
	buffer := []byte("first|second")
	events := []stream.Event{{Data: buffer[:5]}, {Data: buffer[6:]}}
	f.must("Append", w.Append(f.ctx, events))
	seen := f.news(before)
	copy(buffer, "overwritten!")
	events[0] = stream.Event{Seq: 7, Type: "other", Data: []byte("other")}

	terminal := done()
	want := string(terminal.Data)
	w.seal(terminal)
	clear(terminal.Data)

	for _, log := range [][]stream.Event{seen, CheckLog(f, f.log, w.id)} {
		if got := string(log[0].Data) + "|" + string(log[1].Data); got != "first|second" {
			f.Errorf("the log follows the caller's buffer: %q", got)
		}
	}
	if got := string(f.status(w.id).Terminal.Data); got != want {
		f.Errorf("the terminal event follows the caller's buffer: %q", got)
	}
}

// payloads are events that a store may be tempted to change.
func payloads() []stream.Event {
	return []stream.Event{
		{Type: stream.TypeStart, Data: []byte(`{"id":"x"}`)},
		{Type: "message_delta", Data: []byte("two\nlines\r\nand\x00a zero")},
		{Type: "only.a-type/with:signs and spaces"},
		{Type: stream.TypeToken, Data: []byte{}},
		{Type: stream.TypeToken, Data: []byte("not UTF-8: \xff\xfe")},
		{Type: "日本語", Data: []byte("日本語 🌊")},
		{Type: "large", Data: bytes.Repeat([]byte("0123456789abcde\xff"), 64<<10)},
		{Type: stream.TypeToken, Data: []byte("small again")},
	}
}

// appendPayloads appends them, some together and some alone.
func (f *fixture) appendPayloads(w *pen) {
	f.Helper()
	sent := payloads()
	f.must("Append", w.Append(f.ctx, sent[:2]))
	for i := 2; i < len(sent); i++ {
		f.must("Append", w.Append(f.ctx, sent[i:i+1]))
	}
}

// wantPayloads checks that a log begins with them, and has more events more.
func (f *fixture) wantPayloads(what string, log []stream.Event, more int) {
	f.Helper()
	want := payloads()
	if len(log) != len(want)+more {
		f.Fatalf("%s: %d events, want %d", what, len(log), len(want)+more)
	}
	for i, e := range want {
		e.Seq = uint64(i) + 1
		if !same(log[i], e) {
			f.Errorf("%s: got %s, want %s", what, show(log[i]), show(e))
		}
	}
}

func testPayloads(f *fixture) {
	w := f.create()
	live := f.open(w.id, 0)
	f.appendPayloads(w)
	f.wantPayloads("a live reader", f.news(live), 0)
	f.wantPayloads("the log", CheckLog(f, f.log, w.id), 0)
}

func testLargeEvents(f *fixture) {
	w := f.create()
	live := f.open(w.id, 0)
	var want [][]byte
	for i, size := range []int{10, 1 << 20, 0, 64<<10 - 1, 64 << 10, 64<<10 + 1, 1 << 20, 1} {
		data := bytes.Repeat([]byte{byte('a' + i)}, size)
		want = append(want, data)
		f.must("Append", w.Append(f.ctx, []stream.Event{{Data: data}}))
	}
	var batch []stream.Event
	for _, data := range want[:3] {
		batch = append(batch, stream.Event{Data: data})
	}
	want = append(want, want[:3]...)
	f.must("Append", w.Append(f.ctx, batch))
	w.seal(done())

	for _, log := range [][]stream.Event{f.follow(live), CheckLog(f, f.log, w.id)} {
		if len(log) != len(want)+1 {
			f.Fatalf("%d events, want %d", len(log), len(want)+1)
		}
		for i, data := range want {
			if !bytes.Equal(log[i].Data, data) {
				f.Errorf("event %d came back with %d bytes, or other ones; want %d", i+1, len(log[i].Data), len(data))
			}
		}
	}
}

func testStreamsApart(f *fixture) {
	var all sync.WaitGroup
	for i := range 20 {
		w := f.create()
		r := f.open(w.id, 0)
		all.Go(func() {
			for n := range 40 {
				if err := w.add(1 + (n+i)%3); err != nil {
					f.Errorf("Append: %v", err)
				}
			}
			if err := f.log.Seal(f.ctx, w.id, done()); err != nil {
				f.Errorf("Seal: %v", err)
			}
		})
		all.Go(func() {
			events := f.follow(r)
			if len(events) < 2 {
				f.Errorf("%s: only %d events", w.id, len(events))
				return
			}
			f.wantEvents(w.id, w.id, events, 1, events[len(events)-1].Seq)
		})
	}
	all.Wait()
}
