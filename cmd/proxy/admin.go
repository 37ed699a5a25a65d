package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

// startAdmin serves metrics and profiles on an address of their own. A default
// address that is taken, by a second proxy say, is no reason not to start.
func (p *proxy) startAdmin() (*http.Server, error) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", p.metrics.Handler())
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	if p.cfg.AdminAddr == "" {
		return server, nil
	}
	listener, err := net.Listen("tcp", p.cfg.AdminAddr)
	switch {
	case err != nil && p.cfg.AdminAddrSet:
		return nil, fmt.Errorf("listen for metrics: %w (WEIR_ADMIN_ADDR sets another address, or none)", err)
	case err != nil:
		p.log.Warn("no metrics: the admin address is taken; set WEIR_ADMIN_ADDR to another one", "error", err)
		return server, nil
	}
	go func() {
		if err := server.Serve(listener); err != http.ErrServerClosed {
			p.log.Error("the admin server ended", "error", err)
		}
	}()
	return server, nil
}
