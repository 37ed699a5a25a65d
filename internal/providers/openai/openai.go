// Package openai is the provider for OpenAI's API and for everything that
// speaks it. go-openai builds the requests, finds the URLs and reads the
// errors; the bytes of requests and chunks go around its types, which keep only
// the fields they know.
package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	api "github.com/sashabaranov/go-openai"
	"github.com/tidwall/gjson"

	"weir/internal/chat"
	"weir/internal/providers"
	"weir/internal/stream"
)

// DefaultBaseURL is OpenAI's own.
const DefaultBaseURL = "https://api.openai.com/v1"

// defaultModel answers requests without a model at OpenAI itself. Elsewhere it
// is the first model on offer.
const defaultModel = "gpt-5-mini"

// Options of a Provider.
type Options struct {
	Key     string // empty: calls go out without one, or with the client's when it is forwarded
	BaseURL string // DefaultBaseURL when empty
}

// Provider implements providers.Provider.
type Provider struct {
	client  *api.Client
	http    *http.Client
	key     string
	baseURL string

	mu       sync.Mutex
	models   []json.RawMessage // guarded by mu; the last list
	modelsAt time.Time         // guarded by mu; when it was asked for
	failed   error             // guarded by mu; why there was no list when it was last asked for
	failedAt time.Time         // guarded by mu
}

// New returns a provider. It calls nobody yet.
func New(o Options) *Provider {
	if o.BaseURL == "" {
		o.BaseURL = DefaultBaseURL
	}
	config := api.DefaultConfig(o.Key)
	config.BaseURL = o.BaseURL
	client := newHTTPClient()
	config.HTTPClient = &doer{client: client}
	return &Provider{client: api.NewClientWithConfig(config), http: client, key: o.Key, baseURL: o.BaseURL}
}

// Close frees the connections that wait for another call.
func (p *Provider) Close() { p.http.CloseIdleConnections() }

// Stream implements providers.Provider.
func (p *Provider) Stream(ctx context.Context, req providers.Request, emit stream.Emit) (stream.Outcome, error) {
	x := &exchange{request: req}
	// The body that goes out is the exchange's; a model in this one would only
	// meet go-openai's list of models it refuses.
	upstream, err := p.client.CreateChatCompletionStream(withExchange(ctx, x), api.ChatCompletionRequest{Stream: true})
	if err != nil {
		return stream.Outcome{}, p.failure(ctx, x, err)
	}
	defer upstream.Close()
	if err := p.checkStream(x); err != nil {
		return stream.Outcome{}, err
	}
	relay := relay{body: x.body, request: req, emit: emit, scrub: p.scrub, meter: chat.NewMeter(req.Body)}
	return relay.run(ctx)
}

// Complete implements providers.Provider.
func (p *Provider) Complete(ctx context.Context, req providers.Request) (providers.Response, error) {
	x := &exchange{request: req, keepBody: true}
	_, err := p.client.CreateChatCompletion(withExchange(ctx, x), api.ChatCompletionRequest{})
	if x.status/100 != 2 || x.kept == nil {
		return providers.Response{}, p.failure(ctx, x, err)
	}
	// Whether go-openai could read the answer into its types is no matter: a
	// client of another kind may.
	body := bytes.TrimSpace(x.kept)
	if !json.Valid(body) || body[0] != '{' {
		return providers.Response{}, notAStream(x, body)
	}
	if e := gjson.GetBytes(body, "error"); e.IsObject() && !gjson.GetBytes(body, "choices").Exists() {
		return providers.Response{}, p.inBandError(body, []byte(e.Raw))
	}
	return providers.Response{Header: ownHeaders(x.header), Body: x.kept}, nil
}

// How long a list of models is good, for a page asks at every load, and how long
// a failure stands, for anybody may ask as often as they like.
const (
	modelsFresh  = time.Minute
	failureFresh = 5 * time.Second
)

// Models implements providers.Provider.
func (p *Provider) Models(ctx context.Context) ([]json.RawMessage, error) {
	p.mu.Lock()
	defer p.mu.Unlock() // held while asking: those who wait get the same answer
	if p.models != nil && time.Since(p.modelsAt) < modelsFresh {
		return p.models, nil
	}
	if p.failed != nil && time.Since(p.failedAt) < failureFresh {
		return nil, p.failed
	}
	x := &exchange{keepBody: true}
	if _, err := p.client.ListModels(withExchange(ctx, x)); err != nil {
		p.failed, p.failedAt = p.failure(ctx, x, err), time.Now()
		return nil, p.failed
	}
	models := []json.RawMessage{}
	gjson.GetBytes(x.kept, "data").ForEach(func(_, model gjson.Result) bool {
		models = append(models, json.RawMessage(model.Raw))
		return true
	})
	p.models, p.modelsAt, p.failed = models, time.Now(), nil
	return models, nil
}

// DefaultModel implements providers.Provider.
func (p *Provider) DefaultModel(ctx context.Context) (string, error) {
	if strings.TrimRight(p.baseURL, "/") == DefaultBaseURL {
		return defaultModel, nil
	}
	models, err := p.Models(ctx)
	if err != nil {
		return "", fmt.Errorf("ask the upstream for its models: %w", err)
	}
	if len(models) == 0 {
		return "", &stream.Error{
			Message: "The upstream lists no model. Name one in the request, or set WEIR_DEFAULT_MODEL.",
			Type:    "invalid_request_error", Code: "model_not_found", Param: "model",
		}
	}
	return gjson.GetBytes(models[0], "id").Str, nil
}

// ownHeaders picks what of an answer's headers belongs to the API.
func ownHeaders(h http.Header) http.Header {
	own := http.Header{}
	for name, values := range h {
		lower := strings.ToLower(name)
		if lower == "x-request-id" || strings.HasPrefix(lower, "openai-") {
			own[name] = values
		}
	}
	return own
}
