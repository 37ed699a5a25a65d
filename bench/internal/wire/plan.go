// Package wire is what the load generator and the mock upstream say to each
// other, through whatever stands between them: the plan of a stream in its
// request, the time of sending in every token, and a reader of the answer.
package wire

import (
	"bytes"
	"fmt"
	"time"
)

// Plan is what the upstream is to send: a first token at once, then one each
// gap. It travels in the request's "user" field, which every proxy passes on.
type Plan struct {
	Tokens int
	Gap    time.Duration
}

var userField = []byte(`"user":"`)

// AppendRequest appends the body of a request for a stream by this plan, about
// as long as a short question.
func (p Plan) AppendRequest(dst []byte) []byte {
	return fmt.Appendf(dst, `{"model":"bench","stream":true,"temperature":0.7,"user":"%d tokens %d ns","messages":[`+
		`{"role":"system","content":"You are a helpful assistant. Answer in plain words."},`+
		`{"role":"user","content":"Why is the sky blue, and why is it red in the evening?"}]}`, p.Tokens, p.Gap)
}

// ParsePlan finds the plan in a request's body.
func ParsePlan(body []byte) (Plan, error) {
	var p Plan
	_, user, _ := bytes.Cut(body, userField)
	if _, err := fmt.Sscanf(string(user), "%d tokens %d ns", &p.Tokens, &p.Gap); err != nil {
		return p, fmt.Errorf("no plan in the request: %w", err)
	}
	if p.Tokens < 1 || p.Gap <= 0 {
		return p, fmt.Errorf("a plan of %d tokens, one each %v", p.Tokens, p.Gap)
	}
	return p, nil
}
