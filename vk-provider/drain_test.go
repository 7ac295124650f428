package vkprovider_test

import (
	"fmt"
	"testing"

	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"vivarium.io/vivarium/api/v1alpha1"
)

// TestDrain: a pool is emptied within disruption budgets, says how far it is, and can be told to stop.
func TestDrain(t *testing.T) {
	w := newWorld(t, "pool-a", "pool-b")
	a := w.pools["pool-a"]
	r := w.start(t)
	w.ready(t, "pool-a", "pool-b")
	w.tenant(t, "abc123-default")
	w.cordon(t, "pool-b", true)
	bare := w.makePod(t, "abc123-default", echoPod("bare"))
	pods := w.replicas(t, "abc123-default", "web", 2, echoPod("web"))
	on := func(node string, want int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d pods on %s", want, node), func() error {
			var err error
			count := 0
			for _, pod := range pods() {
				if err = runsOn(node)(pod); err == nil {
					count++
				}
			}
			if count < want {
				return fmt.Errorf("%d so far, %w", count, err)
			}
			return nil
		})
	}
	on("pool-a-0", 2)
	w.waitPod(t, "abc123-default", "bare", runsOn("pool-a-0"))
	before := pods()
	budget := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromInt32(2)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
	}
	budgets := w.controlClient.PolicyV1().PodDisruptionBudgets("abc123-default")
	if _, err := budgets.Create(t.Context(), budget, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the budget counts", func() error {
		got, err := budgets.Get(t.Context(), "web", metav1.GetOptions{})
		if err == nil && got.Status.CurrentHealthy != 2 {
			err = fmt.Errorf("status %+v", got.Status)
		}
		return err
	})
	drained := func(reason string) {
		t.Helper()
		eventually(t, "the drain says "+reason, func() error {
			c := meta.FindStatusCondition(w.resource(t, "pool-a").Status.Conditions, v1alpha1.PoolDrained)
			if c == nil || c.Reason != reason {
				return fmt.Errorf("condition %+v", c)
			}
			return nil
		})
	}

	w.change(t, "pool-a", `{"drain":{}}`)
	drained("HeldByBudgets")
	for uid := range pods() {
		if before[uid] == nil {
			t.Error("a pod was evicted against its budget")
		}
	}
	// It goes on where it was when the process is another one.
	r.kill()
	w.start(t)
	if _, err := budgets.Patch(t.Context(), "web", types.MergePatchType, []byte(`{"spec":{"minAvailable":1}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	w.cordon(t, "pool-b", false)
	on("pool-b-0", 2)
	drained("UnmanagedPods")
	if pod := w.waitPod(t, "abc123-default", "bare", runsOn("pool-a-0")); pod.UID != bare.UID {
		t.Error("a pod that nobody makes anew was evicted")
	}

	w.change(t, "pool-a", `{"drain":null}`)
	w.ready(t, "pool-a")
	eventually(t, "the condition goes", func() error {
		if c := meta.FindStatusCondition(w.resource(t, "pool-a").Status.Conditions, v1alpha1.PoolDrained); c != nil {
			return fmt.Errorf("condition %+v", c)
		}
		return nil
	})
	w.change(t, "pool-a", `{"drain":{"unmanaged":true}}`)
	w.waitNoPod(t, "abc123-default", "bare")
	drained("Empty")
	if left := a.below(t); len(left) > 0 {
		t.Errorf("left in the pool: %v", left)
	}
	status := w.resource(t, "pool-b").Status
	if status.Capacity.Cpu().IsZero() || status.LargestFree.Cpu().IsZero() || len(status.KubeletVersions) != 1 {
		t.Errorf("status %+v", status)
	}
}
