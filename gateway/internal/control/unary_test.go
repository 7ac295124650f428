package control

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// scripted is a server that does what a test says with each connection.
type scripted struct {
	listener net.Listener
	opened   atomic.Int32
}

func newScripted(t *testing.T, serve func(n int, conn net.Conn, r *bufio.Reader)) (*scripted, *unary) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{listener: listener}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			n := int(s.opened.Add(1))
			go func() {
				defer conn.Close()
				serve(n, conn, bufio.NewReader(conn))
			}()
		}
	}()
	u := newUnary(&http.Transport{DialContext: (&net.Dialer{}).DialContext}, listener.Addr().String(), refuser{})
	t.Cleanup(u.CloseIdleConnections)
	return s, u
}

// refuser is where requests go that do not fit.
type refuser struct{}

var errElsewhere = errors.New("elsewhere")

func (refuser) RoundTrip(*http.Request) (*http.Response, error) { return nil, errElsewhere }

func send(t *testing.T, u *unary, ctx context.Context, method, body string) (string, error) { //nolint:revive // t first
	t.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://control.test/", content)
	if err != nil {
		t.Fatal(err)
	}
	res, err := u.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	return string(raw), err
}

// echo answers requests, one after the other, with their method and body.
func echo(conn net.Conn, r *bufio.Reader, times int) {
	for range times {
		request, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, _ := io.ReadAll(request.Body)
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s %s", len(request.Method)+1+len(body), request.Method, body)
	}
}

func TestUnaryKeeps(t *testing.T) {
	s, u := newScripted(t, func(_ int, conn net.Conn, r *bufio.Reader) { echo(conn, r, 100) })
	for range 10 {
		if got, err := send(t, u, t.Context(), http.MethodPost, "x"); err != nil || got != "POST x" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if n := s.opened.Load(); n != 1 {
		t.Errorf("%d connections for requests one after the other", n)
	}
	u.CloseIdleConnections()
	if _, err := send(t, u, t.Context(), http.MethodGet, ""); err != nil {
		t.Error(err)
	}
	if n := s.opened.Load(); n != 2 {
		t.Errorf("%d connections after idle ones were closed", n)
	}
}

// TestUnaryStale: the server closes connections that are kept. One that is seen to be closed is not used, whatever the
// request; one that closes at the moment of its use costs a request that changes nothing another try, and any other fails.
func TestUnaryStale(t *testing.T) {
	t.Run("Seen", func(t *testing.T) {
		s, u := newScripted(t, func(_ int, conn net.Conn, r *bufio.Reader) { echo(conn, r, 1) })
		for i := range 5 {
			if got, err := send(t, u, t.Context(), http.MethodPost, "x"); err != nil || got != "POST x" {
				t.Fatalf("%d: %q, %v", i, got, err)
			}
			// Until the end has come.
			waitUntil(t, func() bool { return len(u.idle) == 1 && !quiet(u.idle[0].Conn) })
		}
		if n := s.opened.Load(); n != 5 {
			t.Errorf("%d connections", n)
		}
	})
	for method, repeated := range map[string]bool{http.MethodGet: true, http.MethodPost: false, http.MethodPatch: false, http.MethodDelete: false} {
		t.Run(method, func(t *testing.T) {
			var seen atomic.Int32
			_, u := newScripted(t, func(n int, conn net.Conn, r *bufio.Reader) {
				echo(conn, r, 1)
				if n > 1 {
					return
				}
				// It takes another request and goes without a word.
				if _, err := http.ReadRequest(r); err == nil {
					seen.Add(1)
				}
			})
			if _, err := send(t, u, t.Context(), http.MethodGet, ""); err != nil {
				t.Fatal(err)
			}
			_, err := send(t, u, t.Context(), method, "")
			if (err == nil) != repeated || seen.Load() != 1 {
				t.Errorf("%v, seen %d times", err, seen.Load())
			}
		})
	}
}

func waitUntil(t *testing.T, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in ten seconds")
		}
	}
}

func TestUnaryAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		answer string
		want   string
		fails  bool
		// kept says whether the connection can be used again.
		kept bool
	}{
		"Length":     {answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", want: "ok", kept: true},
		"Chunks":     {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", want: "ok", kept: true},
		"Empty":      {answer: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", kept: true},
		"NoContent":  {answer: "HTTP/1.1 204 No Content\r\n\r\n", kept: true},
		"Continue":   {answer: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", want: "ok", kept: true},
		"Close":      {answer: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", want: "ok"},
		"Old":        {answer: "HTTP/1.0 200 OK\r\n\r\nok", want: "ok"},
		"More":       {answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n", want: "ok"},
		"Short":      {answer: "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok", fails: true},
		"ShortChunk": {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", fails: true},
		"NoHTTP":     {answer: "SSH-2.0-x\r\n\r\n", fails: true},
		"Switch":     {answer: "HTTP/1.1 101 Switching Protocols\r\n\r\n", fails: true},
		"LongHead":   {answer: "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxAnswerHeader+bufferSize), fails: true},
		"Nothing":    {fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			_, u := newScripted(t, func(_ int, conn net.Conn, r *bufio.Reader) {
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				_, _ = io.WriteString(conn, tc.answer)
				if tc.kept {
					_, _ = r.ReadByte()
				}
			})
			got, err := send(t, u, t.Context(), http.MethodPost, "x")
			if (err != nil) != tc.fails || !tc.fails && got != tc.want {
				t.Errorf("%q, %v", got, err)
			}
			if kept := len(u.idle) == 1; kept != tc.kept {
				t.Errorf("kept: %t, want %t", kept, tc.kept)
			}
		})
	}
}

// TestUnaryGivenUp: a request that is given up returns at once, before and while the answer comes, and its connection is
// not used again.
func TestUnaryGivenUp(t *testing.T) {
	for name, begun := range map[string]string{"Before": "", "While": "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nbegin"} {
		t.Run(name, func(t *testing.T) {
			got := make(chan struct{})
			_, u := newScripted(t, func(_ int, conn net.Conn, r *bufio.Reader) {
				_, _ = http.ReadRequest(r)
				_, _ = io.WriteString(conn, begun)
				close(got)
				_, _ = r.ReadByte()
			})
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-got
				cancel()
			}()
			if _, err := send(t, u, ctx, http.MethodGet, ""); !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			if len(u.idle) != 0 {
				t.Error("the connection was kept")
			}
		})
	}
}

// TestUnaryClosedEarly: whoever stops at the end of an object, and does not read the mark behind it, keeps the connection.
func TestUnaryClosedEarly(t *testing.T) {
	for name, tc := range map[string]struct {
		answer string
		kept   bool
	}{
		"Little": {"HTTP/1.1 200 OK\r\nContent-Length: 1002\r\n\r\nok" + strings.Repeat("x", 1000), true},
		"Late":   {"HTTP/1.1 200 OK\r\nContent-Length: 1002\r\n\r\nok", false},
		"Mark":   {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true},
		"Rest":   {"HTTP/1.1 200 OK\r\nContent-Length: 100002\r\n\r\nok" + strings.Repeat("x", 100000), false},
	} {
		t.Run(name, func(t *testing.T) {
			_, u := newScripted(t, func(_ int, conn net.Conn, r *bufio.Reader) {
				_, _ = http.ReadRequest(r)
				_, _ = io.WriteString(conn, tc.answer)
				_, _ = r.ReadByte()
			})
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://control.test/", nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := u.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			var two [2]byte
			if _, err := io.ReadFull(res.Body, two[:]); err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			_ = res.Body.Close()
			if kept := len(u.idle) == 1; kept != tc.kept {
				t.Errorf("kept: %t, want %t", kept, tc.kept)
			}
		})
	}
}

func TestUnaryElsewhere(t *testing.T) {
	_, u := newScripted(t, func(_ int, conn net.Conn, r *bufio.Reader) { echo(conn, r, 1) })
	if _, err := send(t, u, t.Context(), http.MethodPost, strings.Repeat("x", maxAtOnce+1)); !errors.Is(err, errElsewhere) {
		t.Errorf("a long body: %v", err)
	}
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://control.test/", io.MultiReader(strings.NewReader("x")))
	if _, err := u.RoundTrip(r); !errors.Is(err, errElsewhere) { //nolint:bodyclose // an error has none
		t.Errorf("a body of unknown length: %v", err)
	}
}

// TestUnaryTLS: certificates are checked, sessions resumed, and idle connections seen to end.
func TestUnaryTLS(t *testing.T) {
	var resumed atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS.DidResume {
			resumed.Add(1)
		}
		if r.ProtoMajor != 1 {
			t.Errorf("HTTP/%d", r.ProtoMajor)
		}
		_, _ = io.WriteString(w, r.Method)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	make := func(roots *x509.CertPool) *unary {
		t := &http.Transport{DialContext: (&net.Dialer{}).DialContext, TLSClientConfig: &tls.Config{RootCAs: roots}}
		return newUnary(t, server.Listener.Addr().String(), refuser{})
	}
	u := make(roots)
	defer u.CloseIdleConnections()
	for range 2 {
		if got, err := send(t, u, t.Context(), http.MethodPost, "x"); err != nil || got != "POST" {
			t.Fatalf("%q, %v", got, err)
		}
		server.CloseClientConnections()
		waitUntil(t, func() bool { return len(u.idle) == 1 && !quiet(u.idle[0].Conn) })
	}
	if n := resumed.Load(); n != 1 {
		t.Errorf("%d sessions resumed", n)
	}
	if _, err := send(t, make(x509.NewCertPool()), t.Context(), http.MethodGet, ""); err == nil {
		t.Error("a certificate of a stranger was taken")
	}
}
