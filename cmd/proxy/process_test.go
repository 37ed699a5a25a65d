package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"weir/internal/upstreamtest"
	"weir/web"
)

// The tests run the proxy as a process of its own: this binary, told by the
// environment to be the proxy.
func TestMain(m *testing.M) {
	if os.Getenv("PROXY_TEST_BE_PROXY") == "1" {
		os.Exit(run())
	}
	os.Exit(m.Run())
}

// process is a proxy in a process of its own.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string
	logs *bufio.Reader
	seen bytes.Buffer
}

func command(t *testing.T, args []string, environ ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Dir = t.TempDir() // no .env of anybody's
	cmd.Env = append([]string{"PROXY_TEST_BE_PROXY=1", "WEIR_ADMIN_ADDR=", "PATH=" + os.Getenv("PATH")}, environ...)
	return cmd
}

// startProcess starts a proxy and waits until it is ready.
func startProcess(t *testing.T, environ ...string) *process {
	t.Helper()
	return startCommand(t, command(t, []string{"-addr", "127.0.0.1:0"}, environ...))
}

func startCommand(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	p.logs = bufio.NewReader(stderr)
	p.url = regexp.MustCompile(`url=(\S+)`).FindStringSubmatch(p.awaitLog("weir is ready"))[1]
	return p
}

// awaitLog returns the next log line that has the words.
func (p *process) awaitLog(words string) string {
	p.t.Helper()
	for {
		line, err := p.logs.ReadString('\n')
		p.seen.WriteString(line)
		if strings.Contains(line, words) {
			return line
		}
		if err != nil {
			p.t.Fatalf("the log ended without %q:\n%s", words, p.seen.String())
		}
	}
}

// end waits for the process and returns its exit code and the rest of its log.
func (p *process) end() (int, string) {
	rest, _ := io.ReadAll(p.logs)
	p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode(), string(rest)
}

func post(t *testing.T, url, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

const promptBody = `{"prompt":"a secret prompt","model":"gpt-test"}`

// SIGTERM: not ready, nothing new, what runs comes to its end, exit 0.
func TestProcessDrains(t *testing.T) {
	upstream := upstreamtest.New(t)
	steps := make(chan string)
	upstream.Answer(upstreamtest.Stepwise(steps))
	p := startProcess(t, "OPENAI_BASE_URL="+upstream.URL, "OPENAI_API_KEY=sk-a-secret-key")
	resp := post(t, p.url+"/v1/streams", promptBody)
	steps <- upstreamtest.Chunk("Hello ")
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.awaitLog("waiting for running generations")
	if r := post(t, p.url+"/v1/streams", promptBody); r.StatusCode != 503 || r.Header.Get("Retry-After") == "" {
		t.Errorf("a new stream while draining: status %d", r.StatusCode)
	}
	if r, err := http.Get(p.url + "/readyz"); err != nil || r.StatusCode != 503 {
		t.Errorf("readyz: %v, %v", r, err)
	}
	steps <- upstreamtest.Chunk("world") + upstreamtest.Finish("stop") + upstreamtest.Done
	close(steps)
	body, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(body), "event: done") || !strings.Contains(string(body), `"content":"world"`) {
		t.Errorf("the running stream ended with %v: %s", err, body)
	}
	code, rest := p.end()
	log := p.seen.String() + rest
	if code != 0 || !strings.Contains(log, "stopped") || strings.Count(log, "stream ended") != 1 {
		t.Errorf("exit code %d, log:\n%s", code, log)
	}
	for _, secret := range []string{"a secret prompt", "Hello", "sk-a-secret-key"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// A stream that is still running when the grace is over ends in an honest error.
func TestProcessInterrupts(t *testing.T) {
	upstream := upstreamtest.New(t)
	upstream.Answer(upstreamtest.Silent(upstreamtest.Chunk("Hello ")))
	p := startProcess(t, "OPENAI_BASE_URL="+upstream.URL, "WEIR_DRAIN_GRACE=100ms")
	resp := post(t, p.url+"/v1/streams", promptBody)
	p.cmd.Process.Signal(os.Interrupt)
	body, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(body), "event: error") || !strings.Contains(string(body), `"code":"interrupted"`) {
		t.Errorf("the stream ended with %v: %s", err, body)
	}
	if code, rest := p.end(); code != 0 {
		t.Errorf("exit code %d, log:\n%s", code, rest)
	}
}

// A second signal ends the process at once; the client sees no fake end.
func TestProcessSecondSignal(t *testing.T) {
	upstream := upstreamtest.New(t)
	upstream.Answer(upstreamtest.Silent(upstreamtest.Chunk("Hello ")))
	p := startProcess(t, "OPENAI_BASE_URL="+upstream.URL)
	resp := post(t, p.url+"/v1/chat/completions", `{"model":"gpt-test","stream":true,"messages":[{"role":"user","content":"x"}]}`)
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.awaitLog("a second signal")
	p.cmd.Process.Signal(syscall.SIGTERM)
	body, err := io.ReadAll(resp.Body)
	if err == nil || strings.Contains(string(body), "[DONE]") {
		t.Errorf("the body ended cleanly: %s", body)
	}
	if code, _ := p.end(); code == 0 {
		t.Error("exit code 0")
	}
}

// What can't work is refused with words that say what to set.
func TestProcessRefusesToStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	tests := []struct {
		name    string
		environ []string
		says    []string
	}{
		{"open to the network without keys", []string{"WEIR_ADDR=:0"}, []string{"WEIR_API_KEYS", "WEIR_ALLOW_ANONYMOUS"}},
		{"address taken", []string{"WEIR_ADDR=" + addr}, []string{"WEIR_ADDR", "in use"}},
		{"admin address taken", []string{"WEIR_ADDR=127.0.0.1:0", "WEIR_ADMIN_ADDR=" + addr}, []string{"WEIR_ADMIN_ADDR", "in use"}},
		{"several mistakes at once", []string{"WEIR_HEARTBEAT=often", "WEIR_RPM=-1", "WEIR_STORE=redis"}, []string{"WEIR_HEARTBEAT", "often", "WEIR_RPM", "redis"}},
	}
	for _, tt := range tests {
		out, err := command(t, nil, tt.environ...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Errorf("%s: ended with %v: %s", tt.name, err, out)
			continue
		}
		for _, words := range tt.says {
			if !strings.Contains(string(out), words) {
				t.Errorf("%s: no %q in %s", tt.name, words, out)
			}
		}
	}
}

