package control

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"vivarium.io/vivarium/gateway/internal/identity"
)

var alice = &identity.Identity{Tenant: "abc123", User: "alice", Groups: []string{"dev", "system:authenticated"}}

func newClient(t *testing.T, handler http.HandlerFunc) (*Client, *int) {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	refused := 0
	c, err := New(Config{
		REST: &rest.Config{
			Host: server.URL + "/base", BearerToken: "own",
			TLSClientConfig: rest.TLSClientConfig{CAData: pemOf(t, server)},
		},
		Refused: func() { refused++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, &refused
}

func TestDo(t *testing.T) {
	for name, tc := range map[string]struct {
		mode  Mode
		proto int
	}{"Unary": {Unary, 1}, "Streaming": {Streaming, 2}, "Upgrade": {Upgrade, 1}} {
		t.Run(name, func(t *testing.T) {
			var got *http.Request
			var body []byte
			c, _ := newClient(t, func(_ http.ResponseWriter, r *http.Request) {
				got = r
				body, _ = io.ReadAll(r.Body)
			})
			header := Headers(http.Header{"User-Agent": {"kubectl"}, "Cookie": {"x"}, "Impersonate-User": {"x"}}, "application/json", "application/json")
			// Whatever got there by mistake is dropped where the identity is set.
			header["Impersonate-User"] = []string{"system:kube-controller-manager"}
			header["Impersonate-Uid"] = []string{"x"}
			header["Authorization"] = []string{"Bearer stolen"}
			res, err := c.Do(t.Context(), Call{
				Mode: tc.mode, As: alice, Method: "PATCH", Path: "/api/v1/namespaces/abc123-web/pods/a%20b",
				Query: url.Values{"fieldManager": {"x y"}}, Header: header, Body: []byte("{}"),
			})
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if got.ProtoMajor != tc.proto {
				t.Errorf("HTTP/%d, want %d", got.ProtoMajor, tc.proto)
			}
			if got.RequestURI != "/base/api/v1/namespaces/abc123-web/pods/a%20b?fieldManager=x+y" || string(body) != "{}" {
				t.Errorf("sent %s %q", got.RequestURI, body)
			}
			want := http.Header{
				"Accept": {"application/json"}, "Accept-Encoding": {"identity"}, "Content-Type": {"application/json"}, "User-Agent": {"kubectl"},
				"Impersonate-User": {"abc123-alice"}, "Impersonate-Group": {"abc123-dev", "abc123-system:authenticated"},
				"Authorization": {"Bearer own"}, "Content-Length": {"2"},
			}
			if tc.mode == Upgrade {
				want["Connection"] = []string{"close"}
			}
			if diff := cmp.Diff(want, got.Header); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDoRefuses(t *testing.T) {
	sent := 0
	c, refused := newClient(t, func(http.ResponseWriter, *http.Request) { sent++ })
	_, err := c.Do(t.Context(), Call{As: alice, Method: "GET", Path: "/api/v1/namespaces/zzz999-web/pods", Header: Headers(nil, "", "")}) //nolint:bodyclose // an error has none
	if code(err) != 500 || *refused != 1 || sent != 0 {
		t.Errorf("%v, refused %d, sent %d", err, *refused, sent)
	}
	if strings.Contains(err.Error(), "zzz999") {
		t.Errorf("the error shows a control name: %v", err)
	}
}

func TestTrouble(t *testing.T) {
	t.Run("Redirect", func(t *testing.T) {
		sent := 0
		c, _ := newClient(t, func(w http.ResponseWriter, r *http.Request) {
			sent++
			http.Redirect(w, r, "https://evil.test/", http.StatusFound)
		})
		for mode := range c.modes {
			_, err := c.Do(t.Context(), Call{Mode: Mode(mode), As: alice, Method: "GET", Path: "/api/v1/namespaces/abc123-web/pods", Header: Headers(nil, "", "")}) //nolint:bodyclose // an error has none
			if code(err) != 502 {
				t.Errorf("mode %d: %v", mode, err)
			}
		}
		if sent != len(c.modes) {
			t.Errorf("%d requests", sent)
		}
	})
	t.Run("Away", func(t *testing.T) {
		c, err := New(Config{REST: &rest.Config{Host: "https://127.0.0.1:1"}, Refused: func() {}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Do(t.Context(), Call{As: alice, Method: "GET", Path: "/api/v1/namespaces/abc123-web/pods", Header: Headers(nil, "", "")}) //nolint:bodyclose // an error has none
		if code(err) != 503 || strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("%v", err)
		}
	})
	t.Run("Slow", func(t *testing.T) {
		c, _ := newClient(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := c.Do(ctx, Call{As: alice, Method: "GET", Path: "/api/v1/namespaces/abc123-web/pods", Header: Headers(nil, "", "")}) //nolint:bodyclose // an error has none
		if code(err) != 504 {
			t.Errorf("%v", err)
		}
	})
	t.Run("GivenUp", func(t *testing.T) {
		c, _ := newClient(t, func(http.ResponseWriter, *http.Request) {})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := c.Do(ctx, Call{As: alice, Method: "GET", Path: "/api/v1/namespaces/abc123-web/pods", Header: Headers(nil, "", "")}) //nolint:bodyclose // an error has none
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}

func TestAccept(t *testing.T) {
	const kubectlTable = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
	cases := map[string]struct {
		client []string
		form   Form
		want   string
	}{
		"None":          {nil, Object, "application/json"},
		"Empty":         {[]string{""}, Object, "application/json"},
		"Anything":      {[]string{"*/*"}, Object, "application/json"},
		"AnyApp":        {[]string{"application/*"}, Object, "application/json"},
		"Kubectl":       {[]string{kubectlTable}, Object, kubectlTable},
		"KubectlPlain":  {[]string{kubectlTable}, Plain, "application/json"},
		"ClientGo":      {[]string{"application/vnd.kubernetes.protobuf,application/json"}, Object, "application/vnd.kubernetes.protobuf,application/json"},
		"ClientGoJSON":  {[]string{"application/vnd.kubernetes.protobuf,application/json"}, JSON, "application/json"},
		"ProtobufWatch": {[]string{"application/vnd.kubernetes.protobuf;stream=watch"}, Object, "application/vnd.kubernetes.protobuf"},
		"ProtobufTable": {[]string{"application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io"}, Object, ""},
		"Watch":         {[]string{"application/json;stream=watch"}, Object, "application/json"},
		"Metadata":      {[]string{"application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"}, Object, "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"},
		"Quality":       {[]string{"application/yaml;q=0.9, application/json;q=0.5"}, Object, "application/json;q=0.5"},
		"TwoHeaders":    {[]string{"application/yaml", "application/json"}, Object, "application/json"},
		"Protobuf":      {[]string{"application/vnd.kubernetes.protobuf"}, Object, "application/vnd.kubernetes.protobuf"},
		"ProtobufPlain": {[]string{"application/vnd.kubernetes.protobuf"}, Plain, ""},
		"YAML":          {[]string{"application/yaml"}, Object, ""},
		"CBOR":          {[]string{"application/cbor"}, Object, ""},
		"Zero":          {[]string{"application/json;q=0"}, Object, ""},
		"UnknownShape":  {[]string{"application/json;as=Secret;v=v1;g=meta.k8s.io"}, Object, ""},
		"OldTable":      {[]string{"application/json;as=Table;v=v1beta1;g=meta.k8s.io"}, Object, "application/json;as=Table;v=v1beta1;g=meta.k8s.io"},
		"OtherVersion":  {[]string{"application/json;as=Table;v=v2;g=meta.k8s.io"}, Object, ""},
		"OtherGroup":    {[]string{"application/json;as=Table;v=v1;g=evil"}, Object, ""},
		"UnknownOption": {[]string{"application/json;x=y"}, Object, ""},
		"Injection":     {[]string{"application/json\r\nImpersonate-User: x"}, Object, ""},
		"Text":          {[]string{"text/html"}, Object, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := Accept(tc.client, tc.form)
			if got != tc.want || (err != nil) != (tc.want == "") || (err != nil && code(err) != 406) {
				t.Errorf("Accept(%q) = %q, %v, want %q", tc.client, got, err, tc.want)
			}
		})
	}
}

func TestUpgradeHeaders(t *testing.T) {
	h := http.Header{}
	UpgradeHeaders(h, http.Header{
		"Upgrade": {"websocket"}, "Connection": {"Upgrade, Impersonate-User"}, "Origin": {"x"}, "Cookie": {"x"},
		"Sec-Websocket-Key": {"k"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Protocol": {"v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0", "v4.channel.k8s.io"},
	})
	want := http.Header{
		"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Sec-Websocket-Key": {"k"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Protocol": {"v5.channel.k8s.io, v4.channel.k8s.io"},
	}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func code(err error) int {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return int(status.Status().Code)
	}
	return 0
}
