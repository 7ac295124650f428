package vkprovider_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// line is a TCP line that can be cut: connections break and new ones are refused. It can also be slow, or break in the
// middle of what is said.
type line struct {
	address, to string
	listener    net.Listener

	// delay holds up every piece that is passed on, in nanoseconds. breaks is how many bytes a connection passes on before
	// it breaks; none where it is zero.
	delay, breaks atomic.Int64

	mu    sync.Mutex // guards the rest
	cut   bool
	conns map[net.Conn]bool
}

func newLine(t *testing.T, to string) *line {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &line{address: listener.Addr().String(), to: to, listener: listener, conns: map[net.Conn]bool{}}
	go l.accept()
	t.Cleanup(func() {
		_ = listener.Close()
		l.setCut(true)
	})
	return l
}

func (l *line) accept() {
	for {
		conn, err := l.listener.Accept()
		if err != nil {
			return
		}
		go l.join(conn)
	}
}

func (l *line) join(conn net.Conn) {
	defer conn.Close()
	if !l.keep(conn) {
		return
	}
	defer l.drop(conn)
	far, err := net.Dial("tcp", l.to)
	if err != nil {
		return
	}
	defer far.Close()
	if !l.keep(far) {
		return
	}
	defer l.drop(far)
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{conn, far}, {far, conn}} {
		go func() {
			_, _ = io.Copy(trouble{pair[0], l, new(int64)}, pair[1])
			done <- struct{}{}
		}()
	}
	<-done
}

func (l *line) keep(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return false
	}
	l.conns[conn] = true
	return true
}

func (l *line) drop(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
}

// setCut cuts or mends the line.
func (l *line) setCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	if cut {
		for conn := range l.conns {
			_ = conn.Close()
		}
	}
}

// trouble passes on what a line's trouble lets through.
type trouble struct {
	net.Conn
	line   *line
	passed *int64
}

func (c trouble) Write(p []byte) (int, error) {
	time.Sleep(time.Duration(c.line.delay.Load()))
	if most := c.line.breaks.Load(); most > 0 && *c.passed+int64(len(p)) > most {
		n, _ := c.Conn.Write(p[:max(0, most-*c.passed)])
		return n, io.ErrUnexpectedEOF
	}
	n, err := c.Conn.Write(p)
	*c.passed += int64(n)
	return n, err
}
