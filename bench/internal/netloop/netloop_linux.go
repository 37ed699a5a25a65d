package netloop

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Loop is made by New, and used by the goroutine that runs it only.
type Loop struct {
	epoll, timer int
	conns        []*Conn // by descriptor
	listeners    map[int]func(*Conn) Handler
	closing      []*Conn // to be closed when the events at hand are done with
	buf          []byte
	err          error // why the loop cannot go on
}

// Conn is one connection of a loop.
type Conn struct {
	loop       *Loop
	handler    Handler
	fd         int
	connecting bool
	closed     bool
	pending    []byte // written, not yet taken by the kernel
}

// New returns a loop whose clock ticks that often.
func New(tick time.Duration) (*Loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("timerfd: %w", err)
	}
	every := unix.NsecToTimespec(int64(tick))
	if err := unix.TimerfdSettime(timer, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
		return nil, fmt.Errorf("timerfd: %w", err)
	}
	l := &Loop{epoll: epoll, timer: timer, listeners: map[int]func(*Conn) Handler{}, buf: make([]byte, 64<<10)}
	return l, l.watch(unix.EPOLL_CTL_ADD, timer, unix.EPOLLIN)
}

func (l *Loop) watch(how, fd int, events uint32) error {
	if err := unix.EpollCtl(l.epoll, how, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// Listen accepts connections on an address; accept says who handles one. It
// returns the address with its port.
func (l *Loop) Listen(addr netip.AddrPort, accept func(*Conn) Handler) (netip.AddrPort, error) {
	fd, err := socket()
	if err != nil {
		return addr, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return addr, fmt.Errorf("SO_REUSEADDR: %w", err)
	}
	if err := unix.Bind(fd, sockaddr(addr)); err != nil {
		return addr, fmt.Errorf("bind %v: %w", addr, err)
	}
	const backlog = 8192 // thousands of streams begin within a second
	if err := unix.Listen(fd, backlog); err != nil {
		return addr, fmt.Errorf("listen on %v: %w", addr, err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return addr, fmt.Errorf("getsockname: %w", err)
	}
	l.listeners[fd] = accept
	return netip.AddrPortFrom(addr.Addr(), uint16(bound.(*unix.SockaddrInet4).Port)), l.watch(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN)
}

// Dial begins a connection from one address to another.
func (l *Loop) Dial(from netip.Addr, to netip.AddrPort, h Handler) (*Conn, error) {
	fd, err := socket()
	if err != nil {
		return nil, err
	}
	// The port is chosen with the destination in view: so one address has its
	// ports once for each destination.
	err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if err == nil {
		err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(from, 0)))
	}
	if err == nil {
		err = unix.Connect(fd, sockaddr(to))
	}
	if err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return nil, fmt.Errorf("connect %v to %v: %w", from, to, err)
	}
	c := l.add(fd, h)
	c.connecting = true
	return c, l.watch(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN|unix.EPOLLOUT)
}

func socket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

func (l *Loop) add(fd int, h Handler) *Conn {
	for fd >= len(l.conns) {
		l.conns = append(l.conns, make([]*Conn, max(1024, len(l.conns)))...)
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	l.conns[fd] = &Conn{loop: l, fd: fd, handler: h}
	return l.conns[fd]
}

// Run serves until ctx ends or onTick returns an error, which it returns.
func (l *Loop) Run(ctx context.Context, onTick func(now int64) error) error {
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := epollWait(l.epoll, events)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		ticked := false
		for _, e := range events[:max(n, 0)] {
			fd := int(e.Fd)
			if fd == l.timer {
				read(l.timer, l.buf[:8])
				ticked = true
			} else if accept := l.listeners[fd]; accept != nil {
				l.accept(fd, accept)
			} else if c := l.conns[fd]; !c.closed {
				c.ready(e.Events)
			}
		}
		if ticked {
			if err := onTick(time.Now().UnixNano()); err != nil {
				return err
			}
		}
		l.closeAll()
		if l.err != nil || ctx.Err() != nil {
			return l.err
		}
	}
}

// closeAll closes what was closed during a turn. Earlier, a new connection could
// get the descriptor that an event at hand still names.
func (l *Loop) closeAll() {
	for _, c := range l.closing {
		unix.Close(c.fd)
	}
	clear(l.closing)
	l.closing = l.closing[:0]
}

func (l *Loop) accept(fd int, handler func(*Conn) Handler) {
	for {
		conn, _, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
		case unix.EAGAIN:
			return
		case unix.EINTR, unix.ECONNABORTED:
			continue
		default:
			l.err = fmt.Errorf("accept: %w", err) // out of descriptors, say: no figure would be worth anything
			return
		}
		c := l.add(conn, nil)
		c.handler = handler(c)
		if err := l.watch(unix.EPOLL_CTL_ADD, conn, unix.EPOLLIN); err != nil {
			l.err = err
			return
		}
	}
}

func (c *Conn) ready(events uint32) {
	if c.connecting && !c.connected() {
		return
	}
	if events&unix.EPOLLOUT != 0 && len(c.pending) > 0 {
		c.flush()
	}
	if events&^unix.EPOLLOUT == 0 || c.closed {
		return
	}
	n, err := read(c.fd, c.loop.buf)
	switch {
	case n > 0:
		c.handler.Received(c, c.loop.buf[:n], time.Now().UnixNano())
	case n == 0 && err == nil:
		c.fail(io.EOF)
	case err != unix.EAGAIN && err != unix.EINTR:
		c.fail(err)
	}
}

// connected ends the wait for a connection, and reports whether it stands.
func (c *Conn) connected() bool {
	failed, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && failed != 0 {
		err = unix.Errno(failed)
	}
	if err == nil {
		err = c.loop.watch(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLIN)
	}
	if err != nil {
		c.fail(fmt.Errorf("connect: %w", err))
		return false
	}
	c.connecting = false
	c.handler.Opened(c)
	return !c.closed
}

// Write sends p, or keeps what the kernel does not take now.
func (c *Conn) Write(p []byte) {
	if c.closed {
		return
	}
	if len(c.pending) > 0 {
		c.pending = append(c.pending, p...)
		return
	}
	n, err := write(c.fd, p)
	switch {
	case n == len(p):
	case err == nil || err == unix.EAGAIN || err == unix.EINTR:
		c.pending = append(c.pending, p[max(n, 0):]...)
		if err := c.loop.watch(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLIN|unix.EPOLLOUT); err != nil {
			c.fail(err)
		}
	default:
		c.fail(err)
	}
}

// flush goes on with what an earlier Write kept.
func (c *Conn) flush() {
	n, err := write(c.fd, c.pending)
	if err != nil && err != unix.EAGAIN && err != unix.EINTR {
		c.fail(err)
		return
	}
	c.pending = c.pending[max(n, 0):]
	if len(c.pending) == 0 {
		c.pending = nil
		if err := c.loop.watch(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLIN); err != nil {
			c.fail(err)
		}
	}
}

func (c *Conn) fail(err error) {
	if c.closed {
		return
	}
	c.Close()
	c.handler.Closed(c, err)
}

// Close closes the connection.
func (c *Conn) Close() {
	if c.closed {
		return
	}
	c.closed = true
	c.loop.closing = append(c.loop.closing, c)
}
