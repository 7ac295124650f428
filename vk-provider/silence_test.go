package vkprovider_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"vivarium.io/vivarium/api/v1alpha1"
)

// nodeIs waits until a virtual Node is Ready or not.
func (w *world) nodeIs(t *testing.T, name string, ready bool) {
	t.Helper()
	eventually(t, fmt.Sprintf("node %s ready %t", name, ready), func() error {
		node, err := w.controlClient.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
		if err == nil && nodeReady(node) != ready {
			err = fmt.Errorf("conditions %v", node.Status.Conditions)
		}
		return err
	})
}

// TestSilentPool cuts the line to a pool: nothing is concluded from silence, and everything is made up for afterwards.
func TestSilentPool(t *testing.T) {
	w := newWorld(t, "pool-a", "pool-b")
	a, b := w.pools["pool-a"], w.pools["pool-b"]
	r := w.start(t)
	w.ready(t, "pool-a", "pool-b")
	w.tenant(t, "abc123-default")
	on := func(name string) *corev1.Pod {
		pod := echoPod(name)
		pod.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "pool-a-0"}
		// The node's taints must not end the pods while the test looks.
		pod.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
		return pod
	}
	stays := w.makePod(t, "abc123-default", on("stays"))
	deleted := w.makePod(t, "abc123-default", on("deleted"))
	forced := w.makePod(t, "abc123-default", on("forced"))
	for _, name := range []string{"stays", "deleted", "forced"} {
		w.waitPod(t, "abc123-default", name, isReady)
	}

	a.line.setCut(true)
	w.nodeIs(t, "pool-a-0", false)
	w.nodeIs(t, "pool-b-0", true)
	w.waitPod(t, "abc123-default", "stays", func(pod *corev1.Pod) error {
		if isReady(pod) == nil {
			return errors.New("a pod on a node that is not ready is still ready")
		}
		return nil
	})
	if err := w.controlClient.CoreV1().Pods("abc123-default").Delete(t.Context(), "deleted", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := w.controlClient.CoreV1().Pods("abc123-default").Delete(t.Context(), "forced", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		t.Fatal(err)
	}
	w.makePod(t, "abc123-default", on("new"))
	below := a.below(t)
	for _, pod := range []*corev1.Pod{stays, deleted, forced} {
		if below[pod.UID] == nil || below[pod.UID].DeletionTimestamp != nil {
			t.Errorf("pod %s below: %v", pod.Name, below[pod.UID])
		}
	}
	if pod, err := w.controlClient.CoreV1().Pods("abc123-default").Get(t.Context(), "deleted", metav1.GetOptions{}); err != nil || pod.DeletionTimestamp == nil {
		t.Errorf("a pod whose containers nobody has seen end: %v", err)
	}

	a.line.setCut(false)
	w.nodeIs(t, "pool-a-0", true)
	w.waitNoPod(t, "abc123-default", "deleted")
	w.waitPod(t, "abc123-default", "stays", isReady)
	w.waitPod(t, "abc123-default", "new", isReady)
	eventually(t, "what was forced away goes below too", func() error {
		if a.below(t)[forced.UID] != nil {
			return errors.New("it is there")
		}
		return nil
	})
	if a.below(t)[stays.UID].UID != below[stays.UID].UID {
		t.Error("a pod that ran all the time was made anew")
	}

	// Both at once is our own line.
	a.line.setCut(true)
	b.line.setCut(true)
	eventually(t, "the silence is noticed", func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if !strings.Contains(r.log.String(), "no pool answers") {
			return errors.New("not yet")
		}
		return nil
	})
	// By the time a pool is given up the other one has been silent as well.
	for _, name := range []string{"pool-a", "pool-b"} {
		eventually(t, name+" is given up", func() error {
			resource := &v1alpha1.ResourcePool{}
			if err := w.admin.Get(t.Context(), types.NamespacedName{Name: name}, resource); err != nil {
				return err
			}
			if !meta.IsStatusConditionFalse(resource.Status.Conditions, v1alpha1.PoolReachable) {
				return fmt.Errorf("conditions %v", resource.Status.Conditions)
			}
			return nil
		})
	}
	for _, name := range []string{"pool-a-0", "pool-b-0"} {
		node, err := w.controlClient.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil || !nodeReady(node) {
			t.Errorf("node %s: %v", name, err)
		}
	}
	a.line.setCut(false)
	b.line.setCut(false)
	w.makePod(t, "abc123-default", on("after"))
	w.waitPod(t, "abc123-default", "after", isReady)
}
