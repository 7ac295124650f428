package gateway

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const pods = "/api/v1/namespaces/default/pods"

// TestRefusals sends what a hostile tenant might. Each must be refused with a Status, and the control cluster must not
// hear of it.
func TestRefusals(t *testing.T) {
	h := newHarness(t)
	good := h.client(tenantA, nil)
	big := strings.Repeat("a", 4<<20)
	var bomb bytes.Buffer
	zip := gzip.NewWriter(&bomb)
	_, _ = zip.Write(bytes.Repeat([]byte{' '}, 1<<20))
	_ = zip.Close()
	const definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	cm := `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}`

	cases := map[string]struct {
		request string
		code    int
	}{
		// Paths and queries.
		"DotSegments":        {request("GET /api/v1/namespaces/default/../zzz999-default/secrets"), 400},
		"EncodedDots":        {request("GET /api/v1/namespaces/default/%2e%2e/secrets"), 400},
		"DotsSemicolon":      {request("GET /api/v1/namespaces/default/..;/secrets"), 400},
		"NameOfDots":         {request("DELETE /api/v1/namespaces/default/configmaps/.."), 400},
		"EncodedSlash":       {request("GET /api/v1/namespaces/default%2f..%2fzzz999-default/pods"), 400},
		"DoubleSlash":        {request("GET //api//v1/pods"), 400},
		"TrailingSlash":      {request("GET " + pods + "/"), 400},
		"AbsoluteForm":       {request("GET http://169.254.169.254/latest"), 400},
		"LegacyWatch":        {request("GET /api/v1/watch/namespaces/zzz999-default/pods"), 404},
		"LegacyProxy":        {request("GET /api/v1/proxy/namespaces/zzz999-default/services/x"), 404},
		"RepeatedSelector":   {request("GET " + pods + "?labelSelector=a&labelSelector=b"), 400},
		"RepeatedWatch":      {request("GET " + pods + "?watch=0&watch=1"), 400},
		"QuerySemicolon":     {request("GET " + pods + "?a=b;watch=true"), 400},
		"UnknownParameter":   {request("GET " + pods + "?namespace=zzz999-default"), 400},
		"ShardSelector":      {request("GET " + pods + "?shardSelector=x"), 400},
		"NegativeTimeout":    {request("GET " + pods + "?timeoutSeconds=-1"), 400},
		"LongSelector":       {request("GET " + pods + "?labelSelector=" + strings.Repeat("a", 40<<10)), 414},
		"Trace":              {request("TRACE " + pods), 405},
		"Propfind":           {request("PROPFIND " + pods), 405},
		"Head":               {request("HEAD " + pods + "/a"), -405},
		"Options":            {request("OPTIONS "+pods, "Origin: https://evil.example", "Access-Control-Request-Method: GET"), 405},
		"PrefixedTwice":      {request("GET /apis/rbac.authorization.k8s.io/v1/namespaces/default/clusterroles/x"), 404},
		"UnknownSubresource": {request("GET " + pods + "/a/foo"), 404},
		"LongNamespace":      {request("GET /api/v1/namespaces/" + strings.Repeat("a", 57) + "/pods"), 400},
		"NamespaceDot":       {request("GET /api/v1/namespaces/default./pods"), 400},

		// Headers.
		"ImpersonateUid":        {request("GET "+pods, "Impersonate-Uid: 1"), 400},
		"ImpersonateExtra":      {request("GET "+pods, "Impersonate-Extra-Scopes: x"), 400},
		"ImpersonateGroupAlone": {request("GET "+pods, "Impersonate-Group: system:masters"), 400},
		"ImpersonateUnderscore": {request("GET "+pods, "Impersonate_User: x"), 400},
		"ImpersonateTwice":      {request("GET "+pods, "Impersonate-User: a", "Impersonate-User: b"), 400},
		"ImpersonateTab":        {request("GET "+pods, "Impersonate-User: a\tb"), 400},
		"RemoteUser":            {request("GET "+pods, "X-Remote-User: x"), 400},
		"RemoteGroup":           {request("GET "+pods, "x_remote_group: system:masters"), 400},
		"TwoAuthorizations":     {request("GET "+pods, "Authorization: Bearer a.b.c", "Authorization: Bearer d.e.f"), 401},
		"BasicAuthorization":    {request("GET "+pods, "Authorization: Basic YTpi"), 401},
		"AcceptNothing":         {request("GET "+pods, "Accept: application/cbor"), 406},
		"AcceptYAML":            {request("GET "+pods, "Accept: application/yaml"), 406},

		// Bodies.
		"TooLarge":          {withBody("POST /api/v1/namespaces/default/configmaps", big), 413},
		"CompressedBody":    {withBody("POST /api/v1/namespaces/default/configmaps", bomb.String(), "Content-Encoding: gzip"), 415},
		"CBORBody":          {request("POST /api/v1/namespaces/default/configmaps", "Content-Type: application/cbor", "Content-Length: 1") + "\xa0", 415},
		"NoContentType":     {request("POST /api/v1/namespaces/default/configmaps", "Content-Length: 2", "Content-Type: text/html") + "{}", 415},
		"TwoContentTypes":   {withBody("POST /api/v1/namespaces/default/configmaps", cm, "Content-Type: application/yaml"), 400},
		"ProtobufGarbage":   {request("POST /api/v1/namespaces/default/configmaps", "Content-Type: application/vnd.kubernetes.protobuf", "Content-Length: 2") + "{}", 400},
		"DuplicateKey":      {withBody("POST /api/v1/namespaces/default/configmaps", `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"metadata":{"name":"b"}}`), 400},
		"OtherNamespace":    {withBody("POST /api/v1/namespaces/default/configmaps", `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"zzz999-default"}}`), 400},
		"PrefixedNamespace": {withBody("POST /api/v1/namespaces/default/configmaps", `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"abc123-default"}}`), 400},
		"TwoDocuments":      {withBody("POST /api/v1/namespaces/default/configmaps", cm+cm), 400},
		"PlatformLabel":     {withBody("POST /api/v1/namespaces/default/configmaps", `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","labels":{"vivarium.io/tenant":"zzz999"}}}`), 403},
		"LongNamespaceName": {withBody("POST /api/v1/namespaces", `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"`+strings.Repeat("a", 57)+`"}}`), 422},
		"OtherKindInBody":   {withBody("POST /api/v1/namespaces/default/configmaps", `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"a"}}`), 400},
		"EvictsAnother":     {withBody("POST "+pods+"/a/eviction", `{"kind":"Eviction","apiVersion":"policy/v1","metadata":{"name":"b"}}`), 400},

		// Kinds, verbs and subresources.
		"Tenants":              {request("GET /apis/vivarium.io/v1alpha1/tenants"), -404},
		"Metrics":              {request("GET /metrics"), -404},
		"Profiles":             {request("GET /debug/pprof/heap"), -404},
		"Logs":                 {request("GET /logs/"), 400},
		"LogsFile":             {request("GET /logs/kube-apiserver.log"), -404},
		"Configz":              {request("GET /configz"), -404},
		"Statusz":              {request("GET /statusz"), -404},
		"Flagz":                {request("GET /flagz"), -404},
		"KeysSlash":            {request("GET /openid/v1/jwks/"), 400},
		"OtherKeys":            {request("GET /openid/v1/keys"), -404},
		"WellKnown":            {request("GET /.well-known"), -404},
		"UpperCase":            {request("GET /API/v1"), -404},
		"UpperCaseVersion":     {request("GET /api/V1/pods"), 404},
		"DeleteNodes":          {request("DELETE /api/v1/nodes"), 403},
		"NodeStatus":           {withBody("PATCH /api/v1/nodes/a/status", "{}"), 403},
		"NodeProxy":            {request("GET /api/v1/nodes/a/proxy/pods"), 404},
		"NodeProxyShort":       {request("GET /api/v1/nodes/a/proxy"), 403},
		"PodProxyScheme":       {request("GET " + pods + "/ftp:a:443/proxy"), 400},
		"Binding":              {withBody("POST "+pods+"/a/binding", "{}"), 403},
		"Finalize":             {withBody("PATCH /api/v1/namespaces/default/finalize", "{}"), 405},
		"FinalizeLabel":        {withBody("PUT /api/v1/namespaces/default/finalize", `{"metadata":{"name":"default","labels":{"vivarium.io/tenant":"zzz999"}}}`), 403},
		"DeleteDefault":        {request("DELETE /api/v1/namespaces/default"), 403},
		"DeleteAllNamespaces":  {request("DELETE /api/v1/namespaces"), 405},
		"ClusterSigner":        {withBody("POST /apis/certificates.k8s.io/v1/certificatesigningrequests", `{"metadata":{"name":"a"},"spec":{"signerName":"kubernetes.io/kubelet-serving"}}`), 403},
		"ClusterSignerApplied": {request("PATCH /apis/certificates.k8s.io/v1/certificatesigningrequests/a?fieldManager=x", "Content-Type: application/apply-patch+yaml", "Content-Length: 155") + fmt.Sprintf("%-155s", "{kind: CertificateSigningRequest, apiVersion: certificates.k8s.io/v1, metadata: {name: a}, spec: {signerName: kubernetes.io/kubelet-serving}}"), 403},
		"ClusterSignerPatched": {request("PATCH /apis/certificates.k8s.io/v1/certificatesigningrequests/a", "Content-Type: application/json-patch+json", "Content-Length: 95") + fmt.Sprintf("%-95s", `[{"op":"replace","path":"/spec/signerName","value":"kubernetes.io/legacy-unknown"}]`), 403},
		"DaemonSet":            {withBody("POST /apis/apps/v1/namespaces/default/daemonsets", "{}"), 403},
		"Webhook":              {withBody("POST /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", "{}"), 403},
		"Definition":           {withBody("POST "+definitions, "{}"), 422},
		"DefinitionBuiltIn":    {withBody("POST "+definitions, `{"metadata":{"name":"pods.apps"},"spec":{"group":"apps"}}`), 403},
		"DefinitionPlatform":   {withBody("POST "+definitions, `{"metadata":{"name":"a.vivarium.io"},"spec":{"group":"vivarium.io"}}`), 403},
		"DefinitionWebhook":    {withBody("POST "+definitions, `{"metadata":{"name":"a.x.io"},"spec":{"group":"x.io","conversion":{"strategy":"Webhook"}}}`), 403},
		"DefinitionLabel":      {withBody("POST "+definitions, `{"metadata":{"name":"a.x.io","labels":{"vivarium.io/tenant":"zzz999"}}}`), 403},
		"DefinitionOtherName":  {withBody("PUT "+definitions+"/a.x.io", `{"metadata":{"name":"b.x.io"}}`), 400},
		"DefinitionBareName":   {withBody("POST "+definitions, `{"metadata":{"name":"a"}}`), 422},
		"DefinitionBareGet":    {request("GET " + definitions + "/a"), 404},
		"DefinitionLabels":     {request("PATCH "+definitions+"/a.x.io", "Content-Type: application/json-patch+json", "Content-Length: 43") + `[{"op":"remove","path":"/metadata/labels"}]`, 422},
		"DefinitionSelector":   {request("GET " + definitions + "?labelSelector=vivarium.io%2Ftenant"), 403},
		"PersistentVolume":     {withBody("POST /api/v1/persistentvolumes", "{}"), 403},
		"EndpointsWrite":       {withBody("POST /api/v1/namespaces/default/endpoints", "{}"), 403},
		"ServiceStatusWrite":   {withBody("PATCH /api/v1/namespaces/default/services/a/status", "{}"), 403},
		"ForgedContinue":       {request("GET /api/v1/pods?limit=1&continue=" + base64.RawURLEncoding.EncodeToString([]byte(`{"v":"meta.k8s.io/v1","rv":-1,"start":"zzz999-"}`))), 400},
		"ForgedContinueInside": {request("GET " + pods + "?limit=1&continue=AAAA"), 400},
		"HugeContinue":         {request("GET " + pods + "?limit=1&continue=" + strings.Repeat("A", 20<<10)), 400},

		// Streams.
		"ExecWithoutUpgrade":  {request("POST " + pods + "/a/exec?command=ls"), 400},
		"ExecOtherProtocol":   {request("POST "+pods+"/a/exec?command=ls", "Connection: Upgrade", "Upgrade: h2c"), 400},
		"ExecOfAPage":         {request("GET "+pods+"/a/exec?command=ls", "Connection: Upgrade", "Upgrade: websocket", "Origin: https://evil.example"), 403},
		"ExecOfNullOrigin":    {request("GET "+pods+"/a/exec?command=ls", "Connection: Upgrade", "Upgrade: websocket", "Origin: null"), 403},
		"ExecUnknownOption":   {request("POST "+pods+"/a/exec?command=ls&uid=1", "Connection: Upgrade", "Upgrade: SPDY/3.1"), 400},
		"TokenForTheControl":  {withBody("POST /api/v1/namespaces/default/serviceaccounts/a/token", `{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","spec":{"audiences":["https://kubernetes.default.svc"]}}`), 403},
		"TokenSecret":         {withBody("POST /api/v1/namespaces/default/secrets", `{"kind":"Secret","apiVersion":"v1","type":"kubernetes.io/service-account-token","metadata":{"name":"a"}}`), 403},
		"SmuggledAbsoluteURI": {request("GET https://example.com@evil.test" + pods), 400},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			res, body := h.raw(tc.request, good)
			switch {
			case tc.code == -405:
				if res.StatusCode != 405 {
					t.Errorf("answer is %d, want 405", res.StatusCode)
				}
			case tc.code == -404:
				if res.StatusCode != 404 || body != "404 page not found\n" {
					t.Errorf("answer is %d %q, want a plain 404", res.StatusCode, body)
				}
			default:
				status(t, res, body, tc.code, tc.request)
			}
			if asTenant, asItself := h.taken(); len(asTenant)+len(asItself) != 0 {
				t.Errorf("the control cluster was asked %v and %v", asTenant, asItself)
			}
		})
	}
}

