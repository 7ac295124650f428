package vpcs

import (
	"errors"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/adminclient"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network"
)

func put(t *testing.T, informer cache.SharedIndexInformer, objects ...any) {
	t.Helper()
	for _, object := range objects {
		if err := informer.GetStore().Add(object); err != nil {
			t.Fatal(err)
		}
	}
}

func meta(name string, uid types.UID) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, UID: uid}
}

func block(name string, allocations ...v1alpha1.IPAllocation) *v1alpha1.IPBlock {
	return &v1alpha1.IPBlock{
		ObjectMeta: meta(name, types.UID(name)),
		Spec:       v1alpha1.IPBlockSpec{Subnet: "red001-web", SubnetUID: "s", VPCUID: "v", Size: 256},
		Status:     v1alpha1.IPBlockStatus{Allocations: allocations},
	}
}

func TestPlan(t *testing.T) {
	now := metav1.Now()
	all := func(c *Cache) {
		put(t, c.vpcs, &v1alpha1.VPC{ObjectMeta: meta("red001-main", "v"), Spec: v1alpha1.VPCSpec{Tenant: "red001", CIDRs: []string{"10.0.0.0/16", "fd00::/48"}, SecurityGroups: []v1alpha1.SecurityGroup{{Name: "db"}}}})
		put(t, c.subnets, &v1alpha1.Subnet{ObjectMeta: meta("red001-web", "s"), Spec: v1alpha1.SubnetSpec{VPC: "red001-main", CIDRs: []string{"10.0.1.0/24", "fd00::/64"}}})
	}
	pod := func(namespace string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "p", UID: "p1", Annotations: map[string]string{"network.vivarium.io/bandwidth": "ingress=8k"}}}
	}
	mine := v1alpha1.IPAllocation{Index: 9, PodUID: "p1"}
	cases := map[string]struct {
		reason string
		fill   func(*Cache)
		tenant string
		err    error
		ip     string
	}{
		"Flat":          {"a tenant that has none", all, "flat01", nil, ""},
		"UnknownTenant": {"its network may be anything", all, "new001", ErrUnknown, ""},
		"NoAllocation":  {"not its turn yet", all, "red001", ErrNoPlace, ""},
		"SomebodyElses": {"another pod of the same name", func(c *Cache) { all(c); put(t, c.blocks, block("b", v1alpha1.IPAllocation{Index: 9, PodUID: "p0"})) }, "red001", ErrNoPlace, ""},
		"Released": {"what it had", func(c *Cache) {
			all(c)
			put(t, c.blocks, block("b", v1alpha1.IPAllocation{Index: 9, PodUID: "p1", Released: &now}))
		}, "red001", ErrNoPlace, ""},
		"SubnetGone": {"it comes by another watch, and a moment later", func(c *Cache) {
			put(t, c.blocks, block("b", mine))
		}, "red001", ErrUnknown, ""},
		"Placed": {"the rule", func(c *Cache) { all(c); put(t, c.blocks, block("b", mine)) }, "red001", nil, "10.0.1.9"},
		"TwoPlaces": {"always the same one", func(c *Cache) {
			all(c)
			put(t, c.blocks, block("c", v1alpha1.IPAllocation{Index: 77, PodUID: "p1"}), block("b", mine))
		}, "red001", nil, "10.0.1.9"},
		"OtherBlock": {"neighbours do not matter", func(c *Cache) {
			all(c)
			put(t, c.blocks, block("b", v1alpha1.IPAllocation{Index: 8, PodUID: "p0"}, mine))
		}, "red001", nil, "10.0.1.9"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c := New(fake.NewClientBuilder().WithScheme(adminclient.Scheme()).Build(), func(id names.TenantID) (v1alpha1.NetworkMode, bool) {
				mode, ok := map[names.TenantID]v1alpha1.NetworkMode{"red001": v1alpha1.NetworkVPC, "flat01": v1alpha1.NetworkFlat}[id]
				return mode, ok
			})
			tc.fill(c)
			plan, err := c.Plan(pod(tc.tenant+"-web"), names.TenantID(tc.tenant), map[string]string{"network.vivarium.io/security-groups": "db", "network.vivarium.io/bandwidth": "9k"})
			if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) {
				t.Fatalf("%s: %v, want %v", tc.reason, err, tc.err)
			}
			if err != nil {
				return
			}
			if tc.ip == "" {
				if plan.VPC != nil || len(plan.IPs) > 0 {
					t.Errorf("%s: got %+v", tc.reason, plan)
				}
				return
			}
			if !slices.Equal(plan.SecurityGroups, []string{"db"}) || plan.Bandwidth.Ingress != 8000 || plan.Bandwidth.Egress != 0 {
				t.Errorf("%s: in groups %v with %+v", tc.reason, plan.SecurityGroups, plan.Bandwidth)
			}
			if plan.IPs[0].String() != tc.ip || plan.IPs[1].String() != "fd00::9" || plan.MAC != network.MAC(9) || plan.Validate() != nil {
				t.Errorf("%s: got %+v, %v", tc.reason, plan, plan.Validate())
			}
		})
	}
}
