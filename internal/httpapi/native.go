package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"

	"weir/internal/chat"
	"weir/internal/stream"
)

// createStream is POST /v1/streams.
func (s *Server) createStream(c *fiber.Ctx) error {
	d, err := s.nativeDemand(c)
	if err != nil {
		return err
	}
	if d.chat, err = parseNative(body(c)); err != nil {
		return err
	}
	p, err := s.begin(c, d)
	if err != nil {
		return err
	}
	s.setCreated(c, p.status.Meta)
	if strings.Contains(c.Get("Accept"), "text/event-stream") {
		return s.serveNative(c, p)
	}
	if p.detach != nil {
		p.detach()
	}
	if p.created {
		c.Status(http.StatusCreated)
	}
	answer := describe(p.status)
	answer.EventsURL = s.gate.eventsURL(answer.ID, p.status.Owner)
	if s.gate.mode == modeAnonymous {
		answer.ControlToken = s.gate.token(controlToken, answer.ID, p.status.Owner)
	}
	return c.JSON(answer)
}

// promptStream is GET /v1/stream: a whole request in one URL.
func (s *Server) promptStream(c *fiber.Ctx) error {
	if strings.Contains(c.Get("Sec-Purpose"), "prefetch") {
		return &problem{status: http.StatusForbidden, code: "prefetch", message: "A prefetch starts no generation."}
	}
	d, err := s.nativeDemand(c)
	if err != nil {
		return err
	}
	prompt := chat.Prompt{Prompt: c.Query("prompt"), Model: c.Query("model"), System: c.Query("system")}
	if prompt.Prompt == "" {
		return badRequest("prompt", "The query needs a prompt: /v1/stream?prompt=Hello.")
	}
	if d.chat, err = chat.ParseRequest(prompt.Body()); err != nil {
		return err
	}
	p, err := s.begin(c, d)
	if err != nil {
		return s.comeBackOr(c, err)
	}
	s.setCreated(c, p.status.Meta)
	return s.serveNative(c, p)
}

// nativeDemand reads what both ways to start a native stream share.
func (s *Server) nativeDemand(c *fiber.Ctx) (*demand, error) {
	d, err := s.readDemand(c, s.OrphanLimit)
	if err != nil {
		return nil, err
	}
	d.askUsage = true // the done event has a place for it
	return d, nil
}

// parseNative reads a chat-completions body or the short form.
func parseNative(body []byte) (*chat.Request, error) {
	prompt, short, err := chat.ParsePrompt(body)
	if err != nil {
		return nil, err
	}
	if short {
		body = prompt.Body()
	}
	return chat.ParseRequest(body)
}

// setCreated sets the headers of an answer that names its stream.
func (s *Server) setCreated(c *fiber.Ctx, meta stream.Meta) {
	c.Set("Weir-Stream-Id", meta.ID)
	location := "/v1/streams/" + meta.ID
	if s.gate.mode == modeAnonymous {
		location += "?token=" + s.gate.token(readToken, meta.ID, meta.Owner)
		c.Set("Weir-Control-Token", s.gate.token(controlToken, meta.ID, meta.Owner))
	}
	c.Set("Location", location)
}

// streamEvents is GET /v1/streams/{id}/events.
func (s *Server) streamEvents(c *fiber.Ctx) error {
	if s.Runner.Draining() {
		return s.comeBack(c)
	}
	status, err := s.readable(c, c.Params("id"))
	if err != nil {
		return s.comeBackOr(c, err)
	}
	p := place{status: status}
	if value := cursorOf(c); value != "" {
		if p.cursor, err = stream.ParseCursor(value); err != nil {
			return badCursor(err)
		}
		if p.cursor.Stream != "" && p.cursor.Stream != status.ID {
			return badCursor(errors.New("it belongs to another one"))
		}
	}
	return s.serveNative(c, p)
}

// serveNative sends a stream's events from a place on.
func (s *Server) serveNative(c *fiber.Ctx, p place) error {
	f := &nativeFrames{stream: p.status.ID}
	after := p.cursor.Seq
	var reset bool
	switch p.status.Locate(p.cursor) {
	case stream.PlaceEnd:
		if c.Method() == http.MethodGet {
			return c.SendStatus(http.StatusNoContent) // an EventSource stops at nothing else
		}
		setStreamHeaders(c)
		return nil // a POST's client would repeat a 204 for ever; an empty body ends it
	case stream.PlaceBeyond:
		reset, after = true, 0
	}
	t, err := s.open(c, p, after, f)
	if err != nil {
		return s.comeBackOr(c, err)
	}
	if reset {
		t.out = appendReset(t.out)
	}
	s.send(c, t)
	return nil
}

