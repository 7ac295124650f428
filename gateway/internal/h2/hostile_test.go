package h2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

func ok(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(w, "ok")
}

// hang does nothing until its request is given up.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// TestMalformed checks what becomes of a stream whose request is malformed: it alone is reset, and nobody handles it.
func TestMalformed(t *testing.T) {
	t.Parallel()
	for name, pairs := range map[string][]string{
		"no method": {":method", "-"}, "no path": {":path", "-"}, "no scheme": {":scheme", "-"}, "foreign scheme": {":scheme", "ftp"},
		"unknown pseudo header": {":what", "x"}, "protocol": {":protocol", "websocket"}, "upper case": {"Accept", "x"}, "relative path": {":path", "a b"},
		"connection": {"connection", "close"}, "transfer-encoding": {"transfer-encoding", "chunked"}, "upgrade": {"upgrade", "x"},
		"keep-alive": {"keep-alive", "1"}, "proxy-connection": {"proxy-connection", "x"}, "te": {"te", "gzip"}, "a line break": {"x", "a\r\nb: c"},
		"a length of nothing": {"content-length", "1"}, "a length that is none": {"content-length", "x"}, "two lengths": {"content-length", "0", "content-length", "0"},
		"CONNECT with a path": {":method", "CONNECT"}, "pseudo header behind others": {"x", "y", ":late", "z"}, "authority": {":authority", "a b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var handled atomic.Bool
			p := dial(t, newServer(), func(http.ResponseWriter, *http.Request) { handled.Store(true) }).greet()
			p.ask(1, true, pairs...)
			if code := p.reset(1); code != http2.ErrCodeProtocol {
				t.Error(code)
			}
			if handled.Load() {
				t.Error("somebody has handled it")
			}
			p.alive()
			p.ask(3, true)
			if got := p.status(3); got != "200" {
				t.Error(got)
			}
		})
	}
}

// TestBadStreams checks what a stream ends with that its client treats badly; the connection goes on.
func TestBadStreams(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(p *peer)
		want http2.ErrCode
	}{
		"longer than said": {func(p *peer) {
			p.ask(1, false, ":method", "POST", "content-length", "3")
			p.must(p.WriteData(1, false, []byte("four")))
		}, http2.ErrCodeProtocol},
		"shorter than said": {func(p *peer) {
			p.ask(1, false, ":method", "POST", "content-length", "3")
			p.must(p.WriteData(1, true, []byte("2")))
		}, http2.ErrCodeProtocol},
		"data behind the end": {func(p *peer) {
			p.ask(1, true)
			p.must(p.WriteData(1, true, []byte("x")))
		}, http2.ErrCodeStreamClosed},
		"a second header that ends nothing": {func(p *peer) {
			p.ask(1, false, ":method", "POST")
			p.ask(1, false)
		}, http2.ErrCodeProtocol},
		"depends on itself": {func(p *peer) { p.must(p.WritePriority(1, http2.PriorityParam{StreamDep: 1})) }, http2.ErrCodeProtocol},
		"a window that overflows": {func(p *peer) {
			p.ask(1, true)
			p.must(p.WriteWindowUpdate(1, 1<<31-1))
		}, http2.ErrCodeFlowControl},
		"a window that does not grow": {func(p *peer) {
			p.ask(1, true)
			p.must(p.WriteWindowUpdate(1, 0))
		}, http2.ErrCodeProtocol},
		"more than the window of a stream": {func(p *peer) {
			p.ask(1, false, ":method", "POST")
			for range streamWindow/maxFrame + 1 {
				p.must(p.WriteData(1, false, make([]byte, maxFrame)))
			}
		}, http2.ErrCodeFlowControl},
		"one too many": {func(p *peer) {
			for id := uint32(3); id <= 19; id += 2 {
				p.ask(id, true)
			}
			// To have one name for what is reset in all cases.
			p.await("a reset", func(f http2.Frame) bool {
				r, ok := f.(*http2.RSTStreamFrame)
				return ok && r.StreamID == 19 && r.ErrCode == http2.ErrCodeProtocol
			})
			p.must(p.WritePriority(1, http2.PriorityParam{StreamDep: 1}))
		}, http2.ErrCodeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := dial(t, newServer(), hang).greet()
			c.do(p)
			if code := p.reset(1); code != c.want {
				t.Errorf("%s, want %s", code, c.want)
			}
			p.alive()
		})
	}
}

