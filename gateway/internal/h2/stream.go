package h2

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// stream is one request and its answer.
type stream struct {
	id   uint32
	conn *conn
	// ctx is the request's; it ends with the stream.
	ctx    context.Context //nolint:containedctx // of the request
	cancel context.CancelFunc
	body   body
	// woken wakes a handler that waits for a window or for its turn to write; expired says that its time to do so is over.
	woken    chan struct{}
	deadline atomic.Int64 // nanoseconds since 1970 until when a write may wait; 0: for WriteTimeout, each time
	expired  atomic.Bool

	// conn.mu guards what follows.
	request *http.Request
	// tooLarge: the header of the request is not whole.
	tooLarge bool
	started  bool
	// received and sent say that one side has said all it had to say, answered that the answer's header is on its way; failed
	// is why the stream ended before.
	received, sent, answered bool
	failed                   error
	expected, got            int64 // of the body; -1: unknown
	in                       int
	sinceUpdate              int
	out                      int64
	waiting                  bool // in conn.waiters
}

// wake wakes a handler that waits.
func (s *stream) wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// wait waits until the stream is woken, or has taken the turn to write if turn is given.
func (s *stream) wait(turn chan<- struct{}) (taken bool, err error) {
	if s.expired.Load() {
		return false, os.ErrDeadlineExceeded
	}
	var expires <-chan time.Time
	patience := s.conn.server.WriteTimeout
	at := s.deadline.Load()
	if at != 0 {
		patience = time.Until(time.Unix(0, at))
	}
	// Whose turn it is not waits for a connection that is looked after by itself; that a window stays closed nobody else sees.
	if at != 0 || turn == nil && patience > 0 {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		expires = timer.C
	}
	select {
	case turn <- struct{}{}:
		return true, nil
	case <-s.woken:
		return false, nil
	case <-s.ctx.Done():
		return false, s.reason()
	case <-expires:
		return false, os.ErrDeadlineExceeded
	}
}

// unwritable says why nothing can be written any more. conn.mu is held.
func (s *stream) unwritable() error {
	switch {
	case s.failed != nil:
		return s.failed
	case s.sent, s.conn.over:
		return errOver
	case s.expired.Load():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// errOver is told to who writes to a stream that is over.
var errOver = errors.New("the stream is over")

// reason is why the stream ended.
func (s *stream) reason() error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	return errOver
}

// run runs the handler of a stream.
func (c *conn) run(s *stream) {
	defer c.returned()
	c.mu.Lock()
	request := s.request
	c.mu.Unlock()
	if request == nil {
		return
	}
	w := &response{stream: s, conn: c, head: request.Method == http.MethodHead, header: http.Header{}, declared: -1}
	finished := false
	defer func() {
		if !finished {
			if reason := recover(); reason != nil && reason != http.ErrAbortHandler { //nolint:errorlint // as net/http compares
				c.server.Log.Error("A handler panicked", "panic", reason, "stack", string(debug.Stack()))
			}
		}
		w.free()
		c.finish(s, finished)
	}()
	if s.tooLarge {
		http.Error(w, "The header of the request is too large", http.StatusRequestHeaderFieldsTooLarge)
	} else {
		c.handler.ServeHTTP(w, request)
	}
	finished = w.finish() == nil
}

// finish ends a stream whose handler has returned.
func (c *conn) finish(s *stream, whole bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer s.cancel()
	if unread := s.body.close(); unread > 0 {
		_ = c.giveBack(nil, unread)
	}
	if c.streams[s.id] != s {
		return
	}
	code := http2.ErrCodeInternal
	if whole {
		// Everything is said; what the peer still has to say nobody would hear.
		code = http2.ErrCodeNo
	}
	_ = c.sayLocked(func(b []byte) []byte { return appendReset(b, s.id, code) })
	c.drop(s, errOver)
}

// body is what a handler reads. Its mutex is taken after conn.mu, if both are.
type body struct {
	stream *stream
	// ready wakes the reader.
	ready chan struct{}
	// proceed says that the peer waits for a word before it sends.
	proceed atomic.Bool

	// mu guards what follows.
	mu       sync.Mutex
	buffer   bytes.Buffer
	err      error // what comes behind what is buffered
	closed   bool
	deadline time.Time
}

// keepBuffer is how large an empty buffer may be that is kept.
const keepBuffer = 16 << 10

// add buffers what has come, unless nobody will read it.
func (b *body) add(p []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.err != nil {
		return false
	}
	b.buffer.Write(p)
	b.wake()
	return true
}

// finish says what comes behind what is buffered.
func (b *body) finish(err error) {
	if b.ready == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
		b.wake()
	}
}

// close forgets what is buffered and says how much that was.
func (b *body) close() int {
	if b.ready == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	unread := b.buffer.Len()
	b.buffer, b.closed = bytes.Buffer{}, true
	b.wake()
	return unread
}

func (b *body) wake() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

func (b *body) setDeadline(at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deadline = at
	b.wake()
}

// Read reads what has come, or waits for it.
func (b *body) Read(p []byte) (int, error) {
	if b.proceed.CompareAndSwap(true, false) {
		if err := b.stream.conn.inform(b.stream, http.StatusContinue, nil); err != nil {
			return 0, err
		}
	}
	for {
		n, err, deadline := b.take(p)
		if n > 0 {
			c := b.stream.conn
			c.mu.Lock()
			defer c.mu.Unlock()
			return n, c.giveBack(b.stream, n)
		}
		if err != nil || len(p) == 0 {
			return 0, err
		}
		if err := b.wait(deadline); err != nil {
			return 0, err
		}
	}
}

// take gives what is there.
func (b *body) take(p []byte) (int, error, time.Time) { //nolint:revive,staticcheck // the time is no result of its own
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return 0, http.ErrBodyReadAfterClose, time.Time{}
	case b.buffer.Len() > 0:
		n, _ := b.buffer.Read(p)
		if b.buffer.Len() == 0 && b.buffer.Cap() > keepBuffer {
			b.buffer = bytes.Buffer{}
		}
		return n, nil, time.Time{}
	}
	return 0, b.err, b.deadline
}

func (b *body) wait(deadline time.Time) error {
	var expires <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		expires = timer.C
	}
	select {
	case <-b.ready:
		return nil
	case <-b.stream.ctx.Done():
		return b.stream.reason()
	case <-expires:
		return os.ErrDeadlineExceeded
	}
}

// Close forgets the rest.
func (b *body) Close() error {
	unread := b.close()
	c := b.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.giveBack(nil, unread)
}