// TestStrangers sends requests without a good credential.
func TestStrangers(t *testing.T) {
	h := newHarness(t)
	h.answerWith(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":{"authenticated":false}}`)
	})
	for name, tc := range map[string]struct {
		request string
		reviews int
	}{
		"Nobody":          {request("GET " + pods), 0},
		"Discovery":       {request("GET /api"), 0},
		"Health":          {request("GET /healthz"), 0},
		"EmptyBearer":     {request("GET "+pods, "Authorization: Bearer "), 0},
		"NullBearer":      {request("GET "+pods, "Authorization: Bearer null"), 0},
		"PlatformToken":   {request("GET "+pods, "Authorization: Bearer "+token("system:serviceaccount:kube-system:x", "vivarium-gateway")), 0},
		"ControlAudience": {request("GET "+pods, "Authorization: Bearer "+token("system:serviceaccount:abc123-web:x", "https://kubernetes.default.svc")), 0},
		"EditedToken":     {request("GET "+pods, "Authorization: Bearer "+token("system:serviceaccount:abc123-web:x", "vivarium-gateway")), 1},
		"WebSocketToken": {request("GET "+pods+"/a/exec?command=ls", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Protocol: v5.channel.k8s.io, base64url.bearer.authorization.k8s.io."+
			base64.RawURLEncoding.EncodeToString([]byte(token("system:serviceaccount:abc123-web:y", "vivarium-gateway")))), 1},
	} {
		t.Run(name, func(t *testing.T) {
			res, body := h.raw(tc.request)
			status(t, res, body, 401)
			asTenant, asItself := h.taken()
			if len(asTenant) != 0 || len(asItself) != tc.reviews {
				t.Errorf("the control cluster was asked %v and %v", asTenant, asItself)
			}
		})
	}
	for name, change := range map[string]func(*x509.Certificate){
		"NoUnit":   func(c *x509.Certificate) { c.Subject.OrganizationalUnit = nil },
		"TwoUnits": func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{tenantA, tenantB} },
		"OtherUID": func(c *x509.Certificate) { c.Subject.SerialNumber = "uid-of-an-earlier-tenant" },
		"Server":   func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
	} {
		t.Run(name, func(t *testing.T) {
			res, body := h.raw(request("GET "+pods), h.client(tenantA, change))
			status(t, res, body, 401)
			if asTenant, asItself := h.taken(); len(asTenant)+len(asItself) != 0 {
				t.Errorf("the control cluster was asked %v and %v", asTenant, asItself)
			}
		})
	}
}