func TestProcessHealthVersionMetrics(t *testing.T) {
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	adminAddr := admin.Addr().String()
	admin.Close()
	p := startProcess(t, "WEIR_ADMIN_ADDR="+adminAddr)
	addr := "WEIR_ADDR=" + strings.TrimPrefix(p.url, "http://")
	if out, err := command(t, []string{"health"}, addr).CombinedOutput(); err != nil {
		t.Errorf("health: %v: %s", err, out)
	}
	if out, err := command(t, []string{"health"}, "WEIR_ADDR="+adminAddr).CombinedOutput(); err == nil {
		t.Errorf("health of what is no proxy: %s", out)
	}
	if out, err := command(t, []string{"-version"}).CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "weir ") {
		t.Errorf("version: %v: %s", err, out)
	}
	io.ReadAll(post(t, p.url+"/v1/streams", `{"prompt":"x","model":"demo/error"}`).Body)
	cut := post(t, p.url+"/v1/streams", `{"prompt":"x","model":"demo/cut"}`)
	io.ReadAll(cut.Body)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/v1/streams/"+cut.Header.Get("Weir-Stream-Id")+"/events", nil)
	req.Header.Set("Last-Event-ID", "2")
	if resp, err := http.DefaultClient.Do(req); err != nil || resp.StatusCode != 200 {
		t.Fatalf("resume: %v, %v", resp, err)
	} else {
		io.ReadAll(resp.Body)
	}
	var text string
	for deadline := time.Now().Add(wait); ; {
		resp, err := http.Get("http://" + adminAddr + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if text = string(body); strings.Contains(text, "weir_readers 0") && strings.Contains(text, "upstream_truncated") || time.Now().After(deadline) {
			break
		}
	}
	for _, line := range []string{
		`weir_streams_started_total{provider="demo"} 2`, `weir_streams_running 0`, `weir_resumes_total 1`, `weir_readers 0`,
		`weir_time_to_first_token_seconds_count{provider="demo"} 1`,
		`weir_streams_ended_total{code="upstream_truncated",provider="demo",state="error"} 1`,
		`weir_streams_ended_total{code="upstream_error",provider="demo",state="error"} 1`,
	} {
		if !strings.Contains(text, line) {
			t.Errorf("metrics have no line %s", line)
		}
	}
	if resp, err := http.Get(p.url + "/metrics"); err != nil || resp.StatusCode != 404 {
		t.Errorf("metrics on the public address: %v, %v", resp, err)
	}
}

