package nodes

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestWhatADrainLeaves(t *testing.T) {
	owned := metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{UID: "o", Controller: ptr.To(true)}}}
	merely := metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{UID: "o"}}}
	done := corev1.PodStatus{Phase: corev1.PodSucceeded}
	leaving := metav1.ObjectMeta{DeletionTimestamp: &metav1.Time{}}
	cases := map[string]struct {
		pod             corev1.Pod
		managed, living kept
	}{
		"Replaced":  {corev1.Pod{ObjectMeta: owned}, evicted, evicted},
		"Bare":      {corev1.Pod{}, spared, evicted},
		"OwnedOnly": {corev1.Pod{ObjectMeta: merely}, spared, evicted},
		"Done":      {corev1.Pod{Status: done}, ignored, ignored},
		"Leaving":   {corev1.Pod{ObjectMeta: leaving}, evicted, evicted},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := evictable(&tc.pod); got != tc.managed {
				t.Errorf("evictable = %d, want %d", got, tc.managed)
			}
			if got := livingPod(&tc.pod); got != tc.living {
				t.Errorf("livingPod = %d, want %d", got, tc.living)
			}
		})
	}
}

func TestADrainSaysHowFarItIs(t *testing.T) {
	cases := map[string]struct {
		left            remains
		reason, message string
	}{
		"Empty":     {remains{}, "Empty", "no pod is left"},
		"Moving":    {remains{pods: 12, held: 3, unmanaged: 1}, "Evicting", "8 pods to go, 3 pods held by disruption budgets, 1 pod that no controller would make anew and that spec.drain.unmanaged does not include"},
		"Held":      {remains{pods: 3, held: 3}, "HeldByBudgets", "3 pods held by disruption budgets"},
		"Unmanaged": {remains{pods: 1, unmanaged: 1}, "UnmanagedPods", "1 pod that no controller would make anew and that spec.drain.unmanaged does not include"},
		"Silent":    {remains{unseen: true}, "PoolSilent", "the pool does not answer, so nothing is evicted"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := tc.left.finding()
			if f.Reason != tc.reason || f.Message != tc.message || (f.Status == metav1.ConditionTrue) != (tc.reason == "Empty") {
				t.Errorf("finding %+v", f)
			}
		})
	}
}
