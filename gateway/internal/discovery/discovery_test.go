package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/gateway/internal/kinds"
	"vivarium.io/vivarium/gateway/internal/route"
)

const apis = `{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","metadata":{},"items":[
{"metadata":{"name":"apps","creationTimestamp":"2026-01-01T00:00:00Z"},"versions":[{"version":"v1","freshness":"Current","resources":[
 {"resource":"deployments","responseKind":{"group":"apps","version":"v1","kind":"Deployment"},"scope":"Namespaced","singularResource":"deployment","verbs":["create","delete","deletecollection","get","list","patch","update","watch"],"shortNames":["deploy"],"categories":["all"],
  "subresources":[{"subresource":"scale","responseKind":{"group":"autoscaling","version":"v1","kind":"Scale"},"verbs":["get","patch","update"]},{"subresource":"surprise","verbs":["get"]}]},
 {"resource":"daemonsets","responseKind":{"group":"apps","version":"v1","kind":"DaemonSet"},"scope":"Namespaced","singularResource":"daemonset","verbs":["create","delete","get","list","watch"]},
 {"resource":"surprises","responseKind":{"group":"apps","version":"v1","kind":"Surprise"},"scope":"Namespaced","singularResource":"surprise","verbs":["get"]}]},
 {"version":"v2alpha1","freshness":"Current","resources":[]}]},
{"metadata":{"name":"zzz999-example.com"},"versions":[{"version":"v1","resources":[{"resource":"foos","scope":"Namespaced","verbs":["get"]}]}]},
{"metadata":{"name":"internal.apiserver.k8s.io"},"versions":[{"version":"v1alpha1","resources":[{"resource":"storageversions","scope":"Cluster","verbs":["get"]}]}]}]}`

const openapiV3 = `{"openapi":"3.0.0","info":{"title":"Kubernetes"},"paths":{
"/apis/apps/v1/":{"get":{"responses":{}}},
"/apis/apps/v1/namespaces/{namespace}/deployments/{name}":{"get":{"x":{"$ref":"#/components/schemas/Deployment"}},"parameters":[]},
"/apis/apps/v1/namespaces/{namespace}/daemonsets":{"post":{"x":{"$ref":"#/components/schemas/DaemonSet"}}},
"/apis/apps/v1/namespaces/{namespace}/deployments/{name}/surprise":{"get":{"x":{"$ref":"#/components/schemas/Surprise"}}},
"/apis/apps/v1/namespaces/{namespace}/surprises":{"get":{"x":{"$ref":"#/components/schemas/Surprise"}}},
"/apis/apps/v1/watch/deployments":{"get":{"x":{"$ref":"#/components/schemas/Watch"}}}},
"components":{"schemas":{"Deployment":{"x":{"$ref":"#/components/schemas/Meta"}},"DaemonSet":{},"Meta":{},"Surprise":{"x":{"$ref":"#/components/schemas/Deep"}},"Deep":{},"Watch":{}},"securitySchemes":{}}}`

// publisher is a control cluster that publishes a few documents.
type publisher struct {
	documents map[string]string
	down      bool
	// missing are paths that it does not serve.
	missing map[string]bool
	// hangs says that questions are left without an answer.
	hangs bool
	asked map[string]int
}

func (p *publisher) fetch(ctx context.Context, path, _, etag string) (control.Document, error) {
	p.asked[path]++
	if p.hangs {
		<-ctx.Done()
		return control.Document{}, ctx.Err()
	}
	body, ok := p.documents[path]
	switch {
	case p.missing[path]:
		return control.Document{}, fmt.Errorf("get %s: %w", path, control.ErrNotPublished)
	case p.down || !ok:
		return control.Document{}, errors.New("dial tcp 10.0.0.1: no route to zzz999")
	case etag == tag([]byte(body)):
		return control.Document{ETag: etag}, nil
	}
	return control.Document{Body: []byte(body), ETag: tag([]byte(body)), Fresh: true}, nil
}

