package guard

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"vivarium.io/vivarium/internal/names"
)

type roundTripperFn func(*http.Request) (*http.Response, error)

func (f roundTripperFn) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func good() http.Header {
	return http.Header{
		"Impersonate-User":  {"abc123-admin"},
		"Impersonate-Group": {"abc123-system:masters", "abc123-system:authenticated"},
		"Accept":            {"application/json"},
		"Content-Type":      {"application/json"},
	}
}

// send gives what became of a request: nil if it was let through.
func send(t *testing.T, tenant names.TenantID, method, uri, body string, header http.Header) error {
	t.Helper()
	refused, sent := 0, 0
	shared := func(id names.TenantID, group, resource string) bool {
		return id == "abc123" && group == "shared.test" && resource == "things"
	}
	g := &Guard{Host: "control.test", BasePath: "/base", Shared: shared, Refused: func() { refused++ }, Next: roundTripperFn(func(r *http.Request) (*http.Response, error) {
		sent++
		if r.Body != nil {
			if got, err := io.ReadAll(r.Body); err != nil || string(got) != body {
				t.Errorf("body became %q, %v", got, err)
			}
		}
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
	})}
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(WithTenant(t.Context(), tenant), method, "https://control.test/base"+uri, reader)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	res, err := g.RoundTrip(r)
	if res != nil {
		_ = res.Body.Close()
	}
	var refusal *Refusal
	if refused+sent != 1 || (err != nil) != (refused == 1) || (err != nil && !errors.As(err, &refusal)) {
		t.Fatalf("refused %d, sent %d, %v", refused, sent, err)
	}
	return err
}

func from(start string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(`{"v":"meta.k8s.io/v1","rv":-1,"start":"` + start + `"}`))
}

