package translate

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPatchedNames sets names alone whose meaning stands beside them: the object as it is tells, and a test in front holds
// the patch to it.
func TestPatchedNames(t *testing.T) {
	const (
		binding = `{"metadata":{"name":"b"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"abc123-edit"},"subjects":[
			{"kind":"User","name":"abc123-alice"},{"kind":"Group","name":"abc123-dev"},{"kind":"ServiceAccount","namespace":"abc123-web","name":"bot"}]}`
		owned = `{"metadata":{"name":"c","ownerReferences":[
			{"apiVersion":"v1","kind":"Namespace","name":"abc123-web","uid":"1"},{"apiVersion":"apps/v1","kind":"Deployment","name":"d","uid":"2"},{"apiVersion":"abc123-example.com/v1","kind":"Thing","name":"t","uid":"3"}]}}`
		ruled = `{"metadata":{"name":"abc123-r"},"rules":[
			{"verbs":["get"],"apiGroups":[""],"resources":["namespaces"],"resourceNames":["abc123-web"]},
			{"verbs":["get"],"apiGroups":[""],"resources":["pods"],"resourceNames":["web"]},
			{"verbs":["get"],"apiGroups":[""],"resources":["pods","namespaces"]},
			{"verbs":["get"],"nonResourceURLs":["/healthz"]}]}`
		unsplit = `{"op":"test","path":"/metadata/labels/vivarium.io~1split-rules","value":null},`
	)
	for name, tc := range map[string]struct {
		kind              Kind
		present, ops      string
		want, refusedWith string
	}{
		"User": {bindings, binding, `[{"op":"replace","path":"/subjects/0/name","value":"bob"}]`,
			`[{"op":"test","path":"/subjects/0/kind","value":"User"},{"op":"replace","path":"/subjects/0/name","value":"abc123-bob"}]`, ""},
		"UserThatIsAnAccount": {bindings, binding, `[{"op":"replace","path":"/subjects/0/name","value":"system:serviceaccount:web:x"}]`,
			`[{"op":"test","path":"/subjects/0/kind","value":"User"},{"op":"replace","path":"/subjects/0/name","value":"system:serviceaccount:abc123-web:x"}]`, ""},
		"Group": {bindings, binding, `[{"op":"test","path":"/subjects/1/name","value":"dev"}]`,
			`[{"op":"test","path":"/subjects/1/kind","value":"Group"},{"op":"test","path":"/subjects/1/name","value":"abc123-dev"}]`, ""},
		"ServiceAccount": {bindings, binding, `[{"op":"replace","path":"/subjects/2/name","value":"robot"}]`,
			`[{"op":"test","path":"/subjects/2/kind","value":"ServiceAccount"},{"op":"replace","path":"/subjects/2/name","value":"robot"}]`, ""},
		"NoSuchSubject": {bindings, binding, `[{"op":"replace","path":"/subjects/3/name","value":"x"}]`, "", "replace \"subjects\" as a whole"},
		"LastSubject":   {bindings, binding, `[{"op":"replace","path":"/subjects/-/name","value":"x"}]`, "", "replace \"subjects\" as a whole"},
		"OddIndex":      {bindings, binding, `[{"op":"replace","path":"/subjects/00/name","value":"x"}]`, "", "replace \"subjects\" as a whole"},
		"Unseen":        {bindings, "", `[{"op":"replace","path":"/subjects/0/name","value":"x"}]`, "", "replace \"subjects\" as a whole"},
		"RoleRef": {bindings, binding, `[{"op":"test","path":"/roleRef/name","value":"edit"}]`,
			`[{"op":"test","path":"/roleRef/kind","value":"ClusterRole"},{"op":"test","path":"/roleRef/name","value":"abc123-edit"}]`, ""},
		"ClusterOwner": {configMaps, owned, `[{"op":"replace","path":"/metadata/ownerReferences/0/name","value":"db"}]`,
			`[{"op":"test","path":"/metadata/ownerReferences/0/apiVersion","value":"v1"},{"op":"test","path":"/metadata/ownerReferences/0/kind","value":"Namespace"},{"op":"replace","path":"/metadata/ownerReferences/0/name","value":"abc123-db"}]`, ""},
		"Owner": {configMaps, owned, `[{"op":"replace","path":"/metadata/ownerReferences/1/name","value":"e"}]`,
			`[{"op":"test","path":"/metadata/ownerReferences/1/apiVersion","value":"apps/v1"},{"op":"test","path":"/metadata/ownerReferences/1/kind","value":"Deployment"},{"op":"replace","path":"/metadata/ownerReferences/1/name","value":"e"}]`, ""},
		"ClusterName": {clusterRoles, ruled, `[{"op":"add","path":"/rules/0/resourceNames/-","value":"db"}]`,
			`[` + unsplit + `{"op":"test","path":"/rules/0/apiGroups","value":[""]},{"op":"test","path":"/rules/0/resources","value":["namespaces"]},{"op":"add","path":"/rules/0/resourceNames/-","value":"abc123-db"}]`, ""},
		"Name": {clusterRoles, ruled, `[{"op":"replace","path":"/rules/1/resourceNames","value":["db","web"]}]`,
			`[` + unsplit + `{"op":"test","path":"/rules/1/apiGroups","value":[""]},{"op":"test","path":"/rules/1/resources","value":["pods"]},{"op":"replace","path":"/rules/1/resourceNames","value":["db","web"]}]`, ""},
		"NameRemoved": {clusterRoles, ruled, `[{"op":"remove","path":"/rules/0/resourceNames/0"}]`,
			`[` + unsplit + `{"op":"remove","path":"/rules/0/resourceNames/0"}]`, ""},
		"NamesOfTwoKinds": {clusterRoles, ruled, `[{"op":"add","path":"/rules/2/resourceNames","value":["web"]}]`, "", "replace the rule as a whole"},
		"NameOfNothing": {clusterRoles, ruled, `[{"op":"add","path":"/rules/3/resourceNames","value":["web"]}]`,
			`[` + unsplit + `{"op":"test","path":"/rules/3/apiGroups","value":null},{"op":"test","path":"/rules/3/resources","value":null},{"op":"add","path":"/rules/3/resourceNames","value":["web"]}]`, ""},
		"Mark": {clusterRoles, ruled, `[{"op":"add","path":"/rules/1/resourceNames/0","value":"vivarium.io/rule:x"}]`, "", "belongs to the platform"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			v := View{Tenant: "abc123", Present: func() []byte { asked++; return []byte(tc.present) }}
			got, _, err := v.BodyToControl(tc.kind, "patch", jsonPatch, []byte(tc.ops), "web", "x")
			if asked > 1 {
				t.Errorf("asked %d times", asked)
			}
			if tc.refusedWith != "" {
				var refusal *Error
				if !errors.As(err, &refusal) || !strings.Contains(refusal.Message, tc.refusedWith) {
					t.Errorf("%s, %v", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
