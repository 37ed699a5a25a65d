// Package demo is the provider that needs no key and no network: it explains
// Weir at the speed of a model, and fails on request. Its faults are scripted,
// so that tests and users can watch what a client makes of each.
package demo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"weir/internal/chat"
	"weir/internal/providers"
	"weir/internal/stream"
)

// ending is how a script ends.
type ending int

const (
	endStop  ending = iota // as a model does
	endError               // fails instead of its first token
	endStall               // falls silent after some tokens
	endCut                 // breaks off after some tokens
)

// script is what one model does.
type script struct {
	name   string
	about  string        // for the table in the answer
	first  time.Duration // before the first token
	every  time.Duration // between tokens, at least
	jitter time.Duration // at most so much more than every
	ending ending
	tokens int // after which endStall and endCut happen
}

// Models with a text of their own.
const (
	slow = "demo/slow"
	long = "demo/long"
)

// slowFirstToken is long enough that a client sees heartbeats, or gives up.
const slowFirstToken = 8 * time.Second

// scripts are the models, the default first. A human reads along with the
// default.
var scripts = []script{
	{
		name: "demo", about: "this answer, at the speed of a model",
		first: 250 * time.Millisecond, every: 25 * time.Millisecond, jitter: 15 * time.Millisecond,
	},
	{
		name: slow, about: "thinks for 8 seconds, then speaks slowly",
		first: slowFirstToken, every: 580 * time.Millisecond, jitter: 40 * time.Millisecond,
	},
	{
		name: long, about: "two minutes of text, to disconnect and resume",
		first: 250 * time.Millisecond, every: 5 * time.Millisecond,
	},
	{
		name: "demo/error", about: "fails before its first token with a 429",
		first: 250 * time.Millisecond, ending: endError,
	},
	{
		name: "demo/stall", about: "falls silent in mid-answer",
		first: 250 * time.Millisecond, every: 25 * time.Millisecond, jitter: 15 * time.Millisecond,
		ending: endStall, tokens: 24,
	},
	{
		name: "demo/cut", about: "breaks off in mid-answer",
		first: 250 * time.Millisecond, every: 25 * time.Millisecond, jitter: 15 * time.Millisecond,
		ending: endCut, tokens: 24,
	},
}

// created is the models' date: they are as old as the API they imitate.
const created = 1767225600

// Provider answers to the demo models. It has no state.
type Provider struct{}

var _ providers.Provider = (*Provider)(nil)

// New returns the provider.
func New() *Provider { return &Provider{} }

// Stream answers in chat.completion.chunk events. The text depends on the
// model and the request alone. It returns the context's cause as soon as the
// context ends.
func (p *Provider) Stream(ctx context.Context, req providers.Request, emit stream.Emit) (stream.Outcome, error) {
	s, err := find(req.Model)
	if err != nil {
		return stream.Outcome{}, err
	}
	prompt := lastPrompt(req.Body)
	text := s.text(prompt)
	usage := stream.EstimatedUsage(stream.UsageProvider, chat.PromptTokens(req.Body), chat.TextTokens(text))
	wantsUsage := gjson.GetBytes(req.Body, "stream_options.include_usage").Bool() && !req.UsageAsked
	w := newChunkWriter(emit, s.name, wantsUsage)
	if err := play(ctx, s, prompt, text, w); err != nil {
		partial := stream.EstimatedUsage(stream.UsagePartial, chat.PromptTokens(req.Body), chat.TextTokens(text[:w.sent]))
		return stream.Outcome{Usage: partial}, err
	}
	if err := w.finish("stop", usage.Counts); err != nil {
		return stream.Outcome{}, err
	}
	return stream.Outcome{FinishReason: "stop", Usage: usage}, nil
}

// play emits the tokens of a script in their time. The first one comes along
// with the chunk that names the role.
func play(ctx context.Context, s script, prompt, text string, w *chunkWriter) error {
	pause := newPause()
	defer pause.stop()
	if err := pause.wait(ctx, s.first); err != nil {
		return err
	}
	if s.ending == endError {
		return scriptedError()
	}
	rhythm := newRhythm(s, prompt)
	for n := 0; text != ""; n++ {
		if n > 0 {
			if err := pause.wait(ctx, rhythm.next()); err != nil {
				return err
			}
		}
		if s.ending != endStop && n == s.tokens {
			return s.breakOff(ctx)
		}
		var token string
		token, text = nextToken(text)
		if err := w.token(token); err != nil {
			return err
		}
	}
	return nil
}