// TestStrangersWait checks that bad tokens stop costing the control cluster a review each.
func TestStrangersWait(t *testing.T) {
	h := newHarness(t)
	h.answerWith(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":{"authenticated":false}}`)
	})
	const tries = 200
	throttled := 0
	for i := range tries {
		res, _ := h.raw(request("GET "+pods, "Authorization: Bearer "+token(fmt.Sprintf("system:serviceaccount:abc123-web:x%d", i), "vivarium-gateway")))
		if res.StatusCode == 429 {
			throttled++
			if res.Header.Get("Retry-After") == "" {
				t.Error("429 without Retry-After")
			}
		}
	}
	_, asItself := h.taken()
	if throttled < tries/4 || len(asItself)+throttled != tries {
		t.Errorf("%d throttled, %d reviews of %d", throttled, len(asItself), tries)
	}
	if res, _ := h.raw(request("GET "+pods), h.client(tenantA, nil)); res.StatusCode != 404 && res.StatusCode != 500 && res.StatusCode != 201 {
		t.Errorf("a tenant behind the same address: %d", res.StatusCode)
	}
}

// TestNeighboursOfStrangers lets a good token and bad credentials come from one address, as those of all pods behind a
// masquerading node do.
func TestNeighboursOfStrangers(t *testing.T) {
	h := newHarness(t)
	const mine, late = "system:serviceaccount:abc123-web:mine", "system:serviceaccount:abc123-web:late"
	good, another := token(mine, "vivarium-gateway"), token(late, "vivarium-gateway")
	var reviewed atomic.Int32
	h.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if !strings.HasSuffix(r.URL.Path, "/tokenreviews") {
			_, _ = io.WriteString(w, `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}`)
			return
		}
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusCreated)
		for user, token := range map[string]string{mine: good, late: another} {
			if strings.Contains(string(body), token) {
				if user == mine {
					reviewed.Add(1)
				}
				fmt.Fprintf(w, `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":{"authenticated":true,"audiences":["vivarium-gateway"],"user":{"username":%q}}}`, user)
				return
			}
		}
		_, _ = io.WriteString(w, `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":{"authenticated":false}}`)
	})
	is := func(want int, headers ...string) {
		t.Helper()
		if res, body := h.raw(request("GET "+pods, headers...)); res.StatusCode != want {
			t.Fatalf("answer is %d, want %d: %s", res.StatusCode, want, body)
		}
	}
	is(200, "Authorization: Bearer "+good)
	// Nobody's time is spent on these.
	for range 100 {
		is(401)
		is(401, "Authorization: Bearer "+token("system:serviceaccount:kube-system:x", "vivarium-gateway"))
	}
	is(200, "Authorization: Bearer "+another)
	forged := 0
	flood := func() {
		for code := 0; code != http.StatusTooManyRequests; forged++ {
			res, _ := h.raw(request("GET "+pods, "Authorization: Bearer "+token(fmt.Sprintf("system:serviceaccount:abc123-web:x%d", forged), "vivarium-gateway")))
			code = res.StatusCode
		}
	}
	// Until it has been asked about again: what was known of it then is known no more.
	eventually(t, "the token is reviewed again", func() bool {
		flood()
		is(200, "Authorization: Bearer "+good)
		return reviewed.Load() > 1
	})
}

