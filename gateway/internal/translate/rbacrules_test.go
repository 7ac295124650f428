package translate

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestSplitRules follows rules that have no single translation: in control each part says exactly what it must, and the
// tenant reads what it wrote, in every encoding.
func TestSplitRules(t *testing.T) {
	rule := func(groups, resources, names string) rbacv1.PolicyRule {
		list := func(s string) []string {
			if s == "-" {
				return []string{""}
			}
			return strings.Fields(s)
		}
		return rbacv1.PolicyRule{Verbs: []string{"get", "patch"}, APIGroups: list(groups), Resources: list(resources), ResourceNames: list(names)}
	}
	plain := rule("-", "pods", "web")
	type parts []rbacv1.PolicyRule
	for name, tc := range map[string]struct {
		rules []rbacv1.PolicyRule
		want  parts // without the mark
		split bool
	}{
		"Plain": {[]rbacv1.PolicyRule{plain}, parts{plain}, false},
		"Mixed": {[]rbacv1.PolicyRule{rule("-", "pods namespaces secrets", "web"), plain},
			parts{rule("-", "pods secrets", "web"), rule("-", "namespaces", "zq7x9k-web"), plain}, true},
		"Twice": {[]rbacv1.PolicyRule{plain, rule("-", "pods namespaces", "web"), rule("-", "pods namespaces", "web")},
			parts{plain, rule("-", "pods", "web"), rule("-", "namespaces", "zq7x9k-web"), rule("-", "pods", "web"), rule("-", "namespaces", "zq7x9k-web")}, true},
		"Groups": {[]rbacv1.PolicyRule{rule("rbac.authorization.k8s.io example.com", "clusterroles roles", "a b")},
			parts{rule("rbac.authorization.k8s.io", "clusterroles", "zq7x9k-a zq7x9k-b"), rule("zq7x9k-example.com", "clusterroles", "a b"), rule("rbac.authorization.k8s.io zq7x9k-example.com", "roles", "a b")}, true},
		"Everything": {[]rbacv1.PolicyRule{rule("-", "*", "a")},
			parts{rule("-", "*", "a"), rule("-", "namespaces users groups", "zq7x9k-a")}, true},
		"Subresources": {[]rbacv1.PolicyRule{rule("-", "*/status namespaces/status pods/log", "a")},
			parts{rule("-", "*/status pods/log", "a"), rule("-", "namespaces/status users/status groups/status", "zq7x9k-a")}, true},
		"Impersonate": {[]rbacv1.PolicyRule{rule("-", "users serviceaccounts", "system:serviceaccount:web:x")},
			parts{rule("-", "users", "system:serviceaccount:zq7x9k-web:x"), rule("-", "serviceaccounts", "system:serviceaccount:web:x")}, true},
		"Exported": {[]rbacv1.PolicyRule{rule("storage.k8s.io", "storageclasses", "shared-disk gold")},
			parts{rule("storage.k8s.io", "storageclasses", "shared-disk zq7x9k-gold")}, false},
		"LooksPrefixed": {[]rbacv1.PolicyRule{rule("-", "pods namespaces", "zq7x9k-web")},
			parts{rule("-", "pods", "zq7x9k-web"), rule("-", "namespaces", "zq7x9k-zq7x9k-web")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			gvk := schema.GroupVersionKind{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "ClusterRole"}
			role := &rbacv1.ClusterRole{Rules: tc.rules}
			role.Name = "r"
			role.Labels = map[string]string{"a": "b"}
			proto := toProto(t, role.DeepCopy(), gvk)
			role.SetGroupVersionKind(gvk)
			for encoding, doc := range map[string][]byte{typeJSON: []byte(mustJSON(t, role)), typeProto: proto} {
				control, _, err := view.BodyToControl(clusterRoles, "create", encoding, doc, "", "")
				if err != nil {
					t.Fatal(err)
				}
				stored := decode(t, control).(*rbacv1.ClusterRole)
				if (stored.Labels["vivarium.io/split-rules"] == "true") != tc.split {
					t.Errorf("%s: labels %v", encoding, stored.Labels)
				}
				bare := parts{}
				for _, r := range stored.Rules {
					var names []string
					for _, n := range r.ResourceNames {
						if !strings.HasPrefix(n, ruleMark) {
							names = append(names, n)
						}
					}
					r.ResourceNames = names
					bare = append(bare, r)
				}
				if diff := cmp.Diff(tc.want, bare); diff != "" {
					t.Errorf("%s in control (-want +got):\n%s", encoding, diff)
				}
				var back bytes.Buffer
				if err := view.ObjectToTenant(clusterRoles, &back, bytes.NewReader(control)); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(back.Bytes(), doc) {
					t.Errorf("%s: %s", encoding, firstDifference(back.String(), string(doc)))
				}
				// Somebody changed a part: what is there is shown as it stands, without the mark.
				if tc.split {
					stored.Rules[len(stored.Rules)-1].Verbs = []string{"delete"}
					back.Reset()
					if err := view.ObjectToTenant(clusterRoles, &back, bytes.NewReader(toProto(t, stored, gvk))); err != nil {
						t.Fatal(err)
					}
					shown := decode(t, back.Bytes()).(*rbacv1.ClusterRole)
					for _, r := range shown.Rules {
						for _, n := range r.ResourceNames {
							if strings.Contains(n, "vivarium.io") {
								t.Errorf("shows the mark %q", n)
							}
						}
					}
				}
			}
		})
	}
}

