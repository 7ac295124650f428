package syncer

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"vivarium.io/vivarium/internal/boot"
)

// rootCAEvery is how often the file is looked at; a certificate authority changes with plenty of overlap.
const rootCAEvery = 10 * time.Second

// rootCA follows the file with the gateway's CA.
type rootCA struct {
	path string
	text atomic.Pointer[string]
}

func newRootCA(path string) (*rootCA, error) {
	r := &rootCA{path: path}
	text, err := r.read()
	if err != nil {
		return nil, err
	}
	r.text.Store(&text)
	return r, nil
}

func (r *rootCA) read() (string, error) {
	raw, err := os.ReadFile(r.path)
	if err != nil {
		return "", fmt.Errorf("--gateway-ca-file: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(raw) {
		return "", fmt.Errorf("--gateway-ca-file: %s has no PEM certificate", r.path)
	}
	return string(raw), nil
}

// Text gives the certificates that were last good.
func (r *rootCA) Text() string { return *r.text.Load() }

// follow calls changed after each change of the file, until ctx is done.
func (r *rootCA) follow(ctx context.Context, changed func()) {
	ticker := time.NewTicker(rootCAEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		text, err := r.read()
		switch {
		case err != nil:
			boot.Logger(ctx).Info("the gateway's CA cannot be read; the last one stays", "error", err)
		case text != r.Text():
			r.text.Store(&text)
			boot.Logger(ctx).Info("the gateway's CA changed")
			changed()
		}
	}
}
