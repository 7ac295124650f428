package h2

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// Server serves HTTP/2. Its fields are set before the first connection.
type Server struct {
	Log *slog.Logger
	// MaxStreams is how many requests may be under way on a connection, MaxHeader how long the header of one may be.
	MaxStreams int
	MaxHeader  int
	// HeaderTimeout is how long a new connection may take to say that it speaks HTTP/2.
	HeaderTimeout time.Duration
	// IdleTimeout is how long a connection without a request stays open.
	IdleTimeout time.Duration
	// A connection that says nothing for PingAfter is asked whether it is still there, and has PingTimeout to answer. A frame
	// that takes longer than both is nothing that was said.
	PingAfter, PingTimeout time.Duration
	// WriteTimeout is how long a connection may take no byte of what is written on it, and keep a window closed to a stream
	// whose handler has set no deadline.
	WriteTimeout time.Duration

	// mu guards what follows.
	mu       sync.Mutex
	conns    map[*conn]struct{}
	timer    *time.Timer
	stopping bool
}

// lookEvery is how often connections are looked at. Clocks are not read for each request.
const lookEvery = time.Second

// Serve serves a connection until it ends and its last handler has returned.
func (s *Server) Serve(ctx context.Context, socket *tls.Conn, handler http.Handler) {
	c := newConn(ctx, s, socket, handler)
	c.under, c.state = socket.NetConn(), socket.ConnectionState()
	s.serve(c)
}

func (s *Server) serve(c *conn) {
	if !s.add(c) {
		_ = c.socket.Close()
		return
	}
	defer s.remove(c)
	c.serve()
}

// Shutdown tells all clients to go: requests under way end, new ones are not taken. It does not wait.
func (s *Server) Shutdown() {
	s.mu.Lock()
	s.stopping = true
	all := s.snapshot()
	s.mu.Unlock()
	for _, c := range all {
		c.leave()
	}
}

func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	if s.conns == nil {
		s.conns = map[*conn]struct{}{}
	}
	s.conns[c] = struct{}{}
	if s.timer == nil {
		s.timer = time.AfterFunc(s.every(), s.look)
	}
	return true
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// snapshot gives all connections. mu is held.
func (s *Server) snapshot() []*conn {
	all := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	return all
}

// every is often enough for the shortest timeout.
func (s *Server) every() time.Duration {
	return max(min(lookEvery, s.WriteTimeout/4, s.PingAfter/4, s.PingTimeout/4, s.IdleTimeout/4), time.Millisecond)
}

// look looks after all connections, as long as there are any.
func (s *Server) look() {
	s.mu.Lock()
	all := s.snapshot()
	if len(all) == 0 {
		s.timer = nil
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	now := time.Now()
	for _, c := range all {
		c.keep(now)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer.Reset(s.every())
}
