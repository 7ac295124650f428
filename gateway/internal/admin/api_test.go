package admin_test

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/gateway/internal/admin"
)

func tenant(name string) *v1alpha1.Tenant {
	return &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func pool(name string, uid types.UID) *v1alpha1.ResourcePool {
	return &v1alpha1.ResourcePool{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.ResourcePoolSpec{
			ClusterUID:  uid,
			Credentials: v1alpha1.PoolCredentials{KubeconfigSecret: name},
		},
	}
}

func TestKubectl(t *testing.T) {
	f := start(t, scannerFn(emptyControl))
	operator := f.kubeconfig(t, f.ca, "root", "system:masters")
	run := func(stdin string, args ...string) string {
		t.Helper()
		return mustKubectl(t, operator, stdin, args...)
	}
	contains := func(out string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%q is not in:\n%s", w, out)
			}
		}
	}

	contains(run("", "api-resources", "--categories", "vivarium"), "tenants", "tn", "resourcepools", "pool")
	contains(run("", "version"), "Server Version: v1.")
	contains(run("", "explain", "tenant.spec.limits"), "maxInFlight", "429 with Retry-After")
	contains(run("", "explain", "pool.spec.nodes.mode"), "Shaped", "Mirrored", "Aggregate")
	contains(run("", "explain", "tenants", "--output", "plaintext-openapiv2"), "security", "spec")

	const manifest = `
apiVersion: vivarium.io/v1alpha1
kind: Tenant
metadata: {name: demo01, labels: {team: a}}
spec: {weight: 20, limits: {requestsPerSecond: 50}}
---
apiVersion: vivarium.io/v1alpha1
kind: ResourcePool
metadata: {name: pool-a}
spec:
  clusterUID: 2c1d6f0a-0000-4000-8000-000000000001
  credentials: {kubeconfigSecret: pool-a}
  location: {region: north}
`
	contains(run(manifest, "apply", "-f", "-"), "tenant.vivarium.io/demo01 created", "resourcepool.vivarium.io/pool-a created")
	contains(run(manifest, "apply", "-f", "-"), "tenant.vivarium.io/demo01 unchanged", "resourcepool.vivarium.io/pool-a unchanged")
	contains(run("", "get", "tn"), "NAME     PHASE     WEIGHT   NETWORK   AGE", "demo01   Pending   20       Flat")
	contains(run("", "get", "tn", "-o", "wide"), "SERVER", "CERTIFICATE", "MESSAGE")
	contains(run("", "get", "pools"), "NAME     READY     NODES   VIRTUAL   PODS   FREE   VERSION   ZONE     SIMULATED   AGE", "pool-a   Unknown")
	contains(run("", "get", "pools", "-o", "wide"), "REGION", "north", "Shaped", "flat")
	contains(run("", "get", "vivarium", "-o", "name"), "tenant.vivarium.io/demo01", "resourcepool.vivarium.io/pool-a")
	contains(run("", "get", "tenants", "--field-selector", "metadata.name=demo01", "-o", "name"), "tenant.vivarium.io/demo01")
	if out := run("", "get", "tenants", "--field-selector", "metadata.name=nobody", "-o", "name"); out != "" {
		t.Errorf("a field selector lets through %q", out)
	}
	contains(run("", "get", "tenants", "-l", "team=a", "-o", "jsonpath={.items[0].spec.limits.burst}"), "100")

	run("", "patch", "tenant", "demo01", "--type", "merge", "-p", `{"spec":{"suspended":true}}`)
	run("", "patch", "tenant", "demo01", "--type", "json", "-p", `[{"op":"replace","path":"/spec/weight","value":40}]`)
	run("", "patch", "tenant", "demo01", "-p", `{"spec":{"limits":{"maxWatches":7}}}`)
	run("", "annotate", "tenant", "demo01", "tce.kubezoo/max-requests-inflight=5")
	run("", "label", "tenant", "demo01", "team=b", "--overwrite")
	contains(run("", "get", "tenant", "demo01", "-o", "jsonpath={.spec.suspended} {.spec.weight} {.spec.limits.maxWatches} {.metadata.generation}"), "true 40 7 4")
	status := fmt.Sprintf(`{"status":{"phase":"Ready","certificateExpiry":%q},"spec":{"weight":1}}`, time.Now().Add(100*24*time.Hour+time.Minute).UTC().Format(time.RFC3339))
	run("", "patch", "tenant", "demo01", "--subresource", "status", "--type", "merge", "-p", status)
	contains(run("", "get", "tenant", "demo01", "-o", "wide"), "100d")
	contains(run("", "get", "tenant", "demo01", "-o", "jsonpath={.status.phase} {.spec.weight} {.metadata.generation}"), "Ready 40 4")
	run("", "wait", "--for=jsonpath={.status.phase}=Ready", "tenant/demo01", "--timeout=180s")

	// A field has one owner who insists on it; another must say that it means it.
	const owned = "apiVersion: vivarium.io/v1alpha1\nkind: Tenant\nmetadata: {name: demo02}\nspec: {weight: %}\n"
	run(strings.Replace(owned, "%", "20", 1), "apply", "--server-side", "--field-manager=one", "-f", "-")
	_, stderr, err := kubectl(t, operator, strings.Replace(owned, "%", "30", 1), "apply", "--server-side", "--field-manager=two", "-f", "-")
	if err == nil || !strings.Contains(stderr, ".spec.weight") {
		t.Errorf("server-side apply of another's field: %v, %s", err, stderr)
	}
	run(strings.Replace(owned, "%", "30", 1), "apply", "--server-side", "--field-manager=two", "--force-conflicts", "-f", "-")
	contains(run("", "get", "tenant", "demo02", "-o", "yaml", "--show-managed-fields"), "manager: two", "f:weight", "weight: 30")

	_, stderr, err = kubectl(t, operator, strings.NewReplacer("weight", "wieght", "%", "1").Replace(owned), "create", "-f", "-")
	if err == nil || !strings.Contains(stderr, `unknown field "spec.wieght"`) {
		t.Errorf("a misspelt field: %v, %s", err, stderr)
	}
	run(strings.NewReplacer("demo02", "demo03", "%", "1").Replace(owned), "create", "--dry-run=server", "-f", "-")
	if out := run("", "get", "tenant", "demo03", "--ignore-not-found"); out != "" {
		t.Errorf("a dry run made %s", out)
	}

	run("", "delete", "tenants", "--all", "--wait=false")
	contains(run("", "get", "tn"), "demo01   Terminating", "demo02   Terminating")
	run("", "patch", "tenant", "demo01", "--type", "merge", "-p", `{"metadata":{"finalizers":null}}`)
	run("", "wait", "--for=delete", "tenant/demo01", "--timeout=180s")
	run("", "delete", "tenant", "demo02", "--cascade=foreground", "--wait=false")
	run("", "patch", "tenant", "demo02", "--type", "merge", "-p", `{"metadata":{"finalizers":null}}`)
	run("", "wait", "--for=delete", "tenant/demo02", "--timeout=180s")
}

