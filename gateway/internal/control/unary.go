package control

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// unary sends requests that are answered and over on HTTP/1.1 connections that it keeps. It is [http.Transport] without
// what such requests do not need and each of them pays for: there a connection has two goroutines besides the caller, so
// that a request wakes four in turn; here the caller writes, waits and reads itself.
//
// It sends whatever can be written before it is answered; anything else goes to others.
type unary struct {
	dial func(context.Context) (net.Conn, error)
	// others sends what does not fit.
	others http.RoundTripper

	// mu guards what follows.
	mu   sync.Mutex
	idle []*connection // the one used last is the last
	reap *time.Timer
}

const (
	// maxAtOnce is how large a request may be that is written before anybody looks for an answer. It fits into the buffers of
	// a socket: an API server that answers early and does not read the rest must not make both wait for each other.
	maxAtOnce = 32 << 10
	// maxAnswerHeader bounds the head of an answer.
	maxAnswerHeader = 1 << 20
	bufferSize      = 16 << 10
	// maxRest and restTimeout bound what is read of an answer that nobody wants any longer.
	maxRest     = 64 << 10
	restTimeout = 20 * time.Millisecond
)

// connection is one connection to the control cluster.
type connection struct {
	net.Conn
	// left bounds what may be read, while it is a head.
	left int64
	r    *bufio.Reader
	w    *bufio.Writer
	// since is when it became idle; zero for a new one.
	since time.Time
}

var errHeadTooLong = errors.New("the head of the answer is too long")

// Read reads what the bound leaves.
func (c *connection) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errHeadTooLong
	}
	n, err := c.Conn.Read(p)
	c.left -= int64(n)
	return n, err
}

// newUnary makes one that dials like t.
func newUnary(t *http.Transport, address string, others http.RoundTripper) *unary {
	u := &unary{others: others}
	u.dial = func(ctx context.Context) (net.Conn, error) { return t.DialContext(ctx, "tcp", address) }
	if t.TLSClientConfig != nil {
		config := t.TLSClientConfig.Clone()
		config.NextProtos = []string{"http/1.1"}
		if config.ServerName == "" {
			config.ServerName, _, _ = net.SplitHostPort(address)
		}
		// A handshake costs as much as ten requests; resuming a session is a part of that.
		config.ClientSessionCache = tls.NewLRUClientSessionCache(0)
		plain := u.dial
		u.dial = func(ctx context.Context) (net.Conn, error) {
			conn, err := plain(ctx)
			if err != nil {
				return nil, err
			}
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			secure := tls.Client(conn, config)
			if err := secure.HandshakeContext(ctx); err != nil {
				_ = conn.Close()
				return nil, fmt.Errorf("TLS handshake: %w", err)
			}
			return secure, nil
		}
	}
	return u
}

// RoundTrip sends a request and reads the head of its answer. A request that changes nothing is sent once more when a
// connection that was kept turns out to be closed.
func (u *unary) RoundTrip(r *http.Request) (*http.Response, error) {
	unknown := r.ContentLength == 0 && r.Body != nil && r.Body != http.NoBody
	if unknown || r.ContentLength < 0 || r.ContentLength > maxAtOnce || r.Close || len(r.Header["Upgrade"]) > 0 {
		return u.others.RoundTrip(r)
	}
	ctx := r.Context()
	for fresh := false; ; fresh = true {
		c, err := u.take(ctx, fresh)
		if err != nil {
			closeBody(r)
			return nil, err
		}
		res, err := u.exchange(ctx, c, r)
		if err == nil {
			return res, nil
		}
		kept := !c.since.IsZero()
		_ = c.Close()
		var stale *staleError
		again := kept && !fresh && errors.As(err, &stale) && ctx.Err() == nil && (r.Method == http.MethodGet || r.Method == http.MethodHead)
		if !again {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, err
		}
	}
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
}

// staleError says that a connection ended before a byte of an answer came.
type staleError struct{ error }

func (e *staleError) Unwrap() error { return e.error }

