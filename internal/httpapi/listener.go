package httpapi

import (
	"net"
	"syscall"
	"time"
)

// boundedListener gives every write to its connections a deadline of its own: a
// client that takes no byte must not hold its connection for ever, and neither
// a long stream nor a connection that was idle for long may meet an old one.
type boundedListener struct {
	net.Listener
	timeout time.Duration
}

func (l boundedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &boundedConn{Conn: conn, timeout: l.timeout}, nil
}

type boundedConn struct {
	net.Conn
	timeout time.Duration
}

func (c *boundedConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// SyscallConn implements syscall.Conn, for who watches the connection.
func (c *boundedConn) SyscallConn() (syscall.RawConn, error) {
	conn, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, syscall.EINVAL
	}
	return conn.SyscallConn()
}
