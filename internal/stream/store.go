package stream

import (
	"context"
	"errors"
	"time"
)

// Errors of a Store and a Catalog. Implementations may wrap them.
var (
	ErrExists      = errors.New("stream: the id is taken")
	ErrNotFound    = errors.New("stream: unknown id")
	ErrGone        = errors.New("stream: expired or forgotten")
	ErrSealed      = errors.New("stream: the log has its terminal event already")
	ErrRunning     = errors.New("stream: still running")
	ErrFenced      = errors.New("stream: another writer owns the log")
	ErrFull        = errors.New("stream: no room for more")
	ErrUnavailable = errors.New("stream: the store does not answer")
)

// Dialects: the event vocabulary of a log. Only the edges look inside an event.
const DialectChat = "openai.chat"

// Meta is what is known of a stream when it is created; it never changes.
type Meta struct {
	ID       string
	Owner    string // who may see and cancel it
	Dialect  string
	Model    string // as the client named it
	Provider string
	Created  time.Time

	// IdempotencyKey, when not empty, is unique among the owner's streams;
	// Fingerprint tells whether a repeat of the key is the same request.
	IdempotencyKey string
	Fingerprint    string
}

// State of a stream.
type State string

const (
	StateRunning   State = "running"
	StateDone      State = "done"
	StateError     State = "error"
	StateCancelled State = "cancelled"
)

// Status is what is known of a stream now.
type Status struct {
	Meta
	LastSeq  uint64    // of the newest event
	Terminal Event     // the zero Event while the stream runs
	Ended    time.Time // zero while the stream runs
	Booked   Summary   // what the owner booked; empty until then
}

// Running reports whether the stream has no terminal event yet.
func (s Status) Running() bool { return s.Terminal.Seq == 0 }

// FailedBeforeToken reports whether the stream ended in an error and holds
// nothing but that and its start: such a stream frees its idempotency key.
func (s Status) FailedBeforeToken() bool {
	return s.Terminal.Type == TypeError && s.LastSeq <= 2
}

// Store keeps one append-only log a stream. The first terminal event seals a
// log; nothing follows it, ever. All methods may be called concurrently.
type Store interface {
	// Create begins an empty log whose writer is the caller. It returns
	// ErrExists for a used id, a *ClaimedError when the owner's idempotency key
	// belongs to another stream already (in one step: two creates can't both
	// win it), ErrFull when there is no room.
	Create(ctx context.Context, meta Meta) (Writer, error)
	// Open returns a reader of the events after seq; it may be beyond the end.
	// It returns ErrNotFound or a *GoneError.
	Open(ctx context.Context, id string, after uint64) (Reader, error)
	// Seal appends the terminal event, keeps a copy of its data and gives it its
	// seq. Anyone may seal: the order of the log settles who came first, the
	// others get ErrSealed; so does one who repeats a seal whose answer was lost.
	Seal(ctx context.Context, id string, terminal Event) error
}

// Writer appends to one log. A log has one writer, its owner.
type Writer interface {
	// Append adds the events, none of them terminal, in order and sets their
	// Seq; it keeps a copy of the data. Once it returns, readers and Status show
	// them; a reader sees none before its store has it. A store that is out of
	// reach for a moment may take a bounded amount in hand and return: readers
	// see it once the store has it, and a Seal by the owner comes after it. It
	// returns ErrSealed when the log has ended, ErrFenced when another owner
	// has taken over, ErrFull when there is no room; then nothing was written.
	Append(ctx context.Context, events []Event) error
	// Sealed is closed when the log has its terminal event, whoever wrote it.
	Sealed() <-chan struct{}
	// Book leaves the owner's account beside the sealed log, and ends the
	// writer. A log forgotten meanwhile is not an error. After an error it may
	// be called again.
	Book(ctx context.Context, summary Summary) error
}

// Shared is a store that other replicas use at the same time. A Store need not
// be one.
type Shared interface {
	// ReadElsewhere reports whether a replica other than this one has a reader of
	// the stream, or had one a few seconds ago.
	ReadElsewhere(ctx context.Context, id string) (bool, error)
}

// Reader is one cursor in one log. Its methods are for one goroutine.
type Reader interface {
	// Next appends the events after the cursor to dst and moves past them. It
	// never blocks, returns a bounded amount at a time, and io.EOF (alone)
	// when everything up to the terminal event was returned. The data is the
	// log's own: read it only. No events and no error mean that there is no
	// news: Wake is armed then.
	Next(dst []Event) ([]Event, error)
	// Wake receives when a log whose Next had no news may have some. It is
	// one channel for the reader's life; a spurious receive is allowed.
	Wake() <-chan struct{}
	// Close frees the reader.
	Close()
}

// Catalog is what is known about streams, beside their logs.
type Catalog interface {
	// Status returns ErrNotFound or a *GoneError when there is none.
	Status(ctx context.Context, id string) (Status, error)
	// Claimed returns the stream that holds the owner's idempotency key, or
	// ErrNotFound; a forgotten one is a *GoneError. A stream that failed before
	// its first token holds none.
	Claimed(ctx context.Context, owner, key string) (Status, error)
	// List returns the owner's streams, newest first: at most limit of those
	// older than the stream before, from the newest when before is empty.
	List(ctx context.Context, owner, before string, limit int) ([]Status, error)
	// Delete forgets an ended stream; its id is ErrGone from then on. Readers
	// that have it open may finish. It returns ErrRunning before the end.
	Delete(ctx context.Context, id string) error
}

// ClaimedError is Create's answer when an idempotency key is taken.
type ClaimedError struct{ By Status }

func (e *ClaimedError) Error() string {
	return "stream: the idempotency key belongs to stream " + e.By.ID
}

// GoneError is an ErrGone that still knows whose stream it was; Owner is empty
// when only the id's age tells that it expired.
type GoneError struct{ Owner string }

func (e *GoneError) Error() string { return ErrGone.Error() }
func (e *GoneError) Unwrap() error { return ErrGone }
