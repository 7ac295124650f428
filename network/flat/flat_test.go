package flat

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"

	"vivarium.io/vivarium/internal/kubetest"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/drivertest"
)

func harness(pool func(*testing.T, ...network.Namespace) network.Pool) drivertest.Harness {
	return drivertest.Harness{
		Driver: func(*testing.T) network.Driver { return Driver{} },
		Pool:   pool,
		Silent: drivertest.SilentPool,
		Snapshot: func(t *testing.T, _ network.Driver, pool network.Pool) any {
			t.Helper()
			return drivertest.Fences(t, pool)
		},
		Obstruct: drivertest.ForeignFence,
	}
}

func TestContract(t *testing.T) {
	drivertest.Run(t, harness(func(*testing.T, ...network.Namespace) network.Pool {
		return drivertest.FakePool(nil)
	}))
}

// allows evaluates the fence of a namespace as a network plugin would, for traffic between pods of two namespaces.
func allows(t *testing.T, policy *networkingv1.NetworkPolicy, direction networkingv1.PolicyType, peer map[string]string) bool {
	t.Helper()
	var peers []networkingv1.NetworkPolicyPeer
	for _, rule := range policy.Spec.Ingress {
		if direction == networkingv1.PolicyTypeIngress {
			peers = append(peers, rule.From...)
		}
	}
	for _, rule := range policy.Spec.Egress {
		if direction == networkingv1.PolicyTypeEgress {
			peers = append(peers, rule.To...)
		}
	}
	for _, p := range peers {
		if p.NamespaceSelector == nil {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(p.NamespaceSelector)
		if err != nil {
			t.Fatal(err)
		}
		if selector.Matches(labelSet(peer)) {
			return true
		}
	}
	return false
}

type labelSet map[string]string

func (s labelSet) Has(key string) bool              { _, ok := s[key]; return ok }
func (s labelSet) Get(key string) string            { return s[key] }
func (s labelSet) Lookup(key string) (string, bool) { v, ok := s[key]; return v, ok }

func TestFence(t *testing.T) {
	pool := network.Pool{Name: "pool-a", ControlUID: "control"}
	policy := fence(pool, network.Namespace{Name: "abc123-web", Tenant: "abc123"})
	tenant := func(id, control string) map[string]string {
		return map[string]string{names.LabelTenant: id, names.LabelControl: control}
	}
	cases := map[string]struct {
		reason          string
		peer            map[string]string
		ingress, egress bool
	}{
		"SameTenant":         {"a tenant's pods talk", tenant("abc123", "control"), true, true},
		"OtherTenant":        {"the point of it", tenant("zzz999", "control"), false, false},
		"SameIDOtherControl": {"another control cluster's tenant of that ID is a stranger", tenant("abc123", "elsewhere"), false, false},
		"NoTenant":           {"the pool's DNS is reached; nothing of the pool reaches in", map[string]string{}, false, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := allows(t, policy, networkingv1.PolicyTypeIngress, tc.peer); got != tc.ingress {
				t.Errorf("ingress = %t, want %t: %s", got, tc.ingress, tc.reason)
			}
			if got := allows(t, policy, networkingv1.PolicyTypeEgress, tc.peer); got != tc.egress {
				t.Errorf("egress = %t, want %t: %s", got, tc.egress, tc.reason)
			}
		})
	}
	if len(policy.Spec.PodSelector.MatchLabels)+len(policy.Spec.PodSelector.MatchExpressions) > 0 || len(policy.Spec.PolicyTypes) != 2 {
		t.Errorf("the fence leaves pods or a direction out: %+v", policy.Spec)
	}
}

// TestFenceIsRestored: a fence that somebody weakened is put back, and a namespace's own NetworkPolicies stay.
func TestFenceIsRestored(t *testing.T) {
	ns := network.Namespace{Name: "abc123-web", Tenant: "abc123"}
	pool := network.Pool{Name: "pool-a", ControlUID: "control", Client: fake.NewClientset()}
	if err := (Driver{}).EnsureNamespace(t.Context(), pool, ns); err != nil {
		t.Fatal(err)
	}
	policies := pool.Client.NetworkingV1().NetworkPolicies(string(ns.Name))
	weak, err := policies.Get(t.Context(), fenceName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	weak.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}}
	if _, err := policies.Update(t.Context(), weak, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := (Driver{}).EnsureNamespace(t.Context(), pool, ns); err != nil {
		t.Fatal(err)
	}
	got, err := policies.Get(t.Context(), fenceName, metav1.GetOptions{})
	if err != nil || len(got.Spec.Ingress) != 1 || len(got.Spec.Ingress[0].From) != 1 {
		t.Errorf("after EnsureNamespace: %+v, %v", got.Spec, err)
	}
}

func TestObservePodReadsTheOlderField(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "abc123-web", Annotations: map[string]string{network.BindingAnnotation: "tenant=abc123,driver=flat"}}}
	pod.Status.PodIP = "10.244.0.5"
	if got, err := (Driver{}).ObservePod(pod); err != nil || len(got.IPs) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestContractOnRealCluster runs the same suite where a real API server validates what the driver writes.
func TestContractOnRealCluster(t *testing.T) {
	cluster := kubetest.ControlPlane(t)
	client := kubernetes.NewForConfigOrDie(cluster.Config)
	drivertest.Run(t, harness(func(t *testing.T, namespaces ...network.Namespace) network.Pool {
		for _, ns := range namespaces {
			_, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: string(ns.Name)}}, metav1.CreateOptions{})
			if err != nil && !apierrors.IsAlreadyExists(err) {
				t.Fatal(err)
			}
			if err := client.NetworkingV1().NetworkPolicies(string(ns.Name)).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		return network.Pool{Name: "pool-a", ControlUID: "control", Client: client}
	}))
}
