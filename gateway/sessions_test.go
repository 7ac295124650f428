package gateway

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"vivarium.io/vivarium/gateway/internal/limits"
)

// soon is far longer than anything here takes; only a failure waits for it.
const soon = time.Minute

// open starts a watch and reads its headers.
func (h *harness) open(line string, change func(*x509.Certificate)) (net.Conn, *bufio.Reader) {
	h.t.Helper()
	conn := h.dial(h.client(tenantA, change))
	h.t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, request(line)); err != nil {
		h.t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 200 {
		h.t.Fatalf("%v %v", res, err)
	}
	return conn, bufio.NewReader(res.Body)
}

// idle is a control cluster whose watches stay silent.
func idle(ended chan<- struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		ended <- struct{}{}
	}
}

// TestSessionsAreCut checks that what is open ends, on both sides, when its tenant may no longer act.
func TestSessionsAreCut(t *testing.T) {
	for name, change := range map[string]func(h *harness){
		"Suspended": func(h *harness) { one := wide(tenantA); one.Suspended = true; h.tenants.set(one) },
		"Deleted":   func(h *harness) { one := wide(tenantA); one.Terminating = true; h.tenants.set(one) },
		"Gone":      func(h *harness) { h.tenants.remove(tenantA) },
		"Recreated": func(h *harness) { one := wide(tenantA); one.UID = "another"; h.tenants.set(one) },
		"Revoked":   func(h *harness) { one := wide(tenantA); one.CredentialsNotBefore = time.Now(); h.tenants.set(one) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			ended := make(chan struct{}, 1)
			h.answerWith(idle(ended))
			_, r := h.open("GET /api/v1/pods?watch=true", nil)
			// A change that takes nothing away cuts nothing.
			h.front.tenantChanged(tenantA)
			h.front.tenantChanged(tenantB)
			if got := h.front.limiter.UnderWay(limits.Watch); got != 1 {
				t.Fatalf("%d watches are open", got)
			}
			change(h)
			h.front.tenantChanged(tenantA)
			if _, err := r.ReadByte(); err != io.EOF {
				t.Errorf("the client reads %v", err)
			}
			wait(t, ended)
		})
	}
}

// TestLogsBreak checks that a log is not bounded in time, followed or not, and that one that is cut does not look as if it had
// come to its end.
func TestLogsBreak(t *testing.T) {
	for _, query := range []string{"", "?follow=", "?follow=true"} {
		h := newHarness(t)
		ended := make(chan struct{}, 1)
		h.answerWith(idle(ended))
		_, r := h.open("GET "+pods+"/a/log"+query, nil)
		if got := h.front.limiter.UnderWay(limits.Stream); got != 1 {
			t.Fatalf("%q: %d streams are open", query, got)
		}
		h.tenants.remove(tenantA)
		h.front.tenantChanged(tenantA)
		if _, err := r.ReadByte(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: the client reads %v", query, err)
		}
		wait(t, ended)
	}
}

// TestExpiry checks that a watch does not outlive the certificate it was opened with.
func TestExpiry(t *testing.T) {
	h := newHarness(t)
	ended := make(chan struct{}, 1)
	h.answerWith(idle(ended))
	_, r := h.open("GET /api/v1/pods?watch=true", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(2 * time.Second) })
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("the client reads %v", err)
	}
	wait(t, ended)
}

func wait(t *testing.T, ended <-chan struct{}) {
	t.Helper()
	select {
	case <-ended:
	case <-time.After(soon):
		t.Fatal("the control cluster's side is still open")
	}
}

// echo is a control cluster whose containers say everything back.
func echo(ended chan<- struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = fmt.Fprintf(buffered, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\nSet-Cookie: a=b\r\nServer: secret\r\n\r\nhello ", r.Header.Get("Upgrade"))
		_ = buffered.Flush()
		_, _ = io.Copy(conn, buffered)
		ended <- struct{}{}
	}
}

