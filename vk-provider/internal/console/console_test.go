package console

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/virtual-kubelet/virtual-kubelet/node/api"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/vk-provider/internal/control"
	"vivarium.io/vivarium/vk-provider/internal/provider"
)

// exitError is what a container runtime gives for a command that fails.
type exitError struct{ code int }

func (e exitError) Error() string   { return fmt.Sprintf("exit %d", e.code) }
func (e exitError) String() string  { return e.Error() }
func (e exitError) Exited() bool    { return true }
func (e exitError) ExitStatus() int { return e.code }

// fakePool answers like a pool's API server that speaks SPDY only. Its container's commands are Go.
type fakePool struct {
	pods  map[string]*corev1.Pod
	asked url.Values
	sizes chan api.TermSize
}

func (f *fakePool) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// /api/v1/namespaces/{ns}/pods/{name}[/{subresource}]
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/"), "/")
	pod := f.pods[parts[0]+"/"+parts[2]]
	if pod == nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: 404, Message: "pods not found"})
		return
	}
	if len(parts) == 3 {
		w.Header().Set("Content-Type", "application/json")
		pod.APIVersion, pod.Kind = "v1", "Pod"
		_ = json.NewEncoder(w).Encode(pod)
		return
	}
	f.asked = r.URL.Query()
	if parts[3] == "log" {
		f.log(w)
		return
	}
	f.kubelet(w, r, parts)
}

func (f *fakePool) log(w http.ResponseWriter) {
	if f.asked.Get("container") == "waiting" {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: 400, Message: `container "waiting" in pod "web" of abc123-default is waiting to start`})
		return
	}
	fmt.Fprint(w, "one\ntwo\n")
}

// kubelet passes a stream to virtual-kubelet's handlers, as an API server passes it to a kubelet.
func (f *fakePool) kubelet(w http.ResponseWriter, r *http.Request, parts []string) {
	q := r.URL.Query()
	for from, to := range map[string]string{"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"} {
		on := q.Get(from) == "true"
		q.Del(from)
		if on {
			q.Set(to, "1")
		}
	}
	r.URL.RawQuery = q.Encode()
	r.URL.Path = "/" + parts[3] + "/" + parts[0] + "/" + parts[2] + "/" + q.Get("container")
	if parts[3] == "portforward" {
		r.URL.Path = "/portForward/" + parts[0] + "/" + parts[2]
	}
	api.PodHandler(api.PodHandlerConfig{
		RunInContainer: f.run,
		AttachToContainer: func(ctx context.Context, ns, pod, container string, streams api.AttachIO) error {
			return f.run(ctx, ns, pod, container, []string{"cat"}, streams)
		},
		PortForward: func(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
			if port == 9 {
				return nil // hangs up at once
			}
			if port != 8080 {
				return fmt.Errorf("nothing listens on %d in abc123-default", port)
			}
			_, err := io.Copy(stream, stream)
			return err
		},
	}, false).ServeHTTP(w, r)
}

func (f *fakePool) run(_ context.Context, _, _, _ string, command []string, streams api.AttachIO) error {
	switch command[0] {
	case "cat":
		_, err := io.Copy(streams.Stdout(), streams.Stdin())
		return err
	case "both":
		fmt.Fprint(streams.Stdout(), "out")
		fmt.Fprint(streams.Stderr(), "err")
		return nil
	case "fail":
		return exitError{7}
	case "size":
		f.sizes <- <-streams.Resize()
		fmt.Fprint(streams.Stdout(), "seen")
		return nil
	default:
		return errors.New("no such program in abc123-default")
	}
}

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert, a.key = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func pemOf(t *testing.T, cert *x509.Certificate, key *ecdsa.PrivateKey) (certPEM, keyPEM []byte) {
	t.Helper()
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	if key != nil {
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		keyPEM = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	}
	return certPEM, keyPEM
}

func (a *authority) client(name string) (certPEM, keyPEM []byte) {
	a.t.Helper()
	cert, key := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return pemOf(a.t, cert, key)
}

// onlyPool is a registry of one pool.
type onlyPool struct{ pool *pools.Pool }

func (o onlyPool) Pool(name string) (*pools.Pool, bool) { return o.pool, name == o.pool.Name }

