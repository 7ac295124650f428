package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/adminclient/admintest"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/kubetest"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/drivers"
	"vivarium.io/vivarium/network/fake"
)

// TestJudge pins what the condition says; it must never claim what nobody can know.
func TestJudge(t *testing.T) {
	flat, err := drivers.ByName("flat")
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		reason     string
		driver     network.Driver
		bad        map[string]int
		namespaces []string
		want       metav1.ConditionStatus
		message    string
	}{
		"AllInPlaceFlat":  {"the pool's plugin may ignore NetworkPolicies", flat, nil, nil, metav1.ConditionUnknown, "cannot be asked"},
		"AllInPlaceOther": {"a driver that enforces by itself", fake.New(), nil, nil, metav1.ConditionTrue, "keeps tenants apart"},
		"SomeMissing":     {"one open namespace is an open pool", fake.New(), map[string]int{"ForeignObject": 1}, []string{"abc123-web"}, metav1.ConditionFalse, "abc123-web (ForeignObject)"},
		"ManyMissing":     {"a message has a bound", flat, map[string]int{"PoolUnreachable": 5}, []string{"e", "d", "c", "b", "a"}, metav1.ConditionFalse, "a, b, c and 2 more"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := judge(tc.driver, tc.bad, tc.namespaces)
			if got.status != tc.want || !strings.Contains(got.message, tc.message) {
				t.Errorf("%s: got %+v", tc.reason, got)
			}
		})
	}
}

