package h2

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// connWindow and streamWindow bound what is buffered of bodies that nobody has read yet.
	connWindow   = 1 << 20
	streamWindow = 256 << 10
	// startWindow is what both sides begin with. See RFC 9113, section 6.9.2.
	startWindow = 1<<16 - 1
	maxWindow   = 1<<31 - 1
	// maxFrame is the longest frame that is read, the least that everybody must take.
	maxFrame = 16 << 10
	// tableSize is that of header compression, both ways.
	tableSize = 4 << 10
	// maxControl bounds the answers that wait for a peer which does not read them.
	maxControl = 32 << 10
	// maxNoise is how many frames a second that ask for nothing are taken from a peer.
	maxNoise = 10000
	// lastWords is how long a connection that has to end may take to hear why, linger how long one stays that could go.
	lastWords = 5 * time.Second
	linger    = time.Second
)

// conn is one connection. Of its mutexes, mu is never held while anything waits.
type conn struct {
	server  *Server
	handler http.Handler
	// socket is what is read and written, under what it is closed by, without a word.
	socket, under net.Conn
	state         tls.ConnectionState
	remote        string
	// ctx is the parent of all requests; it ends with the connection.
	ctx     context.Context //nolint:containedctx // a connection's life
	cancel  context.CancelFunc
	running sync.WaitGroup

	// framer reads, headers is what it reads headers with; the reading goroutine's alone, as is what follows.
	framer     *http2.Framer
	settled    bool // the peer's settings have come
	noise      int
	noiseSince time.Time

	// heard says that a frame has come since somebody looked, writes counts: it is odd while something is being written.
	heard  atomic.Bool
	writes atomic.Uint64
	kept   kept

	// writing is held by who writes. Who waits for it can give up.
	writing chan struct{}
	encoder *hpack.Encoder // by who holds writing
	block   bytes.Buffer   // by who holds writing

	// mu guards what follows.
	mu      sync.Mutex
	streams map[uint32]*stream
	lastID  uint32 // of the peer's streams
	// handlers are under way, also for streams that are reset; queued are waiting for one of them to return.
	handlers int
	queued   []*stream
	// unacknowledged are our settings that the peer has not answered.
	unacknowledged int
	in             int   // what the peer may still send
	sinceUpdate    int   // what has been read and not yet given back, of the window for all streams
	out            int64 // what may still be sent
	outStart       int64 // what may be sent at the beginning of a stream
	waiters        []*stream
	// table is a new size for the encoder's table, if newTable.
	table    uint32
	newTable bool
	// control is what is to be written by who writes next; flushing says that somebody will.
	control  []byte
	flushing bool
	// leaving: no new streams are taken, and the connection ends with its last one. over: it has ended.
	leaving, over bool
	leftAt        time.Time
}

func newConn(ctx context.Context, s *Server, socket net.Conn, handler http.Handler) *conn {
	c := &conn{
		server: s, handler: handler, socket: socket, under: socket, remote: socket.RemoteAddr().String(),
		writing: make(chan struct{}, 1), streams: map[uint32]*stream{},
		in: connWindow, out: startWindow, outStart: startWindow, unacknowledged: 1,
	}
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.encoder = hpack.NewEncoder(&c.block)
	c.framer = http2.NewFramer(nil, socket)
	c.framer.SetReuseFrames()
	c.framer.SetMaxReadFrameSize(maxFrame)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(tableSize, nil)
	c.framer.MaxHeaderListSize = uint32(s.MaxHeader) //nolint:gosec // a constant
	return c
}

// serve says hello, reads until the connection ends, and waits for its handlers.
func (c *conn) serve() {
	c.mu.Lock()
	c.control = appendSettings(c.control,
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(c.server.MaxStreams)}, //nolint:gosec // a constant
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: uint32(c.server.MaxHeader)},     //nolint:gosec // a constant
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow})
	c.control = appendWindowUpdate(c.control, 0, connWindow-startWindow)
	c.flushLocked()
	c.mu.Unlock()

	err := c.greet()
	if err == nil {
		err = c.read()
	}
	c.end(err)
	c.running.Wait()
}

