// Package netloop is an event loop over many TCP connections on one thread, for
// the two ends of a benchmark: a goroutine a connection and a timer a stream
// would cost the machine as much as what is measured. Linux only.
package netloop

// Handler is told what happens to a connection. All its methods are called by
// the goroutine that runs the loop.
type Handler interface {
	// Opened is called once a dialled connection stands.
	Opened(c *Conn)
	// Received hands over bytes, good during the call, and when they were read,
	// in Unix nanoseconds.
	Received(c *Conn, p []byte, now int64)
	// Closed is called once when the other side has closed or the connection
	// broke, not after a Close of one's own. The error is io.EOF after a clean end.
	Closed(c *Conn, err error)
}