// world is a console between a control cluster's cache and a pool.
type world struct {
	pool    *fakePool
	url     string
	ca      *authority
	metrics *Metrics
	config  *rest.Config // the control cluster's API server
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ca := newAuthority(t)
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, key := ca.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "console"}, IPAddresses: []net.IP{net.ParseIP("127.0.0.1")},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	certPEM, keyPEM := pemOf(t, cert, key)
	caPEM, _ := pemOf(t, ca.cert, nil)
	config, err := TLS(Files{Cert: write("tls.crt", certPEM), Key: write("tls.key", keyPEM), ClientCA: write("ca.crt", caPEM)})
	if err != nil {
		t.Fatal(err)
	}

	w := &world{ca: ca, pool: &fakePool{pods: map[string]*corev1.Pod{}, sizes: make(chan api.TermSize, 1)}}
	below := httptest.NewTLSServer(w.pool)
	t.Cleanup(below.Close)
	belowPEM, _ := pemOf(t, below.Certificate(), nil)
	poolConfig := &rest.Config{Host: below.URL, TLSClientConfig: rest.TLSClientConfig{CAData: belowPEM}}
	pool := pools.NewPool(&v1alpha1.ResourcePool{ObjectMeta: metav1.ObjectMeta{Name: "pool-a"}}, "control-1", poolConfig, kubernetes.NewForConfigOrDie(poolConfig))

	bound := func(name string, uid types.UID) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "abc123-default", Name: name, UID: uid}, Spec: corev1.PodSpec{NodeName: "pool-a-0"}}
	}
	stray := bound("stray", "stray")
	stray.Spec.NodeName = "real-node"
	objects := fake.NewClientset(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "abc123-default", Labels: map[string]string{names.LabelTenant: "abc123"}}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "pool-a-0", Labels: map[string]string{names.LabelPool: "pool-a"}}},
		bound("web", "web"), bound("replaced", "new"), bound("foreign", "foreign"), bound("absent", "absent"), stray,
	)
	ours := func(name string, uid types.UID) {
		w.pool.pods["abc123-default/"+name] = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: "abc123-default", Name: name, UID: "below", Labels: pool.Labels(provider.Component, "abc123", uid),
		}}
	}
	ours("web", "web")
	ours("replaced", "old")
	ours("stray", "stray")
	w.pool.pods["abc123-default/foreign"] = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "abc123-default", Name: "foreign", Labels: map[string]string{names.LabelControlUID: "foreign"}}}

	cache, err := control.New(objects)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go cache.Run(ctx)
	if !cache.Wait(ctx) {
		t.Fatal("the cache did not sync")
	}
	w.metrics = NewMetrics(prometheus.NewRegistry())
	handler, err := Handler(Config{Cache: cache, Pools: onlyPool{pool}, ClientName: "api-server", Metrics: w.metrics})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.TLS = config
	server.StartTLS()
	t.Cleanup(server.Close)
	w.url = server.URL
	clientCert, clientKey := ca.client("api-server")
	w.config = &rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{CAData: caPEM, CertData: clientCert, KeyData: clientKey}}
	return w
}

// get asks the console as the control cluster's API server does.
func (w *world) get(t *testing.T, path string) (int, string) {
	t.Helper()
	client, err := rest.HTTPClientFor(w.config)
	if err != nil {
		t.Fatal(err)
	}
	return ask(t, client, w.url+path)
}

func ask(t *testing.T, client *http.Client, address string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

func TestOnlyTheAPIServerIsServed(t *testing.T) {
	w := newWorld(t)
	pair := func(a *authority, name string) *http.Client {
		cert, err := tls.X509KeyPair(a.client(name))
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(w.ca.cert)
		return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}}}}
	}
	anonymous := pair(w.ca, "x")
	anonymous.Transport.(*http.Transport).TLSClientConfig.Certificates = nil
	const path = "/containerLogs/abc123-default/web/c"
	if code, _ := ask(t, anonymous, w.url+path); code != http.StatusUnauthorized {
		t.Errorf("without a certificate: %d", code)
	}
	if code, _ := ask(t, pair(w.ca, "tenant"), w.url+path); code != http.StatusForbidden {
		t.Errorf("with somebody else's certificate: %d", code)
	}
	if code, text := ask(t, pair(newAuthority(t), "api-server"), w.url+path); code != 0 {
		t.Errorf("with a certificate of another authority: %d %s", code, text)
	}
	if code, _ := w.get(t, path); code != http.StatusOK {
		t.Errorf("the API server: %d", code)
	}
}

