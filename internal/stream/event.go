// Package stream is the heart of Weir: a generation is written once into an
// append-only log of events, and everything else reads that log. It defines
// the log's contract (Store, Catalog) and the Runner, which owns every
// generation from its first event to its only terminal one.
package stream

// Types of the events that Weir itself writes. Any other type, the empty one
// included, belongs to the stream's dialect and is passed on unread.
const (
	TypeToken = ""      // a token of the model: its data is the provider's chunk, byte for byte
	TypeStart = "start" // opens every log
	TypeDone  = "done"  // terminal: the generation ended well, or was cancelled
	TypeError = "error" // terminal: the generation failed
)

// Event is one entry of a stream's log.
type Event struct {
	// Seq counts 1, 2, 3 … without gaps. The store sets it.
	Seq uint64
	// Type names the event; TypeToken for a token.
	Type string
	// Data is the payload. In a log it is immutable and shared by all readers.
	Data []byte
	// Recovery is not zero on an event that a recovery wrote in place of the
	// stream's owner: the log before it may have lost events that a reader saw.
	Recovery uint8
}

// Terminal reports whether the event ends its stream.
func (e Event) Terminal() bool { return e.Type == TypeDone || e.Type == TypeError }
