// Package sse is the wire format of Server-Sent Events and nothing else: an
// encoder for what Weir sends and a decoder for what upstreams send. It does no
// input or output of its own but for one Read that the caller asks for.
package sse

// Event is one Server-Sent Event.
type Event struct {
	Type []byte // the event: field; empty for a message
	Data []byte // the data: lines, joined by LF
	ID   []byte // the id: field of this very event; empty when it has none
}