func TestOnlyTheRightPodIsReached(t *testing.T) {
	w := newWorld(t)
	cases := map[string]struct {
		path string
		want int
	}{
		"Ours":            {"/containerLogs/abc123-default/web/c", http.StatusOK},
		"Unknown":         {"/containerLogs/abc123-default/nobody/c", http.StatusNotFound},
		"NamesakeBelow":   {"/containerLogs/abc123-default/replaced/c", http.StatusNotFound},
		"ForeignBelow":    {"/containerLogs/abc123-default/foreign/c", http.StatusNotFound},
		"AbsentBelow":     {"/containerLogs/abc123-default/absent/c", http.StatusNotFound},
		"OnARealNode":     {"/containerLogs/abc123-default/stray/c", http.StatusNotFound},
		"OtherNamespace":  {"/containerLogs/kube-system/web/c", http.StatusNotFound},
		"ExecNamesake":    {"/exec/abc123-default/replaced/c?command=cat&output=1", http.StatusNotFound},
		"ForwardNamesake": {"/portForward/abc123-default/replaced", http.StatusNotFound},
		"AllPods":         {"/pods", http.StatusNotFound},
		"Running":         {"/runningpods/", http.StatusNotFound},
		"Run":             {"/run/abc123-default/web/c", http.StatusNotFound},
		"Stats":           {"/stats/summary", http.StatusNotImplemented},
		"Metrics":         {"/metrics/resource", http.StatusNotImplemented},
		"Health":          {"/healthz", http.StatusOK},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if code, body := w.get(t, tc.path); code != tc.want {
				t.Errorf("%d %q, want %d", code, body, tc.want)
			}
		})
	}
}

func TestLogs(t *testing.T) {
	w := newWorld(t)
	const all = "?follow=true&previous=true&timestamps=true&tailLines=0&limitBytes=10&sinceTime=2026-11-01T10%3A00%3A00.5Z"
	code, body := w.get(t, "/containerLogs/abc123-default/web/c"+all)
	if code != http.StatusOK || body != "one\ntwo\n" {
		t.Fatalf("%d %q", code, body)
	}
	want := url.Values{
		"container": {"c"}, "follow": {"true"}, "previous": {"true"}, "timestamps": {"true"}, "tailLines": {"0"}, "limitBytes": {"10"},
		"sinceTime": {"2026-11-01T10:00:00Z"},
	}
	if diff := cmp.Diff(want, w.pool.asked); diff != "" {
		t.Errorf("what the pool was asked (-want +got):\n%s", diff)
	}
	for name, query := range map[string]string{
		"NotANumber": "?tailLines=x", "Negative": "?tailLines=-1", "NoBytes": "?limitBytes=0", "NotABool": "?follow=maybe",
		"NotATime": "?sinceTime=now", "TwoSinces": "?sinceSeconds=1&sinceTime=2026-11-01T10%3A00%3A00Z", "NoStream": "?stream=x",
	} {
		if code, body := w.get(t, "/containerLogs/abc123-default/web/c"+query); code != http.StatusBadRequest {
			t.Errorf("%s: %d %q", name, code, body)
		}
	}
	code, body = w.get(t, "/containerLogs/abc123-default/web/waiting")
	if code != http.StatusBadRequest || !strings.Contains(body, "of default is waiting to start") {
		t.Errorf("a container that waits: %d %q", code, body)
	}
}

// stream runs a command as kubectl does through the control cluster's API server.
func (w *world) stream(t *testing.T, path string, command []string, o remotecommand.StreamOptions) error {
	t.Helper()
	where, err := url.Parse(w.url + path)
	if err != nil {
		t.Fatal(err)
	}
	q := url.Values{"command": command}
	for name, on := range map[string]bool{"input": o.Stdin != nil, "output": o.Stdout != nil, "error": o.Stderr != nil, "tty": o.Tty} {
		if on {
			q.Set(name, "1")
		}
	}
	where.RawQuery = q.Encode()
	executor, err := remotecommand.NewSPDYExecutor(w.config, "POST", where)
	if err != nil {
		t.Fatal(err)
	}
	return executor.StreamWithContext(t.Context(), o)
}

