package h2

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	frameHeader = 9
	// maxData is how much of a body is sent at once: with its frame's header, a record of TLS.
	maxData = 16<<10 - frameHeader
)

// output is what a stream writes at once.
type output struct {
	// header, if there is a code, comes first.
	code   int
	header http.Header
	data   []byte
	end    bool
	// trailers are the names of what comes last.
	trailers []string
	trailer  http.Header
}

// packets are what goes out in one write.
var packets = sync.Pool{New: func() any {
	b := make([]byte, 0, 4<<10)
	return &b
}}

// emit writes something of a stream, with whatever else there is to say. It waits for its turn and for the peer to read,
// and for no window: that has been reserved.
func (c *conn) emit(s *stream, o output) error {
	for taken := false; !taken; {
		select {
		case c.writing <- struct{}{}:
			taken = true
		default:
			var err error
			if taken, err = s.wait(c.writing); err != nil {
				c.unreserve(len(o.data))
				return err
			}
		}
	}
	defer func() { <-c.writing }()
	c.mu.Lock()
	if err := s.unwritable(); err != nil {
		c.out += int64(len(o.data))
		c.wakeNext()
		c.mu.Unlock()
		return err
	}
	if o.code != 0 && o.code < http.StatusOK && s.answered {
		// Too late: what comes behind an answer's header is its body.
		c.mu.Unlock()
		return nil
	}
	s.answered = s.answered || o.code >= http.StatusOK
	packet, _ := packets.Get().(*[]byte)
	b := c.takeControl((*packet)[:0])
	if o.end {
		s.sent = true
		if s.received {
			delete(c.streams, s.id)
		}
	}
	c.mu.Unlock()
	if o.code != 0 {
		b = c.appendHeaders(b, s.id, o.code, o.header, o.end && len(o.data) == 0 && len(o.trailers) == 0)
	}
	if len(o.data) > 0 || o.end && o.code == 0 && len(o.trailers) == 0 {
		b = appendFrameHeader(b, len(o.data), http2.FrameData, endFlag(o.end && len(o.trailers) == 0), s.id)
		b = append(b, o.data...)
	}
	if o.end && len(o.trailers) > 0 {
		b = c.appendTrailers(b, s.id, o.trailer, o.trailers)
	}
	err := c.writeOut(b)
	*packet = b
	packets.Put(packet)
	return err
}

func endFlag(end bool) http2.Flags {
	if end {
		return http2.FlagDataEndStream
	}
	return 0
}

// takeControl moves what is queued. mu and writing are held.
func (c *conn) takeControl(b []byte) []byte {
	if c.newTable {
		c.encoder.SetMaxDynamicTableSize(c.table)
		c.newTable = false
	}
	if len(c.control) > 0 {
		b = append(b, c.control...)
		c.control = nil
	}
	return b
}

// writeOut writes to the socket. writing is held.
func (c *conn) writeOut(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	c.writes.Add(1)
	_, err := c.socket.Write(b)
	c.writes.Add(1)
	if err != nil {
		c.close()
	}
	return err
}

// inform sends a header that is not the answer yet.
func (c *conn) inform(s *stream, code int, header http.Header) error {
	return c.emit(s, output{code: code, header: header})
}

// giveUp resets a stream that could not be written to its end.
func (c *conn) giveUp(s *stream, reason error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[s.id] == s {
		_ = c.sayLocked(func(b []byte) []byte { return appendReset(b, s.id, http2.ErrCodeInternal) })
		c.drop(s, reason)
	}
	return reason
}

