package wire

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// answer is an upstream's whole answer of three tokens.
func answer() string {
	e := NewEncoder()
	var b strings.Builder
	b.WriteString(Head)
	for seq := 1; seq <= 3; seq++ {
		b.Write(e.Token(7, Token{seq, 1760000000123456789 + int64(seq), 2_000_000}))
	}
	b.Write(e.End(7))
	return b.String()
}

// read feeds an answer in pieces of n bytes and says what came of it.
func read(t *testing.T, answer string, n int) []string {
	t.Helper()
	var got []string
	r := Response{OnEvent: func(e Event) error {
		switch token, ok := ReadToken(e.Data); {
		case ok:
			got = append(got, fmt.Sprintf("%s%d@%d+%d", e.ID, token.Seq, token.Sent, token.Waited))
		case IsDone(e.Data), IsFinish(e.Data):
			got = append(got, string(e.ID)+map[bool]string{true: "done", false: "finish"}[IsDone(e.Data)])
		default:
			got = append(got, fmt.Sprintf("%s %s %s", e.Type, e.ID, e.Data))
		}
		return nil
	}}
	for i := 0; i < len(answer); i += n {
		if r.Ended() {
			t.Fatalf("pieces of %d: ended after %d of %d bytes", n, i, len(answer))
		}
		if err := r.Feed([]byte(answer[i:min(i+n, len(answer))])); err != nil {
			t.Fatalf("pieces of %d: %v", n, err)
		}
	}
	if !r.Ended() || r.Status != 200 {
		t.Errorf("pieces of %d: ended %v, status %d", n, r.Ended(), r.Status)
	}
	return got
}

func TestAnAnswerIsReadHoweverItIsCut(t *testing.T) {
	const want = "1@1760000000123456790+2000000 2@1760000000123456791+2000000 3@1760000000123456792+2000000 finish done"
	whole := answer()
	for n := 1; n <= len(whole); n++ {
		if got := strings.Join(read(t, whole, n), " "); got != want {
			t.Fatalf("pieces of %d: got %s", n, got)
		}
	}
}

func TestEventsOfTheNativeAPI(t *testing.T) {
	const events = "retry: 2000\nevent: start\ndata: {}\nid: s.1\n\n: ping\n\ndata: x\nid: s.2\n\nevent: done\ndata: {\"a\":1}\nid: s.3\n\n"
	// Chunks that end in the middle of an event, and a size with an extension.
	body := fmt.Sprintf("%X;ext=1\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", 20, events[:20], len(events)-20, events[20:])
	whole := strings.Replace(Head, "Transfer-Encoding", "transfer-encoding", 1) + body
	for n := 1; n <= len(whole); n++ {
		if got := strings.Join(read(t, whole, n), "|"); got != `start s.1 {}| s.2 x|done s.3 {"a":1}` {
			t.Fatalf("pieces of %d: got %s", n, got)
		}
	}
}

func TestWhatIsNoAnswer(t *testing.T) {
	for name, wire := range map[string]string{
		"another status":        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
		"not chunked":           "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"a bad size":            Head + "xyz\r\n",
		"a size without bounds": Head + "ffffffffff\r\n",
		"bytes behind the end":  answer() + "x",
		"an endless head":       "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHead),
		"an endless event":      Head + "200000\r\ndata: " + strings.Repeat("x", maxEvent+10),
	} {
		r := Response{OnEvent: func(Event) error { return nil }}
		if err := r.Feed([]byte(wire)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestReadingATokenAllocatesNothing(t *testing.T) {
	e := NewEncoder()
	tokens := 0
	r := Response{OnEvent: func(e Event) error {
		if _, ok := ReadToken(e.Data); ok {
			tokens++
		}
		return nil
	}}
	if err := r.Feed([]byte(Head)); err != nil {
		t.Fatal(err)
	}
	chunk := e.Token(1, Token{Seq: 1, Sent: time.Now().UnixNano()})
	allocs := testing.AllocsPerRun(1000, func() {
		if err := r.Feed(chunk); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 || tokens != 1001 {
		t.Errorf("%v allocations a token, %d tokens", allocs, tokens)
	}
}

func TestPlanTravelsInTheRequest(t *testing.T) {
	want := Plan{Tokens: 300, Gap: 20 * time.Millisecond}
	if got, err := ParsePlan(want.AppendRequest(nil)); err != nil || got != want {
		t.Errorf("got %v, %v", got, err)
	}
	for _, body := range []string{"", "{}", `{"user":"me"}`, `{"user":"0 tokens 1 ns"}`, `{"user":"1 tokens 0 ns"}`} {
		if got, err := ParsePlan([]byte(body)); err == nil {
			t.Errorf("%s: %v", body, got)
		}
	}
}