// TestIdentityHeaders sends every kind of identity header that reaches a request, and looks at whom the control cluster
// sees.
func TestIdentityHeaders(t *testing.T) {
	h := newHarness(t)
	good := h.client(tenantA, nil)
	for name, headers := range map[string][]string{
		"None":      nil,
		"Forwarded": {"X-Forwarded-For: 10.0.0.1", "Forwarded: for=10.0.0.1", "Cookie: a=b", "X-Remote-Addr: x", "Kubectl-Session: x"},
		// The advisories CVE-2021-31999 and CVE-2022-23652: a proxy dropped the header that it had just set, because the
		// client had declared it hop-by-hop.
		"CVE_2021_31999_ConnectionHeader": {"Connection: Impersonate-User, Impersonate-Group, Authorization", "Keep-Alive: x", "TE: trailers"},
		"Trailers":                        {"Trailer: Impersonate-User"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, line := range []string{"GET " + pods + "/a", "GET " + pods + "/a/log", "GET " + pods + "?watch=true"} {
				h.raw(request(line, headers...), good)
				got, _ := h.taken()
				if len(got) != 1 {
					t.Fatalf("%s: %d requests", line, len(got))
				}
				want := http.Header{
					"Impersonate-User": {"abc123-admin"}, "Impersonate-Group": {"abc123-system:masters", "abc123-system:authenticated"},
					"Accept": got[0].Header["Accept"], "Accept-Encoding": {"identity"}, "User-Agent": {"unknown"}, "Authorization": {"Bearer own"},
				}
				if diff := cmp.Diff(want, got[0].Header); diff != "" {
					t.Errorf("%s (-want +got):\n%s", line, diff)
				}
			}
		})
	}
}

