package main

import (
	"net"
	"testing"

	"github.com/chromedp/chromedp"

	"weir/internal/upstreamtest"
)

// The server is killed in the middle of an answer and comes back: the page
// finds it by itself, keeps the text, learns that there is no more of it, and
// can ask again. What had ended before is whole.
func TestBrowserOutlivesAKilledServer(t *testing.T) {
	upstream := upstreamtest.New(t)
	upstream.Answer(withModels(upstreamtest.SSE(upstreamtest.Answer("The first answer."))))
	addr := freeAddr(t)
	environ := []string{"OPENAI_BASE_URL=" + upstream.URL, "WEIR_DATA_DIR=" + t.TempDir()}
	start := func() *process { return startCommand(t, command(t, []string{"-addr", addr}, environ...)) }
	p := start()
	b := newBrowser(t)
	b.do(chromedp.Navigate(p.url))
	b.ask("Hello")
	b.await(answerState + ` === "done"`)

	upstream.Answer(withModels(upstreamtest.Silent(upstreamtest.Chunk("Half of the second"))))
	b.ask("And then?")
	b.await(answerText + `?.includes("Half of the second")`)
	p.cmd.Process.Kill()
	p.cmd.Wait()
	b.await(pageState + ` === "reconnecting"`)
	b.screenshot("killed")
	upstream.Answer(withModels(upstreamtest.SSE(upstreamtest.Answer("All of the second."))))
	start()
	b.await(answerState + ` === "error"`)
	b.await(`[...document.querySelectorAll(".error")].at(-1).textContent.includes("The server stopped before the answer was complete")`)
	b.await(answerText + `.includes("Half of the second")`)
	b.screenshot("interrupted")
	b.do(chromedp.Click("article[data-role=assistant]:last-of-type .error .retry"))
	b.await(answerState + ` === "done"`)
	b.await(answerText + `.includes("All of the second.")`)
	b.do(chromedp.Reload())
	b.await(`document.body.innerText.includes("The first answer.")`)
	b.await(answerText + `?.includes("All of the second.")`)
}

// freeAddr is an address that a process can have again after it was killed.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
