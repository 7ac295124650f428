package gateway

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/gateway/internal/fanout"
)

// TestSharedAPIs offers a definition of the operator's to tenants by name and by label, and takes it away again.
func TestSharedAPIs(t *testing.T) {
	w := theWorld(t)
	one, two := w.tenant(t, "shra01"), w.tenant(t, "shrb02")
	group := "databases.test"
	w.must(t, w.control, definition("databases", "Database", group, "Namespaced", "size"), "apply", "-f", "-")
	w.must(t, w.control, definition("engines", "Engine", group, "Cluster", "size"), "apply", "-f", "-")
	w.must(t, w.control, "", "wait", "--for=condition=Established", "crd/databases."+group, "crd/engines."+group, "--timeout=180s")
	w.must(t, w.control, `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"engines-of-tenants","labels":{"vivarium.io/aggregate-to-gateway":"true"}},"rules":[{"apiGroups":["databases.test"],"resources":["engines"],"verbs":["list","delete"]},{"apiGroups":["databases.test"],"resources":["databases"],"verbs":["list","watch"]}]}`, "apply", "-f", "-")
	for _, resource := range []string{"databases", "engines"} {
		w.must(t, w.operator, fmt.Sprintf(`{"apiVersion":"vivarium.io/v1alpha1","kind":"SharedAPI","metadata":{"name":%q},"spec":{"group":%q,"resource":%q,"tenants":{"names":["shra01"],"selector":{"matchLabels":{"plan":"gold"}}}}}`, resource, group, resource), "apply", "-f", "-")
		w.must(t, w.operator, "", "wait", "--for=condition=Ready", "sharedapi/"+resource, "--timeout=180s")
	}
	eventually(t, "one can use it", func() bool {
		out, err := w.run(one, `{"apiVersion":"databases.test/v1","kind":"Database","metadata":{"name":"a"},"spec":{"size":"x"}}`, "apply", "-f", "-")
		return err == nil || strings.Contains(out, "unchanged")
	})
	w.must(t, one, `{"apiVersion":"databases.test/v1","kind":"Engine","metadata":{"name":"a"},"spec":{"size":"x"}}`, "apply", "-f", "-")
	if out := w.must(t, one, "", "get", "databases,engines", "-A", "-o", "jsonpath={.items[*].apiVersion} {.items[*].metadata.name}"); out != group+"/v1 "+group+"/v1 a a" {
		t.Errorf("one sees %s", out)
	}
	if out := w.must(t, w.control, "", "get", "databases,engines", "-A", "-o", "jsonpath={.items[*].metadata.namespace}/{.items[*].metadata.name}"); out != "shra01-default/a shra01-a" {
		t.Errorf("in the control cluster: %s", out)
	}
	if out := w.must(t, one, "", "explain", "databases.spec"); !strings.Contains(out, "What the Database has") {
		t.Errorf("explain: %s", out)
	}
	// Where the operator lets the gateway itself watch them, tenants share one watch.
	hub := w.withHub(t, func(*fanout.Config) {})
	watched := make(chan string, 1)
	go func() {
		out, _ := w.run(one, "", "get", "--raw", "/apis/"+group+"/v1/databases?watch=true&timeoutSeconds=15")
		watched <- out
	}()
	eventually(t, "the watch is served from the shared one", func() bool { return hub.Stats().Subscribers == 1 })
	w.must(t, one, "", "label", "databases", "a", "seen=yes")
	if out := <-watched; strings.Count(out, `"namespace":"default"`) != 2 || !strings.Contains(out, `"type":"ADDED"`) || !strings.Contains(out, `"seen":"yes"`) {
		t.Errorf("the shared watch brings %s", out)
	}
	// The definition itself stays the operator's.
	if out := w.fails(t, one, "", "get", "crd", "databases."+group); !strings.Contains(out, "not found") {
		t.Errorf("definition: %s", out)
	}
	out := w.fails(t, one, definition("others", "Other", group, "Namespaced", "size"), "create", "-f", "-")
	if !strings.Contains(out, "use a group of your own") {
		t.Errorf("a definition in a shared group: %s", out)
	}
	if out := w.fails(t, two, "", "get", "databases."+group); !strings.Contains(out, "the server doesn't have a resource type") {
		t.Errorf("two: %s", out)
	}
	if out := w.fails(t, two, "", "get", "--raw", "/apis/"+group+"/v1/databases"); !strings.Contains(out, "could not find the requested resource") {
		t.Errorf("two: %s", out)
	}
	// At run time. A watch that is open by then is told what one that begins afterwards would be.
	kube := clientset(t, client(t, two))
	watch, err := kube.CoreV1().ConfigMaps("").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	eventually(t, "the watch is shared", func() bool { return hub.Stats().Subscribers == 1 })
	w.must(t, w.operator, "", "label", "tenant", "shrb02", "plan=gold")
	eventually(t, "two is chosen by its label", func() bool {
		_, err := w.run(two, "", "get", "databases."+group, "-A")
		return err == nil
	})
	if _, err := kube.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Name: "owned", OwnerReferences: []metav1.OwnerReference{{APIVersion: group + "/v1", Kind: "Database", Name: "a", UID: "none"}},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for event := range watch.ResultChan() {
		if made, ok := event.Object.(*corev1.ConfigMap); ok && made.Name == "owned" {
			if len(made.OwnerReferences) != 1 || made.OwnerReferences[0].APIVersion != group+"/v1" {
				t.Errorf("the watch brings the owners %v", made.OwnerReferences)
			}
			break
		}
	}
	if out := w.must(t, two, "", "get", "databases", "-A"); strings.Contains(out, "shra01") || !strings.Contains(out, "No resources") {
		t.Errorf("two sees %s", out)
	}
	eventually(t, "both are counted", func() bool {
		return w.must(t, w.operator, "", "get", "sharedapi", "databases", "-o", "jsonpath={.status.tenants}") == "2"
	})
	w.must(t, w.operator, "", "label", "tenant", "shrb02", "plan-")
	eventually(t, "two is chosen no more", func() bool {
		_, err := w.run(two, "", "get", "--raw", "/apis/"+group+"/v1/databases")
		return err != nil
	})
	// A group that a tenant uses itself stays its own.
	w.must(t, two, definition("databases", "Database", group, "Namespaced", "own"), "create", "-f", "-")
	w.must(t, w.operator, "", "label", "tenant", "shrb02", "plan=gold")
	eventually(t, "the clash is told", func() bool {
		return w.must(t, w.operator, "", "get", "sharedapi", "databases", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].reason}`) == "GroupInUse"
	})
	if out := w.must(t, two, "", "explain", "databases.spec"); !strings.Contains(out, "own") {
		t.Errorf("two's own: %s", out)
	}
	w.must(t, w.operator, `{"apiVersion":"vivarium.io/v1alpha1","kind":"SharedAPI","metadata":{"name":"gone"},"spec":{"group":"nowhere.test","resource":"things","tenants":{"selector":{}}}}`, "apply", "-f", "-")
	eventually(t, "the missing definition is told", func() bool {
		return w.must(t, w.operator, "", "get", "sharedapi", "gone", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].reason}`) == "DefinitionMissing"
	})
	// A tenant's end is the end of its cluster-scoped objects.
	w.must(t, w.operator, "", "delete", "tenant", "shra01", "--wait=false")
	eventually(t, "the tenant's engine is gone", func() bool {
		return w.must(t, w.control, "", "get", "engines", "-o", "name") == ""
	})
	if out := w.fails(t, w.operator, `{"apiVersion":"vivarium.io/v1alpha1","kind":"SharedAPI","metadata":{"name":"theirs"},"spec":{"group":"shrb02-databases.test","resource":"databases"}}`, "create", "-f", "-"); !strings.Contains(out, "as the groups of tenants do") {
		t.Errorf("a tenant's group: %s", out)
	}
}