// open opens a stream's log onto the request's connection.
func (s *Server) open(c *fiber.Ctx, p place, after uint64, f frames) (*tail, error) {
	detach := p.detach
	if detach == nil {
		detach = s.Runner.Attach(p.status.ID)
	}
	reader, err := storeCall(func(ctx context.Context) (stream.Reader, error) { return s.Log.Open(ctx, p.status.ID, after) })
	if err != nil {
		detach()
		return nil, err
	}
	s.Metrics.ReaderOpened(after > 0)
	t := s.newTail(c.Context().Conn(), reader, f, detach)
	if p.status.Running() {
		t.draining, t.runsHere = s.Runner.Stopping(), func() bool { return s.Runner.Runs(p.status.ID) }
	}
	return t, nil
}

// send makes a tail the answer.
func (s *Server) send(c *fiber.Ctx, t *tail) {
	setStreamHeaders(c)
	c.Context().Response.ImmediateHeaderFlush = true
	c.Context().SetBodyStream(t, -1)
}

func setStreamHeaders(c *fiber.Ctx) {
	c.Set("Content-Type", "text/event-stream; charset=utf-8")
	c.Set("Cache-Control", "no-cache, no-transform")
	c.Set("X-Accel-Buffering", "no")
}

// comeBackOr sends an EventSource away for a while when only this server, at
// this moment, can't serve it: an error status would end it for good.
func (s *Server) comeBackOr(c *fiber.Ctx, err error) error {
	unable := errors.Is(err, stream.ErrDraining) || errors.Is(err, stream.ErrUnavailable)
	if unable && c.Method() == http.MethodGet {
		return s.comeBack(c)
	}
	return err
}

// comeBack answers with nothing but when to try again, and breaks off.
func (s *Server) comeBack(c *fiber.Ctx) error {
	setStreamHeaders(c)
	c.Context().Response.ImmediateHeaderFlush = true
	c.Context().SetBodyStream(&aborted{appendComeBack(nil)}, -1)
	return nil
}

// showStream is GET /v1/streams/{id}.
func (s *Server) showStream(c *fiber.Ctx) error {
	if s.Runner.Draining() {
		return errDraining
	}
	status, err := s.readable(c, c.Params("id"))
	if err != nil {
		return err
	}
	return s.answerStatus(c, status)
}

func (s *Server) answerStatus(c *fiber.Ctx, status stream.Status) error {
	text, err := storeCall(func(ctx context.Context) (string, error) { return textOf(ctx, s.Log, status) })
	if err != nil {
		return err
	}
	answer := describe(status)
	answer.Text = &text
	return c.JSON(answer)
}

// cancelStream is POST /v1/streams/{id}/cancel.
func (s *Server) cancelStream(c *fiber.Ctx) error {
	if len(c.Request().Body()) > 0 || c.Get("Content-Type") != "" {
		if err := requireJSON(c); err != nil {
			return err
		}
	}
	status, err := s.controllable(c, c.Params("id"))
	if err != nil {
		return err
	}
	if err := s.cancel(status.ID); err != nil {
		return err
	}
	if status, err = s.status(status.ID); err != nil {
		return err
	}
	return s.answerStatus(c, status)
}

func (s *Server) cancel(id string) error {
	_, err := storeCall(func(ctx context.Context) (struct{}, error) { return struct{}{}, s.Runner.Cancel(ctx, id) })
	return err
}

// deleteStream is DELETE /v1/streams/{id}.
func (s *Server) deleteStream(c *fiber.Ctx) error {
	status, err := s.controllable(c, c.Params("id"))
	if err != nil {
		return err
	}
	if err := s.cancel(status.ID); err != nil {
		return err
	}
	_, err = storeCall(func(ctx context.Context) (struct{}, error) { return struct{}{}, s.Log.Delete(ctx, status.ID) })
	if err != nil {
		return err
	}
	return c.SendStatus(http.StatusNoContent)
}

const (
	defaultPage = 20
	maxPage     = 100
)

// listStreams is GET /v1/streams.
func (s *Server) listStreams(c *fiber.Ctx) error {
	owner, err := s.gate.owner(c)
	if err != nil {
		return err
	}
	if s.Runner.Draining() {
		return errDraining
	}
	if s.gate.mode == modeAnonymous {
		return &problem{status: http.StatusForbidden, code: "no_owner",
			message: "Without client keys streams have no owner, so there is no list of yours."}
	}
	limit := defaultPage
	if value := c.Query("limit"); value != "" {
		if limit, err = strconv.Atoi(value); err != nil || limit < 1 || limit > maxPage {
			return badRequest("limit", "`limit` is a number from 1 to %d.", maxPage)
		}
	}
	after := c.Query("after")
	if _, ok := stream.IDTime(after); after != "" && !ok {
		return badRequest("after", "`after` is the id of the last stream of the page before.")
	}
	found, err := storeCall(func(ctx context.Context) ([]stream.Status, error) {
		return s.Log.List(ctx, owner, after, limit+1)
	})
	if err != nil {
		return err
	}
	page := listBody[streamBody]{Object: "list", Data: []streamBody{}, HasMore: new(len(found) > limit)}
	for _, status := range found[:min(limit, len(found))] {
		page.Data = append(page.Data, describe(status))
	}
	return c.JSON(page)
}
