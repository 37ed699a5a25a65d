package stream

import (
	"encoding/json"
	"errors"
	"time"
)

// Codes of the errors that Weir itself finds. An upstream's own code is passed
// on instead when it sent one.
const (
	CodeUpstreamUnauthorized = "upstream_unauthorized" // our credential failed, not the client's
	CodeUpstreamUnreachable  = "upstream_unreachable"
	CodeUpstreamTruncated    = "upstream_truncated" // the answer stopped without an end
	CodeUpstreamTimeout      = "upstream_timeout"   // silence before, or between, tokens
	CodeUpstreamInvalid      = "upstream_invalid"   // the answer is no stream of events
	CodeUpstreamError        = "upstream_error"
	CodeTooLarge             = "stream_too_large"
	CodeInterrupted          = "interrupted"   // the server stopped, or crashed
	CodeProducerLost         = "producer_lost" // the replica that generated it is gone
	CodeLogDamaged           = "log_damaged"   // the stored log lost events
	CodeStoreFull            = "store_full"    // there was no room for the rest
	CodeStoreUnavailable     = "store_unavailable"
	CodeCancelled            = "cancelled"
	CodeInternal             = "internal_error"
)

// Error is a generation's failure, as clients are told of it. Everything in it
// is safe to show them.
type Error struct {
	Message   string
	Type      string
	Code      string
	Param     string
	Retryable bool // the same request may well succeed later

	UpstreamStatus int             // the upstream's HTTP status; 0 when it gave none
	RetryAfter     time.Duration   // the upstream's wish; 0 when it had none
	Upstream       json.RawMessage // the upstream's JSON body, free of credentials; nil when it had none
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Interrupted is the end of a generation whose server stopped or crashed.
func Interrupted() *Error {
	return &Error{
		Message: "The server stopped before the answer was complete.",
		Type:    "server_error", Code: CodeInterrupted, Retryable: true,
	}
}

// ProducerLost is the end of a generation whose replica no longer answers.
func ProducerLost() *Error {
	return &Error{
		Message: "The server that generated the answer was lost before it was complete.",
		Type:    "server_error", Code: CodeProducerLost, Retryable: true,
	}
}

// LogDamaged is the end of a stream of whose log a part can't be read any more.
func LogDamaged() *Error {
	return &Error{
		Message: "A part of the stored answer is damaged; what follows here is lost.",
		Type:    "server_error", Code: CodeLogDamaged, Retryable: true,
	}
}

type errorJSON struct {
	Message        string          `json:"message"`
	Type           string          `json:"type"`
	Code           *string         `json:"code"`
	Param          *string         `json:"param"`
	Retryable      bool            `json:"retryable"`
	UpstreamStatus int             `json:"upstream_status,omitempty"`
	RetryAfter     float64         `json:"retry_after,omitempty"` // seconds
	Upstream       json.RawMessage `json:"upstream,omitempty"`
}

// MarshalJSON leaves out an upstream's body that is no JSON: it must not keep
// a stream from its end.
func (e *Error) MarshalJSON() ([]byte, error) {
	j := errorJSON{
		Message: e.Message, Type: e.Type, Code: orNull(e.Code), Param: orNull(e.Param), Retryable: e.Retryable,
		UpstreamStatus: e.UpstreamStatus, RetryAfter: e.RetryAfter.Seconds(),
	}
	if embeddable(e.Upstream) {
		j.Upstream = e.Upstream
	}
	return json.Marshal(j)
}

func (e *Error) UnmarshalJSON(data []byte) error {
	var j errorJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	*e = Error{
		Message: j.Message, Type: j.Type, Code: orEmpty(j.Code), Param: orEmpty(j.Param), Retryable: j.Retryable,
		UpstreamStatus: j.UpstreamStatus, RetryAfter: time.Duration(j.RetryAfter * float64(time.Second)), Upstream: j.Upstream,
	}
	return nil
}

// maxNesting bounds foreign JSON inside ours: encoding/json refuses what nests
// too deep, and an end that can't be written is no end.
const maxNesting = 64

// embeddable reports whether foreign JSON may stand inside an event.
func embeddable(data []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{', c == '[':
			if depth++; depth > maxNesting {
				return false
			}
		case c == '}', c == ']':
			depth--
		}
	}
	return json.Valid(data)
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// AsError returns err as clients are told of it. What is not an *Error is a
// failure of our own whose details stay in the log.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	failed := &Error{Message: "The generation failed inside the proxy.", Type: "server_error", Code: CodeInternal, Retryable: true}
	switch {
	case errors.Is(err, ErrFull):
		failed.Message, failed.Code = "The server has no room to keep the rest of the answer.", CodeStoreFull
	case errors.Is(err, ErrUnavailable):
		failed.Message, failed.Code = "The server could not keep the rest of the answer.", CodeStoreUnavailable
	}
	return failed
}
