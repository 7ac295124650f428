package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	cri "k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/streaming/pkg/httpstream"
)

// maxPorts is how many ports one WebSocket may forward: each costs a connection to the pool from the first moment. Its
// protocol numbers streams in a byte, two for each port.
const maxPorts = 32

// servePortForward serves a port-forward with the kubelet's own handlers: by SPDY, also inside a WebSocket, which is unpacked
// before it comes here, and by streams of a WebSocket, which virtual-kubelet's do not know the ports of.
func servePortForward(w http.ResponseWriter, r *http.Request, t *target) {
	options, err := cri.NewV4Options(r)
	if err == nil && len(options.Ports) > maxPorts {
		err = fmt.Errorf("a WebSocket forwards at most %d ports", maxPorts)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	cri.ServePortForward(w, r, t, t.control.Name, string(t.control.UID), options, streamTimeout, creationTimeout, cri.SupportedProtocols)
}

// PortForward joins a stream with a port of the pod. It returns when the pod's side has ended; the client's end is passed
// on and answered by the pod's.
func (t *target) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	connection, err := t.dial()
	if err != nil {
		return errors.New(t.say(err.Error()))
	}
	defer func() { _ = connection.Close() }()
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(int(port)))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	problems, err := connection.CreateStream(headers)
	if err != nil {
		return fmt.Errorf("open a stream to the pool: %w", err)
	}
	_ = problems.Close() // we only listen
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := connection.CreateStream(headers)
	if err != nil {
		return fmt.Errorf("open a stream to the pool: %w", err)
	}
	go func() {
		if _, err := io.Copy(data, stream); err != nil {
			// The pod's side has ended. What the client still sends has to be taken all the same: one stream that nobody
			// reads holds up every frame of its connection, the closing of it included.
			_, _ = io.Copy(io.Discard, stream)
			return
		}
		_ = data.Close() // half: the pod may still answer
	}()
	_, copied := io.Copy(stream, data)
	// The pool closes this one after the data, with or without words.
	said, err := io.ReadAll(io.LimitReader(problems, 4<<10))
	switch {
	case len(said) > 0:
		return errors.New(t.say(strings.TrimSpace(string(said))))
	case copied != nil:
		return fmt.Errorf("copy from the pool: %w", copied)
	default:
		_ = err // the connection is gone, and all data had come
		return nil
	}
}

// dial opens a port-forward connection to the pool pod: by WebSocket, and by SPDY where the pool is too old for that.
func (t *target) dial() (httpstream.Connection, error) {
	where := t.url("portforward", nil)
	transport, upgrader, err := spdy.RoundTripperFor(t.pool.Config)
	if err != nil {
		return nil, fmt.Errorf("reach pool: %w", err)
	}
	old := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, where)
	modern, err := portforward.NewSPDYOverWebsocketDialerForStreaming(where, t.pool.Config)
	if err != nil {
		return nil, fmt.Errorf("reach pool: %w", err)
	}
	connection, _, err := portforward.NewFallbackDialerForStreaming(modern, old, cannotUpgrade).Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, fmt.Errorf("reach pool: %w", err)
	}
	return connection, nil
}
