package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/gofiber/fiber/v2"

	"weir/internal/chat"
	"weir/internal/providers"
	"weir/internal/stream"
)

// chatCompletions is POST /v1/chat/completions.
func (s *Server) chatCompletions(c *fiber.Ctx) error {
	d, err := s.chatDemand(c)
	if err != nil {
		return err
	}
	if d.cursor == "" && !d.chat.Stream {
		return s.completeChat(c, d)
	}
	p, err := s.begin(c, d)
	if err != nil {
		return err
	}
	return s.serveChat(c, p, wantsIDs(c) || d.cursor != "")
}

func (s *Server) chatDemand(c *fiber.Ctx) (*demand, error) {
	d, err := s.readDemand(c, s.DetachGrace)
	if err != nil {
		return nil, err
	}
	d.query = upstreamQuery(c)
	d.chat, err = chat.ParseRequest(body(c))
	return d, err
}

// wantsIDs reports whether the client asked for a resumable stream.
func wantsIDs(c *fiber.Ctx) bool {
	return strings.EqualFold(c.Get("Weir-Resumable"), "true") || c.Query("resumable") == "true"
}

// ownQuery are the query parameters that are ours, not the upstream's.
var ownQuery = []string{"resumable", "last_event_id", "lastEventId", "starting_after", "idempotency_key", "token"}

func upstreamQuery(c *fiber.Ctx) string {
	query, err := url.ParseQuery(string(c.Request().URI().QueryString()))
	if err != nil {
		return ""
	}
	for _, name := range ownQuery {
		query.Del(name)
	}
	return query.Encode()
}

// serveChat sends a stream in OpenAI's wire. Its status line waits for the
// first event, so that an error before the first token keeps its status.
func (s *Server) serveChat(c *fiber.Ctx, p place, ids bool) error {
	after := p.cursor.Seq
	switch p.status.Locate(p.cursor) {
	case stream.PlaceBeyond:
		return &problem{status: http.StatusGone, code: "cursor_beyond_end",
			message: "The stream ends before this cursor: its log has lost what you have seen. Start a new one."}
	case stream.PlaceEnd:
		after = p.status.LastSeq - 1 // its end is told again
	}
	t, err := s.open(c, p, after, &chatFrames{meta: p.status.Meta, ids: ids})
	if err != nil {
		return err
	}
	c.Set("Weir-Stream-Id", p.status.ID)
	first, ok := t.first(s.FirstEvent)
	if t.err != nil && t.err != io.EOF {
		err := t.err
		t.Close()
		return err
	}
	if ok && first.Terminal() && after <= 1 {
		if ending, err := stream.ReadEnding(first); err == nil && ending.State != stream.StateDone {
			t.Close()
			return answerGeneration(c, failureOf(ending))
		}
	}
	s.send(c, t)
	return nil
}

// completeChat answers a call that does not stream. It passes through without a
// log: there is nothing to come back to.
func (s *Server) completeChat(c *fiber.Ctx, d *demand) error {
	if s.Runner.Draining() {
		return errDraining
	}
	if err := s.limit(c, d.owner); err != nil {
		return err
	}
	route, err := s.route(&d.chat.Model)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.OrphanLimit)
	defer cancel()
	unwatch := watchConn(c.Context().Conn(), cancel) // a client that left wants no answer
	defer unwatch()
	answer, err := route.Provider.Complete(ctx, providers.Request{
		Model: route.Model, Body: d.chat.Upstream(chat.Change{Model: route.Model}),
		Header: d.header, Query: d.query, Authorization: d.auth,
	})
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return errClientGone // nobody hears it
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = &stream.Error{Message: "The upstream did not answer within " + s.OrphanLimit.String() + ".",
			Type: "server_error", Code: stream.CodeUpstreamTimeout, Retryable: true}
	}
	if err != nil {
		e := stream.AsError(err)
		// Not the message: an upstream may quote the prompt in it.
		s.Logger.Warn("completion failed", "model", d.chat.Model, "provider", route.Name, "code", e.Code, "upstream_status", e.UpstreamStatus)
		return answerGeneration(c, e)
	}
	for name, values := range answer.Header {
		for _, value := range values {
			c.Response().Header.Add(name, value)
		}
	}
	c.Set("Content-Type", "application/json")
	return c.Send(answer.Body)
}