// TestNotATunnel checks that nothing but the three tunnels ever becomes one, and that a tunnel which did not come about
// leaves no open way to the control cluster.
func TestNotATunnel(t *testing.T) {
	h := newHarness(t)
	good := h.client(tenantA, nil)
	t.Run("Secrets", func(t *testing.T) {
		res, body := h.raw(request("GET /api/v1/namespaces/default/secrets", "Connection: Upgrade", "Upgrade: SPDY/3.1"), good)
		status(t, res, body, 404)
		got, _ := h.taken()
		if len(got) != 1 || got[0].Header.Get("Upgrade") != "" {
			t.Errorf("the control cluster got %v", got)
		}
	})
	t.Run("CVE_2018_1002105_FailedUpgrade", func(t *testing.T) {
		conn := h.dial(good)
		defer conn.Close()
		// The second request comes with the first: if the first one's connection to the control cluster were left joined,
		// the second would go there as it is.
		first := request("POST "+pods+"/missing/exec?command=ls", "Connection: Upgrade", "Upgrade: SPDY/3.1")
		second := request("GET /api/v1/namespaces/zzz999-default/secrets", "Impersonate-User: zzz999-admin")
		if _, err := io.WriteString(conn, first+second); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		res, body := readAnswer(t, r, "POST")
		status(t, res, body, 404)
		if _, err := r.ReadByte(); err == nil {
			t.Error("the connection stays open")
		}
		if got, _ := h.taken(); len(got) != 1 || got[0].Header.Get("Upgrade") != "SPDY/3.1" {
			t.Errorf("the control cluster got %v", got)
		}
	})
	t.Run("Redirect", func(t *testing.T) {
		h.answerWith(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://169.254.169.254/", http.StatusTemporaryRedirect)
		})
		defer h.answerWith(nil)
		for _, line := range []string{"POST " + pods + "/a/exec?command=ls", "GET " + pods + "/a", "GET " + pods + "?watch=true", "GET /api/v1/pods"} {
			res, body := h.raw(request(line, "Connection: Upgrade", "Upgrade: SPDY/3.1"), good)
			status(t, res, body, 502)
			if got, _ := h.taken(); len(got) != 1 {
				t.Errorf("%s: the control cluster got %v", line, got)
			}
		}
	})
	t.Run("NoSwitch", func(t *testing.T) {
		h.answerWith(func(http.ResponseWriter, *http.Request) {})
		defer h.answerWith(nil)
		res, body := h.raw(request("POST "+pods+"/a/exec?command=ls", "Connection: Upgrade", "Upgrade: SPDY/3.1"), good)
		status(t, res, body, 502)
		h.taken()
	})
}

