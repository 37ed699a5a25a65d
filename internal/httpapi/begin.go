package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"weir/internal/chat"
	"weir/internal/providers"
	"weir/internal/stream"
)

// demand is a request for an answer, from whichever endpoint.
type demand struct {
	owner    string
	chat     *chat.Request
	key      string        // Idempotency-Key, or empty
	cursor   string        // Last-Event-ID or its like, or empty
	unread   time.Duration // how long the generation may go on without a reader
	askUsage bool          // ask the upstream for usage if the client did not choose
	header   http.Header   // for the upstream
	query    string        // for the upstream
	auth     string        // for the upstream
}

// readDemand reads who asks and all that the headers say; the body is the
// endpoint's. The stream may go on without a reader for unread, unless the
// client says otherwise.
func (s *Server) readDemand(c *fiber.Ctx, unread time.Duration) (*demand, error) {
	owner, err := s.gate.owner(c)
	if err != nil {
		return nil, err
	}
	if c.Method() == http.MethodPost {
		if err := requireJSON(c); err != nil {
			return nil, err
		}
	}
	d := &demand{owner: owner, cursor: cursorOf(c), header: upstreamHeaders(c)}
	if d.key, err = s.idempotencyKey(c); err != nil {
		return nil, err
	}
	if d.unread, err = s.patience(c, unread); err != nil {
		return nil, err
	}
	if s.ForwardAuth {
		d.auth = c.Get("Authorization")
	}
	return d, nil
}

// place is where in which stream a demand is answered from.
type place struct {
	status  stream.Status
	cursor  stream.Cursor
	created bool
	detach  func() // of the creator; nil for a stream that was there
}

// begin answers a demand: it finds the place the client has been at, joins the
// stream that its idempotency key started, or starts a generation.
func (s *Server) begin(c *fiber.Ctx, d *demand) (place, error) {
	if s.Runner.Draining() {
		return place{}, stream.ErrDraining
	}
	p, found, err := s.rejoin(c, d)
	if found || err != nil {
		return p, err
	}
	if err := s.limit(c, d.owner); err != nil {
		return place{}, err
	}
	route, err := s.route(&d.chat.Model)
	if err != nil {
		return place{}, err
	}
	return s.start(d, route)
}

// rejoin finds the stream that a repeated demand belongs to.
func (s *Server) rejoin(c *fiber.Ctx, d *demand) (place, bool, error) {
	var cursor stream.Cursor
	if d.cursor != "" {
		var err error
		if cursor, err = stream.ParseCursor(d.cursor); err != nil {
			return place{}, true, badCursor(err)
		}
	}
	if cursor.Stream != "" {
		status, err := s.resumable(c, d, cursor.Stream)
		return place{status: status, cursor: cursor}, true, err
	}
	if d.key == "" {
		if d.cursor != "" {
			return place{}, true, badRequest("Last-Event-ID",
				"A bare seq names no stream here: send the whole id of the event, or the Idempotency-Key that started the stream.")
		}
		return place{}, false, nil
	}
	status, err := storeCall(func(ctx context.Context) (stream.Status, error) { return s.Log.Claimed(ctx, d.owner, d.key) })
	switch {
	case errors.Is(err, stream.ErrNotFound) && d.cursor == "":
		return place{}, false, nil
	case err != nil: // with a cursor, an unknown stream too: who has been somewhere wants no new one
		return place{}, true, err
	}
	p, err := d.join(status)
	p.cursor = cursor
	return p, true, err
}

// resumable returns the stream that a cursor on a creating endpoint names.
func (s *Server) resumable(c *fiber.Ctx, d *demand, id string) (stream.Status, error) {
	if s.gate.mode != modeAnonymous {
		return s.controllable(c, id)
	}
	// Nobody here has a key, but who knows an event's id and the very request
	// that the stream answers is the one who sent it.
	status, err := s.status(id)
	if err == nil && status.Fingerprint != d.fingerprint() {
		return stream.Status{}, stream.ErrNotFound
	}
	return status, err
}

func (d *demand) join(status stream.Status) (place, error) {
	if status.Fingerprint != d.fingerprint() {
		return place{}, &problem{status: http.StatusConflict, code: "idempotency_key_reused", param: "Idempotency-Key",
			message: "This Idempotency-Key belongs to another request. Use a new key for a new request."}
	}
	return place{status: status}, nil
}

// fingerprint tells whether two demands are the same.
func (d *demand) fingerprint() string {
	sum := sha256.Sum256(d.chat.Body)
	return hex.EncodeToString(sum[:])
}

// route finds who answers for a model, and fills in the model when the request
// names none.
func (s *Server) route(model *string) (providers.Route, error) {
	if *model == "" {
		name, err := s.defaultModel()
		if err != nil {
			return providers.Route{}, err
		}
		*model = name
	}
	route, ok := s.Registry.Resolve(*model)
	if !ok {
		return route, &problem{status: http.StatusNotFound, code: "model_not_found", param: "model",
			message: "No provider is set up for the model \"" + printableName(*model) + "\". Set OPENAI_API_KEY (or OPENAI_BASE_URL " +
				"for a server that speaks OpenAI's API), or use the model \"demo\", which needs no key."}
	}
	return route, nil
}

