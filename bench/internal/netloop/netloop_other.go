//go:build !linux

package netloop

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

var errLinuxOnly = errors.New("the benchmark's event loop is built on epoll and runs on Linux only")

// Loop does not exist here.
type Loop struct{}

// New returns an error: the loop runs on Linux only.
func New(time.Duration) (*Loop, error) { return nil, errLinuxOnly }

// Listen returns an error.
func (*Loop) Listen(netip.AddrPort, func(*Conn) Handler) (netip.AddrPort, error) {
	return netip.AddrPort{}, errLinuxOnly
}

// Dial returns an error.
func (*Loop) Dial(netip.Addr, netip.AddrPort, Handler) (*Conn, error) { return nil, errLinuxOnly }

// Run returns an error.
func (*Loop) Run(context.Context, func(now int64) error) error { return errLinuxOnly }

// Conn does not exist here.
type Conn struct{}

// Write does nothing.
func (*Conn) Write([]byte) {}

// Close does nothing.
func (*Conn) Close() {}
