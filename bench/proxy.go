package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"
)

// proxyCommand makes this program the plain proxy, in a process of its own.
const proxyCommand = "plain-proxy"

// runProxy is what anybody would write who wants a TLS reverse proxy in Go: the standard library's, with its defaults,
// HTTP/2 on both sides and a client certificate toward the control cluster. It is the floor that a gateway written in Go
// is compared with.
func runProxy(args []string) error {
	flags := flag.NewFlagSet(proxyCommand, flag.ContinueOnError)
	listen := flags.String("listen", "", "Address.")
	target := flags.String("target", "", "URL of the control cluster.")
	cert := flags.String("cert", "", "Serving certificate.")
	key := flags.String("key", "", "Its key.")
	clientCert := flags.String("client-cert", "", "Certificate for the control cluster.")
	clientKey := flags.String("client-key", "", "Its key.")
	ca := flags.String("ca", "", "Authority of the control cluster, and of clients.")
	if err := flags.Parse(args); err != nil {
		return err
	}
	u, err := url.Parse(*target)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(*ca)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return fmt.Errorf("%s holds no certificate", *ca)
	}
	pair, err := tls.LoadX509KeyPair(*clientCert, *clientKey)
	if err != nil {
		return err
	}
	server := &http.Server{
		Addr: *listen,
		Handler: &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u) },
			Transport: &http.Transport{
				TLSClientConfig:   &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
				ForceAttemptHTTP2: true, DisableCompression: true,
			},
		},
		TLSConfig:         &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 10 * time.Second,
	}
	log.Printf("serving %s on %s", *target, *listen)
	return server.ListenAndServeTLS(*cert, *key)
}
