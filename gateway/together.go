package gateway

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

const (
	// headWait is how long the head of an answer is held back at most.
	headWait = 10 * time.Millisecond
	// oneRecord is what is written together: what fits into a record of TLS.
	oneRecord = 16 << 10
)

// together is a connection of HTTP/2 on which the head of a small answer travels with its body. The library flushes each
// frame as soon as no other is waiting, so that an answer of two frames is two records of TLS, two system calls and two
// packets that wake its client twice; for a get that is a tenth of what the gateway costs.
//
// It holds back the frame that is a head, once after [together.expectBody], until anything else is written. What was
// announced and does not come keeps a head back for [headWait]; nothing is reordered and nothing is lost.
type together struct {
	*tls.Conn
	// expected says that a head is about to be written whose body follows at once.
	expected atomic.Bool

	// mu guards what follows, and the order of writes.
	mu     sync.Mutex
	held   []byte
	timer  *time.Timer
	armed  bool
	failed error
}

type togetherKey struct{}

// expectBody announces that the next head on the connection of a request has a body behind it, all of which is there.
// Whose head comes next nobody can tell where requests share a connection; a mistake costs [headWait] at most.
func expectBody(ctx context.Context) {
	if c, ok := ctx.Value(togetherKey{}).(*together); ok {
		c.expected.Store(true)
	}
}

// Write writes what has been held back first.
func (c *together) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.failed != nil:
		return 0, c.failed
	case len(c.held) == 0 && isHead(p) && c.expected.Swap(false):
		c.held = append(c.held, p...)
		if !c.armed {
			c.arm()
		}
		return len(p), nil
	case len(c.held) > 0 && len(c.held)+len(p) <= oneRecord:
		c.held = append(c.held, p...)
		return len(p), c.release()
	case len(c.held) > 0:
		if err := c.release(); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}

// isHead reports whether p is one frame, a head with a body to come. See RFC 9113, section 4.1 and 6.2.
func isHead(p []byte) bool {
	const frameHeader = 9
	if len(p) < frameHeader || len(p)-frameHeader != int(p[0])<<16|int(p[1])<<8|int(p[2]) {
		return false
	}
	kind, flags := http2.FrameType(p[3]), http2.Flags(p[4])
	return kind == http2.FrameHeaders && flags.Has(http2.FlagHeadersEndHeaders) && !flags.Has(http2.FlagHeadersEndStream)
}

// arm makes sure that whatever is held back goes out. It is not taken back when that has happened: a timer for each answer
// would cost as much as is saved.
func (c *together) arm() {
	c.armed = true
	if c.timer == nil {
		c.timer = time.AfterFunc(headWait, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.armed = false
			_ = c.release()
		})
		return
	}
	c.timer.Reset(headWait)
}

// release writes what is held back. mu is held.
func (c *together) release() error {
	if len(c.held) == 0 {
		return nil
	}
	if _, err := c.Conn.Write(c.held); err != nil && c.failed == nil {
		c.failed = err
	}
	c.held = c.held[:0]
	return c.failed
}

// Close writes what is held back, unless somebody is stuck writing.
func (c *together) Close() error {
	if c.mu.TryLock() {
		_ = c.release()
		c.mu.Unlock()
	}
	return c.Conn.Close()
}

// serveHTTP2 makes server serve HTTP/2 on connections of its own kind; everything about it is said in server.HTTP2.
func serveHTTP2(server *http.Server) error {
	h2 := &http2.Server{}
	if err := http2.ConfigureServer(server, h2); err != nil {
		return err
	}
	server.TLSNextProto[http2.NextProtoTLS] = func(server *http.Server, conn *tls.Conn, handler http.Handler) {
		ctx := context.Background()
		// This is how the standard library passes the context of a connection on.
		if base, ok := handler.(interface{ BaseContext() context.Context }); ok {
			ctx = base.BaseContext()
		}
		c := &together{Conn: conn}
		h2.ServeConn(c, &http2.ServeConnOpts{Context: context.WithValue(ctx, togetherKey{}, c), BaseConfig: server, Handler: handler})
	}
	return nil
}

var _ net.Conn = (*together)(nil)
