package stream

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/websocket"
)

// The protocols in which an API server gives a text over a WebSocket: as it is, also where none is named, or in base64.
const (
	socketPlain  = "binary.k8s.io"
	socketBase64 = "base64.binary.k8s.io"
)

// IsSocket reports whether a request wants a WebSocket.
func IsSocket(r *http.Request) bool {
	return IsUpgrade(r) && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

var errNoProtocol = errors.New("no protocol in common")

// SocketText sends a text over a WebSocket as it comes, after an empty message, as API servers do, until either ends. It
// closes src, with which the text's source must end. Nothing that the client sends is listened to.
func SocketText(w http.ResponseWriter, r *http.Request, src io.ReadCloser, patience time.Duration) {
	defer src.Close()
	websocket.Server{
		Handshake: func(config *websocket.Config, _ *http.Request) error {
			for _, offered := range config.Protocol {
				if offered == socketPlain || offered == socketBase64 {
					config.Protocol = []string{offered}
					return nil
				}
			}
			if len(config.Protocol) > 0 {
				return errNoProtocol
			}
			return nil
		},
		Handler: func(ws *websocket.Conn) {
			go func() {
				_, _ = io.Copy(io.Discard, ws)
				_ = ws.Close()
				_ = src.Close()
			}()
			_ = sendText(ws, src, slices.Contains(ws.Config().Protocol, socketBase64), patience)
		},
	}.ServeHTTP(hijackable{w}, r)
}

func sendText(ws *websocket.Conn, src io.Reader, encoded bool, patience time.Duration) error {
	send := func(b []byte) error {
		if err := ws.SetWriteDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if encoded {
			return websocket.Message.Send(ws, base64.StdEncoding.EncodeToString(b))
		}
		return websocket.Message.Send(ws, b)
	}
	if err := send([]byte{}); err != nil {
		return err
	}
	buf := make([]byte, chunk)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if err := send(buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

// hijackable is a writer that says itself that its connection can be taken over.
type hijackable struct{ http.ResponseWriter }

// Hijack takes the connection over.
func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, nil, fmt.Errorf("switch protocols: %w", err)
	}
	return conn, buffered, nil
}