// TestBadConnections checks what a connection ends with that cannot go on.
func TestBadConnections(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(p *peer)
		want http2.ErrCode
	}{
		"an even stream":        {func(p *peer) { p.ask(2, true) }, http2.ErrCodeProtocol},
		"a stream that is over": {func(p *peer) { p.ask(5, true); p.ask(3, true) }, http2.ErrCodeStreamClosed},
		"data of no stream":     {func(p *peer) { p.must(p.WriteData(1, true, nil)) }, http2.ErrCodeProtocol},
		"data of stream 0":      {func(p *peer) { p.must(p.WriteData(0, true, nil)) }, http2.ErrCodeProtocol},
		"reset of no stream":    {func(p *peer) { p.must(p.WriteRSTStream(1, 0)) }, http2.ErrCodeProtocol},
		"window of no stream":   {func(p *peer) { p.must(p.WriteWindowUpdate(1, 1)) }, http2.ErrCodeProtocol},
		"window overflows":      {func(p *peer) { p.must(p.WriteWindowUpdate(0, 1<<31-1)) }, http2.ErrCodeFlowControl},
		"windows overflow by settings": {func(p *peer) {
			p.ask(1, true)
			p.must(p.WriteWindowUpdate(1, 1<<31-1<<16))
			p.must(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}))
		}, http2.ErrCodeFlowControl},
		"a push": {func(p *peer) {
			p.must(p.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true}))
		}, http2.ErrCodeProtocol},
		"a frame too long": {func(p *peer) { p.must(p.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, maxFrame+1))) }, http2.ErrCodeFrameSize},
		"a broken block": {func(p *peer) {
			p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true}))
		}, http2.ErrCodeCompression},
		"an answer unasked": {func(p *peer) { p.must(p.WriteSettingsAck()) }, http2.ErrCodeProtocol},
		"a thousandfold setting": {func(p *peer) {
			p.must(p.WriteSettings(make([]http2.Setting, 101)...))
		}, http2.ErrCodeProtocol},
		"a bad setting": {func(p *peer) { p.must(p.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 2})) }, http2.ErrCodeProtocol},
		"continuations without end": {func(p *peer) {
			p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields()}))
			for range 100 {
				// A field of the static table, again and again.
				if p.WriteContinuation(1, false, bytes.Repeat([]byte{0x90}, 1<<10)) != nil {
					return
				}
			}
		}, http2.ErrCodeProtocol},
		"a frame within a header": {func(p *peer) {
			p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields()}))
			p.must(p.WritePing(false, [8]byte{}))
		}, http2.ErrCodeProtocol},
		"a bomb": {func(p *peer) {
			// One field of four kilobytes in the table, and then a byte for each time it is repeated.
			p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields("x", strings.Repeat("y", 3<<10)), EndStream: true}))
			p.must(p.WriteContinuation(1, false, bytes.Repeat([]byte{0xbe}, 10<<10)))
			_ = p.WriteContinuation(1, true, bytes.Repeat([]byte{0xbe}, 10<<10))
		}, http2.ErrCodeProtocol},
		"more than the window of the connection": {func(p *peer) {
			for id := uint32(1); id <= 9; id += 2 {
				p.ask(id, false, ":method", "POST")
				for range streamWindow / maxFrame {
					if p.WriteData(id, false, make([]byte, maxFrame)) != nil {
						return
					}
				}
			}
		}, http2.ErrCodeFlowControl},
		"pings without end":      {func(p *peer) { p.flood(func() error { return p.WritePing(false, [8]byte{}) }) }, http2.ErrCodeEnhanceYourCalm},
		"settings without end":   {func(p *peer) { p.flood(func() error { return p.WriteSettings() }) }, http2.ErrCodeEnhanceYourCalm},
		"priorities without end": {func(p *peer) { p.flood(func() error { return p.WritePriority(1, http2.PriorityParam{}) }) }, http2.ErrCodeEnhanceYourCalm},
		"unknown frames without end": {func(p *peer) {
			p.flood(func() error { return p.WriteRawFrame(0x42, 0, 0, nil) })
		}, http2.ErrCodeEnhanceYourCalm},
		"empty data without end": {func(p *peer) {
			p.ask(1, false, ":method", "POST")
			p.flood(func() error { return p.WriteData(1, false, nil) })
		}, http2.ErrCodeEnhanceYourCalm},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer()
			p := dial(t, s, hang).greet()
			c.do(p)
			if code := p.goodbye(); code != c.want {
				t.Errorf("%s, want %s", code, c.want)
			}
		})
	}
}

