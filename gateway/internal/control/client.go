package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"

	"vivarium.io/vivarium/gateway/internal/guard"
	"vivarium.io/vivarium/gateway/internal/identity"
	"vivarium.io/vivarium/internal/names"
)

const (
	dialTimeout = 5 * time.Second
	// idleTimeout is shorter than the 90 seconds after which kube-apiserver closes an idle connection: a write on a
	// connection that is being closed cannot be repeated.
	idleTimeout = 60 * time.Second
	// idleConnections is how many finished connections are kept. A request has a connection of its own while it is under
	// way; what is kept saves handshakes, which cost as much as ten requests.
	idleConnections = 256
	// maxReply bounds a reply that is read as a whole.
	maxReply = 64 << 20
)

// Mode says how a request travels.
type Mode int

// The modes. HTTP/1.1 is the faster one for short requests; HTTP/2 lets thousands of idle watches share a few connections.
const (
	// Unary is answered and over.
	Unary Mode = iota
	// Streaming is an answer that goes on: watches and logs.
	Streaming
	// Upgrade turns the connection into another protocol.
	Upgrade
)

// Call is one request of a tenant, already in the control cluster's names.
type Call struct {
	Mode   Mode
	As     *identity.Identity
	Method string
	// Path is escaped.
	Path  string
	Query url.Values
	// Header is what [Headers] built.
	Header http.Header
	// Body may be nil.
	Body []byte
}

// Config says where the control cluster is.
type Config struct {
	// REST is the gateway's own identity at the control cluster.
	REST *rest.Config
	// Shared is guard.Guard.Shared.
	Shared func(id names.TenantID, group, resource string) bool
	// Refused is called when the guard refuses a request.
	Refused func()
	// Kept is how to reach what keeps those kinds that are not in the control cluster; nil for nobody.
	Kept *rest.Config
}

// Client speaks to the control cluster. Safe for concurrent use.
type Client struct {
	base  *url.URL
	modes [3]http.RoundTripper
	own   *http.Client
	// ownLong is for answers that go on, over HTTP/2.
	ownLong *http.Client
	ownKube kubernetes.Interface
	close   func()
}

