package localcluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// prober asks servers of a control plane how they are.
type prober struct{ client *http.Client }

func (c *ControlPlane) prober() (prober, error) {
	pool := x509.NewCertPool()
	raw, err := os.ReadFile(c.ca.Cert)
	if err != nil {
		return prober{}, fmt.Errorf("read the authority of %s: %w", c.config.Name, err)
	}
	pool.AppendCertsFromPEM(raw)
	admin, err := c.ca.Issue(Request{Name: "client-admin", User: adminUser, Groups: []string{adminGroup}})
	if err != nil {
		return prober{}, err
	}
	cert, err := tls.LoadX509KeyPair(admin.Cert, admin.Key)
	if err != nil {
		return prober{}, fmt.Errorf("load the administrator's certificate: %w", err)
	}
	return newProber(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}), nil
}

func newProber(config *tls.Config) prober {
	return prober{client: &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true},
	}}
}

// get is nil when the URL answers 200; otherwise the error says what it answered.
func (p prober) get(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := p.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	// Servers list every check; only those that fail are news.
	var failed []string
	for line := range strings.Lines(string(body)) {
		if !strings.HasPrefix(line, "[+]") {
			failed = append(failed, strings.TrimSpace(line))
		}
	}
	return fmt.Errorf("%s answers %s: %s", url, response.Status, strings.Join(failed, "; "))
}
