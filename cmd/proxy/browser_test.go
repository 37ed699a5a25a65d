package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"weir/internal/config"
	"weir/internal/upstreamtest"
)

// wait bounds what a test waits for; it is reached by failures only.
const wait = 30 * time.Second

// running is a whole proxy in this process.
type running struct {
	url string
	*proxy
}

func startProxy(t *testing.T, environ ...string) *running {
	t.Helper()
	environ = append([]string{"WEIR_ADMIN_ADDR=", "WEIR_DRAIN_GRACE=0s", "WEIR_DATA_DIR=" + t.TempDir()}, environ...)
	cfg, err := config.Load([]string{"-addr", "127.0.0.1:0", "-env", os.DevNull}, environ, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		t.Fatal(err)
	}
	p, err := build(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- p.run(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		if err := <-over; err != nil {
			t.Errorf("the proxy ended with %v", err)
		}
	})
	return &running{url: "http://" + listener.Addr().String(), proxy: p}
}

// findChromium returns a browser's path. A machine without one skips the test,
// but for CI, where nothing may be skipped.
func findChromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("WEIR_TEST_CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("no Chromium is installed: the browser tests need one")
	}
	t.Skip("no Chromium is installed (apt-get install chromium)")
	return ""
}

// tab is a browser tab that remembers what its page did.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	problems []string // guarded by mu; console errors, warnings and exceptions
	requests []string // guarded by mu; URLs
}

// newBrowser starts a browser with one tab.
func newBrowser(t *testing.T, flags ...chromedp.ExecAllocatorOption) *tab {
	t.Helper()
	// What the browser leaves behind goes with the test, however late it is written.
	temp, err := os.MkdirTemp("", "weir-browser-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(temp) })
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(findChromium(t)), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WindowSize(1100, 800),
		chromedp.Env("TMPDIR="+temp), chromedp.UserDataDir(filepath.Join(temp, "profile")), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), append(options, flags...)...)
	t.Cleanup(cancel)
	return newTab(t, ctx)
}

// another opens a second tab of the same profile.
func (b *tab) another() *tab { return newTab(b.t, b.ctx) }

func newTab(t *testing.T, parent context.Context) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(parent)
	t.Cleanup(cancel)
	b := &tab{t: t}
	var stop context.CancelFunc
	b.ctx, stop = context.WithTimeout(ctx, 3*wait)
	t.Cleanup(stop)
	if err := chromedp.Listen(b.ctx, b.observe); err != nil {
		t.Fatal(err)
	}
	b.do(chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
		return err
	}))
	return b
}

func (b *tab) observe(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			b.problems = append(b.problems, fmt.Sprintf("console.%s", e.Type))
		}
	case *runtime.EventExceptionThrown:
		b.problems = append(b.problems, e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			b.problems = append(b.problems, e.Entry.Text+" "+e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request.Method+" "+e.Request.URL)
	}
}

func (b *tab) requestCount() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.requests)
}

func (b *tab) checkConsole() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.problems) > 0 {
		b.t.Errorf("the console says: %q", b.problems)
	}
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *tab) eval(expression string) string {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// await waits until an expression holds in the page.
func (b *tab) await(expression string) {
	b.t.Helper()
	deadline := time.Now().Add(wait)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for b.eval("String(Boolean("+expression+"))") != "true" {
		if time.Now().After(deadline) {
			b.t.Fatalf("not in time: %s\nthe page says: %s\nthe console says: %q", expression, b.eval("document.body.innerText"), b.problems)
		}
		<-tick.C
	}
}

const (
	answerText  = `document.querySelector("article[data-role=assistant]:last-of-type .content")?.textContent`
	answerState = `document.querySelector("article[data-role=assistant]:last-of-type")?.dataset.state`
	pageState   = `document.querySelector("#status").dataset.state`
)

func (b *tab) ask(prompt string) {
	b.t.Helper()
	b.await(`!document.querySelector("#send").hidden`)
	b.do(chromedp.SendKeys("#prompt", prompt), chromedp.Click("#send"))
}

// screenshot keeps a picture of the tab where WEIR_TEST_SCREENSHOTS says.
func (b *tab) screenshot(name string) {
	dir := os.Getenv("WEIR_TEST_SCREENSHOTS")
	if dir == "" {
		return
	}
	data, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), data, 0o644)
	}
	if err != nil {
		b.t.Error(err)
	}
}

