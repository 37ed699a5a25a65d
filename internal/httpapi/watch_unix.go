//go:build unix

package httpapi

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix" // MSG_PEEK: looks at a connection without taking what the next request needs
)

// watchConn calls gone once if the client closes the connection while an answer
// is on its way; nobody else reads it meanwhile. stop ends the watch, after
// which the connection may be read again. A half-closed connection counts as
// closed.
func watchConn(conn net.Conn, gone func()) (stop func()) {
	raw, err := rawConn(conn)
	if err != nil {
		return func() {} // not a socket: a failing write will tell
	}
	conn.SetReadDeadline(time.Time{}) // the one for the request's arrival still stands
	stopped, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		if awaitClose(raw, stopped) {
			gone()
		}
	}()
	return func() {
		close(stopped)
		conn.SetReadDeadline(time.Unix(1, 0)) // wakes the watch
		<-watched
		conn.SetReadDeadline(time.Time{})
	}
}

func rawConn(conn net.Conn) (syscall.RawConn, error) {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return nil, syscall.ENOTSUP
	}
	return socket.SyscallConn()
}

// pendingPoll is how often a connection is looked at on which the client's next
// request waits already: its end is behind that, out of a peek's sight.
const pendingPoll = 250 * time.Millisecond

// awaitClose returns true when the peer has closed, false when stopped.
func awaitClose(raw syscall.RawConn, stopped <-chan struct{}) bool {
	for {
		closed, pending := false, false
		err := raw.Read(func(fd uintptr) (ready bool) {
			closed, pending = peek(int(fd))
			return closed || pending // false: sleep until there is something to read
		})
		if closed {
			return true
		}
		if err != nil || !pending {
			return false // stopped, or closed by our own side
		}
		select {
		case <-stopped:
			return false
		case <-time.After(pendingPoll):
		}
	}
}

// peek looks at what the peer has sent.
func peek(fd int) (closed, pending bool) {
	var b [1]byte
	for {
		n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return false, false
		case err != nil || n == 0:
			return true, false
		default:
			return hungUp(fd), true
		}
	}
}
