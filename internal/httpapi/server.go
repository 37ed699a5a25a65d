// Package httpapi is Weir's HTTP API: it turns requests into generations and
// logs into Server-Sent Events. It is the only importer of Fiber.
package httpapi

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"                    // the HTTP server and router
	"github.com/gofiber/fiber/v2/middleware/recover" // a handler's panic is a 500, not the process's end
	"github.com/valyala/fasthttp"                    // under Fiber

	"weir/internal/providers"
	"weir/internal/ratelimit"
	"weir/internal/stream"
)

// Options of a Server.
type Options struct {
	Log      stream.Log
	Runner   *stream.Runner
	Registry *providers.Registry
	Logger   *slog.Logger
	Metrics  Metrics // may be nil

	Access AccessOptions
	RPM    int // requests a minute of one client key or address; 0: no limit

	Heartbeat   time.Duration // silence on a connection before a heartbeat
	DetachGrace time.Duration // how long a stream that should end with its client goes on without a reader
	OrphanLimit time.Duration // the same for one that should go on
	ForwardAuth bool          // pass the client's Authorization to a provider without a key of its own

	Page                  fs.FS // index.html and assets/
	ContentSecurityPolicy string

	// The rest has defaults that fit; tests shorten them.
	WriteTimeout time.Duration // how long a client may take no byte; 15 s
	FirstEvent   time.Duration // how long a status line waits for the first event; 10 s
	ReadTimeout  time.Duration // how long a request may take to arrive; 30 s
	BodyLimit    int           // bytes of a request body; 20 MiB
}

// Metrics is told what readers do. Its methods must not block.
type Metrics interface {
	ReaderOpened(resumed bool)
	ReaderClosed()
}

// Server is the HTTP API.
type Server struct {
	Options
	app      *fiber.App
	gate     *gate
	limiter  *ratelimit.Limiter // nil: no limit
	stopping chan struct{}      // closed by Shutdown: tails end
	stopOnce sync.Once
	notReady atomic.Bool
}

// A request's head must fit into this; a browser with many cookies needs more
// than the usual 4 KiB.
const readBuffer = 16 << 10

// New returns a server that does not listen yet.
func New(o Options) *Server {
	setDefault(&o.WriteTimeout, 15*time.Second)
	setDefault(&o.FirstEvent, 10*time.Second)
	setDefault(&o.ReadTimeout, 30*time.Second)
	setDefault(&o.BodyLimit, 20<<20)
	if o.Metrics == nil {
		o.Metrics = unmeasured{}
	}
	s := &Server{Options: o, gate: newGate(o.Access), stopping: make(chan struct{})}
	if o.RPM > 0 {
		s.limiter = ratelimit.New(o.RPM)
	}
	s.app = fiber.New(fiber.Config{
		AppName:               "weir",
		DisableStartupMessage: true,
		Immutable:             true, // strings of a request outlive it in logs of streams
		ErrorHandler:          s.answerError,
		BodyLimit:             o.BodyLimit,
		ReadBufferSize:        readBuffer,
		ReadTimeout:           o.ReadTimeout, // a slow request gets 408
		IdleTimeout:           2 * time.Minute,
		// No WriteTimeout: it bounds whole answers, and streams are long. Each
		// write has a deadline instead.
		DisablePreParseMultipartForm: true,
	})
	s.app.Server().HeaderReceived = s.limitStrangers
	s.routes()
	return s
}

func (s *Server) routes() {
	s.app.Use(recover.New(), s.checkHost)
	s.app.Get("/livez", s.live)
	s.app.Get("/readyz", s.ready)

	v1 := s.app.Group("/v1", s.checkOrigin)
	v1.Post("/streams", s.createStream)
	v1.Get("/streams", s.listStreams)
	v1.Get("/streams/:id", s.showStream)
	v1.Delete("/streams/:id", s.deleteStream)
	v1.Head("/streams/:id/events", noHead)
	v1.Get("/streams/:id/events", s.streamEvents)
	v1.Post("/streams/:id/cancel", s.cancelStream)
	v1.Head("/stream", noHead)
	v1.Get("/stream", s.promptStream)
	v1.Post("/chat/completions", s.chatCompletions)
	v1.Get("/models", s.listModels)
	v1.Get("/models/*", s.showModel)

	if s.Page != nil {
		s.pageRoutes()
	}
}

// noHead refuses what the router would answer as a GET without its body: a HEAD
// must start nothing, and a stream has no head of its own.
func noHead(*fiber.Ctx) error { return fiber.ErrMethodNotAllowed }

// Serve accepts connections until Shutdown. It owns the listener.
func (s *Server) Serve(l net.Listener) error {
	return s.app.Listener(boundedListener{l, s.WriteTimeout})
}

// SetNotReady makes /readyz say no, for a load balancer to look elsewhere, while
// everything is still served.
func (s *Server) SetNotReady() { s.notReady.Store(true) }

// Shutdown aborts the streams that have not ended, so that their readers come
// back elsewhere or later, waits for the other requests until ctx ends, and
// closes the listener. Drain the runner first.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopOnce.Do(func() { close(s.stopping) })
	return s.app.ShutdownWithContext(ctx)
}

func (s *Server) live(c *fiber.Ctx) error { return c.SendString("ok\n") }

func (s *Server) ready(c *fiber.Ctx) error {
	if s.notReady.Load() || s.Runner.Draining() {
		return c.Status(fiber.StatusServiceUnavailable).SendString("draining\n")
	}
	return c.SendString("ok\n")
}

// strangerBody is how much of a body is taken in before it is known who sends
// it: what a key opens is not for those without one to fill memory with.
const strangerBody = 64 << 10

// limitStrangers looks at a request's head before its body is read.
func (s *Server) limitStrangers(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	_, known := s.gate.ownerOf(bearer(string(h.Peek("Authorization"))))
	if s.gate.mode == modeKeys && !known {
		return fasthttp.RequestConfig{MaxRequestBodySize: min(strangerBody, s.BodyLimit)}
	}
	return fasthttp.RequestConfig{MaxRequestBodySize: s.BodyLimit}
}

// storeTimeout is after how long a silent store is called unreachable.
const storeTimeout = 5 * time.Second

// storeCall runs one call to the store, under its time limit.
func storeCall[T any](call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	result, err := call(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.Join(stream.ErrUnavailable, err)
	}
	return result, err
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

type unmeasured struct{}

func (unmeasured) ReaderOpened(bool) {}
func (unmeasured) ReaderClosed()     {}