// A page is reloaded and a second tab is opened in the middle of an answer:
// nothing is lost, nothing comes twice, and after the end the browser is quiet.
func TestBrowserReloadAndSecondTab(t *testing.T) {
	upstream := upstreamtest.New(t)
	steps := make(chan string)
	upstream.Answer(streaming(upstream, steps))
	p := startProxy(t, "OPENAI_BASE_URL="+upstream.URL)
	b := newBrowser(t)
	b.do(chromedp.Navigate(p.url))
	b.await(`document.querySelector("#model").options.length > 1`)
	b.ask("Hello")
	var want strings.Builder
	say := func(n int) {
		for range n {
			word := fmt.Sprintf("w%d ", want.Len())
			want.WriteString(word)
			steps <- upstreamtest.Chunk(word)
		}
	}
	shows := func() string { return fmt.Sprintf("%s?.trim() === %q", answerText, strings.TrimSpace(want.String())) }
	say(20)
	b.await(shows())
	b.await(pageState + ` === "live"`)
	b.do(chromedp.Reload())
	say(20)
	b.await(shows())
	second := b.another()
	second.do(chromedp.Navigate(p.url))
	say(20)
	second.await(shows())
	b.await(shows())
	steps <- upstreamtest.Finish("stop") + upstreamtest.Done
	close(steps)
	for _, each := range []*tab{b, second} {
		each.await(answerState + ` === "done"`)
		each.await(shows())
		each.await(pageState + ` === "closed"`)
	}
	quiet(t, b, second)
	if n := countPosts(upstream); n != 1 {
		t.Errorf("%d generations, want 1", n)
	}
	b.checkConsole()
	second.checkConsole()
}

// streaming answers chat calls step by step and lists a model.
func streaming(u *upstreamtest.Upstream, steps <-chan string) http.HandlerFunc {
	chat := upstreamtest.Stepwise(steps)
	return withModels(chat)
}

func withModels(chat http.HandlerFunc) http.HandlerFunc {
	models := upstreamtest.Status(200, `{"object":"list","data":[{"id":"gpt-test","object":"model","created":1,"owned_by":"test"}]}`)
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			models(w, r)
			return
		}
		chat(w, r)
	}
}

func countPosts(u *upstreamtest.Upstream) int {
	n := 0
	for _, r := range u.Requests() {
		if r.Method == http.MethodPost {
			n++
		}
	}
	return n
}

// quiet fails if a tab makes a request in longer than an EventSource waits
// before it reconnects.
func quiet(t *testing.T, tabs ...*tab) {
	t.Helper()
	var before []int
	for _, b := range tabs {
		before = append(before, b.requestCount())
	}
	<-time.After(3500 * time.Millisecond)
	for i, b := range tabs {
		if n := b.requestCount(); n != before[i] {
			t.Errorf("after the end, tab %d made requests: %q", i, b.requests[before[i]:])
		}
	}
}

// Stop stops the upstream.
func TestBrowserStop(t *testing.T) {
	upstream := upstreamtest.New(t)
	upstream.Answer(withModels(upstreamtest.Silent(upstreamtest.Chunk("Some words."))))
	p := startProxy(t, "OPENAI_BASE_URL="+upstream.URL)
	b := newBrowser(t)
	b.do(chromedp.Navigate(p.url))
	b.ask("Hello")
	b.await(answerText + `?.includes("Some words.")`)
	b.do(chromedp.Click("#stop"))
	b.await(answerState + ` === "cancelled"`)
	upstream.AwaitIdle()
	b.await(`!document.querySelector("#send").hidden`)
	b.screenshot("stopped")
	quiet(t, b)
	b.checkConsole()
}

// A server's error is shown as one, with a way to try again; a lost connection
// is not one.
func TestBrowserErrors(t *testing.T) {
	upstream := upstreamtest.New(t)
	upstream.Answer(withModels(upstreamtest.SSE(upstreamtest.Chunk("Half an ans"))))
	p := startProxy(t, "OPENAI_BASE_URL="+upstream.URL)
	b := newBrowser(t)
	b.do(chromedp.Navigate(p.url))
	b.ask("Hello")
	b.await(answerState + ` === "error"`)
	b.await(`document.querySelector(".error").textContent.includes("stopped before it was complete")`)
	b.screenshot("error")
	upstream.Answer(withModels(upstreamtest.SSE(upstreamtest.Answer("A whole answer."))))
	b.do(chromedp.Click(".error .retry"))
	b.await(answerState + ` === "done"`)
	b.await(answerText + `.includes("A whole answer.")`)
	b.checkConsole()
}

// With client keys the page asks for one and keeps it for its tab.
func TestBrowserSignIn(t *testing.T) {
	p := startProxy(t, "WEIR_API_KEYS=a-client-key")
	b := newBrowser(t)
	b.do(chromedp.Navigate(p.url))
	b.await(`!document.querySelector("#signin").hidden`)
	b.screenshot("signin")
	b.do(chromedp.SendKeys("#key", "wrong-key\r"))
	b.await(`document.querySelector("#signin-error").textContent !== ""`)
	b.eval(`document.querySelector("#key").value = ""`)
	b.do(chromedp.SendKeys("#key", "a-client-key\r"))
	b.await(`document.querySelector("#signin").hidden`)
	b.await(`[...document.querySelector("#model").options].some(o => o.value === "demo/cut")`)
	b.do(chromedp.SetValue("#model", "demo/cut"))
	b.ask("Hello")
	b.await(answerState + ` === "error"`)
	b.await(answerText + `.length > 10`)
}