// TestDefinitionsEnd checks the limit of definitions, and that a tenant's end is the end of them.
func TestDefinitionsEnd(t *testing.T) {
	w := theWorld(t)
	tenant := w.tenant(t, "crde05")
	w.must(t, w.operator, "", "patch", "tenant", "crde05", "--type=merge", "-p", `{"spec":{"limits":{"customResourceDefinitions":2}}}`)
	w.must(t, tenant, definition("gauges", "Gauge", "example.com", "Cluster", "size"), "create", "-f", "-")
	w.must(t, tenant, definition("widgets", "Widget", "example.com", "Namespaced", "size"), "apply", "--server-side", "-f", "-")
	for _, args := range [][]string{{"create", "-f", "-"}, {"apply", "--server-side", "-f", "-"}} {
		eventually(t, "the limit holds", func() bool {
			out, err := w.run(tenant, definition("others", "Other", "example.com", "Namespaced", "size"), args...)
			return err != nil && strings.Contains(out, "exceeded quota")
		})
	}
	w.must(t, tenant, definition("widgets", "Widget", "example.com", "Namespaced", "size"), "apply", "--server-side", "-f", "-")
	w.must(t, tenant, "", "wait", "--for=condition=Established", "crd/widgets.example.com", "crd/gauges.example.com", "--timeout=180s")
	w.must(t, tenant, `{"apiVersion":"example.com/v1","kind":"Gauge","metadata":{"name":"a"}}`, "create", "-f", "-")
	w.must(t, tenant, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"}}`, "create", "-f", "-")
	// Another tenant can still be made: its prefix is searched for everywhere but in this tenant's groups.
	w.tenant(t, "crdf06")
	w.must(t, w.operator, "", "delete", "tenant", "crde05", "--wait=false")
	eventually(t, "no definition is left", func() bool {
		out := w.must(t, w.control, "", "get", "crd", "-o", "name")
		return !strings.Contains(out, "crde05")
	})
	eventually(t, "the control cluster is clean", func() bool {
		out, err := w.run(w.operator, "", "get", "tenant", "crde05", "-o", "jsonpath={.metadata.finalizers}")
		return err != nil || !strings.Contains(out, "vivarium.io/control")
	})
}