type fixture struct {
	*publisher
	server *Server
	now    time.Time
	world  World
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{now: time.Unix(1e9, 0), publisher: &publisher{asked: map[string]int{}, documents: map[string]string{
		"/apis": apis, "/api": `{"items":[]}`, "/version": `{"major":"1"}`,
		"/openapi/v3":              `{"paths":{"apis/apps/v1":{"serverRelativeURL":"/openapi/v3/apis/apps/v1?hash=AB"},"apis/zzz999-example.com/v1":{"serverRelativeURL":"/x?hash=C"},"version":{"serverRelativeURL":"/y"},"apis/apps":{"serverRelativeURL":"/z"}}}`,
		"/openapi/v3/apis/apps/v1": openapiV3,
	}}}
	var err error
	f.server, err = New(Config{
		Fetch: f.fetch, Table: kinds.NewTable(), Address: "gateway.test:443", Ready: func() error { return nil }, Now: func() time.Time { return f.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) get(t *testing.T, uri, accept string, headers ...string) (*httptest.ResponseRecorder, error) {
	t.Helper()
	req, err := route.Parse("GET", uri)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), "GET", uri, nil)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	return w, f.server.Serve(w, r, req, f.world)
}

const kubectlAccept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;profile=nopeer,application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"

func TestServe(t *testing.T) {
	cases := map[string]struct {
		uri, accept string
		says        []string
		never       []string
		code        int
	}{
		"Aggregated": {"/apis", kubectlAccept, []string{"APIGroupDiscoveryList", `"deploy"`, `"scale"`, `"daemonsets"`}, []string{"surprise", "zzz999", "internal.apiserver", "v2alpha1", "2026"}, 200},
		"Legacy":     {"/apis", "", []string{"APIGroupList", `"apps/v1"`}, []string{"zzz999", "internal.apiserver", "v2alpha1"}, 200},
		"Group":      {"/apis/apps", "application/json", []string{`"kind":"APIGroup"`, `"preferredVersion"`}, []string{"v2alpha1"}, 200},
		"Version": {"/apis/apps/v1", "*/*", []string{"APIResourceList", `"deployments/scale"`, `"group":"autoscaling"`, `"name":"daemonsets","singularName":"daemonset","namespaced":true,"kind":"DaemonSet","verbs":["get","list","watch"]`},
			[]string{"surprise"}, 200},
		"Core":         {"/api", "", []string{"APIVersions", "gateway.test:443"}, nil, 200},
		"OtherGroup":   {"/apis/zzz999-example.com", "", nil, nil, -404},
		"OtherVersion": {"/apis/apps/v2alpha1", "", nil, nil, -404},
		"Denied":       {"/apis/internal.apiserver.k8s.io/v1alpha1", "", nil, nil, -404},
		"Protobuf":     {"/apis", "application/vnd.kubernetes.protobuf", nil, nil, 406},
		"Index":        {"/openapi/v3", "", []string{"/openapi/v3/apis/apps/v1?hash="}, []string{"zzz999", "version", `"apis/apps"`, "hash=AB"}, 200},
		"OpenAPI":      {"/openapi/v3/apis/apps/v1", "application/json", []string{`"Deployment"`, `"DaemonSet"`, `"Meta"`, `"parameters"`}, []string{"urprise", "Deep", "watch", "Watch"}, 200},
		"OpenAPIOther": {"/openapi/v3/apis/zzz999-example.com/v1", "", nil, nil, -404},
		"OpenAPIYAML":  {"/openapi/v3/apis/apps/v1", "application/yaml", nil, nil, 406},
		"Away":         {"/openapi/v2", "", nil, []string{"10.0.0.1"}, 503},
		"Release":      {"/version", "", []string{`"major":"1"`}, nil, 200},
		"Timeout":      {"/version?timeout=3m", "", []string{`"major":"1"`}, nil, 200},
		"NoTimeout":    {"/version?timeout=soon", "", []string{"invalid timeout specified in the request URL"}, nil, 400},
		"Live":         {"/livez", "", []string{"ok"}, nil, 200},
		"Root":         {"/", "", []string{"/openapi/v3"}, nil, 200},
		"Metrics":      {"/metrics", "", nil, nil, -404},
		"LivezDeep":    {"/livez/ping", "", nil, nil, -404},
	}
	f := newFixture(t)
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w, err := f.get(t, tc.uri, tc.accept)
			code := w.Code
			var status apierrors.APIStatus
			switch {
			case errors.Is(err, kinds.ErrNoSuchPath):
				code = -404
			case errors.As(err, &status):
				code = int(status.Status().Code)
			case err != nil:
				t.Fatal(err)
			}
			text := w.Body.String()
			if err != nil {
				text += err.Error()
			}
			if code != tc.code {
				t.Errorf("%d %v, want %d", code, err, tc.code)
			}
			for _, want := range tc.says {
				if !strings.Contains(text, want) {
					t.Errorf("does not say %q: %s", want, text)
				}
			}
			for _, never := range tc.never {
				if strings.Contains(text, never) {
					t.Errorf("says %q: %s", never, text)
				}
			}
		})
	}
}

