package stream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// The stream types and headers of the port-forward protocol, which a kubelet speaks over SPDY.
const (
	forwardProtocol = "portforward.k8s.io"
	headerType      = "streamType"
	headerPort      = "port"
	headerRequest   = "requestID"
)

// ForwardHeaders adds to h what asks for a tunnel to ports of a pod.
func ForwardHeaders(h http.Header) {
	h["Connection"], h["Upgrade"], h["X-Stream-Protocol-Version"] = []string{"Upgrade"}, []string{"SPDY/3.1"}, []string{forwardProtocol}
}

// Forward makes a connection to a port of a pod out of the answer that switched protocols to a tunnel. Closing the
// connection closes the tunnel, and so does an error.
func Forward(res *http.Response, port int) (net.Conn, error) {
	body, ok := res.Body.(io.ReadWriteCloser)
	if !ok || res.StatusCode != http.StatusSwitchingProtocols {
		_ = res.Body.Close()
		return nil, fmt.Errorf("forward port %d: the control cluster did not switch protocols", port)
	}
	tunnel, err := spdy.NewClientConnection(rawConn{body})
	if err != nil {
		_ = body.Close()
		return nil, fmt.Errorf("forward port %d: %w", port, err)
	}
	headers := func(kind string) http.Header {
		h := http.Header{}
		h.Set(headerType, kind)
		h.Set(headerPort, strconv.Itoa(port))
		h.Set(headerRequest, "0")
		return h
	}
	trouble, err := tunnel.CreateStream(headers("error"))
	if err != nil {
		_ = tunnel.Close()
		return nil, fmt.Errorf("forward port %d: %w", port, err)
	}
	// Nothing is ever written there; what is read ends the connection.
	_ = trouble.Close()
	data, err := tunnel.CreateStream(headers("data"))
	if err != nil {
		_ = tunnel.Close()
		return nil, fmt.Errorf("forward port %d: %w", port, err)
	}
	go func() {
		// What is said is in the words of whoever runs the pod; that something is said is enough. A clean end says nothing.
		if n, _ := trouble.Read(make([]byte, 1)); n > 0 {
			_ = tunnel.Close()
		}
	}()
	return &forwarded{Stream: data, tunnel: tunnel}, nil
}

// forwarded is a connection to a port.
type forwarded struct {
	httpstream.Stream
	tunnel httpstream.Connection
}

// Close ends the tunnel.
func (f *forwarded) Close() error { return errors.Join(f.Stream.Reset(), f.tunnel.Close()) }

func (f *forwarded) LocalAddr() net.Addr              { return nowhere{} }
func (f *forwarded) RemoteAddr() net.Addr             { return nowhere{} }
func (f *forwarded) SetDeadline(time.Time) error      { return nil }
func (f *forwarded) SetReadDeadline(time.Time) error  { return nil }
func (f *forwarded) SetWriteDeadline(time.Time) error { return nil }

// rawConn is a connection that has no address and no deadlines; whoever uses it closes it when time is up.
type rawConn struct{ io.ReadWriteCloser }

func (rawConn) LocalAddr() net.Addr              { return nowhere{} }
func (rawConn) RemoteAddr() net.Addr             { return nowhere{} }
func (rawConn) SetDeadline(time.Time) error      { return nil }
func (rawConn) SetReadDeadline(time.Time) error  { return nil }
func (rawConn) SetWriteDeadline(time.Time) error { return nil }

type nowhere struct{}

func (nowhere) Network() string { return "tunnel" }
func (nowhere) String() string  { return "tunnel" }