// greet reads what every client sends first.
func (c *conn) greet() error {
	if !goodCipher(c.state) {
		return http2.ConnectionError(http2.ErrCodeInadequateSecurity)
	}
	if c.server.HeaderTimeout > 0 {
		_ = c.socket.SetReadDeadline(time.Now().Add(c.server.HeaderTimeout))
		defer func() { _ = c.socket.SetReadDeadline(time.Time{}) }()
	}
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.socket, preface); err != nil {
		return err
	}
	if string(preface) != http2.ClientPreface {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil
}

// goodCipher says whether HTTP/2 may be spoken. See RFC 9113, section 9.2.2.
func goodCipher(state tls.ConnectionState) bool {
	switch state.CipherSuite {
	case tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256:
		return true
	}
	return state.Version >= tls.VersionTLS13
}

// read reads and handles frames until the connection ends.
func (c *conn) read() error {
	for {
		frame, err := c.framer.ReadFrame()
		c.heard.Store(true)
		if err == nil {
			err = c.process(frame)
		}
		var bad http2.StreamError
		switch {
		case err == nil:
		case errors.As(err, &bad):
			if err := c.refuse(bad.StreamID, bad.Code); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// end tells the peer why, if that is worth telling, and closes.
func (c *conn) end(err error) {
	var bad http2.ConnectionError
	switch {
	case errors.As(err, &bad):
	case errors.Is(err, http2.ErrFrameTooLarge):
		bad = http2.ConnectionError(http2.ErrCodeFrameSize)
	}
	c.mu.Lock()
	c.leaving = true
	last := c.lastID
	c.mu.Unlock()
	c.cancel()
	if bad != 0 {
		c.server.Log.Debug("A connection of HTTP/2 is ended", "client", c.remote, "error", err, "detail", c.framer.ErrorDetail())
		// From here on neither side waits for long, whoever writes.
		_ = c.socket.SetDeadline(time.Now().Add(lastWords))
		c.mu.Lock()
		c.control = appendGoAway(c.control, last, http2.ErrCode(bad))
		c.flushLocked()
		c.mu.Unlock()
		// To close while something is unread would take back what was said.
		_, _ = io.Copy(io.Discard, c.socket)
	}
	c.close()
}

// close ends the connection for everybody.
func (c *conn) close() {
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.cancel()
	_ = c.under.Close()
}

// process handles one frame. It must not keep anything of it.
func (c *conn) process(frame http2.Frame) error {
	if !c.settled {
		if f, ok := frame.(*http2.SettingsFrame); !ok || f.IsAck() {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		c.settled = true
	}
	switch f := frame.(type) {
	case *http2.MetaHeadersFrame:
		return c.headers(f)
	case *http2.DataFrame:
		if len(f.Data()) == 0 && !f.StreamEnded() {
			if err := c.hush(); err != nil {
				return err
			}
		}
		return c.data(f)
	case *http2.WindowUpdateFrame:
		return c.windowUpdate(f)
	case *http2.RSTStreamFrame:
		return c.reset(f)
	case *http2.SettingsFrame:
		if err := c.hush(); err != nil {
			return err
		}
		return c.settings(f)
	case *http2.PingFrame:
		if f.IsAck() {
			return nil
		}
		if err := c.hush(); err != nil {
			return err
		}
		return c.say(func(b []byte) []byte { return appendPing(b, true, f.Data) })
	case *http2.PriorityFrame:
		if err := c.hush(); err != nil {
			return err
		}
		if f.StreamDep == f.StreamID {
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
		}
		return nil
	case *http2.GoAwayFrame:
		c.leave()
		return nil
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	// What is not known is ignored.
	return c.hush()
}

// hush bounds what a peer can make this side do for nothing.
func (c *conn) hush() error {
	if c.noise++; c.noise < maxNoise {
		return nil
	}
	c.noise = 0
	now := time.Now()
	if now.Sub(c.noiseSince) < time.Second {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	c.noiseSince = now
	return nil
}

func (c *conn) settings(f *http2.SettingsFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.IsAck() {
		if c.unacknowledged--; c.unacknowledged < 0 {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		return nil
	}
	if f.NumSettings() > 100 {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingHeaderTableSize:
			c.table, c.newTable = min(s.Val, tableSize), true
		case http2.SettingInitialWindowSize:
			return c.startWith(int64(s.Val))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.sayLocked(func(b []byte) []byte { return appendSettingsAck(b) })
}

// startWith changes what may be sent on each stream. mu is held.
func (c *conn) startWith(window int64) error {
	grown := window - c.outStart
	c.outStart = window
	for _, s := range c.streams {
		if s.out += grown; s.out > maxWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		if s.out > 0 {
			s.wake()
		}
	}
	return nil
}

func (c *conn) windowUpdate(f *http2.WindowUpdateFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.StreamID == 0 {
		if c.out += int64(f.Increment); c.out > maxWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		c.wakeNext()
		return nil
	}
	s, err := c.find(f.StreamID)
	if s == nil {
		return err
	}
	if s.out += int64(f.Increment); s.out > maxWindow {
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
	}
	s.wake()
	return nil
}

// find gives a stream; nil if it is over, an error if it has never been. mu is held.
func (c *conn) find(id uint32) (*stream, error) {
	if s := c.streams[id]; s != nil {
		return s, nil
	}
	if id%2 == 0 || id > c.lastID && !c.leaving {
		return nil, http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil, nil
}

// reset ends a stream that its peer has given up. Its handler still counts until it returns.
func (c *conn) reset(f *http2.RSTStreamFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.find(f.StreamID)
	if s == nil {
		return err
	}
	c.drop(s, fmt.Errorf("the client has reset the stream: %s", f.ErrCode))
	return nil
}

// refuse resets a stream because of what its peer has done.
func (c *conn) refuse(id uint32, code http2.ErrCode) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[id]; s != nil {
		c.drop(s, fmt.Errorf("the stream is reset: %s", code))
	} else if id%2 == 1 && id > c.lastID && !c.leaving {
		c.lastID = id
	}
	return c.sayLocked(func(b []byte) []byte { return appendReset(b, id, code) })
}

// drop forgets a stream, and tells its handler. mu is held.
func (c *conn) drop(s *stream, reason error) {
	if s.failed == nil {
		s.failed = reason
	}
	delete(c.streams, s.id)
	c.stopWaiting(s)
	s.body.finish(reason)
	// One that waits in the queue holds nothing there.
	if !s.started {
		s.request = nil
		_ = c.giveBack(nil, s.body.close())
	}
	s.cancel()
	c.restLocked()
}

// headers handles a new request, or what comes behind a body.
func (c *conn) headers(f *http2.MetaHeadersFrame) error {
	id := f.StreamID
	c.mu.Lock()
	defer c.mu.Unlock()
	if id%2 == 0 {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if s := c.streams[id]; s != nil {
		return c.trailers(s, f)
	}
	if id <= c.lastID {
		return http2.ConnectionError(http2.ErrCodeStreamClosed)
	}
	if c.leaving {
		return nil
	}
	c.lastID = id
	if f.HasPriority() && f.Priority.StreamDep == id {
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
	}
	if len(c.streams) >= c.server.MaxStreams {
		if c.unacknowledged > 0 {
			return http2.StreamError{StreamID: id, Code: http2.ErrCodeRefusedStream}
		}
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
	}
	s, err := c.newStream(f)
	if err != nil {
		return err
	}
	c.streams[id] = s
	if c.handlers >= c.server.MaxStreams {
		// So many streams are open only if others that were reset are still being handled.
		if len(c.queued) >= 4*c.server.MaxStreams {
			return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
		}
		c.queued = append(c.queued, s)
		return nil
	}
	c.start(s)
	return nil
}

// start runs a handler. mu is held.
func (c *conn) start(s *stream) {
	c.handlers++
	s.started = true
	c.running.Add(1)
	go c.run(s)
}

// returned makes room for the next one when a handler has returned.
func (c *conn) returned() {
	defer c.running.Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handlers--
	for len(c.queued) > 0 && c.handlers < c.server.MaxStreams {
		s := c.queued[0]
		c.queued[0] = nil
		c.queued = c.queued[1:]
		if s.failed == nil && !c.over {
			c.start(s)
		}
	}
	c.restLocked()
}

// trailers end a body; nobody asks what they say. mu is held.
func (c *conn) trailers(s *stream, f *http2.MetaHeadersFrame) error {
	switch {
	case s.received:
		return http2.StreamError{StreamID: s.id, Code: http2.ErrCodeStreamClosed}
	case !f.StreamEnded(), len(f.PseudoFields()) > 0:
		return http2.StreamError{StreamID: s.id, Code: http2.ErrCodeProtocol}
	}
	return c.receivedAll(s)
}

// receivedAll is when the last of a request has come. mu is held.
func (c *conn) receivedAll(s *stream) error {
	if s.expected >= 0 && s.got != s.expected {
		return http2.StreamError{StreamID: s.id, Code: http2.ErrCodeProtocol}
	}
	s.received = true
	s.body.finish(io.EOF)
	if s.sent {
		delete(c.streams, s.id)
	}
	return nil
}

// data takes a part of a body.
func (c *conn) data(f *http2.DataFrame) error {
	length, content := int(f.Length), f.Data()
	c.mu.Lock()
	defer c.mu.Unlock()
	if length > c.in {
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	c.in -= length
	s, err := c.find(f.StreamID)
	switch {
	case err != nil:
		return err
	case s == nil, s.received:
		// Nobody will read it.
		if err := c.giveBack(nil, length); err != nil || s == nil && c.leaving && f.StreamID > c.lastID {
			return err
		}
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed}
	case length > s.in:
		return errors.Join(c.giveBack(nil, length), http2.StreamError{StreamID: s.id, Code: http2.ErrCodeFlowControl})
	}
	s.in -= length
	s.got += int64(len(content))
	if s.expected >= 0 && s.got > s.expected {
		return errors.Join(c.giveBack(nil, length), http2.StreamError{StreamID: s.id, Code: http2.ErrCodeProtocol})
	}
	if s.body.add(content) {
		// Padding counts as read.
		err = c.giveBack(s, length-len(content))
	} else {
		err = c.giveBack(nil, length)
	}
	if err != nil {
		return err
	}
	if f.StreamEnded() {
		return c.receivedAll(s)
	}
	return nil
}

// minUpdate is how much is given back at once, if there is still as much.
const minUpdate = 4 << 10

// giveBack lets the peer send what has been read; s may be nil or over. mu is held.
func (c *conn) giveBack(s *stream, n int) error {
	if n == 0 {
		return nil
	}
	var said bool
	if c.sinceUpdate += n; c.sinceUpdate >= min(minUpdate, c.in) {
		c.control = appendWindowUpdate(c.control, 0, c.sinceUpdate)
		c.in, c.sinceUpdate, said = c.in+c.sinceUpdate, 0, true
	}
	if s != nil && s.failed == nil && !s.received {
		if s.sinceUpdate += n; s.sinceUpdate >= min(minUpdate, s.in) {
			c.control = appendWindowUpdate(c.control, s.id, s.sinceUpdate)
			s.in, s.sinceUpdate, said = s.in+s.sinceUpdate, 0, true
		}
	}
	if !said {
		return nil
	}
	return c.sayLocked(func(b []byte) []byte { return b })
}