// TestOnRealClusters runs the controller with its shipped rights against a control cluster and a pool.
func TestOnRealClusters(t *testing.T) {
	control := kubetest.ControlPlane(t)
	poolCluster := kubetest.ControlPlane(t, kubetest.WithControllerManager())
	admin, err := admintest.Install(t.Context(), control.Config)
	if err != nil {
		t.Fatal(err)
	}
	controlClient, poolClient := kubernetes.NewForConfigOrDie(control.Config), kubernetes.NewForConfigOrDie(poolCluster.Config)
	if _, err := controlClient.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: names.SystemNamespace}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	applyFile(t, control, filepath.Join("..", "..", "charts", "vivarium", "files", "rbac", "network.yaml"))
	applyFile(t, poolCluster, filepath.Join("..", "..", "charts", "vivarium-pool", "files", "clusterrole.yaml"))
	if _, err := poolClient.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "vivarium-pool"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "vivarium-pool"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "vivarium"}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	uid := func(client kubernetes.Interface) *corev1.Namespace {
		ns, err := client.CoreV1().Namespaces().Get(t.Context(), metav1.NamespaceSystem, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return ns
	}
	kubeconfig, err := os.ReadFile(poolCluster.Kubeconfig(t, "vivarium"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := controlClient.CoreV1().Secrets(names.SystemNamespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "pool-a"}, Data: map[string][]byte{pools.KubeconfigKey: kubeconfig},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	resource := &v1alpha1.ResourcePool{
		ObjectMeta: metav1.ObjectMeta{Name: "pool-a"},
		Spec:       v1alpha1.ResourcePoolSpec{ClusterUID: uid(poolClient).UID, Credentials: v1alpha1.PoolCredentials{KubeconfigSecret: "pool-a"}},
	}
	if err := admin.Create(t.Context(), resource); err != nil {
		t.Fatal(err)
	}
	namespace := func(name, tenant string) {
		t.Helper()
		if _, err := poolClient.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			names.LabelTenant: tenant, names.LabelControl: string(uid(controlClient).UID), names.LabelManagedBy: "vivarium",
		}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	// One is there before the controller, and one in which something is in the way.
	namespace("abc123-old", "abc123")
	namespace("abc123-taken", "abc123")
	foreign, err := poolClient.NetworkingV1().NetworkPolicies("abc123-taken").Create(t.Context(), &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "vivarium-fence"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := poolClient.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "abc123-foreign", Labels: map[string]string{
		names.LabelTenant: "abc123", names.LabelControl: "another", names.LabelManagedBy: "vivarium",
	}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	options := NewOptions()
	options.ControlKubeconfig = control.Kubeconfig(t, "vivarium-network")
	options.AdminKubeconfig = control.Kubeconfig(t, "admin", "system:masters")
	broken := &atomic.Bool{}
	c, err := New(options, func(name string) (network.Driver, error) {
		if name == "enforcing" {
			driver := fake.New()
			driver.Fail = func(fake.Call) error {
				if broken.Load() {
					return errors.New("broken")
				}
				return nil
			}
			return driver, nil
		}
		return drivers.ByName(name)
	})
	if err != nil {
		t.Fatal(err)
	}
	c.timing = timing{resync: 200 * time.Millisecond, sweep: 200 * time.Millisecond, look: time.Second}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, boot.NewHealth()) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})

	fence := func(ns string) (*networkingv1.NetworkPolicy, error) {
		return poolClient.NetworkingV1().NetworkPolicies(ns).Get(t.Context(), "vivarium-fence", metav1.GetOptions{})
	}
	fenced := func(ns string) {
		t.Helper()
		eventually(t, "fence of "+ns, func() error {
			got, err := fence(ns)
			if err == nil && len(got.Spec.PolicyTypes) != 2 {
				err = errors.New("weak")
			}
			return err
		})
	}
	condition := func(status metav1.ConditionStatus, reason, message string) {
		t.Helper()
		eventually(t, "condition "+reason, func() error {
			if err := admin.Get(t.Context(), client.ObjectKeyFromObject(resource), resource); err != nil {
				return err
			}
			got := meta.FindStatusCondition(resource.Status.Conditions, v1alpha1.PoolFenced)
			if got == nil || got.Status != status || got.Reason != reason || !strings.Contains(got.Message, message) {
				return fmt.Errorf("condition %+v", got)
			}
			return nil
		})
	}
	fenced("abc123-old")
	condition(metav1.ConditionFalse, reasonNotPrepared, "abc123-taken (ForeignObject)")
	if got, err := fence("abc123-taken"); err != nil || got.ResourceVersion != foreign.ResourceVersion {
		t.Errorf("the foreign policy was touched: %v", err)
	}
	if _, err := fence("abc123-foreign"); !apierrors.IsNotFound(err) {
		t.Errorf("another control cluster's namespace was fenced: %v", err)
	}
	if err := poolClient.NetworkingV1().NetworkPolicies("abc123-taken").Delete(t.Context(), "vivarium-fence", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	fenced("abc123-taken")
	condition(metav1.ConditionUnknown, reasonEnforcementUnknown, "flat")

	namespace("zzz999-new", "zzz999")
	fenced("zzz999-new")
	// Somebody removes a fence, somebody weakens one.
	if err := poolClient.NetworkingV1().NetworkPolicies("zzz999-new").Delete(t.Context(), "vivarium-fence", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	fenced("zzz999-new")
	weak, err := fence("abc123-old")
	if err != nil {
		t.Fatal(err)
	}
	weak.Spec = networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, Ingress: []networkingv1.NetworkPolicyIngressRule{{}}}
	if _, err := poolClient.NetworkingV1().NetworkPolicies("abc123-old").Update(t.Context(), weak, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	fenced("abc123-old")

	// A namespace that the pool's operator took over loses the fence, which is nobody's then.
	if _, err := poolClient.CoreV1().Namespaces().Patch(t.Context(), "zzz999-new", "application/merge-patch+json", []byte(`{"metadata":{"labels":{"vivarium.io/tenant":null}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the orphan is swept", func() error {
		_, err := fence("zzz999-new")
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("still there (%v)", err)
	})

	driver := func(name string) {
		t.Helper()
		eventually(t, "driver "+name, func() error {
			if err := admin.Get(t.Context(), client.ObjectKeyFromObject(resource), resource); err != nil {
				return err
			}
			resource.Spec.Network.Driver = name
			return admin.Update(t.Context(), resource)
		})
	}
	driver("enforcing")
	condition(metav1.ConditionTrue, reasonEnforced, "fake")
	broken.Store(true)
	condition(metav1.ConditionFalse, reasonNotPrepared, "abc123")
	broken.Store(false)
	condition(metav1.ConditionTrue, reasonEnforced, "fake")
	driver("nonsense")
	condition(metav1.ConditionFalse, reasonNoDriver, `"nonsense" does not exist`)
}

func applyFile(t *testing.T, cluster *kubetest.Cluster, file string) {
	t.Helper()
	raw, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c, err := client.New(cluster.Config, client.Options{Scheme: scheme.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewYAMLOrJSONDecoder(raw, 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); err != nil {
			return
		}
		if err := c.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func TestOptions(t *testing.T) {
	problems := NewOptions().Validate()
	for _, flag := range []string{"--control-kubeconfig", "--admin-kubeconfig"} {
		if !slices.ContainsFunc(problems, func(err error) bool { return strings.Contains(err.Error(), flag) }) {
			t.Errorf("%s is not reported: %v", flag, problems)
		}
	}
}