// TestSplitRulesInPatches checks that a patch which counts rules cannot hit a ClusterRole that has more of them in control,
// and that one which replaces them says whether they are in parts.
func TestSplitRulesInPatches(t *testing.T) {
	const mixed = `{"verbs":["get"],"apiGroups":[""],"resources":["pods","namespaces"],"resourceNames":["web"]}`
	const inParts = `{"verbs":["get"],"apiGroups":[""],"resources":["pods"],"resourceNames":["web","vivarium.io/rule:{\"verbs\":[\"get\"],\"apiGroups\":[\"\"],\"resources\":[\"pods\",\"namespaces\"],\"resourceNames\":[\"web\"]}"]},{"verbs":["get"],"apiGroups":[""],"resources":["namespaces"],"resourceNames":["zq7x9k-web"]}`
	const test = `{"op":"test","path":"/metadata/labels/vivarium.io~1split-rules","value":null},`
	for name, tc := range map[string]struct {
		kind               Kind
		media, patch, want string
	}{
		"Whole":      {clusterRoles, jsonPatch, `[{"op":"replace","path":"/rules","value":[` + mixed + `]}]`, `[{"op":"replace","path":"/rules","value":[` + inParts + `]},{"op":"add","path":"/metadata/labels/vivarium.io~1split-rules","value":"true"}]`},
		"WholePlain": {clusterRoles, jsonPatch, `[{"op":"add","path":"/rules","value":[]}]`, `[{"op":"add","path":"/rules","value":[]},{"op":"add","path":"/metadata/labels/vivarium.io~1split-rules","value":"true"},{"op":"remove","path":"/metadata/labels/vivarium.io~1split-rules"}]`},
		"Remove":     {clusterRoles, jsonPatch, `[{"op":"remove","path":"/rules"}]`, `[{"op":"remove","path":"/rules"},{"op":"add","path":"/metadata/labels/vivarium.io~1split-rules","value":"true"},{"op":"remove","path":"/metadata/labels/vivarium.io~1split-rules"}]`},
		"Index":      {clusterRoles, jsonPatch, `[{"op":"remove","path":"/rules/1"}]`, `[` + test + `{"op":"remove","path":"/rules/1"}]`},
		"Verbs":      {clusterRoles, jsonPatch, `[{"op":"add","path":"/rules/0/verbs/-","value":"list"}]`, `[` + test + `{"op":"add","path":"/rules/0/verbs/-","value":"list"}]`},
		"Group":      {clusterRoles, jsonPatch, `[{"op":"add","path":"/rules/0/apiGroups/-","value":"example.com"}]`, `[` + test + `{"op":"test","path":"/rules/0/resourceNames","value":null},{"op":"add","path":"/rules/0/apiGroups/-","value":"zq7x9k-example.com"}]`},
		"Groups":     {roles, jsonPatch, `[{"op":"replace","path":"/rules/0/apiGroups","value":["example.com"]}]`, `[{"op":"test","path":"/rules/0/resourceNames","value":null},{"op":"replace","path":"/rules/0/apiGroups","value":["zq7x9k-example.com"]}]`},
		"Resources":  {roles, jsonPatch, `[{"op":"add","path":"/rules/0/resources/-","value":"pods"}]`, `[{"op":"test","path":"/rules/0/resourceNames","value":null},{"op":"add","path":"/rules/0/resources/-","value":"pods"}]`},
		"Labels":     {clusterRoles, jsonPatch, `[{"op":"replace","path":"/metadata/labels","value":{}}]`, `[` + test + `{"op":"replace","path":"/metadata/labels","value":{"vivarium.io/tenant":"zq7x9k"}}]`},
		"Merge":      {clusterRoles, merge0, `{"rules":[` + mixed + `]}`, `{"rules":[` + inParts + `],"metadata":{"labels":{"vivarium.io/split-rules":"true"}}}`},
		"MergePlain": {clusterRoles, strategic, `{"rules":null,"metadata":{"labels":{"a":"b"}}}`, `{"rules":null,"metadata":{"labels":{"a":"b","vivarium.io/split-rules":null}}}`},
		"MergeOther": {clusterRoles, merge0, `{"metadata":{"labels":{"a":"b"}}}`, `{"metadata":{"labels":{"a":"b"}}}`},
		"RoleInert":  {roles, merge0, `{"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["pods","namespaces"],"resourceNames":["web"]}]}`, `{"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["pods","namespaces"],"resourceNames":["web"]}]}`},
		"OwnerUID":   {configMaps, jsonPatch, `[{"op":"replace","path":"/metadata/ownerReferences/0/uid","value":"u"}]`, `[{"op":"replace","path":"/metadata/ownerReferences/0/uid","value":"u"}]`},
		"OwnerTested": {configMaps, jsonPatch, `[{"op":"test","path":"/metadata/ownerReferences/0/kind","value":"Namespace"},{"op":"test","path":"/metadata/ownerReferences/0/apiVersion","value":"example.com/v1"}]`,
			`[{"op":"test","path":"/metadata/ownerReferences/0/kind","value":"Namespace"},{"op":"test","path":"/metadata/ownerReferences/0/apiVersion","value":"zq7x9k-example.com/v1"}]`},
		"SubjectKindTested": {bindings, jsonPatch, `[{"op":"test","path":"/subjects/0/kind","value":"User"}]`, `[{"op":"test","path":"/subjects/0/kind","value":"User"}]`},
		"ClusterRoleRef":    {clusterBinds, jsonPatch, `[{"op":"test","path":"/roleRef/kind","value":"ClusterRole"},{"op":"replace","path":"/roleRef/name","value":"x"}]`, `[{"op":"test","path":"/roleRef/kind","value":"ClusterRole"},{"op":"replace","path":"/roleRef/name","value":"zq7x9k-x"}]`},
		"SubjectNS":         {bindings, jsonPatch, `[{"op":"replace","path":"/subjects/0/namespace","value":"web"}]`, `[{"op":"replace","path":"/subjects/0/namespace","value":"zq7x9k-web"}]`},
		"Aggregation": {clusterRoles, jsonPatch, `[{"op":"add","path":"/aggregationRule/clusterRoleSelectors/-","value":{}},{"op":"add","path":"/aggregationRule/clusterRoleSelectors/0/matchLabels/rbac.authorization.k8s.io~1aggregate-to-x","value":"true"},{"op":"remove","path":"/aggregationRule/clusterRoleSelectors/1"}]`,
			`[{"op":"add","path":"/aggregationRule/clusterRoleSelectors/-","value":{"matchLabels":{"vivarium.io/tenant":"zq7x9k"}}},{"op":"add","path":"/aggregationRule/clusterRoleSelectors/0/matchLabels/rbac.vivarium.io~1aggregate-to-x","value":"true"},{"op":"remove","path":"/aggregationRule/clusterRoleSelectors/1"}]`},
	} {
		t.Run(name, func(t *testing.T) {
			namespace := ""
			if tc.kind.Namespaced {
				namespace = "default"
			}
			got, _, err := view.BodyToControl(tc.kind, "patch", tc.media, []byte(tc.patch), namespace, "r")
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tc.want {
				t.Errorf("%s", firstDifference(string(got), tc.want))
			}
		})
	}
	for name, tc := range map[string]struct {
		kind         Kind
		media, patch string
		code         int
	}{
		"MixedByItself":   {clusterRoles, jsonPatch, `[{"op":"add","path":"/rules/-","value":` + mixed + `}]`, 422},
		"Names":           {roles, jsonPatch, `[{"op":"add","path":"/rules/0/resourceNames/-","value":"x"}]`, 422},
		"Mark":            {roles, merge0, `{"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["pods"],"resourceNames":["vivarium.io/rule:{}"]}]}`, 403},
		"OwnNamespace":    {roles, merge0, `{"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["pods","namespaces"],"resourceNames":["default"]}]}`, 422},
		"SubjectKind":     {bindings, jsonPatch, `[{"op":"replace","path":"/subjects/0/kind","value":"ServiceAccount"}]`, 422},
		"OwnerKind":       {configMaps, jsonPatch, `[{"op":"replace","path":"/metadata/ownerReferences/0/kind","value":"Pod"}]`, 422},
		"RoleRefKind":     {bindings, jsonPatch, `[{"op":"replace","path":"/roleRef/kind","value":"Role"}]`, 422},
		"SubjectName":     {bindings, jsonPatch, `[{"op":"replace","path":"/subjects/0/name","value":"x"}]`, 422},
		"RoleRefName":     {bindings, jsonPatch, `[{"op":"replace","path":"/roleRef/name","value":"x"}]`, 422},
		"OwnerName":       {configMaps, jsonPatch, `[{"op":"replace","path":"/metadata/ownerReferences/0/name","value":"x"}]`, 422},
		"SelectorOfAll":   {clusterRoles, merge0, `{"aggregationRule":{"clusterRoleSelectors":[null]}}`, 422},
		"SelectorSet":     {clusterRoles, jsonPatch, `[{"op":"add","path":"/aggregationRule/clusterRoleSelectors/0","value":null}]`, 422},
		"SelectorLabels":  {clusterRoles, jsonPatch, `[{"op":"remove","path":"/aggregationRule/clusterRoleSelectors/0/matchLabels"}]`, 422},
		"SelectorTenant":  {clusterRoles, jsonPatch, `[{"op":"remove","path":"/aggregationRule/clusterRoleSelectors/0/matchLabels/vivarium.io~1tenant"}]`, 403},
		"SplitLabel":      {clusterRoles, jsonPatch, `[{"op":"remove","path":"/metadata/labels/vivarium.io~1split-rules"}]`, 403},
		"SplitLabelMerge": {clusterRoles, merge0, `{"metadata":{"labels":{"vivarium.io/split-rules":null}}}`, 403},
	} {
		t.Run(name, func(t *testing.T) {
			namespace := ""
			if tc.kind.Namespaced {
				namespace = "default"
			}
			refused(t, tc.code, func() error {
				_, _, err := view.BodyToControl(tc.kind, "patch", tc.media, []byte(tc.patch), namespace, "r")
				return err
			})
		})
	}
}

// TestSplitRulesRefusal checks what a tenant hears when its JSON patch would count rules that are in parts.
func TestSplitRulesRefusal(t *testing.T) {
	got := string(view.StatusToTenant(clusterRoles, 422, []byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"the server rejected our request due to an error in our request","reason":"Invalid","details":{},"code":422}`)))
	if strings.Contains(got, "vivarium") || !strings.Contains(got, "resourceNames over cluster-scoped") {
		t.Error(got)
	}
}

// refused checks that something is refused with a code.
func refused(t *testing.T, code int, do func() error) {
	t.Helper()
	var refusal *Error
	if err := do(); !errors.As(err, &refusal) || refusal.Code != code {
		t.Errorf("got %v, want a refusal with %d", err, code)
	}
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
