package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// countedListener counts what is written on its connections.
type countedListener struct {
	net.Listener
	writes atomic.Int64
}

func (l *countedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return countedConn{conn, &l.writes}, err
}

type countedConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// An answer that is small goes out in one write, whatever way it is asked for; bodies and what streams are whole.
func TestAnswersTogether(t *testing.T) {
	t.Parallel()
	small, large := bytes.Repeat([]byte("s"), 2000), bytes.Repeat([]byte("l"), 100<<10)
	next := make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/watch" {
			out := newLive(w)
			_ = out.Flush()
			<-next
			_, _ = out.Write(small)
			return
		}
		out := newReply(w, r)
		switch r.URL.Path {
		case "/small":
			_, _ = out.Write(small)
		case "/large":
			_, _ = out.Write(large)
		case "/none":
			out.WriteHeader(http.StatusNoContent)
		}
		_ = out.Close()
	}))
	counted := &countedListener{Listener: server.Listener}
	server.Listener = counted
	server.EnableHTTP2 = true
	server.Config.TLSConfig = &tls.Config{}
	if err := serveHTTP2(server.Config); err != nil {
		t.Fatal(err)
	}
	server.TLS = server.Config.TLSConfig
	server.StartTLS()
	defer server.Close()
	client := server.Client()
	get := func(path string, want []byte) {
		t.Helper()
		res, err := client.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.ProtoMajor != 2 || !bytes.Equal(body, want) {
			t.Fatalf("%s: %s, %d bytes, %v", path, res.Proto, len(body), err)
		}
	}
	get("/small", small)
	before := counted.writes.Load()
	const requests = 20
	for range requests {
		get("/small", small)
	}
	// Some room for frames that are not answers.
	if written := counted.writes.Load() - before; written > requests+5 {
		t.Errorf("%d small answers took %d writes", requests, written)
	}
	get("/large", large)
	get("/none", nil)
	get("/empty", nil)
	// The head of a watch does not wait for an event.
	res, err := client.Get(server.URL + "/watch")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	close(next)
	if body, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(body, small) {
		t.Errorf("the watch told %d bytes, %v", len(body), err)
	}
}

func h2Frame(kind http2.FrameType, flags http2.Flags, payload string) []byte {
	return append([]byte{0, 0, byte(len(payload)), byte(kind), byte(flags), 0, 0, 0, 1}, payload...)
}

// What has been held back goes out before anything else, and by itself if nothing else comes.
func TestHeadsGoOut(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	pair := tls.Certificate{Certificate: [][]byte{ca.cert.Raw}, PrivateKey: ca.key}
	c := &together{Conn: tls.Server(near, &tls.Config{Certificates: []tls.Certificate{pair}})}
	ctx := context.WithValue(t.Context(), togetherKey{}, c)
	client := tls.Client(far, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // both ends are here
	got := make(chan byte, 1<<10)
	go func() {
		defer close(got)
		one := make([]byte, 1)
		for {
			if _, err := client.Read(one); err != nil {
				return
			}
			got <- one[0]
		}
	}()
	expect := func(want ...[]byte) {
		t.Helper()
		for _, b := range bytes.Join(want, nil) {
			select {
			case is, ok := <-got:
				if !ok || is != b {
					t.Fatalf("read %q, want %q", is, b)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("nothing comes")
			}
		}
	}
	write := func(p []byte) {
		t.Helper()
		if n, err := c.Write(p); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
	}
	head, last, data := h2Frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, "head"),
		h2Frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, "last"), h2Frame(http2.FrameData, 0, "data")
	// Nothing was announced.
	write(head)
	expect(head)
	expectBody(ctx)
	// Nothing of these waits, nor does what was announced get lost by them.
	write(data)
	expect(data)
	write(last)
	expect(last)
	write(head)
	write(data)
	expect(head, data)
	for range 3 {
		expectBody(ctx)
		write(head)
		expect(head)
	}
	expectBody(ctx)
	write(head)
	large := bytes.Repeat([]byte("x"), oneRecord)
	go func() { _, _ = c.Write(large) }()
	expect(head, large)
	expectBody(ctx)
	write(head)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	expect(head)
	if _, err := c.Write(data); err == nil {
		t.Error("a closed connection takes more")
	}
}
