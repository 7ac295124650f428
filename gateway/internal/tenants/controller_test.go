package tenants_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/gateway/internal/tenants"
	"vivarium.io/vivarium/internal/names"
)

func TestCreate(t *testing.T) {
	w := newWorld(t)
	stop := w.startController()
	begin := time.Now()
	created := w.create("creat1", func(x *v1alpha1.Tenant) { x.Spec.Weight = 20 })
	accepted := time.Since(begin)
	x := w.await("creat1", v1alpha1.TenantActive)
	t.Logf("accepted after %s, ready after %s", accepted, time.Since(begin))
	ctx := t.Context()

	for _, ns := range []string{"default", "kube-system", "kube-public", "kube-node-lease"} {
		got, err := w.control.CoreV1().Namespaces().Get(ctx, "creat1-"+ns, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		version, err := strconv.ParseInt(got.ResourceVersion, 10, 64)
		if began := x.Status.Beginning; err != nil || began == nil || began.Control <= 0 || began.Control >= version || began.Events <= 0 || began.Admin <= 0 {
			t.Errorf("namespace %s of version %s is there from before the beginning %+v", ns, got.ResourceVersion, began)
		}
		for key, value := range map[string]string{names.LabelTenant: "creat1", "pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "latest"} {
			if got.Labels[key] != value {
				t.Errorf("namespace %s: label %s=%q", ns, key, got.Labels[key])
			}
		}
		if _, err := w.control.CoreV1().ServiceAccounts(got.Name).Get(ctx, "default", metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	}
	for _, role := range []string{"admin", "edit", "view"} {
		want, err := w.control.RbacV1().ClusterRoles().Get(ctx, role, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := w.control.RbacV1().ClusterRoles().Get(ctx, "creat1-"+role, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.Rules, got.Rules); diff != "" || len(got.Rules) == 0 {
			t.Errorf("clusterrole %s: %s", role, diff)
		}
	}
	service, err := w.control.CoreV1().Services("creat1-default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if service.Spec.ClusterIP == "" || service.Spec.Selector != nil || service.Spec.Ports[0].Port != 443 || service.Spec.Ports[0].TargetPort.IntValue() != 6443 {
		t.Errorf("service kubernetes: %+v", service.Spec)
	}
	slices, err := w.control.DiscoveryV1().EndpointSlices("creat1-default").List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=kubernetes"})
	if err != nil {
		t.Fatal(err)
	}
	if len(slices.Items) != 1 || slices.Items[0].Endpoints[0].Addresses[0] != "10.11.12.13" || *slices.Items[0].Ports[0].Port != 6443 {
		t.Errorf("endpoint slices: %+v", slices.Items)
	}
	level, err := w.control.FlowcontrolV1().PriorityLevelConfigurations().Get(ctx, "creat1-tenant-requests", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if *level.Spec.Limited.NominalConcurrencyShares != 10 || *level.Spec.Limited.BorrowingLimitPercent != 0 {
		t.Errorf("priority level: %+v", level.Spec.Limited)
	}
	if x.Status.Server != "https://gateway.vivarium.test:6443" || x.Status.ObservedGeneration != 1 || x.Status.CertificateExpiry == nil {
		t.Errorf("status: %+v", x.Status)
	}
	config, cert := w.kubeconfig(x)
	if config.Host != x.Status.Server || string(config.CAData) != string(w.config.ServingCA) {
		t.Errorf("kubeconfig: %s", config.Host)
	}
	if got, want := cert.Subject.String(), fmt.Sprintf("SERIALNUMBER=%s,CN=admin,OU=creat1,O=system:masters", created.UID); got != want {
		t.Errorf("certificate of %s, want %s", got, want)
	}
	if !cert.NotBefore.Before(begin) || len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || cert.IsCA {
		t.Errorf("certificate from %s for %v", cert.NotBefore, cert.ExtKeyUsage)
	}

	t.Run("TenantMayWork", func(t *testing.T) {
		c := w.asTenant("creat1", "admin", "creat1-system:masters", "creat1-system:authenticated")
		if _, err := c.CoreV1().ConfigMaps("creat1-default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{}); err != nil {
			t.Error(err)
		}
		stranger := w.asTenant("creat1", "nobody", "creat1-system:authenticated")
		if _, err := stranger.CoreV1().ConfigMaps("creat1-default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("a user without a role: %v", err)
		}
	})

	t.Run("SecondLookChangesNothing", func(t *testing.T) {
		stop()
		before := w.versions("creat1")
		// As a release made it that did not note where tenants begin: it has a history, which is nobody else's.
		old := w.get("creat1")
		old.Status.Beginning = nil
		if err := w.admin.Status().Update(ctx, old); err != nil {
			t.Fatal(err)
		}
		tenant := w.get("creat1").ResourceVersion
		w.startController()
		w.quiet()
		if diff := cmp.Diff(before, w.versions("creat1")); diff != "" {
			t.Error(diff)
		}
		if got := w.get("creat1").ResourceVersion; got != tenant {
			t.Errorf("the Tenant was written again: %s, %s", tenant, got)
		}
	})
}

func TestDeleteLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.startController(func(c *tenants.Config) { c.Metrics = w.metrics })
	ctx := t.Context()
	w.create("delet1")
	w.create("delet2")
	first := w.await("delet1", v1alpha1.TenantActive)
	w.await("delet2", v1alpha1.TenantActive)
	w.namespace("delet1-more", map[string]string{names.LabelTenant: "delet1"})
	for i := range 50 {
		if _, err := w.control.CoreV1().ConfigMaps("delet1-more").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("c", i)}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"delet1-mine", "delet10-not-mine", "delet2-mine"} {
		role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := w.control.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.metric("vivarium_tenants", "phase", "Ready"); got != 2 {
		t.Errorf("vivarium_tenants{phase=Ready} = %v", got)
	}
	neighbour := w.versions("delet2")

	w.delete("delet1")
	w.eventually("the directory shows it terminating", func() error {
		if got, ok := w.directory.Get("delet1"); !ok || !got.Terminating {
			return fmt.Errorf("%+v, %t", got, ok)
		}
		return nil
	})
	begin := time.Now()
	w.awaitReleased("delet1")
	t.Logf("empty after %s", time.Since(begin))
	if found := w.find("delet1"); len(found) > 0 {
		t.Errorf("left: %q", found)
	}
	if found := w.find("delet2"); len(found) != 14 {
		t.Errorf("the neighbour has %q", found)
	}
	if diff := cmp.Diff(neighbour, w.versions("delet2")); diff != "" {
		t.Errorf("the neighbour's objects changed: %s", diff)
	}
	if _, err := w.control.RbacV1().ClusterRoles().Get(ctx, "delet10-not-mine", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}

	// Until the pools are empty too, the name is not free.
	err := w.admin.Create(ctx, &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "delet1"}})
	if !apierrors.IsAlreadyExists(err) {
		t.Errorf("create while the pools are being emptied: %v", err)
	}
	if got := condition(w.get("delet1"), v1alpha1.TenantCleaned); got.Reason != "WaitingForPools" {
		t.Errorf("condition %+v", got)
	}
	w.change("delet1", func(x *v1alpha1.Tenant) { x.Finalizers = nil })
	w.create("delet1")
	second := w.await("delet1", v1alpha1.TenantActive)
	_, before := w.kubeconfig(first)
	_, after := w.kubeconfig(second)
	if second.UID == first.UID || after.Subject.SerialNumber == before.Subject.SerialNumber {
		t.Errorf("the new tenant is the old one: %s, %s", second.UID, after.Subject.SerialNumber)
	}
}

func TestForeignNamesAreInTheWay(t *testing.T) {
	w := newWorld(t)
	w.startController()
	ctx := t.Context()
	w.namespace("forgn1-theirs", nil)
	refused := func(name, want string) {
		t.Helper()
		err := w.admin.Create(ctx, &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}})
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("create %s: %v, want %s", name, err, want)
		}
	}
	refused("forgn1", `namespace "forgn1-theirs"`)
	refused("system", `everything that starts with "system-"`)
	if _, err := w.control.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "forgn2-x"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	refused("forgn2", `clusterrole "forgn2-x"`)
	w.namespace("forgn33-x", nil) // no terminator after six characters
	w.create("forgn3")
	w.await("forgn3", v1alpha1.TenantActive)

	// What comes later without the tenant's label is neither deleted nor forgotten.
	w.namespace("forgn3-theirs", nil)
	w.delete("forgn3")
	w.eventually("the stranger is reported", func() error {
		got := condition(w.get("forgn3"), v1alpha1.TenantCleaned)
		if got.Reason != "Stuck" || !strings.Contains(got.Message, `namespace "forgn3-theirs"`) {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	if ns, err := w.control.CoreV1().Namespaces().Get(ctx, "forgn3-theirs", metav1.GetOptions{}); err != nil || ns.DeletionTimestamp != nil {
		t.Fatalf("the stranger's namespace: %v", err)
	}
	if err := w.control.CoreV1().Namespaces().Delete(ctx, "forgn3-theirs", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.awaitReleased("forgn3")
}

func TestStuckNamespaceIsNamed(t *testing.T) {
	w := newWorld(t)
	w.startController()
	ctx := t.Context()
	w.create("stuck1")
	w.await("stuck1", v1alpha1.TenantActive)
	configMaps := w.control.CoreV1().ConfigMaps("stuck1-default")
	_, err := configMaps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "held", Finalizers: []string{"example.com/held"}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.delete("stuck1")
	w.eventually("the message says what is held", func() error {
		got := condition(w.get("stuck1"), v1alpha1.TenantCleaned).Message
		if !strings.Contains(got, "stuck1-default") || !strings.Contains(got, "configmaps") {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	w.eventually("let go of it", func() error {
		_, err := configMaps.Patch(ctx, "held", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
		return err
	})
	w.awaitReleased("stuck1")
}

func TestBurst(t *testing.T) {
	w := newWorld(t)
	w.startController()
	begin := time.Now()
	const many = 20
	id := func(i int) string { return fmt.Sprintf("brst%02d", i) }
	var creating sync.WaitGroup
	for i := range many {
		creating.Go(func() { w.create(id(i)) })
	}
	creating.Wait()
	accepted := time.Since(begin)
	for i := range many {
		w.await(id(i), v1alpha1.TenantActive)
	}
	t.Logf("%d tenants: all accepted after %s, all ready after %s", many, accepted, time.Since(begin))
}

// TestReplicasAndCrashes runs two replicas and one that is killed all the time, through a whole life.
func TestReplicasAndCrashes(t *testing.T) {
	w := newWorld(t)
	done := make(chan struct{})
	crashed := make(chan int)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				crashed <- n
				return
			default:
			}
			stop := w.startController()
			time.Sleep(time.Duration(n%20) * 5 * time.Millisecond)
			stop()
		}
	}()
	w.startController()
	w.startController()
	ids := []string{"crash1", "crash2", "crash3"}
	for _, id := range ids {
		w.create(id)
	}
	for _, id := range ids {
		w.await(id, v1alpha1.TenantActive)
		w.delete(id)
	}
	for _, id := range ids {
		w.awaitReleased(id)
		if found := w.find(names.TenantID(id)); len(found) > 0 {
			t.Errorf("left of %s: %q", id, found)
		}
	}
	close(done)
	t.Logf("%d crashes", <-crashed)
}

func TestDriftIsRepaired(t *testing.T) {
	w := newWorld(t)
	stop := w.startController()
	ctx := t.Context()
	w.create("drift1")
	w.await("drift1", v1alpha1.TenantActive)

	t.Run("NamespaceAtOnce", func(t *testing.T) {
		namespaces := w.control.CoreV1().Namespaces()
		w.eventually("remove the labels", func() error {
			ns, err := namespaces.Get(ctx, "drift1-default", metav1.GetOptions{})
			if err != nil {
				return err
			}
			delete(ns.Labels, "pod-security.kubernetes.io/enforce")
			_, err = namespaces.Update(ctx, ns, metav1.UpdateOptions{})
			return err
		})
		w.eventually("the label is back", func() error {
			ns, err := namespaces.Get(ctx, "drift1-default", metav1.GetOptions{})
			if err == nil && ns.Labels["pod-security.kubernetes.io/enforce"] != "baseline" {
				err = fmt.Errorf("labels %v", ns.Labels)
			}
			return err
		})
		if err := namespaces.Delete(ctx, "drift1-kube-public", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.eventually("the namespace is back", func() error {
			ns, err := namespaces.Get(ctx, "drift1-kube-public", metav1.GetOptions{})
			if err == nil && ns.DeletionTimestamp != nil {
				err = fmt.Errorf("still going")
			}
			return err
		})
	})

	t.Run("TheRestAtTheNextLook", func(t *testing.T) {
		stop()
		roles, bindings := w.control.RbacV1().ClusterRoles(), w.control.RbacV1().ClusterRoleBindings()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		admin, err := roles.Get(ctx, "drift1-cluster-admin", metav1.GetOptions{})
		must(err)
		extra := rbacv1.PolicyRule{APIGroups: []string{"example.com"}, Resources: []string{"widgets"}, Verbs: []string{"get"}}
		admin.Rules = []rbacv1.PolicyRule{extra}
		_, err = roles.Update(ctx, admin, metav1.UpdateOptions{})
		must(err)
		view, err := roles.Get(ctx, "drift1-view", metav1.GetOptions{})
		must(err)
		view.Rules = append(view.Rules, extra)
		_, err = roles.Update(ctx, view, metav1.UpdateOptions{})
		must(err)
		edit, err := roles.Get(ctx, "drift1-edit", metav1.GetOptions{})
		must(err)
		edit.Rules, edit.Annotations = []rbacv1.PolicyRule{extra}, map[string]string{"rbac.authorization.kubernetes.io/autoupdate": "false"}
		_, err = roles.Update(ctx, edit, metav1.UpdateOptions{})
		must(err)
		must(bindings.Delete(ctx, "drift1-cluster-admin", metav1.DeleteOptions{}))
		_, err = bindings.Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "drift1-cluster-admin"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "drift1-view"},
		}, metav1.CreateOptions{})
		must(err)
		must(w.control.CoreV1().Services("drift1-default").Delete(ctx, "kubernetes", metav1.DeleteOptions{}))
		must(w.control.FlowcontrolV1().FlowSchemas().Delete(ctx, "drift1-tenant-requests", metav1.DeleteOptions{}))

		w.startController(func(c *tenants.Config) {
			c.PodAddress = netip.MustParseAddrPort("10.11.12.14:7443")
			c.ServerURL = "https://elsewhere.vivarium.test"
		})
		w.quiet()
		admin, err = roles.Get(ctx, "drift1-cluster-admin", metav1.GetOptions{})
		must(err)
		if len(admin.Rules) != 3 || !cmp.Equal(admin.Rules[0], extra) {
			t.Errorf("cluster-admin: %+v", admin.Rules)
		}
		stock, err := roles.Get(ctx, "view", metav1.GetOptions{})
		must(err)
		view, err = roles.Get(ctx, "drift1-view", metav1.GetOptions{})
		must(err)
		if !cmp.Equal(view.Rules, stock.Rules) {
			t.Errorf("view: %s", cmp.Diff(stock.Rules, view.Rules))
		}
		edit, err = roles.Get(ctx, "drift1-edit", metav1.GetOptions{})
		must(err)
		if len(edit.Rules) != 1 {
			t.Errorf("edit was changed in spite of autoupdate=false: %+v", edit.Rules)
		}
		binding, err := bindings.Get(ctx, "drift1-cluster-admin", metav1.GetOptions{})
		must(err)
		if binding.RoleRef.Name != "drift1-cluster-admin" || len(binding.Subjects) != 1 || binding.Subjects[0].Name != "drift1-system:masters" {
			t.Errorf("binding: %+v", binding)
		}
		service, err := w.control.CoreV1().Services("drift1-default").Get(ctx, "kubernetes", metav1.GetOptions{})
		must(err)
		if service.Spec.Ports[0].TargetPort.IntValue() != 7443 {
			t.Errorf("service: %+v", service.Spec.Ports)
		}
		slice, err := w.control.DiscoveryV1().EndpointSlices("drift1-default").Get(ctx, "kubernetes", metav1.GetOptions{})
		must(err)
		if slice.Endpoints[0].Addresses[0] != "10.11.12.14" || *slice.Ports[0].Port != 7443 {
			t.Errorf("endpoint slice: %+v", slice)
		}
		_, err = w.control.FlowcontrolV1().FlowSchemas().Get(ctx, "drift1-tenant-requests", metav1.GetOptions{})
		must(err)
		if got := w.get("drift1"); got.Status.Server != "https://elsewhere.vivarium.test" {
			t.Errorf("status.server %q", got.Status.Server)
		}
	})
}

func TestRolesFollowTheirParts(t *testing.T) {
	w := newWorld(t)
	w.startController()
	ctx := t.Context()
	w.create("roles1")
	w.create("roles2")
	w.await("roles1", v1alpha1.TenantActive)
	w.await("roles2", v1alpha1.TenantActive)
	rule := func(resource string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{"example.com"}, Resources: []string{resource}, Verbs: []string{"get"}}
	}
	add := func(name, resource string, labels map[string]string) {
		t.Helper()
		part := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Rules: []rbacv1.PolicyRule{rule(resource)}}
		if _, err := w.control.RbacV1().ClusterRoles().Create(ctx, part, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = w.control.RbacV1().ClusterRoles().Delete(context.WithoutCancel(ctx), name, metav1.DeleteOptions{})
		})
	}
	says := func(role, resource string) (bool, error) {
		got, err := w.control.RbacV1().ClusterRoles().Get(ctx, role, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		return slices.ContainsFunc(got.Rules, func(r rbacv1.PolicyRule) bool { return cmp.Equal(r, rule(resource)) }), nil
	}
	expect := func(role, resource string, want bool) {
		t.Helper()
		w.eventually(fmt.Sprintf("%s speaks of %s: %t", role, resource, want), func() error {
			got, err := says(role, resource)
			if err == nil && got != want {
				err = fmt.Errorf("%t", got)
			}
			return err
		})
	}
	// What the control cluster adds is everybody's.
	add("widgets-view", "widgets", map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"})
	for _, role := range []string{"roles1-view", "roles1-edit", "roles1-admin", "roles2-view"} {
		expect(role, "widgets", true)
	}
	// What a tenant adds is its own.
	add("roles1-gadgets", "gadgets", map[string]string{names.LabelAggregateTo + "edit": "true", names.LabelTenant: "roles1"})
	expect("roles1-edit", "gadgets", true)
	expect("roles1-admin", "gadgets", true)
	add("roles2-mark", "marks", map[string]string{names.LabelAggregateTo + "view": "true", names.LabelTenant: "roles2"})
	expect("roles2-admin", "marks", true)
	for _, role := range []string{"roles1-view", "roles2-edit", "edit"} {
		if got, err := says(role, "gadgets"); got || err != nil {
			t.Errorf("%s speaks of gadgets: %v", role, err)
		}
	}
	if got, err := says("roles1-admin", "marks"); got || err != nil {
		t.Errorf("one tenant adds to another's role: %v", err)
	}
	// A label that names another tenant than the role's name does adds to nobody's.
	add("roles1-liar", "lies", map[string]string{names.LabelAggregateTo + "edit": "true", names.LabelTenant: "roles2"})
	add("roles2-last", "last", map[string]string{names.LabelAggregateTo + "edit": "true", names.LabelTenant: "roles2"})
	expect("roles2-edit", "last", true)
	for _, role := range []string{"roles1-edit", "roles2-edit"} {
		if got, err := says(role, "lies"); got || err != nil {
			t.Errorf("%s lies: %v", role, err)
		}
	}
	if err := w.control.RbacV1().ClusterRoles().Delete(ctx, "roles1-gadgets", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	expect("roles1-admin", "gadgets", false)
}

func TestCredentialsAreRotated(t *testing.T) {
	w := newWorld(t)
	stop := w.startController()
	w.create("rotat1")
	first := w.await("rotat1", v1alpha1.TenantActive)
	_, before := w.kubeconfig(first)

	revoked := time.Now().Truncate(time.Second)
	w.change("rotat1", func(x *v1alpha1.Tenant) { x.Spec.CredentialsNotBefore = &metav1.Time{Time: revoked} })
	reissued := func() (*rest.Config, *x509.Certificate) {
		var config *rest.Config
		var cert *x509.Certificate
		w.eventually("another certificate", func() error {
			var err error
			config, cert, err = readKubeconfig(w.get("rotat1"))
			if err == nil && cert.SerialNumber.Cmp(before.SerialNumber) == 0 {
				err = fmt.Errorf("still %s", cert.SerialNumber)
			}
			return err
		})
		return config, cert
	}
	_, after := reissued()
	if after.NotBefore.Before(revoked) {
		t.Errorf("the new certificate is from %s, before the revocation at %s", after.NotBefore, revoked)
	}
	w.eventually("the directory refuses the old one", func() error {
		got, ok := w.directory.Get("rotat1")
		if !ok || !before.NotBefore.Before(got.CredentialsNotBefore) || after.NotBefore.Before(got.CredentialsNotBefore) {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})

	// A new address changes the kubeconfig around the same certificate.
	stop()
	w.startController(func(c *tenants.Config) { c.ServerURL = "https://moved.vivarium.test" })
	w.eventually("the kubeconfig leads to the new address", func() error {
		config, cert := w.kubeconfig(w.get("rotat1"))
		if config.Host != "https://moved.vivarium.test" {
			return fmt.Errorf("%s", config.Host)
		}
		if cert.SerialNumber.Cmp(after.SerialNumber) != 0 {
			t.Error("a certificate was issued for nothing")
		}
		return nil
	})
	w.change("rotat1", func(x *v1alpha1.Tenant) { x.Annotations[v1alpha1.AnnotationKubeconfig] = "bm9uc2Vuc2U=" })
	before = after
	reissued()
}

func TestFairness(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for i := range 52 {
		w.create(fmt.Sprintf("fai%03d", i))
	}
	w.startController()
	for i := range 52 {
		w.await(fmt.Sprintf("fai%03d", i), v1alpha1.TenantActive)
	}
	level := func(id string) string {
		t.Helper()
		schema, err := w.control.FlowcontrolV1().FlowSchemas().Get(ctx, id+"-tenant-requests", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return schema.Spec.PriorityLevelConfiguration.Name
	}
	count := map[string]int{}
	for i := range 52 {
		count[strings.TrimPrefix(level(fmt.Sprintf("fai%03d", i)), fmt.Sprintf("fai%03d-", i))]++
	}
	if diff := cmp.Diff(map[string]int{"tenant-requests": 50, "vivarium-tier-medium": 2}, count); diff != "" {
		t.Error(diff)
	}
	w.change("fai000", func(x *v1alpha1.Tenant) { x.Spec.Weight = 100 })
	w.eventually("the weight reaches the level", func() error {
		got, err := w.control.FlowcontrolV1().PriorityLevelConfigurations().Get(ctx, "fai000-tenant-requests", metav1.GetOptions{})
		if err == nil && *got.Spec.Limited.NominalConcurrencyShares != 50 {
			err = fmt.Errorf("%d shares", *got.Spec.Limited.NominalConcurrencyShares)
		}
		return err
	})
	w.change("fai051", func(x *v1alpha1.Tenant) { x.Spec.Weight = 100 })
	w.eventually("the weight reaches the tier", func() error {
		if got := level("fai051"); got != "vivarium-tier-high" {
			return fmt.Errorf("level %s", got)
		}
		return nil
	})
}

func TestSuspend(t *testing.T) {
	w := newWorld(t)
	w.startController()
	w.create("suspn1", func(x *v1alpha1.Tenant) { x.Spec.Suspended = true })
	x := w.await("suspn1", v1alpha1.TenantSuspended)
	if got := condition(x, v1alpha1.TenantReady); got.Status != metav1.ConditionTrue {
		t.Errorf("%+v", got)
	}
	w.change("suspn1", func(x *v1alpha1.Tenant) { x.Spec.Suspended = false })
	w.await("suspn1", v1alpha1.TenantActive)
}

func condition(x *v1alpha1.Tenant, kind string) metav1.Condition {
	if c := meta.FindStatusCondition(x.Status.Conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// asTenant is a client of the control cluster with the identity that the gateway would impersonate.
func (w *world) asTenant(id names.TenantID, user string, groups ...string) kubernetes.Interface {
	w.t.Helper()
	config := rest.CopyConfig(shared.cluster.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: id.UserToControl(user), Groups: groups}
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}
