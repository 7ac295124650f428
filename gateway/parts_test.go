package gateway

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"

	"vivarium.io/vivarium/internal/localcluster"
)

func complete() *Options {
	o := NewOptions()
	o.ControlKubeconfig, o.TenantURL, o.PodAddress = "k", "https://gateway.test:6443", "192.0.2.1:6443"
	o.TLSCertFile, o.TLSPrivateKeyFile, o.ServingCAFile = "c", "k", "a"
	o.TenantCACertFile, o.TenantCAKeyFile, o.AdminClientCAFile = "c", "k", "a"
	o.Etcd.Servers = []string{"https://127.0.0.1:2379"}
	return o
}

func TestOptions(t *testing.T) {
	cases := map[string]struct {
		change func(*Options)
		want   []string
	}{
		"Complete":         {func(*Options) {}, nil},
		"Nothing":          {func(o *Options) { *o = Options{} }, []string{"--control-kubeconfig", "--tenant-url", "--pod-address", "--tls-cert-file", "--tls-private-key-file", "--serving-ca-file", "--tenant-ca-cert-file", "--tenant-ca-key-file", "--admin-client-ca-file", "--token-audience", "--etcd-servers", "--tenant-listen", "--admin-listen"}},
		"BothEtcds":        {func(o *Options) { o.Etcd.Dir = "d" }, []string{"--etcd-servers, --etcd-embedded"}},
		"HalfAPair":        {func(o *Options) { o.Etcd.CertFile = "c" }, []string{"--etcd-certfile, --etcd-keyfile"}},
		"PlainURL":         {func(o *Options) { o.TenantURL = "http://gateway.test" }, []string{"--tenant-url"}},
		"URLWithPath":      {func(o *Options) { o.TenantURL = "https://gateway.test/x" }, []string{"--tenant-url"}},
		"PodName":          {func(o *Options) { o.PodAddress = "gateway.test:6443" }, []string{"--pod-address"}},
		"ListenNoPort":     {func(o *Options) { o.TenantListen = "127.0.0.1" }, []string{"--tenant-listen"}},
		"ListenBigPort":    {func(o *Options) { o.AdminListen = "127.0.0.1:66000" }, []string{"--admin-listen"}},
		"SameListen":       {func(o *Options) { o.AdminListen = o.TenantListen }, []string{"--tenant-listen, --admin-listen"}},
		"ControlsAudience": {func(o *Options) { o.TokenAudience = "https://kubernetes.default.svc" }, []string{"--token-audience, --control-audiences"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			o := complete()
			tc.change(o)
			problems := fmt.Sprint(errors.Join(o.Validate()...))
			for _, want := range tc.want {
				if !strings.Contains(problems, want) {
					t.Errorf("problems lack %q:\n%s", want, problems)
				}
			}
			if len(tc.want) == 0 && len(o.Validate()) > 0 {
				t.Error(problems)
			}
		})
	}
	t.Run("EveryFlagIsExplained", func(t *testing.T) {
		var groups cliflag.NamedFlagSets
		NewOptions().AddFlags(&groups)
		for _, set := range groups.FlagSets {
			set.VisitAll(func(f *pflag.Flag) {
				if !strings.HasSuffix(f.Usage, ".") {
					t.Errorf("--%s: %q", f.Name, f.Usage)
				}
			})
		}
	})
}

func TestReply(t *testing.T) {
	large := strings.Repeat("x", holdBack+1)
	for name, tc := range map[string]struct {
		parts    []string
		accepts  string
		code     int
		encoding string
		length   string
	}{
		"Small":      {[]string{"a", "b"}, "gzip", 201, "", "2"},
		"Empty":      {nil, "gzip", 200, "", "0"},
		"Large":      {[]string{"a", large, "b"}, "deflate, gzip;q=1.0", 200, "gzip", ""},
		"LargePlain": {[]string{large, "b"}, "", 200, "", ""},
		"NoGzip":     {[]string{large}, "gzip;q=0", 200, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
			r.Header.Set("Accept-Encoding", tc.accepts)
			out := newReply(w, r)
			out.WriteHeader(tc.code)
			out.Header().Set("Content-Type", "application/json")
			for _, part := range tc.parts {
				if _, err := io.WriteString(out, part); err != nil {
					t.Fatal(err)
				}
			}
			if err := out.Close(); err != nil {
				t.Fatal(err)
			}
			body := io.Reader(w.Body)
			if tc.encoding == "gzip" {
				var err error
				if body, err = gzip.NewReader(w.Body); err != nil {
					t.Fatal(err)
				}
			}
			got, err := io.ReadAll(body)
			if err != nil || string(got) != strings.Join(tc.parts, "") || w.Code != tc.code ||
				w.Header().Get("Content-Encoding") != tc.encoding || w.Header().Get("Content-Length") != tc.length || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("%d %v, %d bytes, %v", w.Code, w.Header(), len(got), err)
			}
		})
	}
	t.Run("Reset", func(t *testing.T) {
		w := httptest.NewRecorder()
		out := newReply(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
		out.Header().Set("X-Secret", "x")
		_, _ = io.WriteString(out, "half of an ans")
		if out.Started() || w.Body.Len() != 0 {
			t.Error("sent already")
		}
		out.Reset()
		if err := out.Close(); err != nil || w.Body.Len() != 0 || w.Header().Get("X-Secret") != "" {
			t.Errorf("%v %q %v", w.Header(), w.Body, err)
		}
	})
}

