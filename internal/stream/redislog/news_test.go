package redislog

import (
	"testing"

	"weir/internal/stream"
)

func TestParseNews(t *testing.T) {
	events, err := parseNews("41\n0 5 0\ntoken5 2 0\nstart{}4 0 1\ndone")
	want := []stream.Event{
		{Seq: 41, Data: []byte("token")}, {Seq: 42, Type: "start", Data: []byte("{}")}, {Seq: 43, Type: "done", Recovery: 1},
	}
	if err != nil || len(events) != len(want) {
		t.Fatalf("%d events, %v", len(events), err)
	}
	for i, e := range events {
		if w := want[i]; e.Seq != w.Seq || e.Type != w.Type || string(e.Data) != string(w.Data) || e.Recovery != w.Recovery {
			t.Errorf("%+v, want %+v", e, w)
		}
	}
	for _, message := range []string{"", "x\n", "1\n0", "1\n0 5 0\ntoke", "1\n99999999999 1 0\nx", "1\n0 0 999\n"} {
		if events, err := parseNews(message); err == nil && len(events) > 0 {
			t.Errorf("%q is %+v", message, events)
		}
	}
}

func FuzzParseNews(f *testing.F) {
	f.Add("41\n0 5 0\ntoken5 2 0\nstart{}4 0 1\ndone")
	f.Fuzz(func(t *testing.T, message string) {
		events, err := parseNews(message)
		size := 0
		for _, e := range events {
			size += len(e.Type) + len(e.Data)
		}
		if err == nil && size > len(message) {
			t.Errorf("%d bytes of events in %d", size, len(message))
		}
	})
}