// TestBodyWindows checks that windows are given back as a handler reads, and not before; and when it does not read at all.
func TestBodyWindows(t *testing.T) {
	t.Parallel()
	read := make(chan int)
	p := dial(t, newServer(), func(w http.ResponseWriter, r *http.Request) {
		for n := range read {
			if _, err := io.CopyN(io.Discard, r.Body, int64(n)); err != nil {
				t.Error(err)
			}
		}
		w.WriteHeader(http.StatusAccepted)
	}).greet()
	p.ask(1, false, ":method", "POST")
	for range streamWindow / maxFrame {
		p.must(p.WriteData(1, false, make([]byte, maxFrame)))
	}
	// Everything before the answer of this ping would be here.
	given := 0
	count := func(f http2.Frame) bool {
		if u, ok := f.(*http2.WindowUpdateFrame); ok && u.StreamID == 1 {
			given += int(u.Increment)
		}
		g, ok := f.(*http2.PingFrame)
		return ok && g.IsAck()
	}
	p.must(p.WritePing(false, [8]byte{}))
	p.await("a ping", count)
	if given != 0 {
		t.Fatalf("%d bytes that nobody has read are given back", given)
	}
	read <- 100 << 10
	p.await("the window", func(f http2.Frame) bool { count(f); return given >= 96<<10 })
	if given > 100<<10 {
		t.Errorf("%d bytes are given back", given)
	}
	close(read)
	if got := p.status(1); got != "202" {
		t.Error(got)
	}
	if code := p.reset(1); code != http2.ErrCodeNo {
		t.Error(code)
	}
	// What is under way for a stream that is over counts for the connection alone, and comes back.
	given = 0
	p.must(p.WriteData(1, true, make([]byte, maxFrame)))
	p.await("the window", func(f http2.Frame) bool {
		u, ok := f.(*http2.WindowUpdateFrame)
		return ok && u.StreamID == 0 && u.Increment >= maxFrame
	})
	p.alive()
}

// TestClosedBody checks that what comes for a body that its handler has closed leaves the window to other streams, and asks for
// no more.
func TestClosedBody(t *testing.T) {
	t.Parallel()
	closed, let := make(chan struct{}), make(chan struct{})
	p := dial(t, newServer(), func(_ http.ResponseWriter, r *http.Request) {
		_ = r.Body.Close()
		close(closed)
		<-let
	}).greet()
	defer close(let)
	p.ask(1, false, ":method", "POST")
	<-closed
	p.must(p.WriteData(1, false, make([]byte, maxFrame)))
	p.await("the window", func(f http2.Frame) bool {
		u, ok := f.(*http2.WindowUpdateFrame)
		if ok && u.StreamID == 1 {
			t.Error("more is asked for")
		}
		return ok && u.StreamID == 0 && u.Increment >= maxFrame
	})
	p.alive()
}