// What a model writes is shown, never run.
func TestBrowserHostileAnswer(t *testing.T) {
	upstream := upstreamtest.New(t)
	upstream.Answer(withModels(upstreamtest.SSE(upstreamtest.Answer(
		`<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`,
		"\n\n[link](javascript:document.title='owned') ![pic](http://127.0.0.1:1/track.png)\n\n",
		`<iframe src="/v1/stream?prompt=x"></iframe><form action="/v1/streams"><input></form>`, "\n\n**done**"))))
	p := startProxy(t, "OPENAI_BASE_URL="+upstream.URL)
	b := newBrowser(t)
	b.do(chromedp.Navigate(p.url))
	b.ask("Hello")
	b.await(answerState + ` === "done"`)
	b.await(`document.querySelector(".content strong")?.textContent === "done"`)
	if title := b.eval("document.title"); title == "owned" {
		t.Error("the answer ran as script")
	}
	if n := b.eval(`String(document.querySelectorAll(".content img, .content iframe, .content form, .content script").length)`); n != "0" {
		t.Errorf("%s dangerous elements in the answer", n)
	}
	b.checkConsole()
}

// The plain example works from another port of loopback, with credentials.
func TestBrowserExampleFromAnotherOrigin(t *testing.T) {
	upstream := upstreamtest.New(t)
	steps := make(chan string)
	upstream.Answer(streaming(upstream, steps))
	p := startProxy(t, "OPENAI_BASE_URL="+upstream.URL, "WEIR_DEFAULT_MODEL=gpt-test")
	examples := httptest.NewServer(http.FileServer(http.Dir("../../examples")))
	defer examples.Close()
	b := newBrowser(t)
	b.do(chromedp.Navigate(examples.URL + "/eventsource.html?api=" + p.url))
	steps <- upstreamtest.Chunk("Hello ")
	b.await(`document.querySelector("#state").textContent === "live"`)
	steps <- upstreamtest.Chunk("world")
	b.await(`document.querySelector("#answer").textContent === "Hello world"`)
	steps <- upstreamtest.Finish("stop") + upstreamtest.Done
	close(steps)
	b.await(`document.querySelector("#state").textContent === "done"`)
	quiet(t, b)
	b.checkConsole()

	upstream.Answer(withModels(upstreamtest.SSE(upstreamtest.Chunk("x") + `data: {"error":{"message":"overloaded"}}` + "\n\n")))
	b.do(chromedp.Reload())
	b.await(`document.querySelector("#state").textContent === "overloaded"`)
	upstream.Answer(withModels(upstreamtest.Silent(upstreamtest.Chunk("x"))))
	b.do(chromedp.Reload())
	b.await(`document.querySelector("#answer").textContent === "x"`)
	b.eval(`String(document.querySelector("#close").click())`)
	b.await(`document.querySelector("#state").textContent === "closed"`)
	quiet(t, b)
}

// A page of another site can start nothing, whatever it uses.
func TestBrowserCrossSite(t *testing.T) {
	upstream := upstreamtest.New(t)
	upstream.Answer(withModels(upstreamtest.SSE(upstreamtest.Answer("x"))))
	p := startProxy(t, "OPENAI_BASE_URL="+upstream.URL, "WEIR_DEFAULT_MODEL=gpt-test")
	page := fmt.Sprintf(`<!doctype html><title>evil</title><img src="%[1]s/v1/stream?prompt=img">
<iframe name="sink"></iframe><form id="f" target="sink" method="post" enctype="text/plain" action="%[1]s/v1/streams"><input name='{"prompt":"form","x":"' value='"}'></form>
<script>
  document.querySelector("#f").submit();
  const tries = [
    fetch("%[1]s/v1/streams", {method: "POST", headers: {"Content-Type": "application/json"}, body: '{"prompt":"fetch"}'}),
    fetch("%[1]s/v1/streams", {method: "POST", mode: "no-cors", body: '{"prompt":"simple"}'}),
    fetch("%[1]s/v1/stream?prompt=get", {mode: "no-cors"}),
    new Promise((r) => { new EventSource("%[1]s/v1/stream?prompt=es").onerror = r; }),
  ];
  Promise.allSettled(tries).then(() => { document.title = "tried"; });
</script>`, p.url)
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, page)
	}))
	defer evil.Close()
	_, port, _ := net.SplitHostPort(evil.Listener.Addr().String())
	// Both features would refuse these calls before we could: the browsers
	// that lack them are what our own rules are for.
	b := newBrowser(t, chromedp.Flag("host-resolver-rules", "MAP evil.example 127.0.0.1"),
		chromedp.Flag("disable-features", "LocalNetworkAccessChecks,PrivateNetworkAccessChecks,BlockInsecurePrivateNetworkRequests,Translate"))
	b.do(chromedp.Navigate("http://evil.example:" + port + "/"))
	b.await(`document.title === "tried"`)
	b.await(`document.images[0].complete`)
	if n := countPosts(upstream); n != 0 || p.runner.Running() != 0 {
		t.Errorf("a foreign page started %d generations", n)
	}
}