// TestContain checks that a mistake in one request is answered with a Status and ends nothing else.
func TestContain(t *testing.T) {
	handler := contain(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("secret of zzz999") }))
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
	status(t, w.Result(), w.Body.String(), 500)
	if strings.Contains(w.Body.String(), "secret") {
		t.Errorf("the answer shows the panic: %s", w.Body)
	}
	defer func() {
		if recover() != http.ErrAbortHandler { //nolint:errorlint // the server compares it so
			t.Error("a broken-off answer does not reach the server")
		}
	}()
	contain(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
}

func TestServingCertificate(t *testing.T) {
	dir := t.TempDir()
	ca, err := localcluster.OpenCA(dir, "ca")
	if err != nil {
		t.Fatal(err)
	}
	issue := func(name string) localcluster.Pair {
		pair, err := ca.Issue(localcluster.Request{Name: name, User: name, Hosts: []string{"127.0.0.1"}})
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	served := localcluster.Pair{Cert: filepath.Join(dir, "served.crt"), Key: filepath.Join(dir, "served.key")}
	put := func(pair localcluster.Pair, when time.Time) {
		for from, to := range map[string]string{pair.Cert: served.Cert, pair.Key: served.Key} {
			raw, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, raw, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(to, when, when); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := &servingCertificate{certFile: served.Cert, keyFile: served.Key}
	if _, err := c.get(nil); err == nil {
		t.Error("no error without files")
	}
	name := func() string {
		t.Helper()
		c.checked = time.Time{}
		pair, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf.Subject.CommonName
	}
	start := time.Now().Add(-time.Hour)
	put(issue("one"), start)
	if got := name(); got != "one" {
		t.Errorf("serves %q", got)
	}
	put(issue("two"), start.Add(time.Minute))
	if got := name(); got != "two" {
		t.Errorf("after a change it serves %q", got)
	}
	if err := os.WriteFile(served.Cert, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := name(); got != "two" {
		t.Errorf("while a new one is being written it serves %q", got)
	}
}

// answerAccess answers access reviews.
func answerAccess(allowed bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprintf(w, `{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":%v}}`, allowed)
	}
}

// TestNothing checks the answers for a kind of which no tenant has any.
func TestNothing(t *testing.T) {
	h := newHarness(t)
	h.answerWith(answerAccess(true))
	const drivers = "/apis/storage.k8s.io/v1/csidrivers"
	for accept, want := range map[string]string{
		"application/json": `{"kind":"CSIDriverList","apiVersion":"storage.k8s.io/v1","metadata":{"resourceVersion":"1"},"items":[]}`,
		"application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io": `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"1"},"items":[]}`,
	} {
		if res, body := h.do("GET", drivers, "", http.Header{"Accept": {accept}}); res.StatusCode != 200 || body != want {
			t.Errorf("%s: %d %s", accept, res.StatusCode, body)
		}
	}
	res, body := h.do("GET", drivers+"?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1", "", nil)
	if res.StatusCode != 200 || !strings.Contains(body, "initial-events-end") {
		t.Errorf("watch: %d %s", res.StatusCode, body)
	}
	asTenant, own := h.taken()
	if len(asTenant) != 0 || len(own) != 3 {
		t.Errorf("the control cluster was asked %v %v", asTenant, own)
	}
	for i, verb := range []string{"list", "list", "watch"} {
		want := `"resourceAttributes":{"verb":"` + verb + `","group":"storage.k8s.io","resource":"csidrivers"},"user":"abc123-admin"`
		if i < len(own) && !strings.Contains(own[i].Body, want) {
			t.Errorf("asked %s, want %s", own[i].Body, want)
		}
	}
	res, body = h.do("GET", drivers+"?nonsense=1", "", nil)
	status(t, res, body, 400)
	if asTenant, own := h.taken(); len(asTenant)+len(own) != 0 {
		t.Errorf("the control cluster was asked %v %v", asTenant, own)
	}
	res, body = h.do("GET", drivers+"/a.example.com", "", nil)
	status(t, res, body, 404)
	h.answerWith(answerAccess(false))
	res, body = h.do("GET", drivers+"/a.example.com", "", nil)
	status(t, res, body, 403)
	const want = `csidrivers.storage.k8s.io \"a.example.com\" is forbidden: User \"admin\" cannot get resource \"csidrivers\" in API group \"storage.k8s.io\" at the cluster scope`
	if !strings.Contains(body, want) {
		t.Errorf("answer is %s, want %s", body, want)
	}
}
