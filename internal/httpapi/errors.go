package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"

	"weir/internal/chat"
	"weir/internal/stream"
)

// problem is a refusal of our own, as the client is told of it.
type problem struct {
	status     int
	message    string
	code       string
	param      string
	retryAfter time.Duration
}

func (p *problem) Error() string { return p.message }

func badRequest(param, format string, args ...any) *problem {
	return &problem{status: http.StatusBadRequest, message: fmt.Sprintf(format, args...), code: "invalid_request", param: param}
}

// Refusals that are the same wherever they come from: what they do not tell
// apart, a client can't either.
var (
	errNoStream = &problem{status: http.StatusNotFound, code: "stream_not_found", message: "There is no such stream."}
	errGone     = &problem{status: http.StatusGone, code: "stream_gone",
		message: "This stream has expired or was deleted. Start a new one."}
	errDraining = &problem{status: http.StatusServiceUnavailable, code: "draining", retryAfter: 2 * time.Second,
		message: "This server is stopping and starts nothing new. Try again in a moment."}
	errStore = &problem{status: http.StatusServiceUnavailable, code: "store_unavailable", retryAfter: 2 * time.Second,
		message: "The store of streams does not answer. Try again in a moment."}
	errFull = &problem{status: http.StatusServiceUnavailable, code: "store_full", retryAfter: 10 * time.Second,
		message: "The store of streams is full. Try again later."}
)

// asProblem turns any error into what the client is told.
func (s *Server) asProblem(err error) *problem {
	var p *problem
	var request *chat.RequestError
	var fiberErr *fiber.Error
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &request):
		return &problem{status: http.StatusBadRequest, message: request.Message, code: "invalid_request", param: request.Param}
	case errors.Is(err, stream.ErrNotFound):
		return errNoStream
	case errors.Is(err, stream.ErrGone):
		return errGone
	case errors.Is(err, stream.ErrDraining), errors.Is(err, errStopping), errors.Is(err, errClientGone):
		return errDraining // to a client that has gone it makes no difference
	case errors.Is(err, stream.ErrUnavailable):
		return errStore
	case errors.Is(err, stream.ErrFull):
		return errFull
	case errors.As(err, &fiberErr):
		return s.httpProblem(fiberErr)
	}
	s.Logger.Error("request failed", "error", err)
	return &problem{status: http.StatusInternalServerError, code: "internal_error", message: "Something failed inside the proxy."}
}

// httpProblem words the server's own refusals.
func (s *Server) httpProblem(e *fiber.Error) *problem {
	p := &problem{status: e.Code, code: "http_error", message: http.StatusText(e.Code)}
	switch e.Code {
	case http.StatusBadRequest:
		p.message = "The request is not well-formed HTTP."
	case http.StatusNotFound:
		p.code = "not_found"
		p.message = "There is nothing here. The API is under /v1, the chat page at /."
	case http.StatusRequestEntityTooLarge:
		p.code = "request_too_large"
		p.message = fmt.Sprintf("The request body is larger than the %d bytes allowed.", s.BodyLimit)
	case http.StatusRequestHeaderFieldsTooLarge:
		p.code = "headers_too_large"
		p.message = fmt.Sprintf("The request's headers are larger than the %d bytes allowed.", readBuffer)
	case http.StatusRequestTimeout:
		p.code = "request_timeout"
		p.message = fmt.Sprintf("The request did not arrive within %s.", s.ReadTimeout)
	case http.StatusMethodNotAllowed:
		p.code = "method_not_allowed"
		p.message = "This method is not allowed here."
	}
	return p
}

// answerError is the one place where an error becomes an answer.
func (s *Server) answerError(c *fiber.Ctx, err error) error {
	p := s.asProblem(err)
	if p.status == http.StatusRequestEntityTooLarge || p.status == http.StatusRequestHeaderFieldsTooLarge {
		discardRequest(c.Context().Conn())
	}
	if _, authErr := s.gate.owner(c); authErr != nil && p.status == http.StatusRequestEntityTooLarge {
		p = errUnauthorized // a stranger's body is refused for want of a key
	}
	if p.retryAfter > 0 {
		setRetryAfter(c, p.retryAfter)
	}
	if origin := c.Get("Origin"); origin != "" && s.originAllowed(origin) {
		allowOrigin(c, origin) // a request refused before it was routed has no such header yet
	}
	return c.Status(p.status).JSON(errorBody{errorFields{
		Message: p.message, Type: errorType(p.status), Code: orNull(p.code), Param: orNull(p.param),
	}})
}

// A refused request is read on for so long, and so much of it.
const (
	discardPause = 300 * time.Millisecond // without a byte: the client waits for us
	discardTime  = 5 * time.Second
	discardLimit = 64 << 20
)

// discardRequest takes in the rest of a request that was refused in the middle.
// Closing on what a client still sends would reset the connection, and the
// client would learn nothing of why.
func discardRequest(conn net.Conn) {
	buf := make([]byte, 32<<10)
	start := time.Now()
	for read := 0; read < discardLimit && time.Since(start) < discardTime; {
		if err := conn.SetReadDeadline(time.Now().Add(discardPause)); err != nil {
			return
		}
		n, err := conn.Read(buf)
		read += n
		if err != nil {
			return
		}
	}
}

func setRetryAfter(c *fiber.Ctx, d time.Duration) {
	c.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(d.Seconds())))))
}

// errorBody is OpenAI's shape of an error.
type errorBody struct {
	Error errorFields `json:"error"`
}

type errorFields struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

func errorType(status int) string {
	switch {
	case status == http.StatusUnauthorized:
		return "authentication_error"
	case status == http.StatusForbidden:
		return "permission_error"
	case status == http.StatusTooManyRequests:
		return "rate_limit_error"
	case status >= 500:
		return "server_error"
	default:
		return "invalid_request_error"
	}
}

// generationStatus is the HTTP status of a generation that failed before its
// first token.
func generationStatus(e *stream.Error) int {
	switch {
	case e.Code == stream.CodeUpstreamUnauthorized:
		return http.StatusBadGateway // the client's own key is fine
	case e.UpstreamStatus >= 400:
		return e.UpstreamStatus
	}
	if code, err := strconv.Atoi(e.Code); err == nil && code >= 400 && code < 600 && code != http.StatusUnauthorized && code != http.StatusForbidden {
		return code // an error inside a 200 that names its status
	}
	switch e.Code {
	case stream.CodeUpstreamTimeout:
		return http.StatusGatewayTimeout
	case stream.CodeInterrupted:
		return http.StatusServiceUnavailable
	case stream.CodeInternal:
		return http.StatusInternalServerError
	case stream.CodeCancelled:
		return 499 // what servers call a request that was given up
	case "model_not_found":
		return http.StatusNotFound
	default:
		return http.StatusBadGateway
	}
}

// answerGeneration answers with a generation's failure: the upstream's own
// words where it had some.
func answerGeneration(c *fiber.Ctx, e *stream.Error) error {
	if e.RetryAfter > 0 {
		setRetryAfter(c, e.RetryAfter)
	}
	c.Status(generationStatus(e))
	if e.Upstream != nil && e.Code != stream.CodeUpstreamUnauthorized {
		c.Set("Content-Type", "application/json")
		return c.Send(e.Upstream)
	}
	return c.JSON(plainError(e))
}

// plainError is a generation's failure in OpenAI's shape.
func plainError(e *stream.Error) errorBody {
	return errorBody{errorFields{Message: e.Message, Type: e.Type, Code: orNull(e.Code), Param: orNull(e.Param)}}
}

// mustJSON marshals our own types, which always marshal.
func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
