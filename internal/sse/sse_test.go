package sse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// decodeAll reads everything from r and returns copies of the events.
func decodeAll(d *Decoder, r io.Reader) (events []Event, rest []byte, err error) {
	for {
		err = d.Fill(r)
		for {
			e, ok := d.Next()
			if !ok {
				break
			}
			events = append(events, Event{bytes.Clone(e.Type), bytes.Clone(e.Data), bytes.Clone(e.ID)})
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return events, d.Rest(), err
		}
	}
}

func show(events []Event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%q %q %q\n", e.Type, e.Data, e.ID)
	}
	return b.String()
}

func TestDecode(t *testing.T) {
	const limit = 1 << 20
	tests := []struct{ name, wire, want, rest string }{
		{"a message", "data: hello\n\n", `"" "hello" ""`, ""},
		{"CRLF", "data: a\r\n\r\ndata: b\r\n\r\n", "\"\" \"a\" \"\"\n\"\" \"b\" \"\"", ""},
		{"CR", "data: a\r\rdata: b\r\r", "\"\" \"a\" \"\"\n\"\" \"b\" \"\"", ""},
		{"mixed line ends", "event: x\rdata: a\r\ndata: b\n\n", `"x" "a\nb" ""`, ""},
		{"only one space is taken", "data:  a\n\ndata:b\n\n", "\"\" \" a\" \"\"\n\"\" \"b\" \"\"", ""},
		{"comments and unknown fields", ": OPENROUTER PROCESSING\n\nfoo: bar\n: x\ndata: a\n: y\n\n", `"" "a" ""`, ""},
		{"data around a type and an id", "data: one\nevent: kind\ndata: two\nid: 7\ndata: three\n\n", `"kind" "one\ntwo\nthree" "7"`, ""},
		{"a later type wins", "event: a\nevent: longer\ndata: x\n\n", `"longer" "x" ""`, ""},
		{"an id with NUL is none", "id: a\x00b\ndata: x\n\n", `"" "x" ""`, ""},
		{"a type does not outlive its event", "event: a\n\ndata: x\n\n", `"" "x" ""`, ""},
		{"empty data", "data:\n\ndata\n\n", "\"\" \"\" \"\"\n\"\" \"\" \"\"", ""},
		{"two empty data lines", "data\ndata\n\n", `"" "\n" ""`, ""},
		{"byte order mark", "\xef\xbb\xbfdata: x\n\n", `"" "x" ""`, ""},
		{"byte order mark only at the start", "data: x\n\n\xef\xbb\xbfdata: y\n\n", `"" "x" ""`, ""},
		{"no colon", "data: x\nretry\nid\n\n", `"" "x" ""`, ""},
		{"the end without a blank line", "data: a\n\ndata: [DONE]", `"" "a" ""`, "[DONE]"},
		{"the end after a line", "data: [DONE]\n", "", "[DONE]"},
		{"nothing", "", "", ""},
		{"blank lines", "\n\n\r\n\r\r", "", ""},
	}
	for _, tt := range tests {
		for size := 1; size <= 5; size++ {
			d := NewDecoder(limit)
			events, rest, err := decodeAll(d, &chopped{data: []byte(tt.wire), size: func() int { return size }})
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			if got := strings.TrimSuffix(show(events), "\n"); got != tt.want || string(rest) != tt.rest {
				t.Errorf("%s, read by %d:\n got %s, rest %q\nwant %s, rest %q", tt.name, size, got, rest, tt.want, tt.rest)
			}
		}
	}
}

// Events of one Fill stay good until the next one, those with a type and
// several data lines too.
func TestEventsOfOneFillStandTogether(t *testing.T) {
	d := NewDecoder(1 << 20)
	wire := "event: a\ndata: 1\ndata: 2\nid: x\n\nevent: b\ndata: 3\ndata: 4\nid: y\n\n"
	if err := d.Fill(strings.NewReader(wire)); err != nil {
		t.Fatal(err)
	}
	first, _ := d.Next()
	second, _ := d.Next()
	got := show([]Event{first, second})
	if want := "\"a\" \"1\\n2\" \"x\"\n\"b\" \"3\\n4\" \"y\"\n"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
}

func TestDecoderCap(t *testing.T) {
	const limit = 1000
	endless := func(s string) io.Reader { return io.LimitReader(repeat(s), 1<<20) }
	tests := []struct {
		name string
		r    io.Reader
		want error
	}{
		{"one endless line", endless("data: x"), ErrTooLarge},
		{"endless data lines", endless("data: x\n"), ErrTooLarge},
		{"a type that is replaced is dropped", endless("event: x\n"), nil},
		{"and so is an id", endless("id: 1\n"), nil},
		{"endless comments cost nothing", endless(": x\n"), nil},
		{"nor do comments inside an event", io.MultiReader(strings.NewReader("data: x\n"), endless(": x\n")), nil},
		{"many small events", endless("data: x\n\n"), nil},
	}
	for _, tt := range tests {
		d := NewDecoder(limit)
		_, _, err := decodeAll(d, iotest.OneByteReader(tt.r))
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		if cap(d.buf) > 2*firstBuffer || cap(d.side) > 2*firstBuffer {
			t.Errorf("%s: %d and %d bytes of buffer", tt.name, cap(d.buf), cap(d.side))
		}
	}
}

