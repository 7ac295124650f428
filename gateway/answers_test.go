package gateway

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
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
	serveHTTP2(server.Config, slog.Default())
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