// Every setting may stand in a file, and the file beats nothing but defaults.
func TestProcessReadsEnvFile(t *testing.T) {
	file := t.TempDir() + "/weir.env"
	if err := os.WriteFile(file, fmt.Appendf(nil, "WEIR_ADDR=127.0.0.1:0\nWEIR_API_KEYS='from-the-file'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startCommand(t, command(t, []string{"-env", file}))
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/v1/models", nil)
	req.Header.Set("Authorization", "Bearer from-the-file")
	if resp, err := http.DefaultClient.Do(req); err != nil || resp.StatusCode != 200 {
		t.Errorf("got %v, %v", resp, err)
	}
}

// An upstream's error may quote the prompt: the log line of the stream's end
// has its code and its status.
func TestProcessLogsNoWordsOfAnUpstream(t *testing.T) {
	upstream := upstreamtest.New(t)
	upstream.Answer(upstreamtest.Status(400, `{"error":{"message":"Invalid content: a secret prompt","code":"bad"}}`))
	p := startProcess(t, "OPENAI_BASE_URL="+upstream.URL)
	io.ReadAll(post(t, p.url+"/v1/streams", promptBody).Body)
	p.cmd.Process.Signal(syscall.SIGTERM)
	_, rest := p.end()
	if !strings.Contains(rest, "code=bad upstream_status=400") || strings.Contains(rest, "secret") {
		t.Errorf("the log says: %s", rest)
	}
}

// WEIR_DRAIN_DELAY: not ready at once, accepting still.
func TestProcessDrainDelay(t *testing.T) {
	p := startProcess(t, "WEIR_DRAIN_DELAY=1s")
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.awaitLog("not ready from now on")
	for deadline := time.Now().Add(wait); ; {
		resp, err := http.Get(p.url + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == 503 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("still ready")
		}
	}
	if resp := post(t, p.url+"/v1/streams", `{"prompt":"x","model":"demo/error"}`); resp.StatusCode != 200 {
		t.Errorf("a stream within the delay: status %d", resp.StatusCode)
	}
	if code, rest := p.end(); code != 0 {
		t.Errorf("exit code %d: %s", code, rest)
	}
}

// The page comes with what keeps an answer from becoming script.
func TestPageHeaders(t *testing.T) {
	p := startProxy(t)
	for _, path := range []string{"/", "/assets/js/app.js"} {
		resp, err := http.Get(p.url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != 200 || resp.Header.Get("Content-Security-Policy") != web.ContentSecurityPolicy || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: status %d, %v", path, resp.StatusCode, resp.Header)
		}
	}
	for _, word := range []string{"unsafe-inline", "unsafe-eval", "*"} {
		if strings.Contains(web.ContentSecurityPolicy, word) {
			t.Errorf("the policy allows %s", word)
		}
	}
}

func TestAdminKeepsPagesOut(t *testing.T) {
	inner := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "numbers") })
	tests := []struct {
		addr, host, site string
		status           int
	}{
		{"127.0.0.1:9091", "127.0.0.1:9091", "", 200},
		{"127.0.0.1:9091", "localhost:9091", "none", 200},
		{"127.0.0.1:9091", "[::1]:9091", "", 200},
		{"127.0.0.1:9091", "evil.example:9091", "", 403},
		{"127.0.0.1:9091", "localhost:9091", "cross-site", 403},
		{":9091", "metrics.internal:9091", "", 200},
	}
	for _, tt := range tests {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Host = tt.host
		r.Header.Set("Sec-Fetch-Site", tt.site)
		w := httptest.NewRecorder()
		localOnly(tt.addr, inner).ServeHTTP(w, r)
		if w.Code != tt.status {
			t.Errorf("%+v: status %d", tt, w.Code)
		}
	}
}
