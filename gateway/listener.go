package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"vivarium.io/vivarium/gateway/internal/h2"
	"vivarium.io/vivarium/internal/boot"
)

const (
	maxHeader = 64 << 10
	// maxStreams bounds the requests that share a connection. client-go opens another one for more.
	maxStreams    = 250
	headerTimeout = 10 * time.Second
	idleTimeout   = 3 * time.Minute
	drainTimeout  = 10 * time.Second
	// pingAfter is how long a connection may be silent until it is asked whether it is there, pingTimeout what it has to answer.
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
	// certificateAge is how often the serving certificate's files are looked at.
	certificateAge = 10 * time.Second
)

// listener is the tenant listener.
type listener struct {
	net.Listener
	tls *tls.Config
}

func newListener(ctx context.Context, o *Options, clientCAs *x509.CertPool) (*listener, error) {
	certificate := &servingCertificate{certFile: o.TLSCertFile, keyFile: o.TLSPrivateKeyFile}
	if _, err := certificate.get(nil); err != nil {
		return nil, fmt.Errorf("--tls-cert-file, --tls-private-key-file: %w", err)
	}
	socket, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.TenantListen)
	if err != nil {
		return nil, fmt.Errorf("--tenant-listen: %w", err)
	}
	return &listener{Listener: socket, tls: &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: certificate.get,
		// Who signed a client's certificate is checked with the request, where the answer can say why not.
		ClientAuth: tls.RequestClientCert, ClientCAs: clientCAs,
		// Small records at the beginning of a connection are for pages that are shown before they are whole.
		DynamicRecordSizingDisabled: true,
	}}, nil
}

func (l *listener) close() { _ = l.Listener.Close() }

// serve answers tenants until ctx is done: then what stays open is cut, and what is under way gets time to end.
func (l *listener) serve(ctx context.Context, f *front) error {
	server := &http.Server{
		Handler: f.handler(), TLSConfig: l.tls, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		// Requests end with their connection or with the server, not with ctx.
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		// Strangers fill it with failed handshakes.
		ErrorLog: slog.NewLogLogger(boot.Logger(ctx).Handler(), slog.LevelDebug),
	}
	serveHTTP2(server, boot.Logger(ctx))
	failed := make(chan error, 1)
	go func() { failed <- server.ServeTLS(l.Listener, "", "") }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve tenants: %w", err)
	case <-ctx.Done():
	}
	f.sessions.Shutdown()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		_ = server.Close()
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve tenants: %w", err)
	}
	return nil
}

// serveHTTP2 makes server serve HTTP/2 as well.
func serveHTTP2(server *http.Server, logger *slog.Logger) {
	two := &h2.Server{
		Log: logger, MaxStreams: maxStreams, MaxHeader: maxHeader, HeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		PingAfter: pingAfter, PingTimeout: pingTimeout, WriteTimeout: writeTimeout,
	}
	server.RegisterOnShutdown(two.Shutdown)
	server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		"h2": func(_ *http.Server, conn *tls.Conn, handler http.Handler) {
			ctx := context.Background()
			// This is how the standard library passes the context of a connection on.
			if base, ok := handler.(interface{ BaseContext() context.Context }); ok {
				ctx = base.BaseContext()
			}
			two.Serve(ctx, conn, handler)
		},
	}
}

// servingCertificate is read again when its files change.
type servingCertificate struct {
	certFile, keyFile string

	// mu guards what follows.
	mu      sync.Mutex
	checked time.Time
	changed time.Time
	current *tls.Certificate
}

func (c *servingCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil && time.Since(c.checked) < certificateAge {
		return c.current, nil
	}
	err := c.read()
	if c.current == nil {
		return nil, err
	}
	if err != nil {
		// The old pair serves on while a new one is being written.
		slog.Error("The serving certificate cannot be read again", "error", err)
	}
	c.checked = time.Now()
	return c.current, nil
}

func (c *servingCertificate) read() error {
	var latest time.Time
	for _, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		if info.ModTime().After(latest) {
			latest = info.ModTime()
		}
	}
	if c.current != nil && latest.Equal(c.changed) {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return err
	}
	c.current, c.changed = &pair, latest
	return nil
}
