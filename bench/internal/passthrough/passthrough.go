// Package passthrough is what the standard library makes a proxy from in ten
// lines, as a measure of what Go itself costs.
package passthrough

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
)

// Run serves until ctx ends.
func Run(ctx context.Context, listen, to string) error {
	upstream, err := url.Parse(to)
	if err != nil {
		return fmt.Errorf("the upstream's URL: %w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, 512
	server := &http.Server{Addr: listen, Handler: &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(upstream) },
		FlushInterval: -1, // after every write
		Transport:     transport,
	}}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