// TestControlTrouble checks that what goes wrong behind the gateway is told in words that say nothing of it.
func TestControlTrouble(t *testing.T) {
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		line   string
		code   int
	}{
		"HTML": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "zzz999")
		}, "GET " + pods + "/a", 500},
		"HTMLError":     {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "dial tcp 127.0.0.1: zzz999", 502) }, "GET " + pods + "/a", 502},
		"Truncated":     {answerJSON(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","namesp`), "GET " + pods + "/a", -1},
		"Foreign":       {answerJSON(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","namespace":"zzz999-default"}}`), "GET " + pods + "/a", 404},
		"ForeignInList": {answerJSON(`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"a","namespace":"zzz999-default"}}]}`), "GET " + pods, 500},
		"Breaks":        {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "GET " + pods + "/a", 503},
		"Throttled": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(429)
			_, _ = io.WriteString(w, "Too many requests, please try again later.")
		}, "GET " + pods + "/a", 429},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.answerWith(tc.answer)
			res, body := h.raw(request(tc.line), h.client(tenantA, nil))
			if tc.code > 0 {
				status(t, res, body, tc.code)
			} else if res.StatusCode == 200 {
				t.Errorf("half an answer is passed as a whole: %s", body)
			}
			if tc.code == 429 && res.Header.Get("Retry-After") != "7" {
				t.Errorf("Retry-After is %q", res.Header.Get("Retry-After"))
			}
			for _, secret := range []string{tenantB, "127.0.0.1"} {
				if strings.Contains(body, secret) {
					t.Errorf("the answer shows %q: %s", secret, body)
				}
			}
		})
	}
}

func answerJSON(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
	}
}
