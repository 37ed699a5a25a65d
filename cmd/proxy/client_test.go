package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"weir/internal/sse"
)

// client reads one answer to its end, wherever it is served: it comes back, to
// any replica, whenever it is refused or its body breaks off.
type client struct {
	http  *http.Client
	urls  []string // of the replicas
	key   string   // its idempotency key, and its prompt
	moves bool     // leaves its first replica of its own will, after some events

	stream string
	last   string // the id of the last event
	seq    uint64 // and its number
	text   strings.Builder
	end    string // the terminal event's data
	trips  trips
}

// trips says why clients came back.
type trips struct{ aborted, refused, unready, moved int }

func (t *trips) add(o trips) {
	t.aborted += o.aborted
	t.refused += o.refused
	t.unready += o.unready
	t.moved += o.moved
}

func (t trips) String() string {
	return fmt.Sprintf("%d bodies that broke off, %d connections refused or lost, %d answers 503, %d of their own will",
		t.aborted, t.refused, t.unready, t.moved)
}

// errMoved is why a client that moves ended its visit.
var errMoved = errors.New("the client moves")

// run asks for an answer and reads it to its end. An error is a broken promise,
// or ctx's.
func (c *client) run(ctx context.Context) error {
	for c.end == "" {
		if err := c.visit(ctx, c.urls[rand.IntN(len(c.urls))]); err != nil {
			return fmt.Errorf("after event %q: %w", c.last, err)
		}
	}
	return nil
}

// visit goes to a replica once, and returns what no coming back can mend.
func (c *client) visit(ctx context.Context, url string) error {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	resp, err := c.ask(ctx, url)
	switch {
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil:
		c.trips.refused++
		return c.pause(ctx)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "" && resp.Request.Method == http.MethodPost:
		c.trips.unready++
		return c.pause(ctx)
	case resp.StatusCode != http.StatusOK:
		body, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: status %d: %s", resp.Request.Method, resp.StatusCode, body)
	}
	err = c.read(resp.Body)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == io.EOF && c.end == "":
		return errors.New("a body ended cleanly, without a terminal event")
	case err == io.EOF:
		return nil
	case err == errMoved:
		c.trips.moved++
		return nil
	case c.end != "":
		return fmt.Errorf("the body broke off behind the end: %w", err)
	case errors.As(err, new(broken)):
		return err
	}
	c.trips.aborted++
	return c.pause(ctx)
}

// pause is shorter than what retry: asks for, for more trips in less time.
func (c *client) pause(ctx context.Context) error {
	select {
	case <-time.After(time.Duration(10+rand.IntN(40)) * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask sends the request: the first one again while no id is known, and one of
// the two ways to resume after that.
func (c *client) ask(ctx context.Context, url string) (*http.Response, error) {
	method, body := http.MethodPost, fmt.Sprintf(`{"prompt":%q,"model":"gpt-test"}`, c.key)
	url += "/v1/streams"
	if c.last != "" && rand.IntN(2) == 0 {
		method, body, url = http.MethodGet, "", url+"/"+c.stream+"/events"
	}
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", c.key)
	}
	if c.last != "" {
		req.Header.Set("Last-Event-ID", c.last)
	}
	return c.http.Do(req)
}

// broken is what a stream must never show.
type broken string

func (b broken) Error() string { return string(b) }

// read reads a body to its end, and takes in its events.
func (c *client) read(body io.Reader) error {
	d := sse.NewDecoder(1 << 20)
	for events := 0; ; {
		if err := d.Fill(body); err != nil {
			return err
		}
		for {
			e, ok := d.Next()
			if !ok {
				break
			}
			if err := c.take(string(e.Type), e.Data, string(e.ID)); err != nil {
				return err
			}
			events++
		}
		if c.moves && c.end == "" && events >= 3+rand.IntN(5) {
			c.moves = false
			return errMoved
		}
	}
}

// take takes in an event, which must be the one behind the last.
func (c *client) take(kind string, data []byte, id string) error {
	stream, seq, _ := strings.Cut(id, ".")
	if c.stream == "" {
		c.stream = stream
	}
	n, err := strconv.ParseUint(seq, 10, 64)
	switch {
	case c.end != "":
		return broken("event " + id + " follows the end")
	case err != nil || stream != c.stream || n != c.seq+1:
		return broken(fmt.Sprintf("event %q of type %q came: %s", id, kind, data))
	case kind == "start" != (n == 1):
		return broken(fmt.Sprintf("event %d is of type %q", n, kind))
	}
	c.last, c.seq = id, n
	switch kind {
	case "start":
		return nil
	case "done", "error":
		c.end = string(data)
		return nil
	case "":
		return c.takeChunk(data)
	default:
		return broken(fmt.Sprintf("event %q is of type %q", id, kind))
	}
}

func (c *client) takeChunk(data []byte) error {
	var chunk struct {
		Choices []struct {
			Delta struct{ Content string }
		}
	}
	if err := json.Unmarshal(data, &chunk); err != nil {
		return broken(fmt.Sprintf("no chunk: %s", data))
	}
	for _, choice := range chunk.Choices {
		c.text.WriteString(choice.Delta.Content)
	}
	return nil
}

// whole says what is missing to an answer of so many words that ended well.
func (c *client) whole(count int) error {
	switch {
	case !strings.Contains(c.end, `"state":"done"`):
		return fmt.Errorf("the stream ended in %s", c.end)
	case c.text.String() != wordsText(count):
		return fmt.Errorf("the text is %q", c.text.String())
	case c.seq != uint64(count)+3: // start, the finish reason, done
		return fmt.Errorf("the stream has %d events", c.seq)
	}
	return nil
}
