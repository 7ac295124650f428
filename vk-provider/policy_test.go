package vkprovider_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

// onPool has a pod scheduled on a pool's nodes and nowhere else.
func onPool(pod *corev1.Pod, pool string) *corev1.Pod {
	pod.Spec.NodeSelector = map[string]string{names.LabelPool: pool}
	return pod
}

// tolerant has a pod tolerate everything, as agents do.
func tolerant(pod *corev1.Pod) *corev1.Pod {
	pod.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	return pod
}

// isDeclined says that a pod is bound, not in its pool, and that its tenant can read why.
func isDeclined(reason, words string) func(*corev1.Pod) error {
	return func(pod *corev1.Pod) error {
		c := conditionOf(pod, "vivarium.io/Placed")
		if pod.Spec.NodeName == "" || c == nil || c.Status != corev1.ConditionFalse || c.Reason != reason || !strings.Contains(c.Message, words) {
			return fmt.Errorf("on %q, %+v", pod.Spec.NodeName, pod.Status.Conditions)
		}
		return nil
	}
}

// TestPoolPolicy: whose pods a pool takes and how safe they must be is held whatever the scheduler chose, and pods that a
// pool is for find it by themselves.
func TestPoolPolicy(t *testing.T) {
	w := newWorld(t, "pool-a", "pool-b")
	a, b := w.pools["pool-a"], w.pools["pool-b"]
	apply(t, w.control, "vivarium/files/policy/pool-tenants.yaml")
	gold := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "abc123", Labels: map[string]string{"tier": "gold"}}}
	for _, tenant := range []*v1alpha1.Tenant{gold, {ObjectMeta: metav1.ObjectMeta{Name: "def456"}}} {
		if err := w.admin.Create(t.Context(), tenant); err != nil {
			t.Fatal(err)
		}
	}
	w.tenant(t, "abc123-default")
	w.tenant(t, "def456-default")
	w.change(t, "pool-a", `{"tenants":{"selector":{"matchLabels":{"tier":"gold"}}},"bounce":{"afterSeconds":1}}`)
	w.change(t, "pool-b", `{"pods":{"securityLevel":"restricted"},"bounce":{"afterSeconds":1}}`)
	w.start(t)
	taint := func(node string, want corev1.Taint) {
		t.Helper()
		eventually(t, "the taints of "+node, func() error {
			got, err := w.controlClient.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
			if err == nil && (len(got.Spec.Taints) != 1 || !got.Spec.Taints[0].MatchTaint(&want) || got.Spec.Taints[0].Value != want.Value || !nodeReady(got)) {
				err = fmt.Errorf("%v", got.Spec.Taints)
			}
			return err
		})
	}
	taint("pool-a-0", corev1.Taint{Key: "vivarium.io/tenants", Value: "pool-a", Effect: corev1.TaintEffectNoSchedule})
	taint("pool-b-0", corev1.Taint{Key: "vivarium.io/pod-security", Value: "restricted", Effect: corev1.TaintEffectPreferNoSchedule})
	told := func(want ...string) {
		t.Helper()
		eventually(t, fmt.Sprintf("admission knows %v", want), func() error {
			got, err := w.controlClient.CoreV1().ConfigMaps(names.SystemNamespace).Get(t.Context(), "pool-pool-a-tenants", metav1.GetOptions{})
			if err != nil {
				return err
			}
			for _, tenant := range want {
				if _, ok := got.Data[tenant]; !ok {
					return fmt.Errorf("%v", got.Data)
				}
			}
			if len(got.Data) != len(want) {
				return fmt.Errorf("%v", got.Data)
			}
			return nil
		})
	}
	told("abc123")
	tolerates := func(namespace string, want bool) {
		t.Helper()
		// The policy and its parameter become true a moment after they were made.
		eventually(t, fmt.Sprintf("pods in %s tolerate the taint: %t", namespace, want), func() error {
			pod, err := w.controlClient.CoreV1().Pods(namespace).Create(t.Context(), echoPod("try"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if err != nil {
				return err
			}
			got := false
			for _, toleration := range pod.Spec.Tolerations {
				got = got || toleration == corev1.Toleration{Key: "vivarium.io/tenants", Operator: corev1.TolerationOpEqual, Value: "pool-a", Effect: corev1.TaintEffectNoSchedule}
			}
			if got != want {
				return fmt.Errorf("%v", pod.Spec.Tolerations)
			}
			return nil
		})
	}
	tolerates("abc123-default", true)
	tolerates("def456-default", false)

	t.Run("ThePoolIsFor", func(t *testing.T) {
		w.makePod(t, "abc123-default", onPool(echoPod("chosen"), "pool-a"))
		pod := w.waitPod(t, "abc123-default", "chosen", isReady)
		// Whoever writes the pod back as it was meant does not lose the toleration, which the API would refuse.
		again := onPool(echoPod("chosen"), "pool-a")
		again.Spec = *pod.Spec.DeepCopy()
		again.Spec.Tolerations = nil
		again.Labels["changed"] = "yes"
		if _, err := w.controlClient.CoreV1().Pods("abc123-default").Update(t.Context(), again, metav1.UpdateOptions{}); err != nil {
			t.Error(err)
		}
	})

	t.Run("OthersAreGivenBack", func(t *testing.T) {
		bare := w.makePod(t, "def456-default", tolerant(onPool(echoPod("intruder"), "pool-a")))
		w.waitPod(t, "def456-default", "intruder", isDeclined("PoolExcluded", "takes no pods of this tenant"))
		w.waitEvent(t, "def456-default", "intruder", "PoolExcluded")
		pods := w.replicas(t, "def456-default", "intruders", 1, tolerant(onPool(echoPod("intruders"), "pool-a")))
		eventually(t, "one is given back", func() error {
			for _, pod := range pods() {
				if pod.Status.Phase == corev1.PodFailed {
					if c := conditionOf(pod, corev1.DisruptionTarget); pod.Status.Reason != "PoolExcluded" || c == nil {
						t.Fatalf("%+v", pod.Status)
					}
					return nil
				}
			}
			return errors.New("not yet")
		})
		for uid, pod := range a.below(t) {
			if uid == bare.UID || pod.Namespace != "abc123-default" {
				t.Errorf("pod %s/%s is in the pool", pod.Namespace, pod.Name)
			}
		}
		if err := w.controlClient.AppsV1().ReplicaSets("def456-default").Delete(t.Context(), "intruders", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("TakenOut", func(t *testing.T) {
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"tier":"silver"}}}`))
		if err := w.admin.Patch(t.Context(), gold, patch); err != nil {
			t.Fatal(err)
		}
		told()
		tolerates("abc123-default", false)
		w.makePod(t, "abc123-default", tolerant(onPool(echoPod("late"), "pool-a")))
		w.waitPod(t, "abc123-default", "late", isDeclined("PoolExcluded", "takes no pods of this tenant"))
		if err := isReady(w.waitPod(t, "abc123-default", "chosen", func(*corev1.Pod) error { return nil })); err != nil {
			t.Errorf("the one that ran before: %v", err)
		}
		w.change(t, "pool-a", `{"tenants":null}`)
		eventually(t, "the pool is everybody's again", func() error {
			node, err := w.controlClient.CoreV1().Nodes().Get(t.Context(), "pool-a-0", metav1.GetOptions{})
			if err == nil && len(node.Spec.Taints) > 0 {
				err = fmt.Errorf("%v", node.Spec.Taints)
			}
			return err
		})
		w.makePod(t, "def456-default", onPool(echoPod("welcome"), "pool-a"))
		w.waitPod(t, "def456-default", "welcome", isReady)
	})

	t.Run("Restricted", func(t *testing.T) {
		w.makePod(t, "def456-default", onPool(echoPod("loose"), "pool-b"))
		w.waitPod(t, "def456-default", "loose", isDeclined("PoolSecurity", "runAsNonRoot"))
		w.waitEvent(t, "def456-default", "loose", "PoolSecurity")
		hardened := func(name string) *corev1.Pod {
			pod := onPool(echoPod(name), "pool-b")
			pod.Spec.SecurityContext = &corev1.PodSecurityContext{
				RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To[int64](1000), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			}
			pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
				AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			}
			return pod
		}
		w.makePod(t, "def456-default", hardened("tight"))
		w.waitPod(t, "def456-default", "tight", isReady)
		for _, pod := range b.below(t) {
			if pod.Name != "tight" {
				t.Errorf("pod %s/%s is in the pool", pod.Namespace, pod.Name)
			}
		}
	})
}
