package httpapi

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"weir/internal/upstreamtest"
)

var docBlock = regexp.MustCompile("(?s)```(request|response)\n(.*?)```")

// The examples of docs/protocol.md, in their order, are what the server says.
func TestProtocolExamples(t *testing.T) {
	doc, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	h := newHarness(t)
	started := make(chan struct{}) // the first answer still runs while its start is told
	h.upstream.Answer(func(w http.ResponseWriter, r *http.Request) {
		<-started
		upstreamtest.SSE(upstreamtest.Answer("Hel", "lo"))(w, r)
	})
	names := map[string]string{} // what {id} and its like stand for
	var request string
	var resp *http.Response
	blocks := docBlock.FindAllStringSubmatch(string(doc), -1)
	if len(blocks) < 20 {
		t.Fatalf("only %d examples", len(blocks))
	}
	for i, block := range blocks {
		if i == 2 {
			close(started)
		}
		if block[1] == "request" {
			request = block[2]
			resp = h.play(fill(request, names))
			continue
		}
		checkExample(t, request, block[2], resp, names)
	}
}

// fill puts the values of names into a text.
func fill(text string, names map[string]string) string {
	for name, value := range names {
		text = strings.ReplaceAll(text, "{"+name+"}", value)
	}
	return text
}

// play sends a request as it is written.
func (h *harness) play(text string) *http.Response {
	h.t.Helper()
	head, body, _ := strings.Cut(text, "\n\n")
	lines := strings.Split(strings.TrimSpace(head), "\n")
	method, path, _ := strings.Cut(lines[0], " ")
	var headers []string
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ": ")
		headers = append(headers, name, value)
	}
	return h.call(method, path, strings.TrimSpace(body), headers...)
}

func checkExample(t *testing.T, request, want string, resp *http.Response, names map[string]string) {
	t.Helper()
	head, body, _ := strings.Cut(want, "\n\n")
	lines := bufio.NewScanner(strings.NewReader(head))
	lines.Scan()
	if status := strings.TrimPrefix(lines.Text(), "HTTP/1.1 "); status != resp.Status {
		t.Errorf("%s\nstatus %q, the document says %q", request, resp.Status, status)
	}
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		matchDoc(t, request, value, resp.Header.Get(name), names)
	}
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("%s\n%v", request, err)
	}
	matchDoc(t, request, strings.TrimRight(body, "\n"), strings.TrimRight(string(got), "\n"), names)
}

var docHole = regexp.MustCompile(`…|\\{(\w+)\\}`)

// matchDoc compares a text with the document's: … is anything, and the first
// time a {name} is met it takes its value.
func matchDoc(t *testing.T, request, want, got string, names map[string]string) {
	t.Helper()
	var fresh []string
	pattern := docHole.ReplaceAllStringFunc(regexp.QuoteMeta(fill(want, names)), func(hole string) string {
		if hole == "…" {
			return `[\s\S]*?`
		}
		name := docHole.FindStringSubmatch(hole)[1]
		for _, seen := range fresh {
			if seen == name {
				return `st_\w+`
			}
		}
		fresh = append(fresh, name)
		return `(st_\w+)`
	})
	found := regexp.MustCompile(`^` + pattern + `$`).FindStringSubmatch(got)
	if found == nil {
		t.Errorf("%s\n got: %s\nwant: %s", request, got, want)
		return
	}
	for i, name := range fresh {
		names[name] = found[i+1]
	}
}
