package stream_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"weir/internal/stream"
)

const someID = "st_1hpexa1c000abcdefghjkmnpqrs"

func TestParseCursor(t *testing.T) {
	tests := []struct {
		in   string
		want stream.Cursor
	}{
		{"0", stream.Cursor{}},
		{"1", stream.Cursor{Seq: 1}},
		{"4096", stream.Cursor{Seq: 4096}},
		{"9223372036854775807", stream.Cursor{Seq: math.MaxInt64}},
		{someID + ".0", stream.Cursor{Stream: someID}},
		{someID + ".1", stream.Cursor{Stream: someID, Seq: 1}},
		{someID + ".412", stream.Cursor{Stream: someID, Seq: 412}},
		{someID + ".137.r1", stream.Cursor{Stream: someID, Seq: 137, Recovery: 1}},
		{someID + ".137.r10", stream.Cursor{Stream: someID, Seq: 137, Recovery: 10}},
		{someID + ".9223372036854775807.r255", stream.Cursor{Stream: someID, Seq: math.MaxInt64, Recovery: 255}},
	}
	for _, test := range tests {
		got, err := stream.ParseCursor(test.in)
		if err != nil || got != test.want {
			t.Errorf("ParseCursor(%q) = %+v, %v; want %+v", test.in, got, err, test.want)
		}
	}
}

func TestParseCursorRefuses(t *testing.T) {
	garbage := []string{
		"", " ", "x", "-1", "+1", "1 ", " 1", "1\n", "0x1", "1e3", "1_000", "1.0", "1.r1", "٣", "00", "01", "007",
		"9223372036854775808", "18446744073709551616", strings.Repeat("9", 65), strings.Repeat("0", 10_000),
		".", ".1", "..", someID, someID + ".", someID + ".x", someID + ".-1", someID + ".+1", someID + ".01", someID + ". 1",
		someID + ".9223372036854775808", someID + "." + strings.Repeat("1", 40), someID + "..r1", someID + ".1.",
		someID + ".1.1", someID + ".1.r", someID + ".1.r0", someID + ".1.r01", someID + ".1.rr1", someID + ".1.r-1",
		someID + ".1.r+1", someID + ".1.R1", someID + ".1.r256", someID + ".1.r1.r1", someID + ".1.r1 ", someID + ".01.r1",
		someID + ".1.r1" + strings.Repeat("0", 40), someID + ":1", "x.1", "st_.1",
	}
	for _, id := range malformedIDs() {
		garbage = append(garbage, id+".1")
	}
	for _, in := range garbage {
		if got, err := stream.ParseCursor(in); !errors.Is(err, stream.ErrCursor) || got != (stream.Cursor{}) {
			t.Errorf("ParseCursor(%.80q) = %+v, %v; want ErrCursor", in, got, err)
		}
	}
}

func TestAppendCursor(t *testing.T) {
	tests := []struct {
		event stream.Event
		want  string
	}{
		{stream.Event{Seq: 1}, someID + ".1"},
		{stream.Event{Seq: 412, Type: stream.TypeDone}, someID + ".412"},
		{stream.Event{Seq: 137, Type: stream.TypeError, Recovery: 1}, someID + ".137.r1"},
		{stream.Event{Seq: math.MaxInt64, Recovery: 255}, someID + ".9223372036854775807.r255"},
	}
	buffer := make([]byte, 0, 128)
	for _, test := range tests {
		if got := string(stream.AppendCursor([]byte("id: "), someID, test.event)); got != "id: "+test.want {
			t.Errorf("AppendCursor(%+v) = %q, want %q", test.event, got, test.want)
		}
		if allocs := testing.AllocsPerRun(100, func() { stream.AppendCursor(buffer, someID, test.event) }); allocs != 0 {
			t.Errorf("AppendCursor: %v allocations", allocs)
		}
	}
}

func FuzzParseCursor(f *testing.F) {
	for _, seed := range []string{
		"0", "1", "01", someID + ".1", someID + ".1.r1", someID + ".1.r01", someID + ".1.r256", someID + "..", "1.r1", "-", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		c, err := stream.ParseCursor(in)
		if err != nil {
			if c != (stream.Cursor{}) {
				t.Errorf("ParseCursor(%q) = %+v beside %v", in, c, err)
			}
			return
		}
		// A place has one name: what was read is written the same.
		out := string(stream.AppendCursor(nil, c.Stream, stream.Event{Seq: c.Seq, Recovery: c.Recovery}))
		if c.Stream == "" {
			out = strings.TrimPrefix(out, ".")
		}
		if out != in {
			t.Errorf("%q was read as %+v, which is %q", in, c, out)
		}
	})
}

func TestLocate(t *testing.T) {
	running := stream.Status{LastSeq: 5}
	ended := stream.Status{LastSeq: 5, Terminal: stream.Event{Seq: 5, Type: stream.TypeDone}}
	recovered := stream.Status{LastSeq: 5, Terminal: stream.Event{Seq: 5, Type: stream.TypeError, Recovery: 1}}
	tests := []struct {
		name   string
		status stream.Status
		cursor string
		want   stream.Place
	}{
		{"running, at the start", running, someID + ".0", stream.PlaceInside},
		{"running, behind", running, someID + ".4", stream.PlaceInside},
		{"running, at the newest", running, someID + ".5", stream.PlaceInside},
		{"running, bare at the newest", running, "5", stream.PlaceInside},
		{"running, ahead", running, someID + ".6", stream.PlaceBeyond},
		{"running, bare ahead", running, "6", stream.PlaceBeyond},
		{"running without events", stream.Status{}, "0", stream.PlaceInside},
		{"running without events, ahead", stream.Status{}, "1", stream.PlaceBeyond},

		{"ended, at the start", ended, "0", stream.PlaceInside},
		{"ended, before the end", ended, someID + ".4", stream.PlaceInside},
		{"ended, at the end", ended, someID + ".5", stream.PlaceEnd},
		{"ended, bare at the end", ended, "5", stream.PlaceEnd},
		{"ended, ahead", ended, someID + ".6", stream.PlaceBeyond},
		{"ended, far ahead", ended, "9223372036854775807", stream.PlaceBeyond},
		{"ended, a mark where no recovery was", ended, someID + ".5.r1", stream.PlaceBeyond},

		{"recovered, before the end", recovered, someID + ".4", stream.PlaceInside},
		{"recovered, at the end", recovered, someID + ".5.r1", stream.PlaceEnd},
		{"recovered, bare at the end", recovered, "5", stream.PlaceEnd},
		{"recovered, another event at the end's place", recovered, someID + ".5", stream.PlaceBeyond},
		{"recovered, another recovery's end", recovered, someID + ".5.r2", stream.PlaceBeyond},
		{"recovered, in the lost tail", recovered, someID + ".6", stream.PlaceBeyond},
		{"recovered, bare in the lost tail", recovered, "9", stream.PlaceBeyond},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cursor, err := stream.ParseCursor(test.cursor)
			if err != nil {
				t.Fatal(err)
			}
			if got := test.status.Locate(cursor); got != test.want {
				t.Errorf("Locate(%q) = %v, want %v", test.cursor, got, test.want)
			}
		})
	}
}
