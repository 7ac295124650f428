package h2

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frames are what a client may send behind its greeting.
func frames(do func(f *http2.Framer)) []byte {
	var out bytes.Buffer
	f := http2.NewFramer(&out, nil)
	f.AllowIllegalWrites = true
	do(f)
	return out.Bytes()
}

func block(pairs ...string) []byte {
	var out bytes.Buffer
	encoder := hpack.NewEncoder(&out)
	for i := 0; i < len(pairs); i += 2 {
		_ = encoder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return out.Bytes()
}

// FuzzConnection checks that no bytes make a connection panic, keep it from ending when its client is gone, or leave a
// window or a count that is not what it was.
func FuzzConnection(f *testing.F) {
	get := block(":method", "GET", ":scheme", "https", ":path", "/", ":authority", "here")
	post := block(":method", "POST", ":scheme", "https", ":path", "/echo", ":authority", "here", "content-length", "5")
	f.Add(frames(func(f *http2.Framer) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: get, EndHeaders: true, EndStream: true})
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: post, EndHeaders: true})
		_ = f.WriteData(3, true, []byte("hello"))
		_ = f.WritePing(false, [8]byte{})
		_ = f.WriteGoAway(0, 0, nil)
	}))
	f.Add(frames(func(f *http2.Framer) {
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: get[:3]})
		_ = f.WriteContinuation(1, true, get[3:])
		_ = f.WriteRSTStream(1, http2.ErrCodeCancel)
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, BlockFragment: post, EndHeaders: true})
		_ = f.WriteDataPadded(5, false, []byte("hel"), make([]byte, 9))
		_ = f.WriteWindowUpdate(5, 1<<20)
		_ = f.WriteWindowUpdate(0, 1<<20)
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, BlockFragment: block("a", "b"), EndHeaders: true, EndStream: true})
		_ = f.WritePriority(7, http2.PriorityParam{StreamDep: 5})
		_ = f.WriteRawFrame(0x99, 0xff, 1, []byte("what"))
	}))
	f.Fuzz(func(t *testing.T, sent []byte) {
		near, far := net.Pipe()
		s := newServer()
		s.MaxStreams = 2
		c := newConn(t.Context(), s, far, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/echo" {
				_, _ = io.Copy(w, r.Body)
				return
			}
			_ = http.NewResponseController(w).Flush()
			_, _ = w.Write(make([]byte, 100<<10))
		}))
		c.state = tls.ConnectionState{Version: tls.VersionTLS13}
		over := make(chan struct{})
		go func() {
			defer close(over)
			s.serve(c)
		}()
		go func() { _, _ = io.Copy(io.Discard, near) }()
		_, _ = io.WriteString(near, http2.ClientPreface)
		_ = http2.NewFramer(near, nil).WriteSettings()
		_, _ = near.Write(sent)
		_ = near.Close()
		select {
		case <-over:
		case <-time.After(patience):
			t.Fatal("the connection does not end")
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.handlers != 0 || len(c.waiters) != 0 || c.in > connWindow || c.in+c.sinceUpdate > connWindow {
			t.Errorf("%d handlers, %d waiters, %d and %d of the window", c.handlers, len(c.waiters), c.in, c.sinceUpdate)
		}
	})
}
