package openai

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"time"

	"weir/internal/providers"
)

// exchange travels in a call's context past go-openai to the doer, and brings
// back what go-openai's types have no room for.
type exchange struct {
	request  providers.Request
	keepBody bool // read a good answer whole, into kept

	status int         // 0 when no answer came
	header http.Header // of the answer
	body   io.Reader   // of a good answer that is streamed
	kept   []byte      // of a failed answer, or of a good one with keepBody; cut at its limit
}

type exchangeKey struct{}

func withExchange(ctx context.Context, x *exchange) context.Context {
	return context.WithValue(ctx, exchangeKey{}, x)
}

// Limits on what an upstream can make us hold.
const (
	maxErrorBody = 64 << 10
	maxAnswer    = 64 << 20
)

// doer is the HTTP client under go-openai. It swaps in the body as it is to be
// sent, and keeps the answer's own bytes.
type doer struct{ client *http.Client }

func newHTTPClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true // a compressed stream arrives in lumps
	transport.MaxIdleConns = 0
	transport.MaxIdleConnsPerHost = 512
	transport.IdleConnTimeout = 90 * time.Second
	return &http.Client{
		Transport: transport,
		// Where calls go is the configuration's to say, not an answer's.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		// No Timeout: it would cut long streams. Contexts end calls.
	}
}

// Do implements go-openai's HTTPDoer.
func (d *doer) Do(req *http.Request) (*http.Response, error) {
	x := req.Context().Value(exchangeKey{}).(*exchange)
	x.prepare(req)
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, err
	}
	x.status, x.header, x.body = resp.StatusCode, resp.Header, resp.Body
	limit := 0
	switch {
	case resp.StatusCode/100 != 2:
		limit = maxErrorBody
	case x.keepBody:
		limit = maxAnswer
	default:
		return resp, nil
	}
	kept, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)))
	resp.Body.Close()
	if err != nil {
		return nil, err
	}
	x.kept = kept
	resp.Body = io.NopCloser(bytes.NewReader(kept))
	return resp, nil
}

func (x *exchange) prepare(req *http.Request) {
	if x.request.Body != nil {
		body := x.request.Body
		req.ContentLength = int64(len(body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		req.Body, _ = req.GetBody()
	}
	if x.request.Query != "" {
		if req.URL.RawQuery != "" {
			req.URL.RawQuery += "&"
		}
		req.URL.RawQuery += x.request.Query
	}
	for name, values := range x.request.Header {
		req.Header[name] = values
	}
	if x.request.Authorization != "" && req.Header.Get("Authorization") == "" {
		req.Header.Set("Authorization", x.request.Authorization)
	}
}
