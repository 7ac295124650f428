//go:build unix

package control

import (
	"crypto/tls"
	"net"
	"syscall"
)

// quiet reports whether a connection that nobody reads from is as it was left. An end, or anything else that has come, is
// no answer to a request that has not been sent: such a connection must not be used again, above all not for a request
// that cannot be repeated.
func quiet(conn net.Conn) bool {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	is := false
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		// Sockets of this process do not block.
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK)
		is = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
		return true
	})
	return err == nil && is
}
