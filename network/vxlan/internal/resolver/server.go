package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// connections is how many TCP connections a VPC's pods may have with their resolver at once, and idle how long one may
	// say nothing.
	connections = 32
	idle        = 10 * time.Second
	// longest is how long a question may be.
	longest = 2048
)

// Server has a resolver answer at sockets.
type Server struct {
	resolver *Resolver
	ctx      context.Context //nolint:containedctx // The server's own life, which ends with Close.
	cancel   context.CancelFunc
	group    sync.WaitGroup

	// mu guards open, all that is to be closed at the end, and closed, which says that the end was.
	mu     sync.Mutex
	open   map[io.Closer]bool
	closed bool
	// room is for connections. turn is had by one of them at a time: answers that are long are made one after the other.
	room chan struct{}
	turn sync.Mutex
}

// Serve answers at sockets, which are the server's from now on, until [Server.Close]. An idle server costs a goroutine for
// each.
func Serve(r *Resolver, packets []net.PacketConn, listeners []net.Listener) *Server {
	s := &Server{resolver: r, open: map[io.Closer]bool{}, room: make(chan struct{}, connections)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, c := range packets {
		s.open[c] = true
		s.group.Go(func() { s.datagrams(c) })
	}
	for _, l := range listeners {
		s.open[l] = true
		s.group.Go(func() { s.accept(l) })
	}
	return s
}

// Close closes all sockets and waits until nothing is left.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for c := range s.open {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.cancel()
	s.group.Wait()
}

// keep has a connection closed at the end; false after the end.
func (s *Server) keep(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.open[c] = true
	return true
}

func (s *Server) drop(c io.Closer) {
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
	_ = c.Close()
}

// datagrams answers what comes over UDP: at once, or in a goroutine when somebody else has to be asked.
func (s *Server) datagrams(c net.PacketConn) {
	buffer := make([]byte, longest)
	for {
		size, from, err := c.ReadFrom(buffer)
		if err != nil {
			if s.over(err) {
				return
			}
			continue
		}
		q := s.resolver.prepare(buffer[:size], mostUDP)
		if q == nil {
			continue
		}
		if q.away == "" {
			_, _ = c.WriteTo(q.pack(), from)
			continue
		}
		select {
		case s.resolver.waiting <- struct{}{}:
			s.group.Go(func() {
				defer func() { <-s.resolver.waiting }()
				s.resolver.ask(s.ctx, q)
				_, _ = c.WriteTo(q.pack(), from)
			})
		default:
			q.fail()
			_, _ = c.WriteTo(q.pack(), from)
		}
	}
}

// over reports whether a socket is closed, and takes a moment where it merely complains.
func (s *Server) over(err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return true
	}
	select {
	case <-s.ctx.Done():
		return true
	case <-time.After(10 * time.Millisecond):
		return false
	}
}

func (s *Server) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			if s.over(err) {
				return
			}
			continue
		}
		select {
		case s.room <- struct{}{}:
		default:
			_ = c.Close()
			continue
		}
		if !s.keep(c) {
			_ = c.Close()
			return
		}
		s.group.Go(func() {
			defer func() { <-s.room }()
			defer s.drop(c)
			s.stream(c)
		})
	}
}

// stream answers one question after the other on a connection.
func (s *Server) stream(c net.Conn) {
	var size [2]byte
	for {
		_ = c.SetDeadline(time.Now().Add(idle))
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		length := binary.BigEndian.Uint16(size[:])
		if length > longest {
			return
		}
		raw := make([]byte, length)
		if _, err := io.ReadFull(c, raw); err != nil {
			return
		}
		s.turn.Lock()
		q := s.resolver.prepare(raw, dns.MaxMsgSize)
		s.turn.Unlock()
		if q == nil {
			return
		}
		if q.away != "" {
			select {
			case s.resolver.waiting <- struct{}{}:
				s.resolver.ask(s.ctx, q)
				<-s.resolver.waiting
			default:
				q.fail()
			}
		}
		s.turn.Lock()
		answer := q.pack()
		s.turn.Unlock()
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}