// TestRapidReset checks that streams count until their handlers return, that those which wait are bounded, and that what has
// been reset while it waited is never handled.
func TestRapidReset(t *testing.T) {
	t.Parallel()
	s := newServer()
	var under, most, all atomic.Int32
	let := make(chan struct{})
	p := dial(t, s, func(_ http.ResponseWriter, r *http.Request) {
		all.Add(1)
		now := under.Add(1)
		for had := most.Load(); now > had && !most.CompareAndSwap(had, now); had = most.Load() {
		}
		defer under.Add(-1)
		// It does not look whether anybody waits.
		<-let
		_ = r
	}).greet()
	id := uint32(1)
	for range 4 * s.MaxStreams {
		p.ask(id, true)
		p.must(p.WriteRSTStream(id, http2.ErrCodeCancel))
		id += 2
	}
	p.alive()
	if got := int(under.Load()); got > s.MaxStreams {
		t.Errorf("%d handlers run", got)
	}
	// One whose turn comes when the others have returned.
	p.ask(id, true)
	p.alive()
	eventually(t, "all handlers run that may", func() bool { return int(under.Load()) == s.MaxStreams })
	close(let)
	if got := p.status(id); got != "200" {
		t.Error(got)
	}
	if int(most.Load()) != s.MaxStreams || int(all.Load()) != s.MaxStreams+1 {
		t.Errorf("%d handlers ran at once, %d in all", most.Load(), all.Load())
	}
}

// TestRapidResetEnds checks that who goes on is sent away.
func TestRapidResetEnds(t *testing.T) {
	t.Parallel()
	s := newServer()
	let := make(chan struct{})
	p := dial(t, s, func(http.ResponseWriter, *http.Request) { <-let }).greet()
	for id := uint32(1); id < 2*uint32(6*s.MaxStreams); id += 2 {
		p.ask(id, true)
		if p.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break
		}
	}
	code := http2.ErrCodeNo
	p.await("an end", func(f http2.Frame) bool {
		g, is := f.(*http2.GoAwayFrame)
		if is {
			code = g.ErrCode
		}
		return is
	})
	close(let)
	if code != http2.ErrCodeEnhanceYourCalm {
		t.Error(code)
	}
}

// TestLongHeader checks that a header that is too long is told so.
func TestLongHeader(t *testing.T) {
	t.Parallel()
	p := dial(t, newServer(), func(http.ResponseWriter, *http.Request) { t.Error("somebody has handled it") }).greet()
	block := bytes.Clone(p.fields("a", strings.Repeat("b", 9<<10), "c", strings.Repeat("d", 9<<10)))
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:8<<10], EndStream: true}))
	p.must(p.WriteContinuation(1, true, block[8<<10:]))
	if got := p.status(1); got != "431" {
		t.Error(got)
	}
	p.alive()
}

// TestClosedWindow checks that a stream whose client opens no window holds up nobody else, and ends at its deadline.
func TestClosedWindow(t *testing.T) {
	t.Parallel()
	failed := make(chan error, 2)
	begun := make(chan struct{})
	p := dial(t, newServer(), func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/stuck" {
			ok(w, r)
			return
		}
		control := http.NewResponseController(w)
		if err := control.Flush(); err != nil {
			t.Error(err)
		}
		go func() {
			<-begun
			// In the middle of a write that waits.
			_ = control.SetWriteDeadline(time.Now().Add(time.Millisecond))
		}()
		_, err := w.Write(make([]byte, 1<<20))
		failed <- err
	}).greet(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	p.ask(1, true, ":path", "/stuck")
	if got := p.status(1); got != "200" {
		t.Error(got)
	}
	p.await("what fits", func(f http2.Frame) bool { d, ok := f.(*http2.DataFrame); return ok && len(d.Data()) == 10 })
	p.ask(3, true)
	p.await("the other answer", func(f http2.Frame) bool {
		d, ok := f.(*http2.DataFrame)
		return ok && d.StreamID == 3 && d.StreamEnded()
	})
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	close(begun)
	if code := p.reset(1); code != http2.ErrCodeInternal {
		t.Error(code)
	}
	if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	// A deadline that was set and has passed without anything to write is none.
	p.alive()
}

