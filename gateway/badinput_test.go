package gateway

import (
	"fmt"
	"strings"
	"testing"
)

// TestBadInput is the policy for what no client of good will sends, in every encoding and patch: malformed is 400, too much
// 413, an encoding that is not understood 415 or 406, a bad value 422, against the platform's policy 403, unknown 404. The
// answer is a Status in the tenant's words, and the control cluster hears nothing.
func TestBadInput(t *testing.T) {
	h := newHarness(t)
	good := h.client(tenantA, nil)
	const (
		cms   = "/api/v1/namespaces/default/configmaps"
		roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles"
		crs   = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
		nps   = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
		cm    = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}`
		proto = "application/vnd.kubernetes.protobuf"
		patch = "application/json-patch+json"
		merge = "application/merge-patch+json"
		smp   = "application/strategic-merge-patch+json"
		apply = "application/apply-patch+yaml"
		yaml  = "application/yaml"
	)
	wrap := func(meta string) string { return `{"kind":"ConfigMap","apiVersion":"v1","metadata":` + meta + `}` }
	cases := map[string]struct {
		line, media, body string
		code              int
	}{
		// JSON that two readers could take differently, or one of them forever.
		"Empty":            {"POST " + cms, "application/json", "", 400},
		"Null":             {"POST " + cms, "application/json", "null", 400},
		"Array":            {"POST " + cms, "application/json", "[]", 400},
		"Text":             {"POST " + cms, "application/json", `"x"`, 400},
		"Truncated":        {"POST " + cms, "application/json", cm[:len(cm)-3], 400},
		"Trailing":         {"POST " + cms, "application/json", cm + "x", 400},
		"Second":           {"POST " + cms, "application/json", cm + "\n" + cm, 400},
		"Mark":             {"POST " + cms, "application/json", "\xef\xbb\xbf" + cm, 400},
		"Comment":          {"POST " + cms, "application/json", "/* x */" + cm, 400},
		"NaN":              {"POST " + cms, "application/json", wrap(`{"generation":NaN}`), 400},
		"Surrogate":        {"POST " + cms, "application/json", wrap(`{"name":"\ud800"}`), 400},
		"NotUTF8":          {"POST " + cms, "application/json", wrap("{\"name\":\"\xff\"}"), 400},
		"RawNewline":       {"POST " + cms, "application/json", wrap("{\"name\":\"a\nb\"}"), 400},
		"DuplicateDeep":    {"POST " + cms, "application/json", wrap(`{"name":"a","labels":{"a":"b","a":"c"}}`), 400},
		"DuplicateEscaped": {"POST " + cms, "application/json", wrap(`{"namespace":"default","name\u0073pace":"kube-system"}`), 400},
		"Deep":             {"POST " + cms, "application/json", wrap(strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000)), 400},
		"DeepOpen":         {"POST " + cms, "application/json", strings.Repeat("[", 3<<20-1), 400},
		"ManyValues":       {"POST " + cms, "application/json", wrap(`{"x":[` + strings.Repeat("1,", 500_000) + `1]}`), 413},
		"Large":            {"POST " + cms, "application/json", wrap(`{"x":"` + strings.Repeat("a", 3<<20) + `"}`), 413},
		"MetadataList":     {"POST " + crs, "application/json", `{"kind":"ClusterRole","apiVersion":"rbac.authorization.k8s.io/v1","metadata":[]}`, 422},

		// YAML.
		"YAMLTwoDocuments": {"POST " + cms, yaml, "kind: ConfigMap\napiVersion: v1\n---\nkind: ConfigMap\n", 400},
		"YAMLDuplicate":    {"POST " + cms, yaml, "kind: ConfigMap\napiVersion: v1\nmetadata: {name: a, name: b}\n", 400},
		"YAMLBomb":         {"POST " + cms, yaml, "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n", 400},
		"YAMLCut":          {"POST " + cms, yaml, "metadata: {name: a", 400},

		// Protobuf.
		"ProtoEmpty":     {"POST " + cms, proto, "", 400},
		"ProtoNoMagic":   {"POST " + cms, proto, "\x0a\x00", 400},
		"ProtoCut":       {"POST " + cms, proto, "k8s\x00\x0a\x10\x0a", 400},
		"ProtoTwice":     {"POST " + cms, proto, "k8s\x00\x12\x0e\x0a\x05\x1a\x03abc\x0a\x05\x1a\x03def", 400},
		"ProtoGroup":     {"POST " + cms, proto, "k8s\x00\x12\x02\x0b\x0c", 400},
		"ProtoForeign":   {"POST " + cms, proto, "k8s\x00\x12\x0f\x0a\x0d\x1a\x0bkube-system", 400},
		"ProtoEncoding":  {"POST " + cms, proto, "k8s\x00\x12\x00\x1a\x04gzip", 400},
		"ProtoOtherKind": {"POST " + cms, proto, "k8s\x00\x0a\x0c\x0a\x02v1\x12\x06Secret\x12\x00", 400},
		"ProtoPatch":     {"PATCH " + cms + "/a", proto, "k8s\x00\x12\x00", 415},

		// Encodings.
		"CBOR":        {"POST " + cms, "application/cbor", "\xa0", 415},
		"CBORPatch":   {"PATCH " + cms + "/a", "application/apply-patch+cbor", "\xa0", 415},
		"Form":        {"POST " + cms, "application/x-www-form-urlencoded", "a=b", 415},
		"Charset":     {"POST " + cms, "application/json; charset=utf-16", cm, 415},
		"OddType":     {"POST " + cms, "application/json;;", cm, 415},
		"PatchAsJSON": {"PATCH " + cms + "/a", "application/json", "{}", 415},
		"PostAsPatch": {"POST " + cms, merge, cm, 415},

		// Patches.
		"PatchNoArray":    {"PATCH " + cms + "/a", patch, "{}", 400},
		"PatchNoOp":       {"PATCH " + cms + "/a", patch, `[{"op":"steal","path":"/data"}]`, 400},
		"PatchRoot":       {"PATCH " + cms + "/a", patch, `[{"op":"replace","path":"","value":{}}]`, 422},
		"PatchEscape":     {"PATCH " + cms + "/a", patch, `[{"op":"remove","path":"/data/~2"}]`, 400},
		"PatchMember":     {"PATCH " + cms + "/a", patch, `[{"op":"remove","path":"/data","Path":"/metadata"}]`, 400},
		"PatchTwice":      {"PATCH " + cms + "/a", patch, `[{"op":"remove","path":"/data","path":"/metadata"}]`, 400},
		"PatchMany":       {"PATCH " + cms + "/a", patch, "[" + strings.Repeat(`{"op":"remove","path":"/a"},`, 10_000) + `{"op":"remove","path":"/a"}]`, 413},
		"PatchCopy":       {"PATCH " + cms + "/a", patch, `[{"op":"copy","from":"/metadata/namespace","path":"/data/x"}]`, 422},
		"PatchOracle":     {"PATCH " + cms + "/a", patch, `[{"op":"test","path":"/metadata/namespace","value":"abc123-default"}]`, 400},
		"PatchNamespace":  {"PATCH " + cms + "/a", merge, `{"metadata":{"namespace":"zzz999-default"}}`, 400},
		"PatchName":       {"PATCH " + cms + "/a", smp, `{"metadata":{"name":"b"}}`, 400},
		"PatchDuplicate":  {"PATCH " + cms + "/a", merge, `{"data":{"a":"1","a":"2"}}`, 400},
		"ApplyDuplicate":  {"PATCH " + cms + "/a?fieldManager=x", apply, "kind: ConfigMap\napiVersion: v1\napiVersion: v1\nmetadata: {name: a}\n", 400},
		"ApplyOtherKind":  {"PATCH " + cms + "/a?fieldManager=x", apply, "kind: Secret\napiVersion: v1\nmetadata: {name: a}\n", 400},
		"ApplyUntyped":    {"PATCH " + cms + "/a?fieldManager=x", apply, "metadata: {name: a}\n", 400},
		"PlatformKey":     {"PATCH " + cms + "/a", merge, `{"metadata":{"labels":{"vivarium.io/tenant":null}}}`, 403},
		"NamespaceLabels": {"PATCH /api/v1/namespaces/web", merge, `{"metadata":{"labels":null}}`, 422},
		"Rule":            {"PATCH " + roles + "/a", patch, `[{"op":"copy","from":"/rules/0/verbs/0","path":"/rules/0/resourceNames/-"}]`, 422},
		"EveryonesRoles":  {"PATCH " + crs + "/a", merge, `{"aggregationRule":{"clusterRoleSelectors":[null]}}`, 422},
		"SelectorMember":  {"POST " + nps, "application/json", `{"kind":"NetworkPolicy","apiVersion":"networking.k8s.io/v1","metadata":{"name":"a"},"spec":{"ingress":[{"from":[{"namespaceSelector":{"MatchLabels":{}}}]}]}}`, 422},
		"SelectorTenant":  {"POST " + nps, "application/json", `{"kind":"NetworkPolicy","apiVersion":"networking.k8s.io/v1","metadata":{"name":"a"},"spec":{"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"vivarium.io/tenant":"zzz999"}}}]}]}}`, 403},

		// Deletions.
		"DeleteOptionsKind":  {"DELETE " + cms + "/a", "application/json", cm, 400},
		"DeleteOptionsMore":  {"DELETE " + cms + "/a", "application/json", `{"kind":"DeleteOptions","apiVersion":"v1","ignoreStoreReadErrorWithClusterBreakingPotential":true}`, 422},
		"DeleteOptionsTwice": {"DELETE " + cms + "/a", "application/json", `{"gracePeriodSeconds":1,"gracePeriodSeconds":0}`, 400},

		// Nothing by that name.
		// One that could be a tenant's own is looked up first: TestUnknownGroups.
		"UnknownGroup":    {"POST /apis/zzz999/v1/namespaces/default/foos", "application/json", "{}", 404},
		"UnknownResource": {"POST /api/v1/namespaces/default/foos", "application/json", "{}", 404},
		"UnknownVersion":  {"POST /apis/apps/v1beta9/namespaces/default/deployments", "application/json", "{}", 404},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			sent := request(tc.line, "Content-Type: "+tc.media, fmt.Sprintf("Content-Length: %d", len(tc.body))) + tc.body
			res, body := h.raw(sent, good)
			if tc.code == 404 && body == "404 page not found\n" && res.StatusCode == 404 {
				return
			}
			status(t, res, body, tc.code, tc.line, tc.body)
			for _, word := range []string{"control cluster", "jsonwire", "protowire", "goroutine", "vivarium/"} {
				if strings.Contains(body, word) {
					t.Errorf("the answer speaks of %q: %s", word, body)
				}
			}
			if asTenant, asItself := h.taken(); len(asTenant)+len(asItself) != 0 {
				t.Errorf("the control cluster was asked %v and %v", asTenant, asItself)
			}
		})
	}
	for name, headers := range map[string][]string{
		"AcceptCBOR": {"Accept: application/cbor"}, "AcceptYAML": {"Accept: application/yaml"}, "AcceptHTML": {"Accept: text/html"},
		"AcceptTableAsProtobuf": {"Accept: application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io"},
	} {
		t.Run(name, func(t *testing.T) {
			res, body := h.raw(request("GET "+cms+"/a", headers...), good)
			status(t, res, body, 406)
			if asTenant, asItself := h.taken(); len(asTenant)+len(asItself) != 0 {
				t.Errorf("the control cluster was asked %v and %v", asTenant, asItself)
			}
		})
	}
	for _, coding := range []string{"gzip", "br", "zstd", "deflate", "identity"} {
		t.Run("Coding/"+coding, func(t *testing.T) {
			res, body := h.raw(withBody("POST "+cms, cm, "Content-Encoding: "+coding), good)
			status(t, res, body, 415)
			if asTenant, asItself := h.taken(); len(asTenant)+len(asItself) != 0 {
				t.Errorf("the control cluster was asked %v and %v", asTenant, asItself)
			}
		})
	}
	for name, tc := range map[string]struct {
		query string
		code  int
	}{
		"FieldSelector": {"fieldSelector=metadata.namespace", 400}, "FieldNamespace": {"fieldSelector=metadata.namespace%3D..%2Fx", 422}, "FieldLong": {"fieldSelector=metadata.name%3D" + strings.Repeat("a", 40<<10), 414},
		"LabelSyntax": {"labelSelector=a%3D%3D%3D", 400}, "LabelPlatform": {"labelSelector=vivarium.io%2Ftenant%21%3Dabc123", 403}, "LabelExists": {"labelSelector=%21vivarium.io%2Ftenant", 403},
		"Limit": {"limit=-1", 400}, "LimitWord": {"limit=many", 400}, "Timeout": {"timeoutSeconds=-5", 400}, "Unknown": {"foo=bar", 400},
		"Breaking": {"ignoreStoreReadErrorWithClusterBreakingPotential=true", 400}, "Shard": {"shardSelector=a", 400}, "Include": {"includeObject=Everything", 400},
		"Continue": {"limit=1&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ", 400}, "Case": {"LabelSelector=a", 400}, "Twice": {"fieldManager=a&fieldManager=b", 400},
	} {
		t.Run("Query/"+name, func(t *testing.T) {
			for _, path := range []string{cms, "/api/v1/configmaps"} {
				line := "GET " + path + "?" + tc.query
				res, body := h.raw(request(line), good)
				status(t, res, body, tc.code, line)
				if asTenant, asItself := h.taken(); len(asTenant)+len(asItself) != 0 {
					t.Errorf("%s: the control cluster was asked %v and %v", line, asTenant, asItself)
				}
			}
		})
	}
}