// tunnel opens an exec and reads its greeting. The client's first bytes come with the request.
func (h *harness) tunnel(protocol string) (net.Conn, *bufio.Reader) {
	h.t.Helper()
	conn := h.dial(h.client(tenantA, nil))
	h.t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, request("POST "+pods+"/a/exec?command=sh&command=-c&stdin=true",
		"Connection: keep-alive, Upgrade", "Upgrade: "+protocol, "X-Stream-Protocol-Version: v4.channel.k8s.io", "Origin: https://example.com")+"early "); err != nil {
		h.t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("X-Stream-Protocol-Version") == "" {
		h.t.Fatalf("%v %v", res, err)
	}
	if res.Header.Get("Set-Cookie") != "" || res.Header.Get("Server") != "" {
		h.t.Errorf("headers %v", res.Header)
	}
	want := "hello early "
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		h.t.Fatalf("%q %v", got, err)
	}
	return conn, r
}

// TestTunnel checks that bytes go both ways, and that each end's leaving closes the other.
func TestTunnel(t *testing.T) {
	for _, protocol := range []string{"SPDY/3.1", "websocket"} {
		t.Run(strings.ReplaceAll(protocol, "/", ""), func(t *testing.T) {
			h := newHarness(t)
			ended := make(chan struct{}, 1)
			h.answerWith(echo(ended))
			conn, r := h.tunnel(protocol)
			for _, text := range []string{"one", strings.Repeat("two", 100000)} {
				go func() { _, _ = io.WriteString(conn, text) }()
				got := make([]byte, len(text))
				if _, err := io.ReadFull(r, got); err != nil || string(got) != text {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
			}
			got, _ := h.taken()
			if len(got) != 1 || got[0].String() != "POST /api/v1/namespaces/abc123-default/pods/a/exec?command=sh&command=-c&stdin=true" ||
				got[0].Header.Get("Origin") != "" || got[0].Header.Get("Impersonate-User") != "abc123-admin" {
				t.Errorf("sent %v", got)
			}
			if got := h.front.limiter.UnderWay(limits.Stream); got != 1 {
				t.Errorf("%d streams are open", got)
			}
			_ = conn.Close()
			wait(t, ended)
		})
	}
	t.Run("Cut", func(t *testing.T) {
		h := newHarness(t)
		ended := make(chan struct{}, 1)
		h.answerWith(echo(ended))
		_, r := h.tunnel("SPDY/3.1")
		h.tenants.remove(tenantA)
		h.front.tenantChanged(tenantA)
		if _, err := r.ReadByte(); err == nil {
			t.Error("the client's side is still open")
		}
		wait(t, ended)
	})
}

// TestTokenIsRevoked checks that a session whose token is no longer good ends, and that trouble in asking ends none.
func TestTokenIsRevoked(t *testing.T) {
	h := newHarness(t)
	id := token("system:serviceaccount:abc123-web:robot", DefaultTokenAudience)
	verdict := make(chan string, 1)
	verdict <- "true"
	ended := make(chan struct{}, 1)
	h.answerWith(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/tokenreviews") {
			idle(ended)(w, r)
			return
		}
		now := <-verdict
		verdict <- now
		if now == "away" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprintf(w, `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":{"authenticated":%s,"audiences":[%q],"user":{"username":"system:serviceaccount:abc123-web:robot"}}}`, now, DefaultTokenAudience)
	})
	say := func(text string) { <-verdict; verdict <- text }
	conn := h.dial()
	defer conn.Close()
	if _, err := io.WriteString(conn, request("GET /api/v1/namespaces/web/pods?watch=true", "Authorization: Bearer "+id)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%v %v", res, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	recheck := func() {
		// The answer of a moment ago is still good for two seconds.
		time.Sleep(2100 * time.Millisecond)
		h.front.sessions.Recheck(ctx)
	}
	say("away")
	recheck()
	if h.front.limiter.UnderWay(limits.Watch) != 1 {
		t.Fatal("the watch ended because nobody could be asked")
	}
	say("false")
	recheck()
	if _, err := res.Body.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client reads %v", err)
	}
	wait(t, ended)
}

