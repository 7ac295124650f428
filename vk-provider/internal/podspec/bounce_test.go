package podspec

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func withoutPlace(p *corev1.Pod) *corev1.Pod {
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
		Message: "0/3 nodes are available: 3 Insufficient cpu, node pool-secret-7", LastTransitionTime: metav1.Unix(100, 0),
	}}}
	return p
}

func TestUnplaced(t *testing.T) {
	cases := map[string]struct {
		change func(*corev1.Pod)
		want   bool
	}{
		"NoRoom":    {func(*corev1.Pod) {}, true},
		"Bound":     {func(p *corev1.Pod) { p.Spec.NodeName = "n" }, false},
		"Running":   {func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning }, false},
		"Gated":     {func(p *corev1.Pod) { p.Status.Conditions[0].Reason = corev1.PodReasonSchedulingGated }, false},
		"Scheduled": {func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionTrue }, false},
		"NotLooked": {func(p *corev1.Pod) { p.Status.Conditions = nil }, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pool := withoutPlace(&corev1.Pod{})
			tc.change(pool)
			if got := Unplaced(pool); got != tc.want {
				t.Errorf("Unplaced = %t", got)
			}
		})
	}
}

// TestTheTenantHearsThatItsPodHasNoPlace, in words that name nothing of the pool, and not for longer than it is so.
func TestTheTenantHearsThatItsPodHasNoPlace(t *testing.T) {
	control := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", UID: "u"}}
	pool := withoutPlace(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}})
	status := StatusToControl(control, pool, View{Now: metav1.Unix(500, 0)})
	c := find(status.Conditions, ConditionPlaced)
	if c == nil || c.Status != corev1.ConditionFalse || c.Reason != "PoolUnschedulable" || c.Message != noRoom || c.LastTransitionTime != metav1.Unix(500, 0) {
		t.Fatalf("condition %+v", c)
	}
	control.Status = status
	// The next who looks goes on from when it began.
	if c := find(StatusToControl(control, pool, View{Now: metav1.Unix(600, 0)}).Conditions, ConditionPlaced); c.LastTransitionTime != metav1.Unix(500, 0) {
		t.Errorf("it waits since %v", c.LastTransitionTime)
	}
	pool.Spec.NodeName, pool.Status.Conditions[0].Status = "n", corev1.ConditionTrue
	if c := find(StatusToControl(control, pool, View{}).Conditions, ConditionPlaced); c != nil {
		t.Errorf("it has a place: %+v", c)
	}
}

func TestBouncedToControl(t *testing.T) {
	now := metav1.NewTime(time.Unix(200, 0))
	control := &corev1.Pod{}
	control.Status = StatusToControl(control, withoutPlace(&corev1.Pod{}), View{})
	status := BouncedToControl(control, Unschedulable, now)
	c := find(status.Conditions, corev1.DisruptionTarget)
	if status.Phase != corev1.PodFailed || status.Reason != "PoolUnschedulable" || c == nil || c.Status != corev1.ConditionTrue || c.Reason != "PoolUnschedulable" {
		t.Errorf("status %+v", status)
	}
	if find(status.Conditions, ConditionPlaced) != nil || len(status.ContainerStatuses) > 0 {
		t.Errorf("status %+v", status)
	}
	// Said twice it is the same, and an end is not overwritten.
	control.Status = status
	if patch, err := StatusPatch(control, BouncedToControl(control, Rejected, metav1.NewTime(time.Unix(300, 0)))); err != nil || patch != nil {
		t.Errorf("again: %s %v", patch, err)
	}
}

// TestWhatABounceLeaves is read again by the next process.
func TestWhatABounceLeaves(t *testing.T) {
	at := metav1.NewTime(time.Unix(300, 0))
	for _, why := range []Bounce{Unschedulable, Rejected, Excluded, Unfit} {
		control := &corev1.Pod{}
		control.Status = WaitingToControl(control, why, "why", metav1.Unix(200, 0))
		if since, waits := WaitsSince(control); !waits || since != metav1.Unix(200, 0) {
			t.Errorf("%s waits since %v", why, since)
		}
		if _, _, ok := GivenBack(control); ok {
			t.Errorf("%s: it is not given back yet", why)
		}
		control.Status = BouncedToControl(control, why, at)
		if _, waits := WaitsSince(control); waits {
			t.Errorf("%s: it waits", why)
		}
		if got, when, ok := GivenBack(control); !ok || got != why || when != at {
			t.Errorf("%s comes back as %s, %v, %t", why, got, when, ok)
		}
	}
	lost := &corev1.Pod{}
	lost.Status = LostToControl(lost, at)
	if _, _, ok := GivenBack(lost); ok {
		t.Error("a pod that its pool has lost was given back")
	}
}
