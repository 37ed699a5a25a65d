package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"time"

	"weir/internal/config"
	"weir/internal/httpapi"
	"weir/internal/metrics"
	"weir/internal/providers"
	"weir/internal/providers/demo"
	"weir/internal/providers/openai"
	"weir/internal/stream"
	"weir/web"
)

// maxStreamBytes bounds the payload of one answer. The longest answers of
// today's models are a tenth of it.
const maxStreamBytes = 64 << 20

// proxy is everything that runs, wired so:
//
//	request ─→ httpapi ─────────────→ runner ─→ provider ─→ model API
//	              │ (registry: whose model?)       │
//	              │                                │ events
//	              │ tail: a cursor                 ↓
//	response ←────┴───────────────────────────── store (disk, memory, redis)
//
// An answer is written into the log and nowhere else; a response reads it.
type proxy struct {
	cfg     config.Config
	log     *slog.Logger
	metrics *metrics.Metrics
	store   store
	runner  *stream.Runner
	api     *httpapi.Server

	providers *providers.Registry
}

func build(cfg config.Config, logger *slog.Logger) (*proxy, error) {
	p := &proxy{cfg: cfg, log: logger, metrics: metrics.New(version()), providers: registry(cfg)}
	var err error
	if p.store, err = openStore(cfg, logger); err != nil {
		return nil, err
	}
	secret, err := signingSecret(cfg, p.store)
	if err != nil {
		return nil, errors.Join(err, p.store.Close())
	}
	p.runner = stream.NewRunner(p.store, stream.Limits{
		FirstToken: cfg.FirstTokenTimeout, Idle: cfg.IdleTimeout, MaxBytes: maxStreamBytes,
	}, observers{p.metrics, endLog{logger}})
	p.api = httpapi.New(httpapi.Options{
		Log: p.store, Runner: p.runner, Registry: p.providers, Logger: logger, Metrics: p.metrics,
		Access: httpapi.AccessOptions{
			Keys: cfg.APIKeys, Loopback: cfg.Loopback(), AllowedHosts: cfg.AllowedHosts,
			AllowedOrigins: cfg.CORSOrigins, Secret: secret,
		},
		RPM: cfg.RPM, Heartbeat: cfg.Heartbeat, DetachGrace: cfg.DetachGrace, OrphanLimit: cfg.OrphanLimit,
		ForwardAuth: cfg.ForwardAuth, Page: web.Files(), ContentSecurityPolicy: web.ContentSecurityPolicy,
	})
	return p, nil
}

// registry holds the providers that the configuration switches on, the default
// first, and the demo last.
func registry(cfg config.Config) *providers.Registry {
	r := providers.NewRegistry(cfg.DefaultModel)
	if cfg.OpenAI.On {
		r.Add("openai", openai.New(openai.Options{Key: cfg.OpenAI.Key, BaseURL: cfg.OpenAI.BaseURL}))
	}
	r.Add(providers.Demo, demo.New())
	return r
}

// signingSecret signs read tokens.
func signingSecret(cfg config.Config, s store) ([]byte, error) {
	if cfg.Secret != "" {
		return []byte(cfg.Secret), nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), secretTimeout)
	defer cancel()
	secret, err := s.Secret(ctx)
	return []byte(secret), err
}

// secretTimeout is how long a store may take for the secret at the start.
const secretTimeout = 10 * time.Second

// serve runs the proxy until ctx ends, then drains it.
func serve(ctx context.Context, cfg config.Config, logger *slog.Logger) error {
	for _, warning := range cfg.Warnings {
		logger.Warn(warning)
	}
	listener, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return fmt.Errorf("listen for clients: %w (WEIR_ADDR sets another address)", err)
	}
	p, err := build(cfg, logger)
	if err != nil {
		listener.Close()
		return err
	}
	return p.run(ctx, listener)
}

// run owns the listener, and closes the store in the end.
func (p *proxy) run(ctx context.Context, listener net.Listener) (err error) {
	defer func() { err = errors.Join(err, p.store.Close()) }()
	admin, err := p.startAdmin()
	if err != nil {
		listener.Close()
		return err
	}
	defer admin.Close()

	served := make(chan error, 1)
	go func() { served <- p.api.Serve(listener) }()
	p.announce(listener.Addr())
	select {
	case err := <-served:
		return fmt.Errorf("serve clients: %w", err)
	case <-ctx.Done():
	}
	err = p.drain()
	if serveErr := <-served; err == nil {
		err = serveErr
	}
	return err
}

// shutdownGrace is how long requests other than generations may go on once
// those are over.
const shutdownGrace = 5 * time.Second

// drain ends the proxy: nothing new is started, running generations go on until
// the grace is over, what is left is sealed as interrupted, its readers are told,
// and the connections close.
func (p *proxy) drain() error {
	if p.cfg.DrainDelay > 0 {
		p.log.Info("stopping soon: not ready from now on", "delay", p.cfg.DrainDelay)
		p.api.SetNotReady()
		time.Sleep(p.cfg.DrainDelay)
	}
	p.runner.StopStarting()
	if n := p.runner.Running(); n > 0 {
		p.log.Info("stopping: waiting for running generations; a second signal ends at once",
			"running", n, "grace", p.cfg.DrainGrace)
	}
	grace, cancel := context.WithTimeout(context.Background(), p.cfg.DrainGrace)
	defer cancel()
	p.runner.Drain(grace)

	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	if err := p.api.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("shut down: %w", err)
	}
	p.log.Info("stopped")
	return nil
}

// announce says where to go.
func (p *proxy) announce(addr net.Addr) {
	attrs := []any{"url", clientURL(addr), "providers", strings.Join(p.providers.Names(), ","), "store", p.cfg.Store}
	if p.cfg.Store == config.StoreDisk {
		attrs = append(attrs, "data", p.cfg.DataDir)
	}
	p.log.Info("weir is ready", append(attrs, "version", version())...)
	if !p.cfg.OpenAI.On {
		p.log.Info("no provider is set up: only the demo model answers; set OPENAI_API_KEY or OPENAI_BASE_URL")
	}
}

// clientURL is the address as a browser on this machine takes it.
func clientURL(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return "http://" + addr.String()
	}
	return fmt.Sprintf("http://localhost:%d", tcp.Port)
}

func newLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// version is the module's, as the build recorded it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "dev"
	}
	return info.Main.Version
}