// New makes a Client; it does not dial.
func New(c Config) (*Client, error) {
	if c.REST == nil || c.Refused == nil {
		return nil, errors.New("control: REST and Refused are required")
	}
	base, _, err := rest.DefaultServerUrlFor(c.REST)
	if err != nil {
		return nil, fmt.Errorf("address of the control cluster: %w", err)
	}
	base.Path = strings.TrimSuffix(base.Path, "/")
	config, err := c.REST.TransportConfig()
	if err != nil {
		return nil, fmt.Errorf("credentials for the control cluster: %w", err)
	}
	if config.Impersonate.UserName != "" {
		return nil, errors.New("credentials for the control cluster: the gateway must not impersonate anybody itself")
	}
	short, err := newTransport(config, false)
	if err != nil {
		return nil, err
	}
	long, err := newTransport(config, true)
	if err != nil {
		return nil, err
	}
	upgrade := short.Clone()
	upgrade.DisableKeepAlives = true

	var kept http.RoundTripper = short
	closeKept := func() {}
	if config.Proxy == nil {
		u := newUnary(short, hostPort(base), short)
		kept, closeKept = u, u.CloseIdleConnections
	}
	apart, err := newApart(c.Kept, base)
	if err != nil {
		return nil, err
	}
	client := &Client{base: base, close: func() {
		closeKept()
		short.CloseIdleConnections()
		long.CloseIdleConnections()
		upgrade.CloseIdleConnections()
	}}
	for mode, next := range map[Mode]http.RoundTripper{Unary: kept, Streaming: long, Upgrade: upgrade} {
		// The gateway's own credential, if it is a header, is added after the guard: nothing before may set one.
		wrapped, err := transport.HTTPWrappersForConfig(config, next)
		if err != nil {
			return nil, fmt.Errorf("credentials for the control cluster: %w", err)
		}
		client.modes[mode] = asTenant{&guard.Guard{Next: apart.before(wrapped), Host: base.Host, BasePath: base.Path, Shared: c.Shared, Refused: c.Refused}}
	}
	wrapped, err := transport.HTTPWrappersForConfig(config, short)
	if err != nil {
		return nil, fmt.Errorf("credentials for the control cluster: %w", err)
	}
	wrappedLong, err := transport.HTTPWrappersForConfig(config, long)
	if err != nil {
		return nil, fmt.Errorf("credentials for the control cluster: %w", err)
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client.own = &http.Client{Transport: wrapped, CheckRedirect: stay}
	client.ownLong = &http.Client{Transport: wrappedLong, CheckRedirect: stay}
	unlimited := rest.CopyConfig(c.REST)
	// Tenants' own limits bound what is asked on their behalf.
	unlimited.QPS = -1
	unlimited.ContentType = "application/json"
	if client.ownKube, err = kubernetes.NewForConfigAndClient(unlimited, client.own); err != nil {
		return nil, fmt.Errorf("client of the control cluster: %w", err)
	}
	return client, nil
}

func newTransport(config *transport.Config, http2Only bool) (*http.Transport, error) {
	tlsConfig, err := transport.TLSConfigFor(config)
	if err != nil {
		return nil, fmt.Errorf("credentials for the control cluster: %w", err)
	}
	t := &http.Transport{
		TLSClientConfig: tlsConfig, TLSHandshakeTimeout: dialTimeout, IdleConnTimeout: idleTimeout,
		MaxIdleConnsPerHost: idleConnections, DisableCompression: true, Proxy: config.Proxy,
		DialContext:    (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		ReadBufferSize: 16 << 10,
		Protocols:      new(http.Protocols),
	}
	if config.DialHolder != nil {
		t.DialContext = config.DialHolder.Dial
	}
	t.Protocols.SetHTTP1(true)
	if !http2Only || tlsConfig == nil {
		return t, nil
	}
	t.Protocols.SetHTTP2(true)
	h2, err := http2.ConfigureTransports(t)
	if err != nil {
		return nil, fmt.Errorf("HTTP/2 to the control cluster: %w", err)
	}
	// A watch may be silent for long: pings tell a silent connection from a dead one.
	h2.ReadIdleTimeout, h2.PingTimeout = 30*time.Second, 15*time.Second
	return t, nil
}

// hostPort is where a URL leads.
func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	port := "443"
	if u.Scheme == "http" {
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// Close drops idle connections.
func (c *Client) Close() { c.close() }

type identityKey struct{}

// asTenant is the one place that sets the identity of a tenant's request, after everything else has been decided about
// it. Whatever identity a header claims by then is dropped.
type asTenant struct{ next http.RoundTripper }

// RoundTrip sends the request as the identity of its context.
func (t asTenant) RoundTrip(r *http.Request) (*http.Response, error) {
	as, ok := r.Context().Value(identityKey{}).(*identity.Identity)
	if !ok {
		return nil, errors.New("a request for the control cluster has no identity")
	}
	// The values are nobody's to change, so they need not be copied.
	header := make(http.Header, len(r.Header)+2)
	for name, values := range r.Header {
		if !claimsIdentity(name) {
			header[name] = values
		}
	}
	header["Impersonate-User"] = []string{as.ControlUser()}
	header["Impersonate-Group"] = as.ControlGroups()
	if as.UID != "" {
		header["Impersonate-Uid"] = []string{as.UID}
	}
	out := *r
	out.Header = header
	return t.next.RoundTrip(&out)
}

// claimsIdentity reports whether a header, however it is spelled, says who sends a request.
func claimsIdentity(name string) bool {
	for _, prefix := range []string{"impersonate", "x-remote"} {
		if len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) {
			return true
		}
	}
	return strings.EqualFold(name, "authorization")
}

// Do sends a tenant's request. The caller closes the body of the response. The error is an API error in words that say
// nothing of the control cluster, or the context's.
func (c *Client) Do(ctx context.Context, call Call) (*http.Response, error) {
	ctx = context.WithValue(guard.WithTenant(ctx, call.As.Tenant), identityKey{}, call.As)
	target := c.base.Scheme + "://" + c.base.Host + c.base.EscapedPath() + call.Path
	if len(call.Query) > 0 {
		target += "?" + call.Query.Encode()
	}
	var body io.Reader
	if call.Body != nil {
		body = bytes.NewReader(call.Body)
	}
	r, err := http.NewRequestWithContext(ctx, call.Method, target, body)
	if err != nil {
		return nil, internalError(ctx, err)
	}
	r.Header = call.Header
	res, err := c.modes[call.Mode].RoundTrip(r)
	if err != nil {
		return nil, Trouble(ctx, err)
	}
	if res.StatusCode >= 300 && res.StatusCode < 400 && res.StatusCode != http.StatusNotModified {
		_ = res.Body.Close()
		return nil, badGateway(ctx, res.StatusCode)
	}
	return res, nil
}
