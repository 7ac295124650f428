package admin

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// loopback serves the admin API inside the process: connections are pairs of pipes, so there is neither a port nor a
// secret that somebody else could use. Whoever holds the dialer is privileged.
type loopback struct {
	connections chan net.Conn
	closed      chan struct{}
	once        sync.Once
}

func newLoopback() *loopback {
	return &loopback{connections: make(chan net.Conn), closed: make(chan struct{})}
}

// config is how clients in the process reach the server.
func (l *loopback) config() *rest.Config {
	return &rest.Config{Host: "http://loopback", Dial: l.dial, QPS: -1}
}

func (l *loopback) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.connections <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept, Close and Addr make the loopback a net.Listener.
func (l *loopback) Accept() (net.Conn, error) {
	select {
	case conn := <-l.connections:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *loopback) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *loopback) Addr() net.Addr { return loopbackAddr{} }

type loopbackAddr struct{}

func (loopbackAddr) Network() string { return "pipe" }
func (loopbackAddr) String() string  { return "loopback" }

type loopbackKey struct{}

func fromLoopback(ctx context.Context) bool { return ctx.Value(loopbackKey{}) != nil }

// serve answers on the loopback until ctx is done, then drops what is left: its clients end with the process.
func (l *loopback) serve(ctx context.Context, handler http.Handler) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, loopbackKey{}, true)
		},
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}
