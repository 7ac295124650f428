package vkprovider_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestClocks has the clocks of a pool, of the control cluster and of two runs of the program minutes apart. Nothing is
// concluded from that: pods run, tell and end, and what waits for a place goes on waiting for as long as it may.
func TestClocks(t *testing.T) {
	const apart = 5 * time.Minute
	w := newWorld(t, "pool-a")
	a := w.pools["pool-a"]
	a.cluster.ShiftClock(t, -apart)
	// Longer than the test, and shorter than what the clocks say.
	w.change(t, "pool-a", fmt.Sprintf(`{"nodes":{"mode":"Aggregate"},"bounce":{"afterSeconds":%d}}`, int((apart-20*time.Second).Seconds())))
	for n := 1; n < 4; n++ {
		startSimulatedKubelet(t, a.client, fmt.Sprintf("node-%d", n))
	}
	first := w.start(t)
	first.shiftClock(-apart)
	w.ready(t, "pool-a")
	w.tenant(t, "abc123-default")

	w.makePod(t, "abc123-default", echoPod("web"))
	w.waitPod(t, "abc123-default", "web", isReady)
	// Four nodes of 64 processors look like room for 100 in one piece.
	pods := w.replicas(t, "abc123-default", "large", 1, asking(echoPod("large"), "100"))
	began := time.Now()
	waiting := func(what string, pod func() *corev1.Pod) *corev1.Pod {
		var waits *corev1.Pod
		eventually(t, what+" has no place", func() error {
			if waits = pod(); waits == nil {
				return errors.New("no pod")
			}
			if c := conditionOf(waits, "vivarium.io/Placed"); c == nil || c.Status != corev1.ConditionFalse {
				return fmt.Errorf("phase %s, conditions %v", waits.Status.Phase, waits.Status.Conditions)
			}
			return nil
		})
		return waits
	}
	large := waiting("the large pod", func() *corev1.Pod {
		for _, pod := range pods() {
			return pod
		}
		return nil
	})

	// The next one believes that it is ten minutes later, and goes on where the first one was.
	first.kill()
	second := w.start(t)
	second.shiftClock(apart)
	for range 5 {
		w.makePod(t, "abc123-default", asking(echoPod("bare"), "70"))
		waiting("what came after", func() *corev1.Pod {
			pod, err := w.controlClient.CoreV1().Pods("abc123-default").Get(t.Context(), "bare", metav1.GetOptions{})
			if err != nil {
				return nil
			}
			return pod
		})
		if err := w.controlClient.CoreV1().Pods("abc123-default").Delete(t.Context(), "bare", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.waitNoPod(t, "abc123-default", "bare")
	}
	now := pods()
	if took := time.Since(began); took > apart-30*time.Second {
		t.Logf("the machine took %s; nothing can be said about waits", took)
	} else if now[large.UID] == nil || now[large.UID].Status.Phase != corev1.PodPending || len(now) != 1 {
		t.Errorf("the large pod was given back after %s: %v", took, phases(now))
	}

	// What ran goes on, what is deleted ends, and its namesake is another pod.
	below := a.below(t)
	web := w.waitPod(t, "abc123-default", "web", isReady)
	if below[web.UID] == nil {
		t.Error("the pod that ran is gone")
	}
	if err := w.controlClient.CoreV1().Pods("abc123-default").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.waitNoPod(t, "abc123-default", "web")
	again := w.makePod(t, "abc123-default", echoPod("web"))
	w.waitPod(t, "abc123-default", "web", isReady)
	if again.UID == web.UID || a.below(t)[again.UID] == nil {
		t.Error("the namesake is not a pod of its own")
	}
}

func phases(pods map[types.UID]*corev1.Pod) []string {
	var out []string
	for uid, pod := range pods {
		out = append(out, fmt.Sprintf("%s %s %s", uid, pod.Status.Phase, pod.Status.Reason))
	}
	return out
}
