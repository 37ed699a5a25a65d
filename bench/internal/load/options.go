// Package load opens many streams at a target, checks every one of them to its
// end, and measures. One thread does it all: readers that wait for a CPU would
// be measured as latency.
package load

import (
	"fmt"
	"net/netip"
	"time"

	"weir/bench/internal/wire"
)

// Mode is what a load asks a target for.
type Mode string

// The modes.
const (
	Chat    Mode = "chat"    // POST /v1/chat/completions, as any SDK
	IDs     Mode = "ids"     // the same with an id on every event
	Native  Mode = "native"  // POST /v1/streams: events with ids
	Readers Mode = "readers" // one native stream, read by many with GET
	Idle    Mode = "idle"    // chat streams that say one token and then nothing
)

// Options of a load.
type Options struct {
	Target  netip.AddrPort
	Mode    Mode
	Streams int           // with Readers, how many read
	Gap     time.Duration // between the tokens of a stream
	Ramp    time.Duration // over which the streams are opened
	Settle  time.Duration // between the last opening and the window
	Window  time.Duration // in which is measured
	From    []netip.Addr  // the client's addresses, used in turn
	Process int           // process whose tree's CPU and memory is measured; 0 for none
	Source  int           // the upstream's process, for its CPU; 0 for none
}

// Late is a token's latency from which on it counts as late.
const Late = time.Second

// drainTime is how long streams may take to end after they should have.
const drainTime = 5 * time.Second

// idleGap is longer than any look at idle streams.
const idleGap = 10 * time.Minute

// Check reports what makes no sense.
func (o Options) Check() error {
	switch o.Mode {
	case Chat, IDs, Native, Readers, Idle:
	default:
		return fmt.Errorf("no mode %q", o.Mode)
	}
	if o.Streams < 1 || o.Gap <= 0 || o.Window <= 0 || len(o.From) == 0 {
		return fmt.Errorf("a load needs streams, a gap, a window and an address to come from")
	}
	return nil
}

// Duration is how long the load takes when nothing hangs.
func (o Options) Duration() time.Duration {
	if o.Mode == Idle {
		return o.Ramp + o.Settle
	}
	return o.Ramp + o.Settle + o.Window + 2*o.Gap
}

// creates reports whether every client starts a stream of its own.
func (o Options) creates() bool { return o.Mode != Readers }

func (o Options) hasIDs() bool { return o.Mode == IDs || o.Mode == Native || o.Mode == Readers }

// plan is that of a stream which begins so long after the start: all of them end
// together, after the window.
func (o Options) plan(begun time.Duration) wire.Plan {
	if o.Mode == Idle {
		return wire.Plan{Tokens: 2, Gap: idleGap}
	}
	return wire.Plan{Tokens: int((o.Duration()-begun)/o.Gap) + 1, Gap: o.Gap}
}

// request is the one that starts a stream.
func (o Options) request(plan wire.Plan) []byte {
	path, accept, more := "/v1/chat/completions", "application/json", ""
	switch o.Mode {
	case IDs:
		more = "Weir-Resumable: true\r\n"
	case Native, Readers:
		path, accept = "/v1/streams", "text/event-stream"
	}
	body := plan.AppendRequest(nil)
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: weir-bench\r\nContent-Type: application/json\r\nAccept: %s\r\n%sContent-Length: %d\r\n\r\n%s",
		path, o.Target, accept, more, len(body), body)
}

// readRequest is the one that reads a stream that runs.
func (o Options) readRequest(id string) []byte {
	return fmt.Appendf(nil, "GET /v1/streams/%s/events HTTP/1.1\r\nHost: %s\r\nUser-Agent: weir-bench\r\nAccept: text/event-stream\r\n\r\n", id, o.Target)
}