// TestSharedWindow checks that streams that wait for the window of the connection get it in turn, and that one that is
// given up meanwhile takes nothing with it.
func TestSharedWindow(t *testing.T) {
	t.Parallel()
	p := dial(t, newServer(), func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 40<<10))
	}).greet(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	for id := uint32(1); id <= 11; id += 2 {
		p.ask(id, true)
	}
	got := map[uint32]int{}
	total, ended := 0, 0
	count := func(f http2.Frame) {
		if d, ok := f.(*http2.DataFrame); ok {
			got[d.StreamID] += len(d.Data())
			total += len(d.Data())
			if d.StreamEnded() && d.StreamID != 1 {
				ended++
			}
		}
	}
	p.await("as much as there is room for", func(f http2.Frame) bool { count(f); return total == startWindow })
	// It may be waiting.
	p.must(p.WriteRSTStream(1, http2.ErrCodeCancel))
	p.must(p.WritePing(false, [8]byte{}))
	p.await("a ping", func(f http2.Frame) bool {
		count(f)
		g, ok := f.(*http2.PingFrame)
		return ok && g.IsAck()
	})
	// Not a byte more than what the others need: none may be lost.
	for missing := 5*40<<10 + got[1] - startWindow; missing > 0; missing -= 1000 {
		p.must(p.WriteWindowUpdate(0, uint32(min(missing, 1000)))) //nolint:gosec // small
	}
	p.await("all of it", func(f http2.Frame) bool { count(f); return ended == 5 })
	for id := uint32(3); id <= 11; id += 2 {
		if got[id] != 40<<10 {
			t.Errorf("stream %d got %d bytes", id, got[id])
		}
	}
}

// TestUnread checks that a client that reads nothing at all is cut off, and that its handlers are freed by that.
func TestUnread(t *testing.T) {
	t.Parallel()
	s := newServer()
	s.WriteTimeout = 50 * time.Millisecond
	failed := make(chan error, s.MaxStreams)
	p := dial(t, s, func(w http.ResponseWriter, r *http.Request) {
		_, err := w.Write(make([]byte, 16<<20))
		failed <- err
		if r.Context().Err() == nil {
			t.Error("its request is not over")
		}
	}).greet(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	p.must(p.WriteWindowUpdate(0, 1<<31-1-startWindow))
	for id := uint32(1); id <= 7; id += 2 {
		p.ask(id, true)
	}
	p.waitOver()
	for range 4 {
		if err := <-failed; err == nil {
			t.Error("everything was written")
		}
	}
}

// TestWindowStaysClosed checks that a handler does not wait for ever for a client that answers pings and lets nothing through.
func TestWindowStaysClosed(t *testing.T) {
	t.Parallel()
	s := newServer()
	s.WriteTimeout = 100 * time.Millisecond
	failed := make(chan error, 1)
	p := dial(t, s, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "300")
		_, err := w.Write(make([]byte, 300))
		failed <- errors.Join(err, http.NewResponseController(w).Flush())
	}).greet(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	p.ask(1, true)
	if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	p.reset(1)
	p.alive()
}

// TestReaderGoesOn checks that a client that sends, and reads nothing, is heard all the same: its requests are handled while
// nothing can be written.
func TestReaderGoesOn(t *testing.T) {
	t.Parallel()
	heard := make(chan struct{})
	p := pipe(t, newServer(), func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			_, _ = w.Write(make([]byte, 16<<20))
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		close(heard)
	}).greet(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	p.must(p.WriteWindowUpdate(0, 1<<31-1-startWindow))
	p.ask(1, true, ":path", "/large")
	p.ask(3, false, ":method", "POST")
	for range streamWindow / maxFrame {
		p.must(p.WriteData(3, false, make([]byte, maxFrame)))
	}
	p.must(p.WriteData(3, true, nil))
	<-heard
}

