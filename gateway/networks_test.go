package gateway

import (
	"strings"
	"testing"
)

// inVPC makes a tenant with a VPC of its own; all of them have the same addresses and names.
func (w *world) inVPC(t *testing.T, id string) string {
	t.Helper()
	w.leaks.know(id)
	w.must(t, w.operator, `{"apiVersion":"vivarium.io/v1alpha1","kind":"Tenant","metadata":{"name":"`+id+`"},"spec":{"network":{"mode":"VPC","template":{
		"cidrs":["10.0.0.0/16"],"subnets":[{"name":"web","cidrs":["10.0.1.0/24"],"zone":"here"},{"name":"db","cidrs":["10.0.2.0/24"]}]}}}}`, "create", "-f", "-")
	kubeconfig := w.tenant(t, id)
	eventually(t, "the network of "+id+" is shown", func() bool {
		out, err := w.run(kubeconfig, "", "get", "vpcs,subnets", "-o", "name")
		return err == nil && strings.Count(out, "\n") == 3
	})
	return kubeconfig
}

// TestNetworks shows tenants their networks, and nothing of anybody else's.
func TestNetworks(t *testing.T) {
	w := theWorld(t)
	one, other, flat := w.inVPC(t, "vpcga1"), w.inVPC(t, "vpcga2"), w.tenant(t, "vpcga3")
	contains := func(out string, want ...string) {
		t.Helper()
		for _, word := range want {
			if !strings.Contains(out, word) {
				t.Errorf("%q is not in:\n%s", word, out)
			}
		}
	}
	w.must(t, w.operator, "", "annotate", "vpc", "vpcga1-main", "operators.test/note=secret")
	w.must(t, w.operator, "", "label", "vpc", "vpcga1-main", "rack=secret")
	const status = `{"status":{"vni":4711,"total":253,"used":7,"conditions":[{"type":"Ready","status":"False","reason":"VPCNotReady","message":"pool secret does not answer","lastTransitionTime":"2026-01-01T00:00:00Z"}],"pools":[{"pool":"secret","ready":false}]}}`
	w.must(t, w.operator, "", "patch", "subnet", "vpcga1-web", "--subresource", "status", "--type", "merge", "-p", status)
	eventually(t, "the status is shown", func() bool {
		out, err := w.run(one, "", "get", "subnet", "web", "-o", "jsonpath={.status.used}")
		return err == nil && out == "7"
	})

	t.Run("Read", func(t *testing.T) {
		contains(w.must(t, one, "", "get", "vpcs"), "NAME   CIDRS         EGRESS      READY     AGE", "main   10.0.0.0/16   SharedNAT   Unknown")
		contains(w.must(t, one, "", "get", "subnets"), "NAME   VPC    CIDRS         USED   TOTAL   READY         AGE", "web    main   10.0.1.0/24   7      253     VPCNotReady", "db     main")
		contains(w.must(t, one, "", "get", "subnets", "-o", "wide"), "ZONE", "here")
		out := w.must(t, one, "", "get", "vpcs,subnets", "-o", "yaml")
		contains(out, "name: main", "vpc: main", "reason: VPCNotReady", "apiVersion: vivarium.io/v1alpha1", "kind: Subnet", "- 10.0.1.1")
		for _, hidden := range []string{"secret", "4711", "vni", "pools", "tenant", "finalizers", "ownerReferences", "managedFields", "vpcga1-"} {
			if strings.Contains(out, hidden) {
				t.Errorf("%q is shown:\n%s", hidden, out)
			}
		}
		contains(w.must(t, one, "", "describe", "subnet", "web"), "Vpc:", "main", "VPCNotReady")
		contains(w.must(t, one, "", "get", "subnets", "--field-selector", "metadata.name=db", "-o", "name"), "subnet.vivarium.io/db")
		if out := w.must(t, one, "", "get", "subnets", "-l", "rack=secret", "-o", "name"); strings.Contains(out, "/") {
			t.Errorf("an operator's label selects %s", out)
		}
		contains(w.must(t, one, "", "explain", "vpc"), "VPC is the private network", "vivarium.io", "status")
		contains(w.must(t, one, "", "explain", "vpc.spec.egress"), "SharedNAT")
		contains(w.must(t, one, "", "explain", "subnets", "--output", "plaintext-openapiv2"), "Subnet is a part of the VPC")
		contains(w.must(t, one, "", "api-resources", "--api-group", "vivarium.io", "-o", "wide"), "vpcs", "subnets", "get,list,watch")
		contains(w.must(t, one, "", "get", "--raw", "/apis/vivarium.io/v1alpha1"), `"name":"subnets"`)
		contains(w.must(t, one, "", "get", "--raw", "/apis/vivarium.io/v1alpha1/subnets/web"), `"name":"web"`)
	})
	t.Run("Watch", func(t *testing.T) {
		frames := watchRaw(t, client(t, one), "/apis/vivarium.io/v1alpha1/subnets?watch=1", "application/json;as=Table;v=v1;g=meta.k8s.io")
		for _, want := range []string{"ADDED db", "ADDED web"} {
			if got := next(t, frames); got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
		}
		// What happens to the other tenant's is not told.
		w.must(t, w.operator, "", "patch", "subnet", "vpcga2-web", "--subresource", "status", "--type", "merge", "-p", `{"status":{"used":9}}`)
		w.must(t, w.operator, "", "patch", "subnet", "vpcga1-web", "--subresource", "status", "--type", "merge", "-p", `{"status":{"used":8}}`)
		if got := next(t, frames); got != "MODIFIED web" {
			t.Errorf("got %s", got)
		}
		w.must(t, w.operator, `{"apiVersion":"vivarium.io/v1alpha1","kind":"Subnet","metadata":{"name":"vpcga1-late"},"spec":{"vpc":"vpcga1-main","cidrs":["10.0.3.0/24"]}}`, "create", "-f", "-")
		if got := next(t, frames); got != "ADDED late" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("NobodyElses", func(t *testing.T) {
		missing := w.fails(t, other, "", "get", "subnet", "late")
		contains(missing, `subnets.vivarium.io "late" not found`)
		if got := w.fails(t, other, "", "get", "subnet", "never"); got != strings.ReplaceAll(missing, "late", "never") {
			t.Errorf("another tenant's subnet is told from one that is not there: %s", got)
		}
		contains(w.fails(t, other, "", "get", "subnet", "vpcga1-late"), "not found")
		if out := w.must(t, other, "", "get", "subnets", "-o", "name"); strings.Contains(out, "late") {
			t.Error(out)
		}
	})
	t.Run("Write", func(t *testing.T) {
		const why = "the network is the operator's"
		vpc := `{"apiVersion":"vivarium.io/v1alpha1","kind":"VPC","metadata":{"name":"mine"},"spec":{"cidrs":["10.9.0.0/16"]}}`
		for _, args := range [][]string{
			{"create", "-f", "-"}, {"create", "-f", "-", "--validate=false"}, {"apply", "--server-side", "-f", "-"},
			{"delete", "vpc", "main"}, {"delete", "subnets", "--all"}, {"label", "vpc", "main", "a=b"},
			{"patch", "vpc", "main", "--type", "json", "-p", `[{"op":"add","path":"/spec/cidrs/-","value":"10.9.0.0/16"}]`},
			{"patch", "subnet", "web", "--type", "merge", "-p", `{"spec":{"vpc":"other"}}`},
		} {
			contains(w.fails(t, one, vpc, args...), why)
		}
		w.fails(t, one, "", "patch", "subnet", "web", "--subresource", "status", "--type", "merge", "-p", `{"status":{"used":0}}`)
		contains(w.fails(t, one, `{"apiVersion":"vivarium.io/v1alpha1","kind":"Tenant","metadata":{"name":"mine00"}}`, "create", "-f", "-"), "no matches for kind")
	})
	t.Run("Rights", func(t *testing.T) {
		contains(w.fails(t, one, "", "get", "vpcs", "--as=alice"), "forbidden", `User "alice" cannot list resource "vpcs" in API group "vivarium.io"`)
		w.must(t, one, "", "create", "clusterrole", "networks", "--verb=get,list,watch", "--resource=vpcs.vivarium.io")
		w.must(t, one, "", "create", "clusterrolebinding", "networks", "--clusterrole=networks", "--user=alice")
		w.may(t, one, "list", "vpcs.vivarium.io", "--as=alice")
		contains(w.must(t, one, "", "get", "vpcs", "--as=alice", "-o", "name"), "vpc.vivarium.io/main")
		contains(w.fails(t, one, "", "get", "subnets", "--as=alice"), "forbidden")
	})
	t.Run("WithoutVPC", func(t *testing.T) {
		if out := w.must(t, flat, "", "api-resources"); strings.Contains(out, "vivarium.io") {
			t.Errorf("a tenant without a VPC hears of networks:\n%s", out)
		}
		out := w.fails(t, flat, "", "get", "--raw", "/apis/vivarium.io/v1alpha1/vpcs")
		if got := w.fails(t, flat, "", "get", "--raw", "/apis/nobody.test/v1alpha1/vpcs"); got != out {
			t.Errorf("%s is answered otherwise than %s", out, got)
		}
	})
	t.Run("Keys", func(t *testing.T) {
		pod := func(annotations string) string {
			return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","annotations":{` + annotations + `}},"spec":{"containers":[{"name":"c","image":"vivarium.test/c"}]}}`
		}
		const good = `"network.vivarium.io/subnets":"web,db","network.vivarium.io/ip":"10.0.1.9","network.vivarium.io/bandwidth":"10M"`
		eventually(t, "pods can be made", func() bool {
			_, err := w.run(one, "", "get", "serviceaccount", "default")
			return err == nil
		})
		w.must(t, one, pod(good), "apply", "-f", "-")
		contains(w.must(t, one, "", "get", "pod", "p", "-o", "yaml", "--show-managed-fields"), "network.vivarium.io/subnets: web,db", "f:network.vivarium.io/ip")
		contains(w.must(t, w.control, "", "-n", "vpcga1-default", "get", "pod", "p", "-o", "yaml"), "network.vivarium.io/ip: 10.0.1.9")
		w.must(t, one, pod(good), "apply", "-f", "-")
		w.must(t, one, "", "annotate", "pod", "p", "network.vivarium.io/bandwidth-")
		w.must(t, one, "", "annotate", "namespace", "default", "network.vivarium.io/subnets=db")
		contains(w.fails(t, one, "", "annotate", "pod", "p", "--overwrite", "network.vivarium.io/ip=10.0.1"), "must be an address in its usual form")
		contains(w.fails(t, one, "", "annotate", "namespace", "default", "network.vivarium.io/ip=10.0.1.9"), "says the address of one pod")
		contains(w.fails(t, one, "", "label", "pod", "p", "network.vivarium.io/ip=10.0.1.9"), "is an annotation of pods, pod templates and namespaces alone")
		contains(w.fails(t, one, "", "annotate", "pod", "p", "network.vivarium.io/binding=x"), "belongs to the platform")
		contains(w.fails(t, flat, pod(good), "create", "-f", "-"), "is for clusters whose pods are in a VPC")
	})
}
