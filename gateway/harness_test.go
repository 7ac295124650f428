package gateway

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"vivarium.io/vivarium/gateway/internal/tenants"
	"vivarium.io/vivarium/internal/names"
)

// harness is a tenant listener in this process, in front of a stand-in for the control cluster that records what it is
// asked. It shows, byte for byte, what a tenant's request becomes, and that a refused one becomes nothing.
type harness struct {
	t       testing.TB
	front   *front
	server  *httptest.Server
	control *httptest.Server
	ca      authority
	tenants *directory
	leaks   *leaks

	// mu guards what follows.
	mu       sync.Mutex
	requests []*recorded
	// own are requests of the gateway itself.
	own    []*recorded
	answer http.HandlerFunc
	// share lets watches be shared; without it they all reach the control cluster as a tenant's user.
	share bool
}

// recorded is one request that the control cluster got.
type recorded struct {
	Method, URI string
	Header      http.Header
	Body        string
	Proto       int
}

func (r *recorded) String() string { return r.Method + " " + r.URI }

// directory is a set of tenants that a test may change.
type directory struct {
	mu      sync.Mutex
	tenants map[names.TenantID]tenants.Tenant
}

func (d *directory) Get(id names.TenantID) (tenants.Tenant, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, ok := d.tenants[id]
	return t, ok
}

func (d *directory) HasSynced() bool { return true }

func (d *directory) set(t tenants.Tenant) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tenants[t.ID] = t
}

func (d *directory) remove(id names.TenantID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.tenants, id)
}

// The two tenants of every test: A is whose requests are sent, B is whom they must not reach.
const (
	tenantA = "abc123"
	tenantB = "zzz999"
)

func wide(id names.TenantID) tenants.Tenant {
	return tenants.Tenant{ID: id, UID: types.UID("uid-" + id), Limits: tenants.Limits{
		RequestsPerSecond: 1e6, Burst: 1e6, MaxInFlight: 1e6, MaxWatches: 1e6, MaxStreams: 1e6, CustomResourceDefinitions: 2,
	}}
}

func newHarness(t testing.TB) *harness {
	t.Helper()
	h := &harness{t: t, ca: newAuthority(t), leaks: newLeaks(tenantA, tenantB), tenants: &directory{tenants: map[names.TenantID]tenants.Tenant{
		tenantA: wide(tenantA), tenantB: wide(tenantB),
	}}}
	h.control = httptest.NewUnstartedServer(http.HandlerFunc(h.record))
	h.control.EnableHTTP2 = true
	h.control.StartTLS()
	t.Cleanup(h.control.Close)

	pool := x509.NewCertPool()
	pool.AddCert(h.ca.cert)
	var err error
	h.front, err = newFront(frontConfig{
		control: &rest.Config{Host: h.control.URL, BearerToken: "own", TLSClientConfig: rest.TLSClientConfig{
			CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.control.Certificate().Raw}),
		}},
		tenants: h.tenants, clientCAs: pool, secret: []byte("secret"), servingCA: []byte("the gateway's CA"), tenantURL: "https://gateway.test",
		tokenAudience: DefaultTokenAudience, forbiddenAudiences: NewOptions().ControlAudiences, ready: func() error { return nil }, metrics: newMetrics(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.front.close)
	if _, measured := t.(*testing.B); !measured {
		h.front.observe = h.leaks.watch
	}
	t.Cleanup(func() { h.leaks.check(t) })
	h.server = httptest.NewUnstartedServer(h.front.handler())
	h.server.EnableHTTP2 = true
	serveHTTP2(h.server.Config, slog.Default())
	h.server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, ClientCAs: pool}
	h.server.Config.MaxHeaderBytes = maxHeader
	h.server.StartTLS()
	t.Cleanup(h.server.Close)
	return h
}