// modelsTimeout is how long an upstream may take to list its models.
const modelsTimeout = 5 * time.Second

func (s *Server) defaultModel() (string, error) {
	if name := s.Registry.DefaultModel(); name != "" {
		return name, nil
	}
	names := s.Registry.Names()
	if len(names) == 0 {
		return providers.Demo, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), modelsTimeout)
	defer cancel()
	provider, _ := s.Registry.Provider(names[0])
	name, err := provider.DefaultModel(ctx)
	if err != nil {
		return "", generationProblem(err)
	}
	return name, nil
}

// generationProblem words a provider's failure outside a stream.
func generationProblem(err error) error {
	e := stream.AsError(err)
	return &problem{status: generationStatus(e), message: e.Message, code: e.Code, param: e.Param, retryAfter: e.RetryAfter}
}

// start starts a generation.
func (s *Server) start(d *demand, route providers.Route) (place, error) {
	spec := stream.Spec{
		Meta: stream.Meta{
			ID: stream.NewID(), Owner: d.owner, Dialect: stream.DialectChat, Model: d.chat.Model, Provider: route.Name,
			Created: time.Now(), IdempotencyKey: d.key, Fingerprint: d.fingerprint(),
		},
		Unread:   d.unread,
		Generate: d.generate(route),
	}
	detach, err := storeCall(func(ctx context.Context) (func(), error) { return s.Runner.Start(ctx, spec) })
	var taken *stream.ClaimedError
	if errors.As(err, &taken) {
		return d.join(taken.By) // another request with this key was faster
	}
	if err != nil {
		return place{}, err
	}
	// As it was created: a store that fails to say so must not hide it.
	return place{status: stream.Status{Meta: spec.Meta, LastSeq: 1}, created: true, detach: detach}, nil
}

// generate binds the demand to its provider.
func (d *demand) generate(route providers.Route) stream.Generate {
	request := providers.Request{
		Model:         route.Model,
		Body:          d.chat.Upstream(chat.Change{Model: route.Model, Stream: true, AskUsage: d.askUsage}),
		Header:        d.header,
		Query:         d.query,
		Authorization: d.auth,
		UsageAsked:    d.askUsage && !d.chat.UsageChosen(),
	}
	return func(ctx context.Context, emit stream.Emit) (stream.Outcome, error) {
		return route.Provider.Stream(ctx, request, emit)
	}
}

func (s *Server) status(id string) (stream.Status, error) {
	return storeCall(func(ctx context.Context) (stream.Status, error) { return s.Log.Status(ctx, id) })
}

func asGone(err error) *stream.GoneError {
	var gone *stream.GoneError
	errors.As(err, &gone)
	return gone
}

func badCursor(err error) error {
	return badRequest("Last-Event-ID", "This is no cursor of this stream: %s.", err)
}

// cursorOf finds a request's cursor. The header comes first: an EventSource
// repeats its old query.
func cursorOf(c *fiber.Ctx) string {
	for _, value := range []string{
		c.Get("Last-Event-ID"), c.Query("last_event_id"), c.Query("lastEventId"), c.Query("starting_after"),
	} {
		if value != "" {
			return value
		}
	}
	return ""
}

const maxKeyLen = 255

// minSharedKeyLen keeps strangers without keys from meeting in one stream.
const minSharedKeyLen = 16

// idempotencyKey reads a request's key.
func (s *Server) idempotencyKey(c *fiber.Ctx) (string, error) {
	key := c.Get("Idempotency-Key")
	if key == "" && c.Method() == http.MethodGet {
		key = c.Query("idempotency_key") // an EventSource sets no headers
	}
	switch {
	case key == "":
		return "", nil
	case len(key) > maxKeyLen || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }):
		return "", badRequest("Idempotency-Key", "An Idempotency-Key has at most %d printable ASCII characters.", maxKeyLen)
	case s.gate.mode == modeAnonymous && len(key) < minSharedKeyLen:
		return "", badRequest("Idempotency-Key", "Without client keys an Idempotency-Key needs at least %d characters, "+
			"so that nobody else picks the same: send a random UUID.", minSharedKeyLen)
	}
	return key, nil
}

// patience reads how long the generation may go on when nobody reads it.
func (s *Server) patience(c *fiber.Ctx, byDefault time.Duration) (time.Duration, error) {
	switch choice := c.Get("Weir-On-Disconnect"); choice {
	case "":
		return byDefault, nil
	case "continue":
		return s.OrphanLimit, nil
	case "cancel":
		return s.DetachGrace, nil
	default:
		return 0, badRequest("Weir-On-Disconnect", "Weir-On-Disconnect is \"continue\" or \"cancel\".")
	}
}

// upstreamHeaders picks the request headers that are the API's own.
func upstreamHeaders(c *fiber.Ctx) http.Header {
	h := http.Header{}
	c.Request().Header.VisitAll(func(name, value []byte) {
		lower := strings.ToLower(string(name))
		if lower == "x-request-id" || strings.HasPrefix(lower, "openai-") || strings.HasPrefix(lower, "anthropic-") {
			h.Add(string(name), string(value))
		}
	})
	return h
}

// body takes the request's body out of the request, which it then outlives.
func body(c *fiber.Ctx) []byte { return c.Request().SwapBody(nil) }