// TestNothingIsLeft checks that requests, watches and tunnels leave no goroutine behind.
func TestNothingIsLeft(t *testing.T) {
	h := newHarness(t)
	ended := make(chan struct{}, 100)
	h.answerWith(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Upgrade") != "":
			echo(ended)(w, r)
		case r.URL.Query().Get("watch") == "true":
			idle(ended)(w, r)
		default:
			answerJSON(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","namespace":"abc123-default"}}`)(w, r)
		}
	})
	round := func() {
		for range 5 {
			h.do("GET", pods+"/a", "", nil)
			watch, _ := h.open("GET /api/v1/pods?watch=true", nil)
			_ = watch.Close()
			conn, _ := h.tunnel("SPDY/3.1")
			_ = conn.Close()
			wait(t, ended)
			wait(t, ended)
		}
	}
	// few waits until there are no more goroutines than a limit.
	few := func(limit int) int {
		n := 0
		for deadline := time.Now().Add(soon); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			h.front.control.Close()
			h.server.CloseClientConnections()
			h.control.CloseClientConnections()
			if n = runtime.NumGoroutine(); n <= limit {
				break
			}
		}
		return n
	}
	start := runtime.NumGoroutine()
	round()
	// The servers keep a few for good once they have been used.
	before := few(start + 5)
	for range 3 {
		round()
	}
	if after := few(before); after > before {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines before, %d after\n%s", before, after, buf[:runtime.Stack(buf, true)])
	}
}

// TestShutdown checks that an ending gateway cuts what stays open and lets finish what does not.
func TestShutdown(t *testing.T) {
	h := newHarness(t)
	ended := make(chan struct{}, 1)
	h.answerWith(idle(ended))
	_, r := h.open("GET /api/v1/pods?watch=true", nil)
	h.front.sessions.Shutdown()
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("the client reads %v", err)
	}
	wait(t, ended)
}

// TestLogSocket reads a log over a WebSocket, which browsers do, in both of its forms.
func TestLogSocket(t *testing.T) {
	h := newHarness(t)
	ended := make(chan struct{}, 1)
	h.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, "container is alive\n")
		_ = http.NewResponseController(w).Flush()
		if r.URL.Query().Get("follow") != "" {
			<-r.Context().Done()
			ended <- struct{}{}
		}
	})
	dial := func(query, origin string, protocols ...string) (*websocket.Conn, error) {
		u := h.server.URL + pods + "/a/log" + query
		config, err := websocket.NewConfig(strings.Replace(u, "https", "wss", 1), origin)
		if err != nil {
			t.Fatal(err)
		}
		config.Protocol, config.TlsConfig = protocols, h.tlsConfig([]string{"http/1.1"}, h.client(tenantA, nil))
		return config.DialContext(t.Context())
	}
	for name, c := range map[string]struct{ protocol, want string }{
		"Plain": {"binary.k8s.io", "container is alive\n"}, "None": {"", "container is alive\n"},
		"Base64": {"base64.binary.k8s.io", "Y29udGFpbmVyIGlzIGFsaXZlCg=="},
	} {
		t.Run(name, func(t *testing.T) {
			var protocols []string
			if c.protocol != "" {
				protocols = []string{c.protocol}
			}
			ws, err := dial("", "http://localhost", protocols...)
			if err != nil {
				t.Fatal(err)
			}
			defer ws.Close()
			var first, second string
			if err := errors.Join(websocket.Message.Receive(ws, &first), websocket.Message.Receive(ws, &second)); err != nil || first != "" || second != c.want {
				t.Errorf("%q, %q, %v", first, second, err)
			}
			if err := websocket.Message.Receive(ws, &second); !errors.Is(err, io.EOF) {
				t.Errorf("after the end: %q, %v", second, err)
			}
		})
	}
	if ws, err := dial("", "http://localhost", "v4.channel.k8s.io"); err == nil {
		_ = ws.Close()
		t.Error("a protocol that is none of a log's was taken")
	}
	if ws, err := dial("", "https://pages.example"); err == nil {
		_ = ws.Close()
		t.Error("a page of somebody else opened a log")
	}
	if t.Failed() {
		return
	}
	ws, err := dial("?follow=true", "http://localhost")
	if err != nil {
		t.Fatal(err)
	}
	_ = ws.Close()
	select {
	case <-ended:
	case <-time.After(soon):
		t.Error("the control cluster goes on although the client has left")
	}
}
