package gateway

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"vivarium.io/vivarium/gateway/internal/tenants"
	"vivarium.io/vivarium/internal/names"
)

// The benchmarks of this file count what the gateway itself does for a request: the control cluster is a canned answer
// over a pipe, the client a writer that throws away.

// discard is the client.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) Flush()                      {}

// canned answers every request on a connection with the same bytes and allocates nothing for it.
func canned(conn net.Conn, answer []byte) {
	buf := make([]byte, 64<<10)
	for have := 0; ; {
		n, err := conn.Read(buf[have:])
		if err != nil {
			return
		}
		have += n
		head := bytes.Index(buf[:have], []byte("\r\n\r\n"))
		if head < 0 {
			continue
		}
		// A body comes in the same write, or in one more.
		if at := bytes.Index(buf[:head], []byte("Content-Length: ")); at >= 0 {
			var length int
			for _, c := range buf[at+len("Content-Length: "):] {
				if c < '0' || c > '9' {
					break
				}
				length = length*10 + int(c-'0')
			}
			if have < head+4+length {
				continue
			}
		}
		have = 0
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

func benchmarkFront(b *testing.B, method, uri, body string, header http.Header, contentType, answer string) {
	b.Helper()
	reply := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nAudit-Id: 8f14e45f-ceea-467a-9a36-dedd4bea2543\r\nCache-Control: no-cache, private\r\nContent-Type: %s\r\n"+
		"Date: Fri, 20 Nov 2026 10:00:00 GMT\r\nX-Kubernetes-Pf-Flowschema-Uid: 1\r\nX-Kubernetes-Pf-Prioritylevel-Uid: 2\r\nContent-Length: %d\r\n\r\n%s", contentType, len(answer), answer)
	ca := newAuthority(b)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	f, err := newFront(frontConfig{
		control: &rest.Config{Host: "http://control.test", Dial: func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			go canned(far, reply)
			return near, nil
		}},
		tenants: &directory{tenants: map[names.TenantID]tenants.Tenant{tenantA: wide(tenantA)}}, clientCAs: pool, secret: []byte("secret"),
		servingCA: []byte("ca"), tenantURL: "https://gateway.test", tokenAudience: DefaultTokenAudience,
		forbiddenAudiences: NewOptions().ControlAudiences, ready: func() error { return nil }, metrics: newMetrics(),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(f.control.Close)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		Subject: pkix.Name{
			CommonName: "admin", Organization: []string{"system:masters"}, OrganizationalUnit: []string{tenantA}, SerialNumber: string(types.UID("uid-" + tenantA)),
		},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, ca.cert, ca.key.Public(), ca.key)
	if err != nil {
		b.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(raw)
	if err != nil {
		b.Fatal(err)
	}
	u, err := url.Parse("https://gateway.test" + uri)
	if err != nil {
		b.Fatal(err)
	}
	ctx := b.Context()
	state := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
	handler := f.handler()
	payload := strings.NewReader(body)
	b.SetBytes(int64(len(answer)))
	b.ReportAllocs()
	begin := processorTime(b)
	for b.Loop() {
		r := &http.Request{
			Method: method, URL: u, RequestURI: uri, Proto: "HTTP/2.0", ProtoMajor: 2, Host: "gateway.test", Header: header, TLS: state, Body: http.NoBody,
			RemoteAddr: "127.0.0.1:1",
		}
		if body != "" {
			payload.Reset(body)
			r.Body, r.ContentLength = io.NopCloser(payload), int64(len(body))
		}
		w := &discard{header: http.Header{}}
		// Servers give each request a goroutine of its own, with a stack that is small at first.
		done := make(chan struct{})
		go func() {
			defer close(done)
			handler.ServeHTTP(w, r.WithContext(ctx))
		}()
		<-done
		if w.header.Get("Content-Type") != contentType {
			b.Fatalf("headers %v", w.header)
		}
	}
	b.ReportMetric(float64(processorTime(b)-begin)/float64(b.N), "cpu-ns/op")
}

// processorTime is what this process has used of the processors; other than the time that passes, it says something on a
// busy machine too.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

const benchConfigMap = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"one","namespace":"abc123-web","uid":"2f1c9a54-7c0b-4a5e-9d55-0a7b00000001","resourceVersion":"1","creationTimestamp":"2026-11-20T10:00:00Z","labels":{"app":"web"}},"data":{"mode":"production"}}`

var benchHeader = http.Header{"Accept": {"application/json"}, "User-Agent": {"kubectl/v1.36.3 (linux/amd64) kubernetes/1"}, "Accept-Encoding": {"gzip"}}

// BenchmarkFrontGet is the cheapest request that there is.
func BenchmarkFrontGet(b *testing.B) {
	benchmarkFront(b, http.MethodGet, "/api/v1/namespaces/web/configmaps/one", "", benchHeader, "application/json", benchConfigMap)
}

// BenchmarkFrontCreate has a body.
func BenchmarkFrontCreate(b *testing.B) {
	header := benchHeader.Clone()
	header.Set("Content-Type", "application/json")
	body := `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"one","labels":{"app":"web"}},"data":{"mode":"production"}}`
	benchmarkFront(b, http.MethodPost, "/api/v1/namespaces/web/configmaps", body, header, "application/json", benchConfigMap)
}

// BenchmarkFrontList is half a megabyte.
func BenchmarkFrontList(b *testing.B) {
	item := strings.TrimPrefix(strings.Replace(benchConfigMap, "production", strings.Repeat("production ", 80), 1), `{"kind":"ConfigMap","apiVersion":"v1",`)
	list := `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[{` + strings.Repeat(item+",{", 499) + item + "]}\n"
	header := benchHeader.Clone()
	header.Del("Accept-Encoding")
	benchmarkFront(b, http.MethodGet, "/api/v1/namespaces/web/configmaps", "", header, "application/json", list)
}