// TestKubectlWatch reads what kubectl get -w prints while a tenant changes.
func TestKubectlWatch(t *testing.T) {
	f := start(t, scannerFn(emptyControl))
	operator := f.kubeconfig(t, f.ca, "root", "system:masters")
	mustKubectl(t, operator, "", "get", "tenants") // skips where there is no kubectl
	cmd := exec.CommandContext(t.Context(), kubectlPath(t), "--kubeconfig", operator, "get", "tenants", "-w")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	c := f.operator(t)
	if err := c.Create(t.Context(), tenant("demo01")); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for _, want := range []string{"NAME", "demo01   Pending"} {
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), want) {
			t.Fatalf("kubectl get -w prints %q, want %q", lines.Text(), want)
		}
	}
	update(t, c, "demo01", func(x *v1alpha1.Tenant) { x.Spec.Weight = 99 })
	if !lines.Scan() || !strings.Contains(lines.Text(), "99") {
		t.Fatalf("kubectl get -w prints %q", lines.Text())
	}
}

func TestGenerationAndStatus(t *testing.T) {
	f := start(t, scannerFn(emptyControl))
	c := f.operator(t)
	x := tenant("demo01")
	x.Status.Phase = v1alpha1.TenantActive
	if err := c.Create(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	if x.Status.Phase != "" || x.Generation != 1 {
		t.Errorf("created with phase %q, generation %d", x.Status.Phase, x.Generation)
	}
	if want := []string{v1alpha1.FinalizerControl, v1alpha1.FinalizerPools}; !cmp.Equal(x.Finalizers, want) {
		t.Errorf("finalizers %v", x.Finalizers)
	}
	x.Status.Phase, x.Spec.Weight = v1alpha1.TenantActive, 50
	if err := c.Update(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	if x.Status.Phase != "" || x.Generation != 2 || x.Spec.Weight != 50 {
		t.Errorf("after update: phase %q, generation %d, weight %d", x.Status.Phase, x.Generation, x.Spec.Weight)
	}
	x.Status.Phase, x.Spec.Weight, x.Labels, x.Finalizers = v1alpha1.TenantActive, 60, map[string]string{"a": "b"}, nil
	meta.SetStatusCondition(&x.Status.Conditions, metav1.Condition{Type: v1alpha1.TenantReady, Status: metav1.ConditionTrue, Reason: "Done"})
	if err := c.Status().Update(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	if x.Status.Phase != v1alpha1.TenantActive || x.Generation != 2 || x.Spec.Weight != 50 || x.Labels != nil || len(x.Finalizers) != 2 {
		t.Errorf("after a status update: %+v", x)
	}
	stale := x.DeepCopy()
	x.Labels = map[string]string{"a": "b"}
	if err := c.Update(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	if x.Generation != 2 {
		t.Errorf("a label made generation %d", x.Generation)
	}
	if err := c.Update(t.Context(), stale); !apierrors.IsConflict(err) {
		t.Errorf("a stale update: %v", err)
	}
	x.Status.Conditions = append(x.Status.Conditions, metav1.Condition{Type: "Bad reason", Status: "Perhaps"})
	if err := c.Status().Update(t.Context(), x); !apierrors.IsInvalid(err) {
		t.Errorf("an ill-formed condition: %v", err)
	}
}

// TestRestart shows that objects outlive the process that stored them.
func TestRestart(t *testing.T) {
	f := start(t, scannerFn(emptyControl))
	if err := f.operator(t).Create(t.Context(), tenant("demo01")); err != nil {
		t.Fatal(err)
	}
	f.stop()
	f.run(t, scannerFn(emptyControl))
	var x v1alpha1.Tenant
	if err := f.operator(t).Get(t.Context(), client.ObjectKey{Name: "demo01"}, &x); err != nil {
		t.Fatal(err)
	}
}

// TestEtcdAway shows that a server says which etcd it waits for in vain.
func TestEtcdAway(t *testing.T) {
	f := &fixture{dir: t.TempDir()}
	f.ca, f.serving = newCA(t, f.dir, "admin-ca"), newCA(t, f.dir, "serving-ca")
	config := f.config(t, scannerFn(emptyControl))
	config.Etcd = admin.Etcd{Servers: []string{"unix://" + filepath.Join(f.dir, "nobody")}}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := admin.New(ctx, config); err == nil || !strings.Contains(err.Error(), "no etcd server answers") || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("got %v", err)
	}
}

func TestBadConfiguration(t *testing.T) {
	f := &fixture{dir: t.TempDir()}
	f.ca, f.serving = newCA(t, f.dir, "admin-ca"), newCA(t, f.dir, "serving-ca")
	cases := map[string]struct {
		change func(*admin.Config)
		want   string
	}{
		"Nothing":    {func(c *admin.Config) { *c = admin.Config{} }, "no client CA file"},
		"NoEtcd":     {func(c *admin.Config) { c.Etcd = admin.Etcd{} }, "neither servers nor a directory"},
		"TwoEtcds":   {func(c *admin.Config) { c.Etcd.Servers = []string{"https://a"} }, "exclude each other"},
		"NoCA":       {func(c *admin.Config) { c.ClientCAFile = filepath.Join(f.dir, "nobody") }, "read the CA of admin clients"},
		"NoCert":     {func(c *admin.Config) { c.CertFile = filepath.Join(f.dir, "nobody") }, "read the admin listener's certificate"},
		"BadAddress": {func(c *admin.Config) { c.Listen = "127.0.0.1:99999" }, "listen for admin clients"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			config := f.config(t, scannerFn(emptyControl))
			tc.change(&config)
			if _, err := admin.New(t.Context(), config); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

func update(t *testing.T, c client.Client, name string, change func(*v1alpha1.Tenant)) {
	t.Helper()
	for range 10 {
		var x v1alpha1.Tenant
		if err := c.Get(t.Context(), client.ObjectKey{Name: name}, &x); err != nil {
			t.Fatal(err)
		}
		change(&x)
		err := c.Update(t.Context(), &x)
		if err == nil {
			return
		}
		if !apierrors.IsConflict(err) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("update tenant %s: always a conflict", name)
}