// Complete gives the whole answer at once, without the delays of a model but
// with the faults of the script.
func (p *Provider) Complete(ctx context.Context, req providers.Request) (providers.Response, error) {
	s, err := find(req.Model)
	if err != nil {
		return providers.Response{}, err
	}
	switch {
	case s.ending == endError:
		return providers.Response{}, scriptedError()
	case s.ending != endStop:
		return providers.Response{}, s.breakOff(ctx)
	case s.name == slow: // the wait is its fault
		pause := newPause()
		defer pause.stop()
		if err := pause.wait(ctx, s.first); err != nil {
			return providers.Response{}, err
		}
	}
	text := s.text(lastPrompt(req.Body))
	usage := stream.EstimatedUsage(stream.UsageProvider, chat.PromptTokens(req.Body), chat.TextTokens(text))
	body, err := completionJSON(s.name, text, usage.Counts)
	return providers.Response{Header: http.Header{}, Body: body}, err
}

// Models lists the demo models.
func (p *Provider) Models(context.Context) ([]json.RawMessage, error) {
	var models []json.RawMessage
	for _, s := range scripts {
		models = append(models, fmt.Appendf(nil, `{"id":%q,"object":"model","created":%d,"owned_by":"weir"}`, s.name, created))
	}
	return models, nil
}

// DefaultModel is the one that just answers.
func (p *Provider) DefaultModel(context.Context) (string, error) { return scripts[0].name, nil }

func find(model string) (script, error) {
	var names []string
	for _, s := range scripts {
		if s.name == model {
			return s, nil
		}
		names = append(names, s.name)
	}
	return script{}, &stream.Error{
		Message: fmt.Sprintf("There is no model %q here. The demo models are %s.", shorten(model, 60), strings.Join(names, ", ")),
		Type:    "invalid_request_error", Code: "model_not_found", Param: "model",
		UpstreamStatus: http.StatusNotFound,
	}
}

func scriptedError() error {
	return &stream.Error{
		Message: "This failure is scripted: demo/error always answers like a provider whose rate limit is reached. Try the model demo instead.",
		Type:    "rate_limit_error", Code: "rate_limit_exceeded", Retryable: true,
		UpstreamStatus: http.StatusTooManyRequests, RetryAfter: 5 * time.Second,
	}
}

// breakOff is the script's fault in mid-answer.
func (s script) breakOff(ctx context.Context) error {
	if s.ending == endStall {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return &stream.Error{
		Message: "The answer stopped without an end. This failure is scripted: demo/cut always breaks off.",
		Type:    "upstream_error", Code: stream.CodeUpstreamTruncated, Retryable: true,
	}
}

// pause waits with one timer for all tokens of an answer.
type pause struct{ timer *time.Timer }

func newPause() pause {
	t := time.NewTimer(0)
	t.Stop()
	return pause{t}
}

func (p pause) stop() { p.timer.Stop() }

// wait returns after d, or with the context's cause as soon as it ends.
func (p pause) wait(ctx context.Context, d time.Duration) error {
	p.timer.Reset(d)
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.timer.C:
		// Both may be ready: a cancelled answer must not go on by chance.
		return context.Cause(ctx)
	}
}

// rhythm is the uneven time between tokens, the same for the same request.
type rhythm struct {
	script script
	state  uint64
}

func newRhythm(s script, prompt string) *rhythm {
	h := fnv.New64a()
	h.Write([]byte(prompt)) // never fails
	return &rhythm{s, h.Sum64()}
}

func (r *rhythm) next() time.Duration {
	if r.script.jitter == 0 {
		return r.script.every
	}
	r.state = r.state*6364136223846793005 + 1442695040888963407 // Knuth's generator: its high bits are even enough
	return r.script.every + time.Duration(r.state>>33)%(r.script.jitter+1)
}

// newID is the id of an answer. Unlike its text it never repeats.
func newID() string {
	var random [12]byte
	rand.Read(random[:]) // never fails: crypto/rand ends the process instead
	return "chatcmpl-demo-" + hex.EncodeToString(random[:])
}
