//go:build !unix

package httpapi

import "net"

// watchConn can't look at a connection without reading it here: a client that
// left is noticed when a write to it fails, at the next heartbeat at the latest.
func watchConn(net.Conn, func()) (stop func()) { return func() {} }