func TestPaths(t *testing.T) {
	const (
		roles       = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
		custom      = "/apis/abc123-example.com/v1"
		definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	)
	cases := map[string]struct {
		method, uri, body string
		want              bool
	}{
		"Own":                    {"GET", "/api/v1/namespaces/abc123-web/pods/a", "", true},
		"OwnGroup":               {"PUT", "/apis/apps/v1/namespaces/abc123-web/deployments/a/scale", "", true},
		"OwnCollection":          {"DELETE", "/api/v1/namespaces/abc123-web/pods", "", true},
		"Exec":                   {"POST", "/api/v1/namespaces/abc123-web/pods/a/exec?command=a&command=b", "", true},
		"Foreign":                {"GET", "/api/v1/namespaces/zzz999-web/pods/a", "", false},
		"Platform":               {"GET", "/api/v1/namespaces/kube-system/secrets", "", false},
		"Bare":                   {"GET", "/api/v1/namespaces/web/pods", "", false},
		"OnlyPrefix":             {"GET", "/api/v1/namespaces/abc123-/pods", "", false},
		"LongerID":               {"GET", "/api/v1/namespaces/abc1234-web/pods", "", false},
		"Climbs":                 {"GET", "/api/v1/namespaces/abc123-web/../zzz999-web/pods", "", false},
		"ClimbsEncoded":          {"GET", "/api/v1/namespaces/abc123-web/%2e%2e/zzz999-web/pods", "", false},
		"EncodedSlash":           {"GET", "/api/v1/namespaces/abc123-web%2f..%2fzzz999-web/pods", "", false},
		"DoubleSlash":            {"GET", "/api/v1//namespaces/abc123-web/pods", "", false},
		"Legacy":                 {"GET", "/api/v1/watch/namespaces/abc123-web/pods", "", false},
		"NoResource":             {"GET", "/apis", "", false},
		"OwnNamespace":           {"PATCH", "/api/v1/namespaces/abc123-web", "", true},
		"NamespaceStatus":        {"GET", "/api/v1/namespaces/abc123-web/status", "", true},
		"NamespaceStatusWrite":   {"PUT", "/api/v1/namespaces/abc123-web/status", "", true},
		"Finalize":               {"PUT", "/api/v1/namespaces/abc123-web/finalize", "", true},
		"FinalizeForeign":        {"PUT", "/api/v1/namespaces/zzz999-web/finalize", "", false},
		"RoleFinalize":           {"PUT", "/apis/rbac.authorization.k8s.io/v1/clusterroles/abc123-a/finalize", "", false},
		"RoleStatus":             {"GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/abc123-a/status", "", false},
		"ForeignNamespace":       {"DELETE", "/api/v1/namespaces/zzz999-web", "", false},
		"KubeSystem":             {"DELETE", "/api/v1/namespaces/kube-system", "", false},
		"OwnRole":                {"DELETE", roles + "/abc123-x", "", true},
		"ForeignRole":            {"DELETE", roles + "/zzz999-x", "", false},
		"PlatformRole":           {"PUT", roles + "/cluster-admin", "", false},
		"AllRoles":               {"DELETE", roles, "", false},
		"Binding":                {"POST", "/api/v1/namespaces/abc123-web/pods/a/binding", "", false},
		"PodProxy":               {"GET", "/api/v1/namespaces/abc123-web/pods/a/proxy/x", "", false},
		"ServiceExec":            {"POST", "/api/v1/namespaces/abc123-web/services/a/exec", "", false},
		"UnknownKind":            {"GET", "/api/v1/namespaces/abc123-web/foos", "", false},
		"Custom":                 {"PUT", custom + "/namespaces/abc123-web/foos/a/status", "", true},
		"CustomForeignNamespace": {"GET", custom + "/namespaces/zzz999-web/foos/a", "", false},
		"CustomForeignGroup":     {"GET", "/apis/zzz999-example.com/v1/namespaces/abc123-web/foos/a", "", false},
		"CustomBareGroup":        {"GET", "/apis/example.com/v1/namespaces/abc123-web/foos/a", "", false},
		"CustomExec":             {"POST", custom + "/namespaces/abc123-web/foos/a/exec", "", false},
		"CustomList":             {"GET", custom + "/foos?limit=500&continue=" + from("abc123-"), "", true},
		"CustomListAll":          {"GET", custom + "/foos", "", false},
		"CustomWatch":            {"GET", custom + "/foos?watch=true", "", true},
		"CustomNamed":            {"PATCH", custom + "/foos/abc123-a/scale", "", true},
		"CustomNamedForeign":     {"GET", custom + "/foos/zzz999-a", "", false},
		"CustomCreate":           {"POST", custom + "/foos", `{"metadata":{"name":"abc123-a"}}`, true},
		"CustomCreateBare":       {"POST", custom + "/foos", `{"metadata":{"name":"a"}}`, false},
		"Shared":                 {"GET", "/apis/shared.test/v1/namespaces/abc123-web/things/a", "", true},
		"SharedOther":            {"GET", "/apis/shared.test/v1/namespaces/abc123-web/others/a", "", false},
		"SharedForeignNamespace": {"GET", "/apis/shared.test/v1/namespaces/zzz999-web/things/a", "", false},
		"Definition":             {"GET", definitions + "/foos.abc123-example.com", "", true},
		"DefinitionStatus":       {"PUT", definitions + "/foos.abc123-example.com/status", "", true},
		"DefinitionForeign":      {"DELETE", definitions + "/foos.zzz999-example.com", "", false},
		"DefinitionBare":         {"GET", definitions + "/foos.example.com", "", false},
		"DefinitionPrefixed":     {"GET", definitions + "/abc123-foos.example.com", "", false},
		"DefinitionDeeper":       {"GET", definitions + "/foos.example.abc123-com", "", false},
		"DefinitionFinalize":     {"PUT", definitions + "/foos.abc123-example.com/finalize", "", false},
		"Definitions":            {"GET", definitions + "?labelSelector=a%3Db%2Cvivarium.io%2Ftenant%3Dabc123", "", true},
		"DefinitionsDeleted":     {"DELETE", definitions + "?labelSelector=vivarium.io%2Ftenant%3Dabc123", "", true},
		"DefinitionsAll":         {"GET", definitions, "", false},
		"DefinitionsForeign":     {"GET", definitions + "?labelSelector=vivarium.io%2Ftenant%3Dzzz999", "", false},
		"DefinitionsLonger":      {"GET", definitions + "?labelSelector=vivarium.io%2Ftenant%3Dabc1234", "", false},
		"DefinitionsNot":         {"GET", definitions + "?labelSelector=vivarium.io%2Ftenant%21%3Dabc123", "", false},
		"DefinitionCreate":       {"POST", definitions, `{"metadata":{"name":"foos.abc123-example.com"}}`, true},
		"DefinitionCreateBare":   {"POST", definitions, `{"metadata":{"name":"foos.example.com"}}`, false},
		"DefinitionGenerate":     {"POST", definitions, `{"metadata":{"generateName":"foos.abc123-"}}`, false},
		"UnknownGroup":           {"GET", "/apis/example.com/v1/namespaces/abc123-web/foos", "", false},
		"Volumes":                {"GET", "/api/v1/persistentvolumes/abc123-x", "", false},
		"Webhooks":               {"GET", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/abc123-x", "", false},
		"Nodes":                  {"GET", "/api/v1/nodes?labelSelector=a%3Db,vivarium.io%2Fpool", "", true},
		"NodesUnselected":        {"GET", "/api/v1/nodes", "", false},
		"NodesOtherwiseSelected": {"GET", "/api/v1/nodes?labelSelector=%21vivarium.io%2Fpool", "", false},
		"NodeByName":             {"GET", "/api/v1/nodes/a?labelSelector=vivarium.io%2Fpool", "", false},
		"NodesDeleted":           {"DELETE", "/api/v1/nodes?labelSelector=vivarium.io%2Fpool", "", false},
		"List":                   {"GET", "/api/v1/pods?limit=500&continue=" + from("abc123-"), "", true},
		"ListNext":               {"GET", "/api/v1/pods?limit=500&continue=" + from(`abc123-web/a\u0000`), "", true},
		"ListNextFromCache":      {"GET", "/api/v1/pods?limit=500&continue=" + from(`/abc123-web/a\u0000`), "", true},
		"ListClimbs":             {"GET", "/api/v1/pods?limit=500&continue=" + from(`//abc123-web`), "", false},
		"ListRoles":              {"GET", roles + "?limit=1&continue=" + from("abc123-"), "", true},
		"ListWithoutContinue":    {"GET", "/api/v1/pods?limit=500", "", false},
		"ListForeign":            {"GET", "/api/v1/pods?limit=500&continue=" + from("zzz999-"), "", false},
		"ListFromBeginning":      {"GET", "/api/v1/pods?limit=500&continue=" + from(""), "", false},
		"ListWithoutLimit":       {"GET", "/api/v1/pods?continue=" + from("abc123-"), "", false},
		"ListAtVersion":          {"GET", "/api/v1/pods?limit=500&resourceVersion=0&continue=" + from("abc123-"), "", false},
		"Watch":                  {"GET", "/api/v1/pods?watch=true", "", true},
		"WatchRepeated":          {"GET", "/api/v1/pods?watch=true&watch=false", "", false},
		"QuerySemicolon":         {"GET", "/api/v1/pods?watch=true;a=b", "", false},
		"Review":                 {"POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "{}", true},
		"LocalReview":            {"POST", "/apis/authorization.k8s.io/v1/namespaces/abc123-web/localsubjectaccessreviews", "{}", true},
		"ForeignLocalReview":     {"POST", "/apis/authorization.k8s.io/v1/namespaces/zzz999-web/localsubjectaccessreviews", "{}", false},
		"ReviewRead":             {"GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "", false},
		"Create":                 {"POST", roles, `{"metadata":{"name":"abc123-x"}}`, true},
		"CreateGenerated":        {"POST", roles, `{"metadata":{"generateName":"abc123-x-"}}`, true},
		"CreateNamespace":        {"POST", "/api/v1/namespaces", `{"kind":"Namespace","metadata":{"name":"abc123-web","labels":{"a":"b"}}}`, true},
		"CreateForeign":          {"POST", roles, `{"metadata":{"name":"zzz999-x"}}`, false},
		"CreateBare":             {"POST", roles, `{"metadata":{"name":"x"}}`, false},
		"CreateGeneratedForeign": {"POST", roles, `{"metadata":{"generateName":"zzz999-"}}`, false},
		"CreateGeneratedBesides": {"POST", roles, `{"metadata":{"name":"abc123-x","generateName":"zzz999-"}}`, false},
		"CreateNameless":         {"POST", roles, `{"metadata":{}}`, false},
		"CreateNoMetadata":       {"POST", roles, `{}`, false},
		"CreateNoBody":           {"POST", roles, "", false},
		"CreateMetadataTwice":    {"POST", roles, `{"metadata":{"name":"abc123-x"},"metadata":{"name":"zzz999-x"}}`, false},
		"CreateMetadataCase":     {"POST", roles, `{"metadata":{"name":"abc123-x"},"Metadata":{"name":"zzz999-x"}}`, false},
		"CreateNameTwice":        {"POST", roles, `{"metadata":{"name":"abc123-x","name":"zzz999-x"}}`, false},
		"CreateNameEscapedTwice": {"POST", roles, `{"metadata":{"name":"abc123-x","n\u0061me":"zzz999-x"}}`, false},
		"CreateNameNumber":       {"POST", roles, `{"metadata":{"name":5}}`, false},
		"CreateTwoDocuments":     {"POST", roles, `{"metadata":{"name":"abc123-x"}}{"metadata":{"name":"zzz999-x"}}`, false},
		"CreateInNamespace":      {"POST", roles, `{"metadata":{"name":"abc123-x","namespace":"abc123-web"}}`, false},
		"CreateArray":            {"POST", roles, `[{"metadata":{"name":"abc123-x"}}]`, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if err := send(t, "abc123", tc.method, tc.uri, tc.body, good()); (err == nil) != tc.want {
				t.Errorf("%s %s %s: %v, let through should be %v", tc.method, tc.uri, tc.body, err, tc.want)
			}
		})
	}
}

func TestHeaders(t *testing.T) {
	const pods = "/api/v1/namespaces/abc123-web/pods"
	cases := map[string]struct {
		change func(http.Header)
		uri    string
		want   bool
	}{
		"Good":             {func(http.Header) {}, pods, true},
		"ServiceAccount":   {func(h http.Header) { h["Impersonate-User"] = []string{"system:serviceaccount:abc123-web:x"} }, pods, true},
		"AccountsGroup":    {func(h http.Header) { h.Add("Impersonate-Group", "system:serviceaccounts:abc123-web") }, pods, true},
		"NoUser":           {func(h http.Header) { h.Del("Impersonate-User") }, pods, false},
		"TwoUsers":         {func(h http.Header) { h.Add("Impersonate-User", "abc123-b") }, pods, false},
		"ForeignUser":      {func(h http.Header) { h.Set("Impersonate-User", "zzz999-admin") }, pods, false},
		"PlatformUser":     {func(h http.Header) { h.Set("Impersonate-User", "system:kube-controller-manager") }, pods, false},
		"ForeignAccount":   {func(h http.Header) { h.Set("Impersonate-User", "system:serviceaccount:zzz999-web:x") }, pods, false},
		"Masters":          {func(h http.Header) { h.Add("Impersonate-Group", "system:masters") }, pods, false},
		"ForeignGroup":     {func(h http.Header) { h.Add("Impersonate-Group", "zzz999-dev") }, pods, false},
		"AllAccounts":      {func(h http.Header) { h.Add("Impersonate-Group", "system:serviceaccounts") }, pods, false},
		"ForeignAccounts":  {func(h http.Header) { h.Add("Impersonate-Group", "system:serviceaccounts:zzz999-web") }, pods, false},
		"NotAuthenticated": {func(h http.Header) { h.Set("Impersonate-Group", "abc123-dev") }, pods, false},
		"Extra":            {func(h http.Header) { h.Set("Impersonate-Extra-Scopes", "x") }, pods, false},
		"Uid":              {func(h http.Header) { h.Set("Impersonate-Uid", "x") }, pods, true},
		"TwoUids":          {func(h http.Header) { h["Impersonate-Uid"] = []string{"x", "y"} }, pods, false},
		"Remote":           {func(h http.Header) { h.Set("X-Remote-User", "x") }, pods, false},
		"Authorization":    {func(h http.Header) { h.Set("Authorization", "Bearer x") }, pods, false},
		"Cookie":           {func(h http.Header) { h.Set("Cookie", "a=b") }, pods, false},
		"LowerCase":        {func(h http.Header) { h["impersonate-user"] = []string{"abc123-b"} }, pods, false},
		"ConnectionStrips": {func(h http.Header) { h.Set("Connection", "Impersonate-User") }, pods, false},
		"UpgradeOfAList":   {func(h http.Header) { h.Set("Connection", "Upgrade"); h.Set("Upgrade", "SPDY/3.1") }, pods, false},
		"UpgradeOfExec":    {func(h http.Header) { h.Set("Connection", "Upgrade"); h.Set("Upgrade", "SPDY/3.1") }, pods + "/a/exec", true},
		"UpgradeAndMore":   {func(h http.Header) { h.Set("Connection", "Upgrade, Impersonate-User"); h.Set("Upgrade", "SPDY/3.1") }, pods + "/a/exec", false},
		"SubprotocolToken": {func(h http.Header) { h.Set("Sec-WebSocket-Protocol", "base64url.bearer.authorization.k8s.io.eA") }, pods + "/a/exec", false},
		"HeaderInjection":  {func(h http.Header) { h.Set("User-Agent", "a\r\nImpersonate-User: x") }, pods, false},
		"UnknownHeader":    {func(h http.Header) { h.Set("X-Anything", "x") }, pods, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			h := good()
			tc.change(h)
			if err := send(t, "abc123", "GET", tc.uri, "", h); (err == nil) != tc.want {
				t.Errorf("%v, let through should be %v", err, tc.want)
			}
		})
	}
	for _, tenant := range []names.TenantID{"", "abc", "ABC123", "abc123-"} {
		if err := send(t, tenant, "GET", pods, "", good()); err == nil {
			t.Errorf("tenant %q was let through", tenant)
		}
	}
}

func TestWrongHost(t *testing.T) {
	g := &Guard{Host: "control.test", Refused: func() {}, Next: roundTripperFn(func(*http.Request) (*http.Response, error) {
		t.Error("sent")
		return nil, io.EOF
	})}
	for _, url := range []string{"https://evil.test/api/v1/namespaces/abc123-web/pods", "https://a@control.test/api/v1/namespaces/abc123-web/pods"} {
		r, err := http.NewRequestWithContext(WithTenant(t.Context(), "abc123"), "GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = good()
		if res, err := g.RoundTrip(r); err == nil {
			_ = res.Body.Close()
			t.Errorf("%s was let through", url)
		}
	}
}

// TestTrailers checks that nothing can come behind a body: what is read there has not been looked at.
func TestTrailers(t *testing.T) {
	g := &Guard{Host: "control.test", Refused: func() {}, Next: roundTripperFn(func(*http.Request) (*http.Response, error) {
		t.Error("sent")
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
	})}
	r, err := http.NewRequestWithContext(WithTenant(t.Context(), "abc123"), "PUT", "https://control.test/api/v1/namespaces/abc123-web/pods/a", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header, r.Trailer = good(), http.Header{"Impersonate-User": nil}
	res, err := g.RoundTrip(r)
	if res != nil {
		_ = res.Body.Close()
	}
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		t.Errorf("let through: %v", err)
	}
}