// TestTimeouts checks that connections end that are idle, silent or say nothing to begin with.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	// still is long enough for a greeting on a machine that has much else to do.
	short, still := 50*time.Millisecond, time.Second
	t.Run("no preface", func(t *testing.T) {
		t.Parallel()
		s := newServer()
		s.HeaderTimeout = short
		p := dial(t, s, ok)
		p.waitOver()
	})
	t.Run("no HTTP/2", func(t *testing.T) {
		t.Parallel()
		p := dial(t, newServer(), ok)
		_, _ = io.WriteString(p.conn, "GET / HTTP/1.1\r\nHost: here\r\n\r\n")
		if code := p.goodbye(); code != http2.ErrCodeProtocol {
			t.Error(code)
		}
	})
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		s := newServer()
		s.IdleTimeout = short
		p := dial(t, s, ok).greet()
		if code := p.goodbye(); code != http2.ErrCodeNo {
			t.Error(code)
		}
	})
	t.Run("idle, and does not go", func(t *testing.T) {
		t.Parallel()
		s := newServer()
		s.IdleTimeout = short
		dial(t, s, ok).greet().waitOver()
	})
	t.Run("silent", func(t *testing.T) {
		t.Parallel()
		s := newServer()
		s.PingAfter, s.PingTimeout = still, still
		p := dial(t, s, hang).greet()
		p.ask(1, true)
		p.waitOver()
	})
	t.Run("a frame that never ends", func(t *testing.T) {
		t.Parallel()
		s := newServer()
		s.PingAfter, s.PingTimeout = still, still
		p := dial(t, s, hang).greet()
		p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields()}))
		for p.WriteContinuation(1, false, nil) == nil {
			time.Sleep(time.Millisecond)
		}
		p.waitOver()
	})
}

// TestKeep checks when a connection is asked whether it is there, left or closed, by a clock of the test's own.
func TestKeep(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer far.Close()
	s := &Server{Log: slog.New(slog.DiscardHandler), IdleTimeout: time.Minute, PingAfter: 30 * time.Second, PingTimeout: 15 * time.Second, WriteTimeout: 20 * time.Second}
	c := newConn(t.Context(), s, near, nil)
	at := time.Now()
	later := func(d time.Duration) { at = at.Add(d); c.keep(at) }
	is := func(what string, pinged, leaving, over bool) {
		t.Helper()
		c.mu.Lock()
		defer c.mu.Unlock()
		if asked := !c.kept.pingedAt.IsZero(); asked != pinged || c.leaving != leaving || c.over != over {
			t.Errorf("%s: pinged %v, leaving %v, over %v", what, asked, c.leaving, c.over)
		}
	}
	// Nobody writes what is said: it stays where it is queued.
	c.flushing = true
	c.handlers = 1
	later(0)
	later(29 * time.Second)
	is("silent", false, false, false)
	later(time.Second)
	is("long silent", true, false, false)
	c.heard.Store(true)
	later(14 * time.Second)
	is("heard", false, false, false)
	later(30 * time.Second)
	is("silent again", true, false, false)
	for range 10 {
		c.heard.Store(true)
		later(20 * time.Second)
	}
	is("busy", false, false, false)
	c.writes.Add(1)
	c.heard.Store(true)
	later(time.Second)
	c.heard.Store(true)
	later(10 * time.Second)
	c.writes.Add(2)
	c.heard.Store(true)
	later(15 * time.Second)
	is("it reads", false, false, false)
	c.writes.Add(1)
	c.handlers = 0
	for range 4 {
		c.heard.Store(true)
		later(14 * time.Second)
	}
	is("idle", false, false, false)
	c.heard.Store(true)
	later(5 * time.Second)
	is("long idle", false, true, false)
	if c.control[len(c.control)-17+3] != byte(http2.FrameGoAway) {
		t.Errorf("%x", c.control)
	}
	c.heard.Store(true)
	at = time.Now()
	later(linger)
	is("left", false, true, true)

	for name, end := range map[string]func(c *conn, at time.Time){
		"no answer": func(c *conn, at time.Time) { c.keep(at.Add(30 * time.Second)); c.keep(at.Add(45 * time.Second)) },
		"unread": func(c *conn, at time.Time) {
			c.writes.Add(1)
			c.keep(at)
			c.keep(at.Add(20 * time.Second))
		},
	} {
		c := newConn(t.Context(), s, near, nil)
		c.flushing = true
		c.keep(at)
		end(c, at)
		c.mu.Lock()
		if !c.over {
			t.Errorf("%s: not over", name)
		}
		c.mu.Unlock()
	}
}

