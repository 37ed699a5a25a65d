package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
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
	server := &http.Server{Handler: localOnly(p.cfg.AdminAddr, mux), ReadHeaderTimeout: 5 * time.Second}
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

// localOnly keeps web pages out of an admin server on loopback: a foreign name
// that was made to point here, or a page of another site.
func localOnly(addr string, next http.Handler) http.Handler {
	if !isLoopback(addr) {
		return next // opened to a network on purpose; names are that network's
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLoopback(r.Host) || r.Header.Get("Sec-Fetch-Site") == "cross-site" {
			http.Error(w, "this address answers to loopback names only, and to no page of another site", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isLoopback reports whether a host, with or without port, is this machine.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || (ip != nil && ip.IsLoopback())
}