// TestFreshness checks how often the control cluster is asked, and what clients hear while it is away.
func TestFreshness(t *testing.T) {
	f := newFixture(t)
	first, err := f.get(t, "/apis", kubectlAccept)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if again, err := f.get(t, "/apis", kubectlAccept, "If-None-Match", first.Header().Get("Etag")); err != nil || again.Code != http.StatusNotModified || again.Body.Len() != 0 {
			t.Fatalf("%d %v", again.Code, err)
		}
	}
	if f.asked["/apis"] != 1 {
		t.Errorf("asked %d times", f.asked["/apis"])
	}
	f.now = f.now.Add(freshFor)
	f.down = true
	if w, err := f.get(t, "/apis", kubectlAccept); err != nil || w.Body.String() != first.Body.String() {
		t.Errorf("while the control cluster is away: %d %v", w.Code, err)
	}
	f.now = f.now.Add(freshFor)
	f.down = false
	f.documents["/apis"] = strings.Replace(apis, `"deploy"`, `"dep"`, 1)
	if w, err := f.get(t, "/apis", kubectlAccept, "If-None-Match", first.Header().Get("Etag")); err != nil || w.Code != 200 || !strings.Contains(w.Body.String(), `"dep"`) {
		t.Errorf("after a change: %d %v", w.Code, err)
	}
}

// TestHangingControl has a control cluster that takes a question and says nothing: what is known is served all the same, and
// who waits for what is not known waits no longer than it wants to.
func TestHangingControl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		first, err := f.get(t, "/apis", kubectlAccept)
		if err != nil {
			t.Fatal(err)
		}
		f.now = f.now.Add(freshFor)
		f.hangs = true
		start := time.Now()
		for range 3 {
			if w, err := f.get(t, "/apis", kubectlAccept); err != nil || w.Body.String() != first.Body.String() {
				t.Errorf("%d %v", w.Code, err)
			}
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("three requests took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		if _, err := f.server.v2.get(ctx); err == nil || time.Since(start) > time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		time.Sleep(fetchTimeout)
		f.hangs = false
		f.now = f.now.Add(freshFor)
		f.documents["/apis"] = strings.Replace(apis, `"deploy"`, `"dep"`, 1)
		if w, err := f.get(t, "/apis", kubectlAccept); err != nil || !strings.Contains(w.Body.String(), `"dep"`) {
			t.Errorf("afterwards: %d %v", w.Code, err)
		}
	})
}

// TestImmutable checks that what a hash names may be kept for good, and nothing else.
func TestImmutable(t *testing.T) {
	f := newFixture(t)
	index, err := f.get(t, "/openapi/v3", "")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(index.Body.String(), "?hash=")
	hash, _, _ := strings.Cut(rest, `"`)
	for query, want := range map[string]bool{"?hash=" + hash: true, "?hash=AB": false, "": false} {
		w, err := f.get(t, "/openapi/v3/apis/apps/v1"+query, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(w.Header().Get("Cache-Control"), "immutable"); got != want || !strings.Contains(w.Header().Get("Cache-Control"), "private") {
			t.Errorf("%q: %q", query, w.Header().Get("Cache-Control"))
		}
	}
}

func TestChecks(t *testing.T) {
	for name, tc := range map[string]struct {
		path, published string
		ready           error
		code            int
		want            string
	}{
		"Plain":     {"/readyz", "", nil, 200, "ok"},
		"NotReady":  {"/readyz", "", errors.New("x"), 503, "not ready"},
		"Verbose":   {"/readyz?verbose", "[+]ping ok\n[+]poststarthook/start-informers ok\nreadyz check passed\n", nil, 200, "[+]gateway ok\n[+]ping ok\n[+]poststarthook/start-informers ok\nreadyz check passed\n"},
		"NoSecrets": {"/livez?verbose=1", "[-]etcd failed: dial tcp zzz999\n[+]zzz999 is here ok\n[-]log failed: reason withheld\n", nil, 200, "[+]gateway ok\n[-]log failed: reason withheld\nlivez check passed\n"},
		"Starting":  {"/readyz?verbose", "[+]ping ok\n", errors.New("x"), 500, "[-]gateway failed: reason withheld\n[+]ping ok\nreadyz check failed\n"},
		"Alive":     {"/livez?verbose", "[+]ping ok\n", errors.New("x"), 200, "[+]gateway ok\n[+]ping ok\nlivez check passed\n"},
		"Away":      {"/healthz?verbose", "", nil, 500, "[+]gateway ok\n[-]apiserver failed: reason withheld\nhealthz check failed\n"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.server.config.Ready = func() error { return tc.ready }
			path, _, _ := strings.Cut(tc.path, "?")
			if tc.published != "" {
				f.documents[path+"?verbose=1"] = tc.published
			}
			req, err := route.Parse("GET", tc.path)
			if err != nil {
				t.Fatal(err)
			}
			w := httptest.NewRecorder()
			if err := f.server.Serve(w, httptest.NewRequestWithContext(t.Context(), "GET", tc.path, nil), req, World{}); err != nil {
				t.Fatal(err)
			}
			if w.Code != tc.code || w.Body.String() != tc.want {
				t.Errorf("%d %q, want %d %q", w.Code, w.Body, tc.code, tc.want)
			}
		})
	}
}
