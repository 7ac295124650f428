package vkprovider_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/network"
)

// TestVPCPods: a pod of a tenant with a VPC is made when it has its place and not before, as it was placed, whenever the
// program is killed, and is removed when it is found elsewhere. The test gives places, and plays the plugin of the pool.
func TestVPCPods(t *testing.T) {
	w := newWorld(t, "pool-a")
	a := w.pools["pool-a"]
	apply(t, a.cluster, "vivarium-pool/files/kube-ovn/access.yaml")
	create(t, a.cluster, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: vivarium-pool-kube-ovn-user}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: vivarium-pool-kube-ovn}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: vivarium}]
`)
	a.kubelet.pause(true)
	w.change(t, "pool-a", `{"network":{"driver":"`+v1alpha1.DriverKubeOVN+`"}}`)
	admin := func(objects ...client.Object) {
		t.Helper()
		for _, o := range objects {
			if err := w.admin.Create(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
	}
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "red001"}, Spec: v1alpha1.TenantSpec{Network: v1alpha1.TenantNetwork{Mode: v1alpha1.NetworkVPC, VPC: "red001-main"}}}
	admin(tenant)
	w.tenant(t, "red001-web")
	vpc := &v1alpha1.VPC{ObjectMeta: metav1.ObjectMeta{Name: "red001-main"}, Spec: v1alpha1.VPCSpec{Tenant: "red001", CIDRs: []string{"10.0.0.0/16"}}}
	admin(vpc)
	subnet := &v1alpha1.Subnet{ObjectMeta: metav1.ObjectMeta{Name: "red001-web"}, Spec: v1alpha1.SubnetSpec{VPC: vpc.Name, CIDRs: []string{"10.0.0.0/24"}}}
	admin(subnet)
	block := &v1alpha1.IPBlock{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.IPBlockName(subnet.UID, 0)},
		Spec:       v1alpha1.IPBlockSpec{Subnet: subnet.Name, SubnetUID: subnet.UID, VPCUID: vpc.UID, Size: 256},
	}
	admin(block)
	give := func(index uint32, uid types.UID) {
		t.Helper()
		block.Status.Allocations = append(block.Status.Allocations, v1alpha1.IPAllocation{Index: index, PodUID: uid, Namespace: "red001-web", Name: "p", Pool: "pool-a"})
		if err := w.admin.Status().Update(t.Context(), block); err != nil {
			t.Fatal(err)
		}
	}
	below := func(name string) (*corev1.Pod, error) {
		return a.client.CoreV1().Pods("red001-web").Get(t.Context(), name, metav1.GetOptions{})
	}
	absent := func(name string) {
		t.Helper()
		time.Sleep(time.Second) // what must not happen has time to
		if _, err := below(name); !apierrors.IsNotFound(err) {
			t.Fatalf("pod %s is in the pool without a place: %v", name, err)
		}
	}
	// plug does what the plugin does to a pod that it has connected.
	plug := func(name, ip string) {
		t.Helper()
		pod, err := below(name)
		if err != nil {
			t.Fatal(err)
		}
		router, _, _ := strings.Cut(pod.Annotations["network.vivarium.io/planned"], ";")
		annotations, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{
			"ovn.kubernetes.io/allocated": "true", "ovn.kubernetes.io/logical_router": router,
		}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.client.CoreV1().Pods("red001-web").Patch(t.Context(), name, types.MergePatchType, annotations, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		a.kubelet.patchPod(t.Context(), pod, map[string]any{"phase": "Running", "podIP": ip, "podIPs": []map[string]string{{"ip": ip}}})
	}
	program := w.start(t)
	w.ready(t, "pool-a")
	pod := w.makePod(t, "red001-web", echoPod("placed"))
	w.waitPod(t, "red001-web", "placed", func(p *corev1.Pod) error {
		if p.Spec.NodeName == "" {
			return fmt.Errorf("not bound")
		}
		return nil
	})
	absent("placed")
	give(7, "somebody-else")
	program.kill()
	program = w.start(t)
	absent("placed")
	give(9, pod.UID)
	var poolPod *corev1.Pod
	eventually(t, "the pool pod", func() (err error) { poolPod, err = below("placed"); return err })
	binding, err := network.BindingOf(poolPod, v1alpha1.DriverKubeOVN)
	if err != nil || binding.VPC != vpc.UID || binding.Subnet != subnet.UID || poolPod.Annotations["ovn.kubernetes.io/ip_address"] != "10.0.0.9" {
		t.Errorf("bound to %+v, %v: %v", binding, err, poolPod.Annotations)
	}
	for _, e := range poolPod.Spec.Containers[0].Env {
		if e.Name == "KUBERNETES_SERVICE_HOST" && e.Value != network.APIAddress {
			t.Errorf("the API is said to be at %s", e.Value)
		}
	}
	plug("placed", "10.0.0.9")
	has := func(p *corev1.Pod) error {
		if p.Status.PodIP != "10.0.0.9" {
			return fmt.Errorf("podIP %q", p.Status.PodIP)
		}
		return nil
	}
	w.waitPod(t, "red001-web", "placed", has)
	program.kill()
	w.start(t)
	w.ready(t, "pool-a")

	stray := w.makePod(t, "red001-web", echoPod("stray"))
	give(10, stray.UID)
	eventually(t, "the second pool pod", func() error { _, err := below("stray"); return err })
	plug("stray", "10.0.0.11")
	w.waitEvent(t, "red001-web", "stray", string(network.ReasonBindingMismatch))
	a.kubelet.pause(false)
	eventually(t, "the stray pod goes", func() error {
		if _, err := below("stray"); !apierrors.IsNotFound(err) {
			return fmt.Errorf("still there: %w", err)
		}
		return nil
	})
	again, err := below("placed")
	if err != nil || again.UID != poolPod.UID {
		t.Errorf("the first pod was not left alone: %v", err)
	}
	w.waitPod(t, "red001-web", "placed", has)
}
