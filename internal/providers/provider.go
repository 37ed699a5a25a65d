// Package providers is what Weir must know of a model API: how to ask it for
// one answer, and which provider a model name belongs to.
package providers

import (
	"context"
	"encoding/json"
	"net/http"

	"weir/internal/stream"
)

// Request is one chat-completions call, ready to go upstream.
type Request struct {
	// Model is the upstream's own name of the model.
	Model string
	// Body is the JSON to send, byte for byte. Read it only.
	Body []byte
	// Header holds the client's headers that belong to the API.
	Header http.Header
	// Query is the client's query string that belongs to the API.
	Query string
	// Authorization is the client's own, for a provider without a key of its
	// own; empty unless forwarding was switched on.
	Authorization string
	// UsageAsked says that the usage in the answer was asked for by Weir: the
	// chunk that carries nothing else must be kept from the client.
	UsageAsked bool
}

// Response is a whole answer, for a call that does not stream.
type Response struct {
	Header http.Header // the API's own headers
	Body   []byte      // the JSON, byte for byte
}

// Provider calls one model API. Its methods may be called concurrently; they
// end soon after their context does, the upstream connection closed. Failures
// that a client should hear about are a *stream.Error.
type Provider interface {
	// Stream asks for one answer and hands its events to emit, in order, as
	// many at a time as arrived together. An error of emit ends it, and is
	// returned. The Outcome holds what is known, after an error too.
	Stream(ctx context.Context, req Request, emit stream.Emit) (stream.Outcome, error)
	// Complete asks for one whole answer.
	Complete(ctx context.Context, req Request) (Response, error)
	// Models lists the models on offer as OpenAI model objects, each whole.
	Models(ctx context.Context) ([]json.RawMessage, error)
	// DefaultModel names the model for a request that names none.
	DefaultModel(ctx context.Context) (string, error)
}
