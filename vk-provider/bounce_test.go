package vkprovider_test

import (
	"errors"
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
)

// change patches a ResourcePool's spec.
func (w *world) change(t *testing.T, pool, spec string) {
	t.Helper()
	r := &v1alpha1.ResourcePool{ObjectMeta: metav1.ObjectMeta{Name: pool}}
	if err := w.admin.Patch(t.Context(), r, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":%s}`, spec))); err != nil {
		t.Fatal(err)
	}
}

// cordon keeps new pods away from a pool, and waits until that is so.
func (w *world) cordon(t *testing.T, pool string, cordoned bool) {
	t.Helper()
	w.change(t, pool, fmt.Sprintf(`{"cordoned":%t}`, cordoned))
	eventually(t, fmt.Sprintf("%s is cordoned: %t", pool, cordoned), func() error {
		node, err := w.controlClient.CoreV1().Nodes().Get(t.Context(), pool+"-0", metav1.GetOptions{})
		if err == nil && node.Spec.Unschedulable != cordoned {
			err = errors.New("not yet")
		}
		return err
	})
}

func asking(pod *corev1.Pod, cpu string) *corev1.Pod {
	pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	return pod
}

func conditionOf(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// replicas makes a ReplicaSet of echo pods and gives the pods that it has, by UID.
func (w *world) replicas(t *testing.T, namespace, name string, count int32, pod *corev1.Pod) func() map[types.UID]*corev1.Pod {
	t.Helper()
	pod.Labels = map[string]string{"app": name}
	set := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: ptr.To(count), Selector: &metav1.LabelSelector{MatchLabels: pod.Labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels}, Spec: pod.Spec},
		},
	}
	if _, err := w.controlClient.AppsV1().ReplicaSets(namespace).Create(t.Context(), set, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return func() map[types.UID]*corev1.Pod {
		t.Helper()
		list, err := w.controlClient.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + name})
		if err != nil {
			t.Fatal(err)
		}
		out := map[types.UID]*corev1.Pod{}
		for i := range list.Items {
			out[list.Items[i].UID] = &list.Items[i]
		}
		return out
	}
}

// TestBounce: what a pool cannot place goes elsewhere, and does not come back at once.
func TestBounce(t *testing.T) {
	w := newWorld(t, "pool-a", "pool-b")
	a, b := w.pools["pool-a"], w.pools["pool-b"]
	// Two nodes of 64 processors look like room for 100 in one piece. Only one node of pool-b really has it.
	startSimulatedKubelet(t, a.client, "node-1")
	if _, err := b.client.CoreV1().Nodes().PatchStatus(t.Context(), "node-0", []byte(`{"status":{"allocatable":{"cpu":"128"},"capacity":{"cpu":"128"}}}`)); err != nil {
		t.Fatal(err)
	}
	w.change(t, "pool-a", `{"nodes":{"mode":"Aggregate"},"bounce":{"afterSeconds":1}}`)
	w.change(t, "pool-b", `{"bounce":{"afterSeconds":1}}`)
	w.start(t)
	w.ready(t, "pool-a", "pool-b")
	w.tenant(t, "abc123-default")
	w.cordon(t, "pool-b", true)

	t.Run("NoRoom", func(t *testing.T) {
		w.makePod(t, "abc123-default", asking(echoPod("bare"), "70"))
		pods := w.replicas(t, "abc123-default", "large", 1, asking(echoPod("large"), "100"))
		// The bare one is told that it has no place, and stays.
		w.waitPod(t, "abc123-default", "bare", func(pod *corev1.Pod) error {
			if pod.Spec.NodeName == "" {
				return errors.New("not bound")
			}
			c := conditionOf(pod, "vivarium.io/Placed")
			if c == nil || c.Status != corev1.ConditionFalse || c.Reason != "PoolUnschedulable" {
				return fmt.Errorf("conditions %v", pod.Status.Conditions)
			}
			return nil
		})
		if err := w.controlClient.CoreV1().Pods("abc123-default").Delete(t.Context(), "bare", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.waitNoPod(t, "abc123-default", "bare")
		// The other one fails, for a reason that counts as nobody's failure; its replacement finds no node that takes it.
		var first types.UID
		eventually(t, "the large pod is given back", func() error {
			for uid, pod := range pods() {
				if pod.Status.Phase != corev1.PodFailed {
					continue
				}
				first = uid
				c := conditionOf(pod, corev1.DisruptionTarget)
				if pod.Status.Reason != "PoolUnschedulable" || c == nil || c.Status != corev1.ConditionTrue || c.Reason != "PoolUnschedulable" {
					t.Fatalf("status %+v", pod.Status)
				}
				return nil
			}
			return fmt.Errorf("%d pods", len(pods()))
		})
		w.waitEvent(t, "abc123-default", pods()[first].Name, "PoolUnschedulable")
		if a.below(t)[first] != nil {
			t.Error("it is still in the pool")
		}
		eventually(t, "pool-a offers less than it asked for", func() error {
			node, err := w.controlClient.CoreV1().Nodes().Get(t.Context(), "pool-a-0", metav1.GetOptions{})
			if err != nil {
				return err
			}
			if node.Status.Allocatable.Cpu().Cmp(resource.MustParse("100")) >= 0 || node.Status.Capacity.Cpu().Cmp(resource.MustParse("128")) != 0 {
				return fmt.Errorf("it offers %v", node.Status.Allocatable)
			}
			return nil
		})
		w.cordon(t, "pool-b", false)
		eventually(t, "a replacement runs", func() error {
			for uid, pod := range pods() {
				if uid != first && isReady(pod) == nil {
					if pod.Spec.NodeName != "pool-b-0" {
						t.Fatalf("it runs on %s", pod.Spec.NodeName)
					}
					return nil
				}
			}
			return errors.New("not yet")
		})
		if left := a.below(t); len(left) > 0 {
			t.Errorf("left in pool-a: %v", left)
		}
	})

	t.Run("Quota", func(t *testing.T) {
		w.cordon(t, "pool-b", true)
		w.tenant(t, "abc123-tight")
		// A pod that fits makes the namespace in the pool, then its quota is used up.
		w.makePod(t, "abc123-tight", echoPod("first"))
		w.waitPod(t, "abc123-tight", "first", isReady)
		quota := &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Name: "tight"},
			Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")}},
		}
		if _, err := a.client.CoreV1().ResourceQuotas("abc123-tight").Create(t.Context(), quota, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the pool counts", func() error {
			got, err := a.client.CoreV1().ResourceQuotas("abc123-tight").Get(t.Context(), "tight", metav1.GetOptions{})
			if err == nil && got.Status.Used.Pods().IsZero() {
				err = errors.New("not yet")
			}
			return err
		})
		pods := w.replicas(t, "abc123-tight", "more", 1, echoPod("more"))
		eventually(t, "the pod that the pool refuses is given back", func() error {
			for _, pod := range pods() {
				if pod.Status.Phase == corev1.PodFailed {
					if c := conditionOf(pod, corev1.DisruptionTarget); pod.Status.Reason != "PoolRejected" || c == nil {
						t.Fatalf("status %+v", pod.Status)
					}
					return nil
				}
			}
			return errors.New("not yet")
		})
		w.cordon(t, "pool-a", true)
		w.cordon(t, "pool-b", false)
		eventually(t, "a replacement runs", func() error {
			for _, pod := range pods() {
				if isReady(pod) == nil && pod.Spec.NodeName == "pool-b-0" {
					return nil
				}
			}
			return errors.New("not yet")
		})
	})
}
