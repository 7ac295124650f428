package gateway

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestRights walks through what a tenant does with RBAC on a cluster of its own, against a real control cluster, next to a
// tenant with bindings of the same names. The leak net of the world reads along.
func TestRights(t *testing.T) {
	w := theWorld(t)
	a, b := w.tenant(t, "rgt00a"), w.tenant(t, "rgt00b")
	for _, kubeconfig := range []string{a, b} {
		w.must(t, kubeconfig, "", "create", "ns", "web")
		w.must(t, kubeconfig, "", "-n", "web", "create", "sa", "robot")
	}
	as := func(kubeconfig string, args ...string) bool {
		out, err := w.run(kubeconfig, "", append([]string{"auth", "can-i"}, args...)...)
		if err != nil && !strings.HasSuffix(strings.TrimSpace(out), "no") {
			t.Errorf("can-i %v: %s", args, out)
		}
		return err == nil
	}
	const robot = "--as=system:serviceaccount:web:robot"

	t.Run("MixedRule", func(t *testing.T) {
		const role = `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"mixed"},"rules":[
			{"verbs":["get"],"apiGroups":[""],"resources":["namespaces","configmaps"],"resourceNames":["web"]},
			{"verbs":["list"],"apiGroups":["apps"],"resources":["deployments"]}]}`
		w.must(t, a, role, "apply", "-f", "-")
		rules := func() string { return w.must(t, a, "", "get", "clusterrole", "mixed", "-o", "jsonpath={.rules}") }
		const want = `[{"apiGroups":[""],"resourceNames":["web"],"resources":["namespaces","configmaps"],"verbs":["get"]},{"apiGroups":["apps"],"resources":["deployments"],"verbs":["list"]}]`
		if got := rules(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		w.must(t, a, "", "create", "clusterrolebinding", "mixed", "--clusterrole=mixed", "--user=mia")
		w.may(t, a, "list", "deployments", "--as=mia", "-n", "web")
		for args, want := range map[string]bool{
			"get ns/web": true, "get ns/default": false, "get cm/web": true, "get cm/rgt00a-web": false, "list deployments": true,
		} {
			if got := as(a, append(strings.Fields(args), "--as=mia", "-n", "web")...); got != want {
				t.Errorf("can mia %s: %v", args, got)
			}
		}
		if out := w.must(t, a, role, "diff", "-f", "-"); out != "" {
			t.Errorf("diff: %s", out)
		}
		out := w.fails(t, a, "", "patch", "clusterrole", "mixed", "--type=json", "-p", `[{"op":"remove","path":"/rules/1"}]`)
		if !strings.Contains(out, `replace "rules"`) || strings.Contains(out, "vivarium") {
			t.Errorf("patch: %s", out)
		}
		w.must(t, a, "", "patch", "clusterrole", "mixed", "--type=merge", "-p", `{"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["pods"]}]}`)
		w.must(t, a, "", "patch", "clusterrole", "mixed", "--type=json", "-p", `[{"op":"add","path":"/rules/0/verbs/-","value":"list"},{"op":"add","path":"/rules/0/resources/-","value":"secrets"}]`)
		if got := rules(); got != `[{"apiGroups":[""],"resources":["pods","secrets"],"verbs":["get","list"]}]` {
			t.Errorf("after the patches: %s", got)
		}
		w.must(t, a, role, "apply", "--server-side", "--force-conflicts", "-f", "-")
		if got := rules(); got != want {
			t.Errorf("applied: %s", got)
		}
		w.must(t, a, "", "patch", "clusterrole", "mixed", "--type=json", "-p", `[{"op":"replace","path":"/rules","value":[{"verbs":["get"],"apiGroups":[""],"resources":["pods"]}]},{"op":"add","path":"/rules/0/verbs/-","value":"list"}]`)
	})
	t.Run("AllServiceAccounts", func(t *testing.T) {
		w.must(t, a, "", "create", "clusterrolebinding", "accounts", "--clusterrole=view", "--group=system:serviceaccounts")
		w.must(t, a, "", "-n", "web", "create", "rolebinding", "everybody", "--clusterrole=edit", "--group=system:authenticated")
		w.may(t, a, "list", "pods", "-n", "default", robot)
		w.may(t, a, "create", "pods", "-n", "web", robot)
		for _, tc := range []struct {
			kubeconfig, args string
			want             bool
		}{
			{a, "list pods -n default", true}, {b, "list pods -n default", false},
			{a, "create pods -n web", true}, {a, "create pods -n default", false}, {b, "create pods -n web", false},
		} {
			if got := as(tc.kubeconfig, append(strings.Fields(tc.args), robot)...); got != tc.want {
				t.Errorf("%s: %v", tc.args, got)
			}
		}
		// The same with the account's own token.
		token := strings.TrimSpace(w.must(t, a, "", "-n", "web", "create", "token", "robot"))
		w.must(t, a, "", "--token="+token, "--client-certificate=", "--client-key=", "-n", "default", "get", "pods")
	})
	t.Run("Aggregation", func(t *testing.T) {
		w.must(t, a, `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"sum"},"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"team":"x"}}]},"rules":[]}`, "create", "-f", "-")
		part := `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"part","labels":{"team":"x","rbac.authorization.k8s.io/aggregate-to-view":"true"}},"rules":[{"verbs":["get"],"apiGroups":["%s"],"resources":["things"]}]}`
		w.must(t, a, strings.Replace(part, "%s", "a.example.com", 1), "create", "-f", "-")
		w.must(t, b, strings.Replace(part, "%s", "b.example.com", 1), "create", "-f", "-")
		for _, role := range []string{"sum", "view", "edit", "admin"} {
			eventually(t, role+" has what is added to it", func() bool {
				return strings.Contains(w.must(t, a, "", "get", "clusterrole", role, "-o", "yaml"), "a.example.com")
			})
			if out := w.must(t, a, "", "get", "clusterrole", role, "-o", "yaml"); strings.Contains(out, "b.example.com") {
				t.Errorf("%s has what the other tenant added: %s", role, out)
			}
		}
		if out := w.must(t, a, "", "get", "clusterrole", "sum", "-o", "jsonpath={.aggregationRule}"); out != `{"clusterRoleSelectors":[{"matchLabels":{"team":"x"}}]}` {
			t.Errorf("the rule reads %s", out)
		}
		// Nothing of it reaches the control cluster's own roles.
		if out := w.must(t, w.control, "", "get", "clusterrole", "view", "edit", "admin", "-o", "yaml"); strings.Contains(out, "example.com") {
			t.Error("a tenant's rules are in the control cluster's own roles")
		}
	})
	t.Run("ActingAs", func(t *testing.T) {
		var who struct {
			Status struct {
				UserInfo struct {
					Username, UID string
					Groups        []string
				}
			}
		}
		out := w.must(t, a, "", "auth", "whoami", "-o", "json", robot, "--as-uid=u1", "--as-group=system:serviceaccounts", "--as-group=dev")
		if err := json.Unmarshal([]byte(out), &who); err != nil {
			t.Fatal(err)
		}
		if u := who.Status.UserInfo; u.Username != "system:serviceaccount:web:robot" || u.UID != "u1" || strings.Join(u.Groups, " ") != "system:serviceaccounts dev system:authenticated" {
			t.Errorf("whoami: %+v", u)
		}
		if out := w.fails(t, a, "", "get", "pods", "--as=mia", "--as-uid=u1", "--as-group=system:masters", "--user=none"); strings.Contains(out, "rgt00a") {
			t.Error(out)
		}
		// Groups of the platform are groups of this tenant alone.
		w.must(t, a, "", "get", "secrets", "-A", "--as=mia", "--as-group=system:masters")
		if out := w.fails(t, b, "", "get", "secrets", "-A", "--as=mia", "--as-group=system:nodes"); !strings.Contains(out, `User "mia" cannot list`) {
			t.Error(out)
		}
	})
	t.Run("PatchedNames", func(t *testing.T) {
		// A name alone, whose meaning stands beside it.
		w.must(t, a, "", "create", "clusterrole", "named", "--verb=get", "--resource=namespaces", "--resource-name=default")
		w.must(t, a, "", "create", "clusterrolebinding", "named", "--clusterrole=named", "--user=ida")
		w.must(t, a, "", "patch", "clusterrole", "named", "--type=json", "-p", `[{"op":"replace","path":"/rules/0/resourceNames/0","value":"web"}]`)
		w.must(t, a, "", "patch", "clusterrolebinding", "named", "--type=json", "-p", `[{"op":"test","path":"/subjects/0/name","value":"ida"},{"op":"replace","path":"/subjects/0/name","value":"eva"}]`)
		if out := w.must(t, a, "", "get", "clusterrole/named", "clusterrolebinding/named", "-o", "jsonpath={.items[0].rules[0].resourceNames} {.items[1].subjects[0].name}"); out != `["web"] eva` {
			t.Errorf("%s", out)
		}
		w.may(t, a, "get", "namespaces/web", "--as=eva")
		// Behind an operation that makes something else of it the meaning is not known, and nothing is changed.
		w.fails(t, a, "", "patch", "clusterrolebinding", "named", "--type=json", "-p",
			`[{"op":"replace","path":"/subjects/0","value":{"kind":"ServiceAccount","namespace":"web","name":"robot"}},{"op":"replace","path":"/subjects/0/name","value":"x"}]`)
		w.must(t, a, "", "-n", "web", "create", "configmap", "owned")
		uid := w.must(t, a, "", "get", "ns", "web", "-o", "jsonpath={.metadata.uid}")
		w.must(t, a, "", "-n", "web", "patch", "configmap", "owned", "--type=json", "-p", `[{"op":"add","path":"/metadata/ownerReferences","value":[{"apiVersion":"v1","kind":"Namespace","name":"web","uid":"`+uid+`"}]}]`)
		w.must(t, a, "", "-n", "web", "patch", "configmap", "owned", "--type=json", "-p", `[{"op":"test","path":"/metadata/ownerReferences/0/name","value":"web"},{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]`)
	})
	t.Run("Lists", func(t *testing.T) {
		w.must(t, a, "", "create", "clusterrole", "reader", "--verb=get", "--resource=namespaces", "--resource-name=web")
		w.must(t, a, "", "create", "clusterrolebinding", "reader", "--clusterrole=reader", "--user=nia")
		w.may(t, a, "get", "namespaces/web", "--as=nia")
		out := w.must(t, a, "", "auth", "can-i", "--list", "--as=nia")
		if !strings.Contains(out, "namespaces") || !strings.Contains(out, "[web]") {
			t.Errorf("can-i --list: %s", out)
		}
	})
}