// reserve takes up to n of the windows. It waits until there is something, if it may.
func (c *conn) reserve(s *stream, n int, wait bool) (int, error) {
	for {
		c.mu.Lock()
		if err := s.unwritable(); err != nil {
			c.wakeNext()
			c.mu.Unlock()
			return 0, err
		}
		if free := min(c.out, s.out); free > 0 {
			n = int(min(int64(n), free))
			c.out -= int64(n)
			s.out -= int64(n)
			c.stopWaiting(s)
			c.wakeNext()
			c.mu.Unlock()
			return n, nil
		}
		if !wait {
			c.mu.Unlock()
			return 0, nil
		}
		if s.out > 0 && !s.waiting {
			s.waiting = true
			c.waiters = append(c.waiters, s)
		}
		// Who was woken and has no window of its own passes it on.
		c.wakeNext()
		c.mu.Unlock()
		if _, err := s.wait(nil); err != nil {
			c.mu.Lock()
			c.stopWaiting(s)
			c.wakeNext()
			c.mu.Unlock()
			return 0, err
		}
	}
}

// unreserve gives back what will not be sent.
func (c *conn) unreserve(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out += int64(n)
	c.wakeNext()
}

// wakeNext wakes the stream that has waited longest for the window of the connection. Who takes a part of it wakes the next.
// mu is held.
func (c *conn) wakeNext() {
	for len(c.waiters) > 0 && c.out > 0 {
		s := c.waiters[0]
		c.waiters[0] = nil
		c.waiters = c.waiters[1:]
		s.waiting = false
		if s.failed == nil {
			s.wake()
			return
		}
	}
}

// stopWaiting forgets that a stream waits for the window of the connection. mu is held.
func (c *conn) stopWaiting(s *stream) {
	if s.waiting {
		s.waiting = false
		c.waiters = slices.DeleteFunc(c.waiters, func(other *stream) bool { return other == s })
	}
}

// say queues frames that are no stream's, and sees to it that they are written.
func (c *conn) say(add func([]byte) []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sayLocked(add)
}

// sayLocked is say for who holds mu.
func (c *conn) sayLocked(add func([]byte) []byte) error {
	if len(c.control) > maxControl {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	c.control = add(c.control)
	c.flushLocked()
	return nil
}

// flushLocked makes somebody write what is queued, unless somebody is about to. mu is held.
func (c *conn) flushLocked() {
	if c.flushing || c.over {
		return
	}
	c.flushing = true
	c.running.Add(1)
	go c.flush()
}

// flush writes what is queued.
func (c *conn) flush() {
	defer c.running.Done()
	c.writing <- struct{}{}
	defer func() { <-c.writing }()
	for {
		c.mu.Lock()
		b := c.takeControl(nil)
		if c.over || len(b) == 0 {
			c.flushing = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		_ = c.writeOut(b)
	}
}

// appendHeaders appends the header of an answer. writing is held.
func (c *conn) appendHeaders(b []byte, id uint32, code int, header http.Header, end bool) []byte {
	c.block.Reset()
	_ = c.encoder.WriteField(hpack.HeaderField{Name: ":status", Value: strconv.Itoa(code)})
	for name, values := range header {
		if !strings.HasPrefix(name, http.TrailerPrefix) {
			c.encode(name, values)
		}
	}
	return appendBlock(b, id, c.block.Bytes(), end)
}

// appendTrailers appends what comes behind a body. writing is held.
func (c *conn) appendTrailers(b []byte, id uint32, header http.Header, names []string) []byte {
	c.block.Reset()
	for _, name := range names {
		c.encode(strings.TrimPrefix(name, http.TrailerPrefix), header[name])
	}
	return appendBlock(b, id, c.block.Bytes(), true)
}

// encode adds a field to the block. writing is held.
func (c *conn) encode(name string, values []string) {
	lower, known := lowered[name]
	if !known {
		if lower = strings.ToLower(name); !httpguts.ValidHeaderFieldName(lower) {
			return
		}
		switch lower {
		case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
			return
		}
	}
	for _, value := range values {
		if httpguts.ValidHeaderFieldValue(value) {
			_ = c.encoder.WriteField(hpack.HeaderField{Name: lower, Value: value})
		}
	}
}

// lowered are the names that almost every answer has.
var lowered = map[string]string{
	"Content-Length": "content-length", "Content-Type": "content-type", "Cache-Control": "cache-control", "Date": "date",
	"Audit-Id": "audit-id", "Warning": "warning", "Retry-After": "retry-after", "Vary": "vary", "Content-Encoding": "content-encoding",
}