// TestAnswersUnread checks that what is said to a client that does not read it is bounded.
func TestAnswersUnread(t *testing.T) {
	t.Parallel()
	p := pipe(t, newServer(), ok).greet()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for id := uint32(1); ; id += 2 {
			err := p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.fields(":path", "-"), EndStream: true, EndHeaders: true})
			if err != nil {
				return
			}
		}
	}()
	p.waitOver()
	_ = p.conn.Close()
	<-sent
}

// TestShortAnswer checks that an answer with less than it promised is reset: not every client counts.
func TestShortAnswer(t *testing.T) {
	t.Parallel()
	p := dial(t, newServer(), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "9")
		_, _ = io.WriteString(w, "short")
	}).greet()
	p.ask(1, true)
	if code := p.reset(1); code != http2.ErrCodeInternal {
		t.Error(code)
	}
}

// TestGivenUp checks that who gives up waiting for its turn leaves the window to others.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	c := newConn(t.Context(), newServer(), near, nil)
	ctx, cancel := context.WithCancel(t.Context())
	s := &stream{id: 1, conn: c, ctx: ctx, out: 100, woken: make(chan struct{}, 1)}
	// Somebody else is writing.
	c.writing <- struct{}{}
	n, err := c.reserve(s, 200, true)
	if n != 100 || err != nil || c.out != startWindow-100 {
		t.Fatal(n, err, c.out)
	}
	cancel()
	if err := c.emit(s, output{data: make([]byte, n)}); err == nil || c.out != startWindow {
		t.Error(err, c.out)
	}
}

// TestShutdown checks that requests under way end and new ones are not taken.
func TestShutdown(t *testing.T) {
	t.Parallel()
	s := newServer()
	let := make(chan struct{})
	var handled atomic.Int32
	p := dial(t, s, func(w http.ResponseWriter, r *http.Request) {
		handled.Add(1)
		<-let
		ok(w, r)
	}).greet()
	p.ask(1, true)
	p.alive()
	idle := dial(t, s, ok).greet()
	s.Shutdown()
	if code := idle.goodbye(); code != http2.ErrCodeNo {
		t.Error(code)
	}
	f := p.await("a goodbye", func(f http2.Frame) bool { _, ok := f.(*http2.GoAwayFrame); return ok })
	if g := f.(*http2.GoAwayFrame); g.LastStreamID != 1 || g.ErrCode != http2.ErrCodeNo { //nolint:forcetypeassert // awaited
		t.Error(g)
	}
	p.ask(3, false)
	p.must(p.WriteData(3, true, []byte("x")))
	p.alive()
	close(let)
	if got := p.status(1); got != "200" {
		t.Error(got)
	}
	p.goodbye()
	if handled.Load() != 1 {
		t.Errorf("%d requests were handled", handled.Load())
	}
	late := dial(t, s, ok)
	late.waitOver()
}

// flood sends until the server has enough of it.
func (p *peer) flood(one func() error) {
	for range maxNoise + 10 {
		if one() != nil {
			return
		}
	}
}

// TestLateContinue: nothing is said behind the answer's header that a client would take for its trailers.
func TestLateContinue(t *testing.T) {
	t.Parallel()
	p := dial(t, newServer(), func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(w, r.Body)
	}).greet()
	p.ask(1, false, ":method", "POST", "expect", "100-continue")
	if got := p.status(1); got != "200" {
		t.Error(got)
	}
	p.must(p.WriteData(1, true, []byte("body")))
	p.await("the end", func(f http2.Frame) bool {
		if _, header := f.(*http2.MetaHeadersFrame); header {
			t.Error("another header")
		}
		d, ok := f.(*http2.DataFrame)
		return ok && d.StreamEnded()
	})
}

// TestEmptyWrite: there may be an empty write behind the end of what was declared.
func TestEmptyWrite(t *testing.T) {
	t.Parallel()
	p := dial(t, newServer(), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "4")
		_, _ = io.WriteString(w, "four")
		if _, err := w.Write(nil); err != nil {
			t.Error(err)
		}
	}).greet()
	p.ask(1, false, ":method", "POST")
	if code := p.reset(1); code != http2.ErrCodeNo {
		t.Error(code)
	}
}