// exchange writes a request and reads the head of its answer.
func (u *unary) exchange(ctx context.Context, c *connection, r *http.Request) (*http.Response, error) {
	// Whoever waits on the connection is woken when the request is given up.
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	err := r.Write(c.w)
	if err == nil {
		err = c.w.Flush()
	}
	if err != nil {
		stop()
		return nil, &staleError{fmt.Errorf("write the request: %w", err)}
	}
	c.left = maxAnswerHeader
	if _, err := c.r.Peek(1); err != nil {
		stop()
		return nil, &staleError{fmt.Errorf("wait for an answer: %w", err)}
	}
	for {
		res, err := http.ReadResponse(c.r, r)
		if err != nil {
			stop()
			return nil, fmt.Errorf("read the answer: %w", err)
		}
		switch {
		case res.StatusCode == http.StatusSwitchingProtocols:
			stop()
			return nil, errors.New("read the answer: it switches protocols")
		case res.StatusCode < 200:
			// Something is coming, and the answer after it.
			continue
		}
		c.left = math.MaxInt64
		body := &answerBody{ReadCloser: res.Body, unary: u, c: c, ctx: ctx, stop: stop, keep: !res.Close}
		if res.Body == http.NoBody {
			body.end(body.keep)
		}
		res.Body = body
		return res, nil
	}
}

// answerBody gives the connection back when it has been read to its end.
type answerBody struct {
	io.ReadCloser
	unary *unary
	c     *connection
	ctx   context.Context //nolint:containedctx // of the request whose answer it is
	stop  func() bool
	keep  bool
	over  bool
}

// Read reads; a request that was given up says so.
func (b *answerBody) Read(p []byte) (int, error) {
	if b.over {
		return 0, io.EOF
	}
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == nil:
	case err == io.EOF:
		b.end(b.keep)
	default:
		b.end(false)
		if b.ctx.Err() != nil {
			err = b.ctx.Err()
		}
	}
	return n, err
}

// Close lets go of the connection. What little is left is read: the mark that ends the body, where somebody stopped at the
// end of an object, or a few objects of others at the end of a page. That costs less than another handshake.
func (b *answerBody) Close() error {
	if b.over {
		return nil
	}
	if b.keep && b.ctx.Err() == nil {
		_ = b.c.SetReadDeadline(time.Now().Add(restTimeout))
		if _, err := io.CopyN(io.Discard, b.ReadCloser, maxRest); err == io.EOF {
			_ = b.c.SetReadDeadline(time.Time{})
			b.end(true)
			return nil
		}
	}
	b.end(false)
	return nil
}

func (b *answerBody) end(whole bool) {
	b.over = true
	// Once it has begun to wake whoever waits, nobody can tell when it is done with the connection.
	untouched := b.stop()
	if whole && untouched && b.c.r.Buffered() == 0 {
		b.unary.put(b.c)
		return
	}
	_ = b.c.Close()
}

// take gives an idle connection, or a new one.
func (u *unary) take(ctx context.Context, fresh bool) (*connection, error) {
	for !fresh {
		c := u.pop()
		if c == nil {
			break
		}
		if time.Since(c.since) < idleTimeout && quiet(c.Conn) {
			return c, nil
		}
		_ = c.Close()
	}
	conn, err := u.dial(ctx)
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: conn, left: math.MaxInt64, w: bufio.NewWriterSize(conn, 4<<10)}
	c.r = bufio.NewReaderSize(c, bufferSize)
	return c, nil
}

func (u *unary) pop() *connection {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.idle) == 0 {
		return nil
	}
	c := u.idle[len(u.idle)-1]
	u.idle = u.idle[:len(u.idle)-1]
	return c
}

func (u *unary) put(c *connection) {
	c.since = time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.idle) >= idleConnections {
		_ = c.Close()
		return
	}
	u.idle = append(u.idle, c)
	if u.reap == nil {
		u.reap = time.AfterFunc(idleTimeout, u.closeOld)
	}
}

// closeOld closes what nobody has used for long, and looks again as long as there is anything.
func (u *unary) closeOld() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.idle = slices.DeleteFunc(u.idle, func(c *connection) bool {
		old := time.Since(c.since) >= idleTimeout
		if old {
			_ = c.Close()
		}
		return old
	})
	u.reap = nil
	if len(u.idle) > 0 {
		u.reap = time.AfterFunc(idleTimeout/4, u.closeOld)
	}
}

// CloseIdleConnections closes what is not in use.
func (u *unary) CloseIdleConnections() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range u.idle {
		_ = c.Close()
	}
	u.idle = nil
}