// record is the control cluster.
func (h *harness) record(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	one := &recorded{Method: r.Method, URI: r.RequestURI, Header: r.Header.Clone(), Body: string(body), Proto: r.ProtoMajor}
	r.Body = io.NopCloser(bytes.NewReader(body))
	h.mu.Lock()
	answer := h.answer
	asItself := r.Header.Get("Impersonate-User") == ""
	if asItself && !h.share && isWatchReview(one) {
		h.mu.Unlock()
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if asItself {
		h.own = append(h.own, one)
	} else {
		h.requests = append(h.requests, one)
	}
	h.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusNotFound)
	_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,"message":"nothing here"}`)
}

// isWatchReview tells whether it is asked if a user may watch everything, so that it may have a part of a shared watch.
func isWatchReview(r *recorded) bool {
	return strings.HasSuffix(r.URI, "/subjectaccessreviews") && strings.Contains(r.Body, `"verb":"watch"`) && strings.Contains(r.Body, `"version":`)
}

func (h *harness) answerWith(answer http.HandlerFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer = answer
}

// taken gives the requests that tenants made of the control cluster, and those of the gateway itself, since the last call.
func (h *harness) taken() (asTenant, asItself []*recorded) {
	h.mu.Lock()
	defer h.mu.Unlock()
	asTenant, asItself = h.requests, h.own
	h.requests, h.own = nil, nil
	return asTenant, asItself
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tenants"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

// client makes a certificate of a tenant's admin; change may be nil.
func (h *harness) client(id names.TenantID, change func(*x509.Certificate)) tls.Certificate {
	h.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		Subject: pkix.Name{
			CommonName: "admin", Organization: []string{"system:masters"}, OrganizationalUnit: []string{string(id)}, SerialNumber: "uid-" + string(id),
		},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, h.ca.cert, h.ca.key.Public(), h.ca.key)
	if err != nil {
		h.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: h.ca.key}
}

func (h *harness) tlsConfig(protocols []string, certificates ...tls.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(h.server.Certificate())
	return &tls.Config{RootCAs: roots, Certificates: certificates, NextProtos: protocols, ServerName: "example.com"}
}

// raw sends bytes as they are over HTTP/1.1 with a tenant's certificate and reads one answer.
func (h *harness) raw(request string, certificates ...tls.Certificate) (*http.Response, string) {
	h.t.Helper()
	conn := h.dial(certificates...)
	defer conn.Close()
	// What is refused early is answered before it was sent, and the rest of it is not read.
	go func() { _, _ = io.WriteString(conn, request) }()
	method, _, _ := strings.Cut(request, " ")
	return readAnswer(h.t, bufio.NewReader(conn), method)
}

func (h *harness) dial(certificates ...tls.Certificate) net.Conn {
	h.t.Helper()
	conn, err := tls.Dial("tcp", h.server.Listener.Addr().String(), h.tlsConfig([]string{"http/1.1"}, certificates...))
	if err != nil {
		h.t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		h.t.Fatal(err)
	}
	return conn
}

func readAnswer(t testing.TB, r *bufio.Reader, method string) (*http.Response, string) {
	t.Helper()
	res, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	return res, string(body)
}

// do sends a request as tenant A, over HTTP/2.
func (h *harness) do(method, uri, body string, header http.Header) (*http.Response, string) {
	h.t.Helper()
	client := &http.Client{
		Transport:     &http.Transport{TLSClientConfig: h.tlsConfig(nil, h.client(tenantA, nil)), ForceAttemptHTTP2: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(h.t.Context(), method, h.server.URL, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	path, query, _ := strings.Cut(uri, "?")
	r.URL = &url.URL{Scheme: "https", Host: r.URL.Host, Opaque: "//" + r.URL.Host + path, RawQuery: query}
	if body == "" {
		r.Body, r.ContentLength = nil, 0
	}
	r.Header = header
	if r.Header == nil {
		r.Header = http.Header{}
	}
	res, err := client.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return res, string(raw)
}

// request writes a request line and headers for [harness.raw].
func request(line string, headers ...string) string {
	return line + " HTTP/1.1\r\nHost: example.com\r\n" + strings.Join(append(headers, "", ""), "\r\n")
}

// withBody writes a request with a JSON body.
func withBody(line, body string, headers ...string) string {
	headers = append(headers, "Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(body)))
	return request(line, headers...) + body
}

// token makes what looks like a ServiceAccount token; whether it is good is for the stand-in to say. It has ended by this
// machine's clock, which must not matter.
func token(user, audience string) string {
	claims, _ := json.Marshal(map[string]any{"sub": user, "aud": []string{audience}, "exp": time.Now().Add(-time.Hour).Unix()})
	return "eyJhbGciOiJSUzI1NiJ9." + base64.RawURLEncoding.EncodeToString(claims) + ".c2ln"
}

// status checks that an answer is a Status of a code, as every refusal must be, and that it shows nothing that was not in
// the request.
func status(t *testing.T, res *http.Response, body string, code int, sent ...string) {
	t.Helper()
	var s struct {
		Kind string
		Code int
	}
	if err := json.Unmarshal([]byte(body), &s); err != nil || s.Kind != "Status" || s.Code != code || res.StatusCode != code {
		t.Errorf("answer is %d %s, want a Status of %d", res.StatusCode, body, code)
	}
	for _, secret := range []string{tenantB, "127.0.0.1", "x509"} {
		if strings.Contains(body, secret) && !strings.Contains(strings.Join(sent, ""), secret) {
			t.Errorf("answer shows %q: %s", secret, body)
		}
	}
}