func TestLargeEventPasses(t *testing.T) {
	data := strings.Repeat("x", 100<<10)
	events, _, err := decodeAll(NewDecoder(1<<20), strings.NewReader("data: "+data+"\n\n"))
	if err != nil || len(events) != 1 || string(events[0].Data) != data {
		t.Errorf("%d events, %v", len(events), err)
	}
}

func TestEncode(t *testing.T) {
	tests := []struct {
		e    Event
		want string
	}{
		{Event{Data: []byte("x")}, "data: x\n\n"},
		{Event{Type: []byte("done"), Data: []byte("{}"), ID: []byte("st.2")}, "event: done\ndata: {}\nid: st.2\n\n"},
		{Event{Data: []byte("a\nb\r\nc\rd")}, "data: a\ndata: b\ndata: c\ndata: d\n\n"},
		{Event{Data: []byte("\n")}, "data: \ndata: \n\n"},
		{Event{Data: []byte("a\r\r\nb\n")}, "data: a\ndata: \ndata: b\ndata: \n\n"},
		{Event{ID: []byte("st.2")}, ""}, // never an id alone
	}
	for _, tt := range tests {
		if got := string(AppendEvent(nil, tt.e)); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.e.Data, got, tt.want)
		}
	}
	if got := string(AppendComment(AppendRetry(nil, 2000), "ping")); got != "retry: 2000\n: ping\n\n" {
		t.Errorf("got %q", got)
	}
}

// FuzzDecodeRechunked: however the bytes are cut, the events are the same, and
// nothing above the cap is held.
func FuzzDecodeRechunked(f *testing.F) {
	f.Add([]byte("event: a\ndata: b\r\n\r\ndata: c\rid: 1\r\r: x\n\n"), uint64(1))
	f.Add([]byte("\xef\xbb\xbfdata: \xf0\x9f\x98\x80\n\ndata"), uint64(2))
	f.Fuzz(func(t *testing.T, wire []byte, seed uint64) {
		const limit = 1 << 20
		whole, wholeRest, err := decodeAll(NewDecoder(limit), bytes.NewReader(wire))
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(seed, 0))
		cut, cutRest, err := decodeAll(NewDecoder(limit), &chopped{data: wire, size: func() int { return 1 + rng.IntN(9) }})
		if err != nil {
			t.Fatal(err)
		}
		if show(whole) != show(cut) || !bytes.Equal(wholeRest, cutRest) {
			t.Errorf("whole:\n%s%q\ncut:\n%s%q", show(whole), wholeRest, show(cut), cutRest)
		}
		small := NewDecoder(64)
		_, _, err = decodeAll(small, bytes.NewReader(wire))
		if err != nil && !errors.Is(err, ErrTooLarge) {
			t.Error(err)
		}
	})
}

// FuzzEncodeDecode: what is encoded is decoded again, line breaks made LF.
func FuzzEncodeDecode(f *testing.F) {
	f.Add([]byte("token"), []byte("data"), []byte("st.1"))
	f.Add([]byte(""), []byte("a\r\nb\rc\n"), []byte(""))
	f.Fuzz(func(t *testing.T, typ, data, id []byte) {
		if bytes.ContainsAny(typ, "\r\n") || bytes.ContainsAny(id, "\r\n\x00") || len(data) == 0 {
			t.Skip("not what the encoder is given")
		}
		wire := AppendEvent(nil, Event{typ, data, id})
		events, rest, err := decodeAll(NewDecoder(1<<20), bytes.NewReader(wire))
		want := bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
		if err != nil || len(events) != 1 || rest != nil {
			t.Fatalf("%d events, rest %q, %v", len(events), rest, err)
		}
		if e := events[0]; !bytes.Equal(e.Data, want) || !bytes.Equal(e.Type, typ) || !bytes.Equal(e.ID, id) {
			t.Errorf("got %q %q %q", e.Type, e.Data, e.ID)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	chunk := []byte(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"tok"},"finish_reason":null}]}` + "\n\n")
	d, r := NewDecoder(1<<20), bytes.NewReader(nil)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(chunk)
		if err := d.Fill(r); err != nil {
			b.Fatal(err)
		}
		if _, ok := d.Next(); !ok {
			b.Fatal("no event")
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	e := Event{ID: []byte("st_01234567890abcdefghjkmnpqr.17"), Data: []byte(`{"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"tok"}}]}`)}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendEvent(buf[:0], e)
	}
}

// Encoder and decoder cost no allocation once warm.
func TestNoAllocationPerEvent(t *testing.T) {
	wire := []byte("event: e\ndata: a\ndata: b\nid: 1\n\n")
	d, r := NewDecoder(1<<20), bytes.NewReader(nil)
	var out []byte
	step := func() {
		r.Reset(wire)
		if err := d.Fill(r); err != nil {
			t.Fatal(err)
		}
		e, _ := d.Next()
		out = AppendEvent(out[:0], e)
	}
	step()
	if n := testing.AllocsPerRun(100, step); n != 0 {
		t.Errorf("%v allocations an event", n)
	}
}

// chopped hands out data in pieces.
type chopped struct {
	data []byte
	size func() int
}

func (c *chopped) Read(p []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.data[:min(c.size(), len(c.data))])
	c.data = c.data[n:]
	return n, nil
}

// repeat reads s for ever.
func repeat(s string) io.Reader { return &repeated{s: s} }

type repeated struct {
	s  string
	at int
}

func (r *repeated) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = r.s[r.at]
		r.at = (r.at + 1) % len(r.s)
	}
	return len(p), nil
}
