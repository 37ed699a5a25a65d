package compare

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"weir/bench/internal/process"
)

// target is something that a load can be put on.
type target struct {
	name string
	// start starts it in a directory of its own, to listen on addr and to call
	// upstream; nil for the upstream itself.
	start func(b *bench, t *target, dir string) (*process.Process, error)

	addr     netip.AddrPort
	upstream netip.AddrPort
	process  *process.Process // nil while it does not run
}

func (t *target) pid() int {
	if t.process == nil {
		return 0
	}
	return t.process.PID
}

// The targets.
const (
	directTarget      = "upstream itself"
	nginxTarget       = "nginx"
	passthroughTarget = "Go's ReverseProxy"
	memoryTarget      = "Weir (memory)"
	diskTarget        = "Weir (disk)"
)

// newTargets gives each its addresses: an upstream address of its own, so that
// no two share the ports towards it.
func (b *bench) newTargets() error {
	b.targets = []*target{
		{name: directTarget},
		{name: nginxTarget, start: startNginx},
		{name: passthroughTarget, start: startPassthrough},
		{name: memoryTarget, start: startWeir("WEIR_STORE=memory")},
		{name: diskTarget, start: startWeir("WEIR_STORE=disk")},
	}
	for i, t := range b.targets {
		var err error
		if t.upstream, err = freePort(netip.AddrFrom4([4]byte{127, 0, 1, byte(i + 1)})); err != nil {
			return err
		}
		if t.addr = t.upstream; t.start == nil {
			continue
		}
		if t.addr, err = freePort(netip.AddrFrom4([4]byte{127, 0, 0, 1})); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) target(name string) *target {
	for _, t := range b.targets {
		if t.name == name {
			return t
		}
	}
	return nil
}

func freePort(at netip.Addr) (netip.AddrPort, error) {
	l, err := net.Listen("tcp", netip.AddrPortFrom(at, 0).String())
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return netip.ParseAddrPort(l.Addr().String())
}

// startUpstream starts the one upstream of all targets.
func (b *bench) startUpstream() (*process.Process, error) {
	var listen []string
	for _, t := range b.targets {
		listen = append(listen, t.upstream.String())
	}
	p, err := process.Start("upstream", b.dir, environment(), syscall.SIGKILL,
		b.self, "upstream", "-tick", b.Tick.String(), "-listen", strings.Join(listen, ","))
	if err != nil {
		return nil, err
	}
	return p, b.await(p, b.targets[len(b.targets)-1].upstream)
}

// up starts a target that does not run.
func (b *bench) up(t *target) error {
	if t.start == nil || t.process != nil {
		return nil
	}
	dir, err := os.MkdirTemp(b.dir, "target")
	if err != nil {
		return err
	}
	if t.process, err = t.start(b, t, dir); err != nil {
		return err
	}
	return b.await(t.process, t.addr)
}

// down stops a target and removes what it kept.
func (b *bench) down(t *target) {
	if t.process == nil {
		return
	}
	t.process.Stop()
	t.process = nil
}

// await returns when somebody listens on an address.
func (b *bench) await(p *process.Process, addr netip.AddrPort) error {
	for range 1000 {
		conn, err := net.DialTimeout("tcp", addr.String(), time.Second)
		if err == nil {
			return conn.Close()
		}
		if err := p.Running(); err != nil {
			return err
		}
		if b.ctx.Err() != nil {
			return b.ctx.Err()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%s does not listen on %v:\n%s", p.Name, addr, p.LastLines())
}

// environment is what children see: no setting of the user's proxy.
func environment(more ...string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	for _, name := range []string{"GOMAXPROCS", "GODEBUG", "GOGC", "GOMEMLIMIT"} {
		if value, set := os.LookupEnv(name); set {
			env = append(env, name+"="+value)
		}
	}
	return append(env, more...)
}

func startPassthrough(b *bench, t *target, dir string) (*process.Process, error) {
	return process.Start("passthrough", dir, environment(), syscall.SIGKILL,
		b.self, "passthrough", "-listen", t.addr.String(), "-to", "http://"+t.upstream.String())
}

// startWeir starts it with its defaults, but for a setting.
func startWeir(setting string) func(*bench, *target, string) (*process.Process, error) {
	return func(b *bench, t *target, dir string) (*process.Process, error) {
		if b.weir == "" {
			var err error
			if b.weir, err = b.buildWeir(); err != nil {
				return nil, err
			}
		}
		env := environment(setting, "WEIR_ADDR="+t.addr.String(), "WEIR_ADMIN_ADDR=", "WEIR_DATA_DIR="+filepath.Join(dir, "data"),
			"OPENAI_BASE_URL=http://"+t.upstream.String()+"/v1", "OPENAI_API_KEY=a-key-for-the-benchmark")
		return process.Start("weir", dir, env, syscall.SIGKILL, b.weir)
	}
}

// buildWeir builds it as `make build` does.
func (b *bench) buildWeir() (string, error) {
	binary := filepath.Join(b.dir, "weir")
	build := exec.CommandContext(b.ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", binary, "weir/cmd/proxy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build Weir: %w\n%s", err, out)
	}
	return binary, nil
}

// nginxConf is an unbuffered reverse proxy as one would set it up for streams.
const nginxConf = `
worker_processes 1;
worker_rlimit_nofile 20000;
error_log stderr error;
pid %[1]s/nginx.pid;
events { worker_connections 20000; }
http {
	access_log off;
	keepalive_requests 1000000;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	upstream model {
		server %[3]s;
		keepalive 512;
		keepalive_requests 1000000;
	}
	server {
		listen %[2]s backlog=8192;
		location / {
			proxy_pass http://model;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_buffering off;
			proxy_read_timeout 1h;
		}
	}
}
`

var errNoNginx = errors.New("nginx is not installed")

func nginxPath() (string, error) {
	for _, name := range []string{"nginx", "/usr/sbin/nginx"} { // a user's PATH may lack sbin
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errNoNginx
}

func startNginx(_ *bench, t *target, dir string) (*process.Process, error) {
	program, err := nginxPath()
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, nginxConf, dir, t.addr, t.upstream), 0o600); err != nil {
		return nil, err
	}
	// Its master ends its worker when it gets this signal, and would leave it
	// behind when killed.
	return process.Start("nginx", dir, environment(), syscall.SIGTERM,
		program, "-p", dir, "-c", conf, "-e", "stderr", "-g", "daemon off;")
}

// versions says what was measured.
func versions(ctx context.Context) string {
	goVersion, _ := exec.CommandContext(ctx, "go", "env", "GOVERSION").Output()
	text := strings.TrimSpace(string(goVersion))
	if program, err := nginxPath(); err == nil {
		out, _ := exec.CommandContext(ctx, program, "-v").CombinedOutput()
		text += ", " + strings.TrimSpace(strings.TrimPrefix(string(out), "nginx version: "))
	}
	return text
}
