package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"weir/internal/stream"
)

// failure says why a call brought no answer.
func (p *Provider) failure(ctx context.Context, x *exchange, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case x.status == 0:
		return unreachable(err)
	case x.status/100 == 3:
		return invalid(x.status, "The upstream answered with a redirect, which is not followed. Set its final address as the base URL.")
	case x.status/100 == 2:
		return fmt.Errorf("%w: %v", invalid(x.status, "The upstream's answer could not be read."), err)
	case isRefusal(x.status) && (p.key != "" || x.request.Authorization == ""):
		return unauthorized(x.status)
	}
	e := &stream.Error{
		Message:        fmt.Sprintf("The upstream answered with status %d %s.", x.status, http.StatusText(x.status)),
		Type:           "server_error",
		Code:           stream.CodeUpstreamError,
		UpstreamStatus: x.status,
		Retryable:      retryable(x.status),
		RetryAfter:     retryAfter(x.header.Get("Retry-After"), time.Now()),
	}
	p.describe(e, x.kept)
	return e
}

// isRefusal reports whether a status refuses the credential.
func isRefusal(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

// unauthorized says that it was our credential, not the client's. The
// upstream's words stay behind: they may quote it.
func unauthorized(status int) *stream.Error {
	return &stream.Error{
		Message: fmt.Sprintf("The upstream refused this proxy's credential with status %d. Its operator should check OPENAI_API_KEY.", status),
		Type:    "server_error", Code: stream.CodeUpstreamUnauthorized, UpstreamStatus: status,
	}
}

// retryable reports whether a status may be another one next time.
func retryable(status int) bool {
	return status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status >= 500
}

// describe takes over what the upstream says of its error, if it says it in
// JSON. HTML and the like stay behind: they are for another reader.
func (p *Provider) describe(e *stream.Error, body []byte) {
	body = bytes.TrimSpace(body)
	if first := gjson.GetBytes(body, "0"); len(body) > 0 && body[0] == '[' && first.IsObject() {
		body = []byte(first.Raw) // Gemini's errors come in an array
	}
	if len(body) == 0 || body[0] != '{' || !json.Valid(body) {
		return
	}
	e.Upstream = compact(p.scrub(body))
	fillFrom(e, e.Upstream)
	if e.Code == "insufficient_quota" {
		e.Retryable = false // a 429 that no waiting heals
	}
}

// inBandError is an error that came with status 200.
func (p *Provider) inBandError(body, object []byte) error {
	return upstreamError(p.scrub(body), p.scrub(object))
}

// upstreamError is an error told in the stream itself: its whole event, and the
// error object in it.
func upstreamError(event, object []byte) *stream.Error {
	e := &stream.Error{
		Message: "The upstream reported an error.", Type: "server_error", Code: stream.CodeUpstreamError, Retryable: true,
	}
	if len(event) <= maxErrorBody {
		e.Upstream = compact(event)
	}
	fillFrom(e, object)
	if status, err := strconv.Atoi(e.Code); err == nil { // some name the status it should have had
		if isRefusal(status) {
			return unauthorized(status)
		}
		e.Retryable = status < 400 || retryable(status)
	}
	return e
}

// fillFrom reads an error object of any make: the object itself or one with an
// "error" in it, which may be a mere string.
func fillFrom(e *stream.Error, object []byte) {
	root := gjson.ParseBytes(object)
	if inner := root.Get("error"); inner.Exists() {
		root = inner
	}
	if root.Type == gjson.String {
		e.Message = clip(root.Str, 4096)
		return
	}
	if m := root.Get("message"); m.Type == gjson.String && m.Str != "" {
		e.Message = clip(m.Str, 4096)
	}
	if t := root.Get("type"); t.Type == gjson.String && t.Str != "" {
		e.Type = clip(t.Str, 100)
	}
	if c := root.Get("code"); c.Type == gjson.String || c.Type == gjson.Number {
		e.Code = clip(c.String(), 100)
	}
	if q := root.Get("param"); q.Type == gjson.String {
		e.Param = clip(q.Str, 200)
	}
}

// clip bounds an upstream's words, at a rune's end.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}

// compact returns JSON on one line; nil for what is none.
func compact(body []byte) json.RawMessage {
	var b bytes.Buffer
	if json.Compact(&b, body) != nil {
		return nil
	}
	return b.Bytes()
}

func invalid(status int, message string) *stream.Error {
	return &stream.Error{Message: message, Type: "server_error", Code: stream.CodeUpstreamInvalid, UpstreamStatus: status}
}

// checkStream refuses an answer of status 200 that is no stream of events.
func (p *Provider) checkStream(x *exchange) error {
	if x.status/100 != 2 {
		return p.failure(context.Background(), x, nil)
	}
	kind, _, _ := mime.ParseMediaType(x.header.Get("Content-Type"))
	if kind != "text/html" && kind != "application/json" {
		return nil // text/event-stream, or whatever a small server calls it
	}
	body, err := io.ReadAll(io.LimitReader(x.body, maxErrorBody))
	if err != nil {
		return unreachable(err)
	}
	if e := gjson.GetBytes(body, "error"); kind == "application/json" && json.Valid(body) && e.Exists() && e.Type != gjson.Null {
		return p.inBandError(body, []byte(e.Raw))
	}
	return notAStream(x, body)
}

func notAStream(x *exchange, body []byte) error {
	kind := x.header.Get("Content-Type")
	if len(body) == 0 {
		kind = "nothing"
	}
	return invalid(x.status, "The upstream answered "+printable(kind)+" where an answer of the model was due. Is the base URL right?")
}

// unreachable says in a few words why there was no answer at all. The error
// itself may hold addresses that are nobody's business.
func unreachable(err error) error {
	var dns *net.DNSError
	var call *url.Error
	if errors.As(err, &call) {
		err = call.Err // its URL may have a secret in the query, and errors are logged
	}
	why := "the connection failed"
	switch {
	case errors.As(err, &dns):
		why = "its name could not be resolved"
	case errors.Is(err, syscall.ECONNREFUSED):
		why = "the connection was refused"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		why = "it closed the connection without an answer"
	}
	return fmt.Errorf("%w: %v", &stream.Error{
		Message: "The upstream could not be reached: " + why + ".", Type: "server_error",
		Code: stream.CodeUpstreamUnreachable, Retryable: true,
	}, err)
}

// retryAfter reads the header, in seconds or as a date.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseFloat(header, 64); err == nil && seconds > 0 && seconds < 1e6 {
		return time.Duration(seconds * float64(time.Second))
	}
	if at, err := http.ParseTime(header); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}

// secrets are what credentials look like in the texts of errors.
var secrets = regexp.MustCompile(`\b(?:sk|pk|rk|gsk|xai|key)-[A-Za-z0-9_*.-]{4,}|(?i:bearer)\s+[A-Za-z0-9._~+/-]{8,}=*|\bAIza[A-Za-z0-9_-]{8,}`)

// minSecret keeps a placeholder such as "x", which local servers are content
// with, from being cut out of every word.
const minSecret = 8

// scrub removes credentials from an upstream's words.
func (p *Provider) scrub(text []byte) []byte {
	if len(p.key) >= minSecret {
		text = bytes.ReplaceAll(text, []byte(p.key), []byte("[removed]"))
	}
	return secrets.ReplaceAll(text, []byte("[removed]"))
}

func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	if s == "" {
		return "something"
	}
	return s[:min(len(s), 80)]
}
