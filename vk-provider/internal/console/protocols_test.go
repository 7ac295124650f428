package console

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	"k8s.io/client-go/rest"
)

// The subprotocols of WebSockets that clients ask kubelets for. An API server unpacks v5.channel.k8s.io and port-forward's
// SPDY inside a WebSocket itself; everything else comes here as it is.
const (
	channels  = "channel.k8s.io"
	base64ed  = "base64.channel.k8s.io"
	channels4 = "v4.channel.k8s.io"
	base64ed4 = "v4.base64.channel.k8s.io"
)

// socket is a client of numbered streams.
type socket struct {
	t *testing.T
	*websocket.Conn
	text bool
	// got is what has come so far, by stream.
	got map[byte]*bytes.Buffer
}

// open asks for a protocol, none if it is empty.
func (w *world) open(t *testing.T, path, protocol string) (*socket, error) {
	t.Helper()
	config, err := websocket.NewConfig("wss"+strings.TrimPrefix(w.url, "https")+path, w.url)
	if err != nil {
		t.Fatal(err)
	}
	if protocol != "" {
		config.Protocol = []string{protocol}
	}
	if config.TlsConfig, err = rest.TLSConfigFor(w.config); err != nil {
		t.Fatal(err)
	}
	conn, err := config.DialContext(t.Context())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &socket{t: t, Conn: conn, text: strings.Contains(protocol, "base64"), got: map[byte]*bytes.Buffer{}}, nil
}

// send writes to a stream.
func (s *socket) send(stream byte, data string) {
	s.t.Helper()
	var err error
	if s.text {
		err = websocket.Message.Send(s.Conn, string('0'+stream)+base64.StdEncoding.EncodeToString([]byte(data)))
	} else {
		err = websocket.Message.Send(s.Conn, append([]byte{stream}, data...))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// read reads until a stream has said something; the end of the socket is an error.
func (s *socket) read(stream byte, want string) {
	s.t.Helper()
	for {
		if b := s.got[stream]; b != nil && strings.Contains(b.String(), want) {
			return
		}
		var raw []byte
		if err := websocket.Message.Receive(s.Conn, &raw); err != nil {
			s.t.Fatalf("stream %d never said %q but %v: %v", stream, want, s.got, err)
		}
		if len(raw) == 0 {
			continue
		}
		from, data := raw[0], raw[1:]
		if s.text {
			from -= '0'
			var err error
			if data, err = base64.StdEncoding.DecodeString(string(data)); err != nil {
				s.t.Fatal(err)
			}
		}
		if s.got[from] == nil {
			s.got[from] = &bytes.Buffer{}
		}
		s.got[from].Write(data)
	}
}

// TestSocketProtocols runs a command, attaches and forwards ports in each protocol that kubelets take.
func TestSocketProtocols(t *testing.T) {
	w := newWorld(t)
	for _, protocol := range []string{"", channels, base64ed, channels4, base64ed4} {
		t.Run("Exec/"+protocol, func(t *testing.T) {
			s, err := w.open(t, "/exec/abc123-default/web/c?command=both&output=1&error=1", protocol)
			if err != nil {
				t.Fatal(err)
			}
			s.read(1, "out")
			s.read(2, "err")
			if strings.HasPrefix(protocol, "v4") {
				s.read(3, `"status":"Success"`)
			}
		})
		t.Run("ExitCode/"+protocol, func(t *testing.T) {
			s, err := w.open(t, "/exec/abc123-default/web/c?command=fail&output=1", protocol)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(protocol, "v4") {
				s.read(3, `"message":"7"`)
			} else {
				s.read(3, "exit")
			}
		})
		t.Run("Attach/"+protocol, func(t *testing.T) {
			s, err := w.open(t, "/attach/abc123-default/web/c?input=1&output=1", protocol)
			if err != nil {
				t.Fatal(err)
			}
			s.send(0, "hello")
			s.read(1, "hello")
		})
	}
	for _, protocol := range []string{"", channels4, base64ed4} {
		t.Run("PortForward/"+protocol, func(t *testing.T) {
			s, err := w.open(t, "/portForward/abc123-default/web?port=8080&port=7,8080", protocol)
			if err != nil {
				t.Fatal(err)
			}
			for i, port := range []uint16{8080, 7, 8080} {
				number := string(binary.LittleEndian.AppendUint16(nil, port))
				s.read(byte(2*i), number)
				s.read(byte(2*i+1), number)
			}
			s.send(0, "first")
			s.send(4, "second")
			s.read(0, "first")
			s.read(4, "second")
			// What the pool says of its end is in the tenant's words.
			s.read(3, "nothing listens on 7 in default")
		})
	}
	// Nobody listens to what would be left open.
	t.Run("Ends", func(t *testing.T) {
		s, err := w.open(t, "/portForward/abc123-default/web?port=9", channels4)
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			var raw []byte
			err = websocket.Message.Receive(s.Conn, &raw)
		}
		if strings.Contains(err.Error(), "timeout") {
			t.Error(err)
		}
	})
	for name, tc := range map[string]struct{ path, protocol, says string }{
		"NoPort":       {"/portForward/abc123-default/web", channels4, "query parameter"},
		"PortZero":     {"/portForward/abc123-default/web?port=0", channels4, "must be > 0"},
		"NotAPort":     {"/portForward/abc123-default/web?port=http", channels4, "as a port"},
		"ManyPorts":    {"/portForward/abc123-default/web?port=1" + strings.Repeat(",1", maxPorts), channels4, "at most"},
		"OldProtocol":  {"/portForward/abc123-default/web?port=8080", channels, ""},
		"ExecInAPipe":  {"/exec/abc123-default/web/c?command=both&output=1", "SPDY/3.1+portforward.k8s.io", ""},
		"ForwardOther": {"/portForward/abc123-default/web?port=8080", "v5.channel.k8s.io", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := w.open(t, tc.path, tc.protocol); err == nil {
				t.Fatal("it is taken")
			}
			if tc.says == "" {
				return
			}
			code, body := w.upgrade(t, tc.path, tc.protocol)
			if code != http.StatusBadRequest || !strings.Contains(body, tc.says) {
				t.Errorf("answer is %d %q", code, body)
			}
		})
	}
}

// upgrade asks for a WebSocket and gives the answer.
func (w *world) upgrade(t *testing.T, path, protocol string) (int, string) {
	t.Helper()
	client, err := rest.HTTPClientFor(w.config)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header = http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
		"Sec-Websocket-Protocol": {protocol}, "Origin": {w.url},
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var body bytes.Buffer
	_, _ = fmt.Fprint(&body, response.Status, " ")
	_, _ = body.ReadFrom(response.Body)
	return response.StatusCode, body.String()
}
