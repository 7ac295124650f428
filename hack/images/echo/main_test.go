package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestHandler(t *testing.T) {
	cases := map[string]struct {
		method, target, want string
	}{
		"Get":     {http.MethodGet, "/a/b?c=d", "hostname: pod\nmethod: GET\npath: /a/b?c=d\nremote: 192.0.2.1:1234\nhost: example.com\nX-One: 1, 2\n"},
		"Post":    {http.MethodPost, "/", "hostname: pod\nmethod: POST\npath: /\nremote: 192.0.2.1:1234\nhost: example.com\nX-One: 1, 2\n"},
		"Head":    {http.MethodHead, "/", ""},
		"Healthz": {http.MethodGet, "/healthz", "ok\n"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			request := httptest.NewRequest(tc.method, tc.target, nil)
			request.Header["X-One"] = []string{"1", "2"}
			answer := httptest.NewRecorder()
			handler("pod").ServeHTTP(answer, request)
			if diff := cmp.Diff(tc.want, answer.Body.String()); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTalk has both sides speak to each other, and to nobody.
func TestTalk(t *testing.T) {
	server := httptest.NewUnstartedServer(handler("pod"))
	conns := make(chan net.Conn, 2)
	server.Config.ConnState = func(conn net.Conn, state http.ConnState) {
		if state == http.StateHijacked {
			conns <- conn
		}
	}
	server.Start()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	go datagrams(packets, "pod")
	nobody, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	targets := []string{"tcp/" + server.Listener.Addr().String(), "udp/" + packets.LocalAddr().String()}
	silent := "udp/" + nobody.LocalAddr().String()

	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := askAll(ctx, &out, 0, append(targets, silent)); err != nil {
		t.Fatal(err)
	}
	if want := targets[0] + " pod\n" + targets[1] + " pod\n" + silent + " -\n"; out.String() != want {
		t.Errorf("asked and got\n%s, want\n%s", out.String(), want)
	}

	<-conns
	kept := make(chan error, 1)
	said := &firstLine{done: make(chan string, 100)}
	go func() { kept <- keepAll(t.Context(), said, 10*time.Millisecond, 0, targets) }()
	if line := <-said.done; !strings.HasPrefix(line, "2 connections, at least ") {
		t.Errorf("keeps %q", line)
	}
	// A connection that its server lets go of is a broken one.
	(<-conns).Close()
	if err := <-kept; err == nil || !strings.Contains(err.Error(), targets[0]) {
		t.Errorf("a broken connection: %v", err)
	}
}

// TestLookup asks a server that knows one name; what it does not know is another thing than a server that does not answer.
func TestLookup(t *testing.T) {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		question := make([]byte, 512)
		for {
			n, from, err := server.ReadFrom(question)
			if err != nil {
				return
			}
			// The question, sent back as an answer: of the name with no record, or that it does not exist.
			answer := append([]byte(nil), question[:n]...)
			answer[2], answer[3] = 0x84, 0x80
			if bytes.Contains(answer, []byte("unknown")) {
				answer[3] = 0x83
			}
			if !bytes.Contains(answer, []byte("silent")) {
				_, _ = server.WriteTo(answer, from)
			}
		}
	}()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var out bytes.Buffer
	if err := lookupAll(ctx, &out, resolver, []string{"host/unknown.vivarium.test.", "host/empty.vivarium.test.", "srv/unknown.vivarium.test.", "host/silent.vivarium.test.", "host/127.0.0.1", "what"}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	for i, want := range []string{"host/unknown.vivarium.test. -", "host/empty.vivarium.test. -", "srv/unknown.vivarium.test. -", "host/silent.vivarium.test. error: ", "host/127.0.0.1 127.0.0.1", "what error: "} {
		if !strings.HasPrefix(lines[i], want) {
			t.Errorf("%q, want %q", lines[i], want)
		}
	}
}

// firstLine passes on what is written to it.
type firstLine struct{ done chan string }

func (f *firstLine) Write(p []byte) (int, error) {
	select {
	case f.done <- string(p):
	default:
	}
	return len(p), nil
}