func TestExec(t *testing.T) {
	w := newWorld(t)
	const path = "/exec/abc123-default/web/c"
	t.Run("BothStreams", func(t *testing.T) {
		var out, errs bytes.Buffer
		if err := w.stream(t, path, []string{"both"}, remotecommand.StreamOptions{Stdout: &out, Stderr: &errs}); err != nil || out.String() != "out" || errs.String() != "err" {
			t.Errorf("%q %q %v", out.String(), errs.String(), err)
		}
	})
	t.Run("InputEnds", func(t *testing.T) {
		var out bytes.Buffer
		input := strings.Repeat("a line of input\n", 100_000)
		if err := w.stream(t, path, []string{"cat"}, remotecommand.StreamOptions{Stdin: strings.NewReader(input), Stdout: &out}); err != nil || out.String() != input {
			t.Errorf("%d of %d bytes came back, %v", out.Len(), len(input), err)
		}
	})
	t.Run("ExitCode", func(t *testing.T) {
		var out bytes.Buffer
		err := w.stream(t, path, []string{"fail"}, remotecommand.StreamOptions{Stdout: &out})
		var code exec.CodeExitError
		if !errors.As(err, &code) || code.Code != 7 {
			t.Errorf("got %v, want exit code 7", err)
		}
	})
	t.Run("ErrorInTheTenantsWords", func(t *testing.T) {
		var out bytes.Buffer
		err := w.stream(t, path, []string{"nothing"}, remotecommand.StreamOptions{Stdout: &out})
		if err == nil || !strings.HasSuffix(err.Error(), "error executing command in container: no such program in default") || strings.Count(err.Error(), "executing") != 1 {
			t.Errorf("got %v", err)
		}
	})
	t.Run("Terminal", func(t *testing.T) {
		var out bytes.Buffer
		resize := make(chan remotecommand.TerminalSize, 1)
		resize <- remotecommand.TerminalSize{Width: 80, Height: 24}
		err := w.stream(t, path, []string{"size"}, remotecommand.StreamOptions{Stdout: &out, Tty: true, TerminalSizeQueue: queueOf(resize)})
		if err != nil || out.String() != "seen" {
			t.Fatalf("%q, %v", out.String(), err)
		}
		if got := <-w.pool.sizes; got != (api.TermSize{Width: 80, Height: 24}) {
			t.Errorf("size %v", got)
		}
	})
	t.Run("Attach", func(t *testing.T) {
		var out bytes.Buffer
		if err := w.stream(t, "/attach/abc123-default/web/c", nil, remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out}); err != nil || out.String() != "hello" {
			t.Errorf("%q, %v", out.String(), err)
		}
	})
}

type queueOf chan remotecommand.TerminalSize

func (q queueOf) Next() *remotecommand.TerminalSize {
	select {
	case size := <-q:
		return &size
	case <-time.After(time.Second):
		return nil
	}
}

// forward opens a port of the pod on this machine, as kubectl does.
func (w *world) forward(t *testing.T, port int) (address string, problems *bytes.Buffer, stop func()) {
	t.Helper()
	transport, upgrader, err := spdy.RoundTripperFor(w.config)
	if err != nil {
		t.Fatal(err)
	}
	where, err := url.Parse(w.url + "/portForward/abc123-default/web")
	if err != nil {
		t.Fatal(err)
	}
	end, ready := make(chan struct{}), make(chan struct{})
	problems = &bytes.Buffer{}
	forwarder, err := portforward.NewForStreaming(spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, where),
		[]string{fmt.Sprintf("0:%d", port)}, end, ready, io.Discard, problems)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = forwarder.ForwardPorts()
	}()
	<-ready
	ports, err := forwarder.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", ports[0].Local), problems, func() { close(end); <-done }
}

func TestPortForward(t *testing.T) {
	w := newWorld(t)
	address, problems, stop := w.forward(t, 8080)
	defer stop()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for range 3 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = conn.Write(sent)
			_ = conn.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d of %d bytes came back, %v %s", len(got), len(sent), err, problems)
		}
		_ = conn.Close()
	}
}

// TestPortForwardEnds holds that a connection ends although its client goes on sending to a port that is closed, or
// hangs up: what nobody reads would keep it open for hours.
func TestPortForwardEnds(t *testing.T) {
	for _, port := range []int{7, 9} {
		w := newWorld(t)
		address, _, stop := w.forward(t, port)
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(bytes.Repeat([]byte{'x'}, 8<<20))
		_ = conn.Close()
		stop()
		for {
			if testutil.ToFloat64(w.metrics.streams.WithLabelValues("portforward")) == 0 {
				break
			}
			select {
			case <-t.Context().Done():
				t.Fatalf("port %d: the connection is still open", port)
			case <-time.After(time.Millisecond):
			}
		}
	}
}
