package vkprovider_test

import (
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
)

// TestRestoredPool puts a pool back to what it was before: pods that were made since are unknown to it, one that was deleted
// is back. That is noticed; what it does not know is neither given up nor made anew until its operator says so, by no
// process that comes later either; what it should not have goes; and what it has runs on.
func TestRestoredPool(t *testing.T) {
	w := newWorld(t, "pool-a")
	a := w.pools["pool-a"]
	r := w.start(t, orphansSoon)
	w.ready(t, "pool-a")
	w.tenant(t, "abc123-default")
	// Enough of them that the orphan below is few.
	for _, name := range []string{"stays", "deleted", "more"} {
		w.makePod(t, "abc123-default", echoPod(name))
		w.waitPod(t, "abc123-default", name, isReady)
	}
	restore := a.cluster.Backup(t)
	a.kubelet.again(t)

	if err := w.controlClient.CoreV1().Pods("abc123-default").Delete(t.Context(), "deleted", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.waitNoPod(t, "abc123-default", "deleted")
	young := w.makePod(t, "abc123-default", echoPod("young"))
	w.waitPod(t, "abc123-default", "young", isReady)
	pods := w.replicas(t, "abc123-default", "set", 1, echoPod("set"))
	var first types.UID
	eventually(t, "the set's pod is ready", func() error {
		for uid, pod := range pods() {
			first = uid
			return isReady(pod)
		}
		return errors.New("none")
	})

	restore()
	a.kubelet.again(t)
	found := func() error {
		resource := w.resource(t, "pool-a")
		c := meta.FindStatusCondition(resource.Status.Conditions, v1alpha1.PoolRestored)
		if c == nil || c.Status != metav1.ConditionTrue || meta.IsStatusConditionTrue(resource.Status.Conditions, v1alpha1.PoolReady) {
			return fmt.Errorf("%+v", resource.Status.Conditions)
		}
		node, err := w.controlClient.CoreV1().Nodes().Get(t.Context(), "pool-a-0", metav1.GetOptions{})
		if err == nil && !node.Spec.Unschedulable {
			err = errors.New("its node takes pods")
		}
		return err
	}
	eventually(t, "it is noticed", found)
	held := func() {
		t.Helper()
		w.waitPod(t, "abc123-default", "young", func(pod *corev1.Pod) error {
			if pod.UID != young.UID || pod.Status.Phase != corev1.PodRunning {
				t.Fatalf("%s %+v", pod.UID, pod.Status)
			}
			if ready := conditionOf(pod, corev1.PodReady); ready == nil || ready.Status != corev1.ConditionFalse {
				return fmt.Errorf("ready %+v", ready)
			}
			return nil
		})
		now := pods()
		if len(now) != 1 || now[first] == nil || now[first].Status.Phase != corev1.PodRunning || now[first].DeletionTimestamp != nil {
			t.Fatalf("the set has %+v", now)
		}
	}
	held()
	// The next process has seen nothing of it.
	r.kill()
	r = w.start(t, orphansSoon)
	// Only a process that has opened the pool deletes another one: what follows is about this one.
	if err := w.controlClient.CoreV1().Pods("abc123-default").Delete(t.Context(), "more", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.waitNoPod(t, "abc123-default", "more")
	eventually(t, "the pod that was deleted is deleted again", func() error {
		for _, pod := range a.below(t) {
			if pod.Name == "deleted" {
				return errors.New("it is there")
			}
		}
		return nil
	})
	held()
	if err := found(); err != nil {
		t.Error(err)
	}
	// Its owner cannot have it go either, for nobody knows whether it has ended.
	if err := w.controlClient.CoreV1().Pods("abc123-default").Delete(t.Context(), "young", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.waitPod(t, "abc123-default", "stays", isReady)

	if w.waitPod(t, "abc123-default", "young", func(*corev1.Pod) error { return nil }).DeletionTimestamp == nil {
		t.Error("it is not being deleted")
	}
	confirm := func() {
		t.Helper()
		patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"true"}}}`, v1alpha1.AnnotationRestored))
		if err := w.admin.Patch(t.Context(), w.resource(t, "pool-a"), patch); err != nil {
			t.Fatal(err)
		}
	}
	over := func() {
		t.Helper()
		eventually(t, "the word is taken back, and the pool is as any other", func() error {
			resource := w.resource(t, "pool-a")
			if _, there := resource.Annotations[v1alpha1.AnnotationRestored]; there || !meta.IsStatusConditionTrue(resource.Status.Conditions, v1alpha1.PoolReady) ||
				meta.FindStatusCondition(resource.Status.Conditions, v1alpha1.PoolRestored) != nil {
				return fmt.Errorf("%v %+v", resource.Annotations, resource.Status.Conditions)
			}
			return nil
		})
	}
	confirm()
	w.waitNoPod(t, "abc123-default", "young")
	eventually(t, "the set's pod is replaced", func() error {
		for uid, pod := range pods() {
			if uid == first && pod.Status.Phase != corev1.PodFailed {
				return fmt.Errorf("the first is %s", pod.Status.Phase)
			}
			if uid != first && isReady(pod) == nil {
				return nil
			}
		}
		return errors.New("not yet")
	})
	over()

	// The same again, and the operator's word comes while nobody is there to hear it.
	w.makePod(t, "abc123-default", echoPod("younger"))
	w.waitPod(t, "abc123-default", "younger", isReady)
	restore()
	a.kubelet.again(t)
	eventually(t, "it is noticed again", found)
	r.kill()
	confirm()
	w.start(t, orphansSoon)
	w.waitPod(t, "abc123-default", "younger", func(pod *corev1.Pod) error {
		if pod.Status.Phase != corev1.PodFailed {
			return fmt.Errorf("it is %s", pod.Status.Phase)
		}
		return nil
	})
	over()
}
