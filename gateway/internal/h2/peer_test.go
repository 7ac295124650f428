package h2

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// patience is how long something may take that happens at once.
const patience = 2 * time.Minute

func newServer() *Server {
	return &Server{
		Log: slog.New(slog.DiscardHandler), MaxStreams: 8, MaxHeader: 16 << 10, HeaderTimeout: patience, IdleTimeout: patience,
		PingAfter: patience, PingTimeout: patience, WriteTimeout: patience,
	}
}

// peer is a client that sends what it is told, frame by frame, over a connection without TLS.
type peer struct {
	*http2.Framer
	t    testing.TB
	conn net.Conn
	// over is closed when the server has done with the connection, all its handlers included.
	over    chan struct{}
	block   bytes.Buffer
	encoder *hpack.Encoder
}

// dial starts a connection to a server. No test may end before the server is done with it.
func dial(t testing.TB, s *Server, handler http.HandlerFunc) *peer {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	near, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return attach(t, s, handler, near, far)
}

// pipe is dial over a connection that holds nothing: what one side does not read, the other cannot write.
func pipe(t testing.TB, s *Server, handler http.HandlerFunc) *peer {
	t.Helper()
	near, far := net.Pipe()
	return attach(t, s, handler, near, far)
}

func attach(t testing.TB, s *Server, handler http.HandlerFunc, near, far net.Conn) *peer {
	t.Helper()
	p := &peer{Framer: http2.NewFramer(near, near), t: t, conn: near, over: make(chan struct{})}
	p.encoder = hpack.NewEncoder(&p.block)
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.AllowIllegalWrites = true
	c := newConn(context.WithoutCancel(t.Context()), s, far, handler)
	c.state = tls.ConnectionState{Version: tls.VersionTLS13}
	// Machines differ in what they send in a second: here it is a long one.
	c.noiseSince = time.Now().Add(time.Hour)
	go func() {
		defer close(p.over)
		s.serve(c)
		_ = far.Close()
	}()
	t.Cleanup(func() {
		_ = near.Close()
		p.waitOver()
	})
	_ = near.SetDeadline(time.Now().Add(patience))
	return p
}

// greet says hello.
func (p *peer) greet(settings ...http2.Setting) *peer {
	p.t.Helper()
	_, err := io.WriteString(p.conn, http2.ClientPreface)
	p.must(err)
	p.must(p.WriteSettings(settings...))
	p.await("settings", func(f http2.Frame) bool { s, ok := f.(*http2.SettingsFrame); return ok && !s.IsAck() })
	p.must(p.WriteSettingsAck())
	p.await("acknowledgement", func(f http2.Frame) bool { s, ok := f.(*http2.SettingsFrame); return ok && s.IsAck() })
	return p
}

func (p *peer) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) waitOver() {
	p.t.Helper()
	select {
	case <-p.over:
	case <-time.After(patience):
		p.t.Fatal("the server is not done with the connection")
	}
}

// fields encodes a header; the ones that every request needs come first, unless they are given.
func (p *peer) fields(pairs ...string) []byte {
	p.block.Reset()
	all := []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":path", Value: "/"}, {Name: ":authority", Value: "here"}}
	for i := 0; i < len(pairs); i += 2 {
		at := -1
		for j, have := range all {
			if have.Name == pairs[i] {
				at = j
			}
		}
		switch {
		case at < 0 || at > 3:
			all = append(all, hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
		default:
			all[at].Value = pairs[i+1]
		}
	}
	for _, field := range all {
		if field.Value != "-" {
			p.must(p.encoder.WriteField(field))
		}
	}
	return p.block.Bytes()
}

// ask sends the header of a request.
func (p *peer) ask(id uint32, end bool, pairs ...string) {
	p.t.Helper()
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.fields(pairs...), EndStream: end, EndHeaders: true}))
}

// await reads until a frame comes that is wanted.
func (p *peer) await(what string, wanted func(http2.Frame) bool) http2.Frame {
	p.t.Helper()
	for {
		f, err := p.ReadFrame()
		if err != nil {
			p.t.Fatalf("waiting for %s: %v", what, err)
		}
		if wanted(f) {
			return f
		}
	}
}

// reset waits until a stream is reset.
func (p *peer) reset(id uint32) http2.ErrCode {
	p.t.Helper()
	return p.await("a reset", func(f http2.Frame) bool { r, ok := f.(*http2.RSTStreamFrame); return ok && r.StreamID == id }).(*http2.RSTStreamFrame).ErrCode //nolint:forcetypeassert // awaited
}

// status waits for the header of an answer.
func (p *peer) status(id uint32) string {
	p.t.Helper()
	return p.await("an answer", func(f http2.Frame) bool {
		h, ok := f.(*http2.MetaHeadersFrame)
		return ok && h.StreamID == id
	}).(*http2.MetaHeadersFrame).PseudoValue("status") //nolint:forcetypeassert // awaited
}

// alive sees that the connection still answers.
func (p *peer) alive() {
	p.t.Helper()
	data := [8]byte{1, 2, 3}
	p.must(p.WritePing(false, data))
	p.await("a ping's answer", func(f http2.Frame) bool { g, ok := f.(*http2.PingFrame); return ok && g.IsAck() && g.Data == data })
}

// goodbye waits until the connection ends, and says with which words.
func (p *peer) goodbye() http2.ErrCode {
	p.t.Helper()
	code := http2.ErrCode(1 << 30)
	for {
		f, err := p.ReadFrame()
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			p.t.Fatal("the connection does not end")
		case err != nil:
			_ = p.conn.Close()
			p.waitOver()
			return code
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			code = g.ErrCode
			_ = p.conn.(*net.TCPConn).CloseWrite() //nolint:forcetypeassert // dialed so
		}
	}
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}
