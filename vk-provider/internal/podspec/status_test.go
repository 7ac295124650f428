package podspec

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

var (
	early = metav1.NewTime(time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC))
	later = metav1.NewTime(early.Add(time.Minute))
	now   = metav1.NewTime(early.Add(time.Hour))
)

func view() View {
	return View{Placement: place(), PodIPs: []string{"10.1.0.7", "fd00::7"}, Settled: true, Now: now}
}

// running is a pool pod as a kubelet reports it, with a container that the pool injected.
func running() *corev1.Pod {
	pool := simplePod()
	pool.UID, pool.Generation, pool.CreationTimestamp = "pool-uid", 1, early
	pool.Spec.NodeName = "node-7"
	pool.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, ObservedGeneration: 1, HostIP: "10.9.9.9", PodIP: "10.1.0.7", StartTime: &early, QOSClass: corev1.PodQOSBurstable,
		Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: early},
			{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue, LastTransitionTime: early},
			{Type: corev1.PodInitialized, Status: corev1.ConditionTrue, LastTransitionTime: early},
			{Type: corev1.ContainersReady, Status: corev1.ConditionTrue, LastTransitionTime: later},
			{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: later},
			{Type: "pool.vivarium.test/own", Status: corev1.ConditionTrue},
		},
		ContainerStatuses: []corev1.ContainerStatus{
			{Name: "c", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: early}}, ContainerID: "containerd://1"},
			{Name: "mesh-proxy", Ready: true},
		},
	}
	return pool
}

// scheduled is a control pod as the control cluster's own parts leave it.
func scheduled() *corev1.Pod {
	control := simplePod()
	control.Generation = 5
	control.Status = corev1.PodStatus{
		Phase: corev1.PodPending, QOSClass: corev1.PodQOSBestEffort, NominatedNodeName: "x",
		Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: early},
			{Type: "example.com/gate", Status: corev1.ConditionFalse},
		},
	}
	return control
}

func condition(t *testing.T, status corev1.PodStatus, kind corev1.PodConditionType) corev1.PodCondition {
	t.Helper()
	c := find(status.Conditions, kind)
	if c == nil {
		t.Fatalf("no condition %s in %v", kind, status.Conditions)
	}
	return *c
}

func TestStatusToControl(t *testing.T) {
	got := StatusToControl(scheduled(), running(), view())
	want := corev1.PodStatus{
		Phase: corev1.PodRunning, ObservedGeneration: 5, QOSClass: corev1.PodQOSBestEffort, NominatedNodeName: "x", StartTime: &early,
		HostIP: "192.0.2.1", HostIPs: []corev1.HostIP{{IP: "192.0.2.1"}},
		PodIP: "10.1.0.7", PodIPs: []corev1.PodIP{{IP: "10.1.0.7"}, {IP: "fd00::7"}},
		Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: early},
			{Type: "example.com/gate", Status: corev1.ConditionFalse},
			{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue, LastTransitionTime: early, ObservedGeneration: 5},
			{Type: corev1.PodInitialized, Status: corev1.ConditionTrue, LastTransitionTime: early, ObservedGeneration: 5},
			{Type: corev1.ContainersReady, Status: corev1.ConditionTrue, LastTransitionTime: later, ObservedGeneration: 5},
			{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: later, ObservedGeneration: 5},
		},
		ContainerStatuses: []corev1.ContainerStatus{
			{Name: "c", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: early}}, ContainerID: "containerd://1"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

// TestStatusIsStable: what was written is not written again, or two writers would never rest.
func TestStatusIsStable(t *testing.T) {
	control, pool := scheduled(), running()
	control.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/gate"}}
	control.Status = StatusToControl(control, pool, view())
	again := view()
	again.Now = metav1.NewTime(now.Add(time.Hour))
	patch, err := StatusPatch(control, StatusToControl(control, pool, again))
	if err != nil || patch != nil {
		t.Errorf("a second look writes %s, %v", patch, err)
	}
}

func TestReadinessGates(t *testing.T) {
	cases := map[string]struct {
		gate corev1.ConditionStatus
		pool corev1.ConditionStatus
		want corev1.ConditionStatus
	}{
		"AllOpen":            {corev1.ConditionTrue, corev1.ConditionTrue, corev1.ConditionTrue},
		"GateShut":           {corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionFalse},
		"ContainersNotReady": {corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionFalse},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			control, pool := scheduled(), running()
			control.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/gate"}}
			control.Status.Conditions[1].Status = tc.gate
			find(pool.Status.Conditions, corev1.PodReady).Status = tc.pool
			if got := condition(t, StatusToControl(control, pool, view()), corev1.PodReady); got.Status != tc.want {
				t.Errorf("Ready is %+v", got)
			}
		})
	}
	control := scheduled()
	control.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/absent"}}
	if got := condition(t, StatusToControl(control, running(), view()), corev1.PodReady); got.Status != corev1.ConditionFalse || !strings.Contains(got.Message, "example.com/absent") {
		t.Errorf("an absent gate: %+v", got)
	}
}

func TestEndedStaysEnded(t *testing.T) {
	control := scheduled()
	control.Status.Phase, control.Status.Reason, control.Status.Message = corev1.PodFailed, "Evicted", "kept"
	got := StatusToControl(control, running(), view())
	if got.Phase != corev1.PodFailed || got.Reason != "Evicted" || got.Message != "kept" {
		t.Errorf("an ended pod became %s %s %s", got.Phase, got.Reason, got.Message)
	}
}

func TestDisruptionBelow(t *testing.T) {
	pool := running()
	pool.Status.Phase, pool.Status.Reason, pool.Status.Message = corev1.PodFailed, "Evicted", "The node was low on resource: memory."
	pool.Status.Conditions = append(pool.Status.Conditions, corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "PreemptionByScheduler", LastTransitionTime: later,
		Message: "default-scheduler: preempting to accommodate zzz999-default/secret",
	})
	got := StatusToControl(scheduled(), pool, view())
	c := condition(t, got, corev1.DisruptionTarget)
	if got.Phase != corev1.PodFailed || got.Reason != "Evicted" || c.Reason != "PreemptionByScheduler" || strings.Contains(c.Message, "zzz999") {
		t.Errorf("got %s %s %+v", got.Phase, got.Reason, c)
	}
}

func TestDeletedBelow(t *testing.T) {
	control, pool := scheduled(), running()
	pool.DeletionTimestamp, pool.Status.Phase = &later, corev1.PodSucceeded
	if c := condition(t, StatusToControl(control, pool, view()), corev1.DisruptionTarget); c.Reason != ReasonEndedByPool || c.LastTransitionTime != later {
		t.Errorf("deleted below: %+v", c)
	}
	control.DeletionTimestamp = &early
	if c := find(StatusToControl(control, pool, view()).Conditions, corev1.DisruptionTarget); c != nil {
		t.Errorf("deleted above: %+v", c)
	}
}

func TestBeforeTheKubelet(t *testing.T) {
	pool := simplePod()
	pool.UID, pool.CreationTimestamp, pool.Generation = "pool-uid", early, 1
	pool.Status.Phase = corev1.PodPending
	control := scheduled()
	if Accepted(control) {
		t.Error("a pod that no pool has is accepted")
	}
	v := view()
	v.PodIPs = nil
	control.Status = StatusToControl(control, pool, v)
	if !Accepted(control) || control.Status.PodIP != "" || control.Status.ObservedGeneration != 0 {
		t.Errorf("status %+v", control.Status)
	}
	if c := find(control.Status.Conditions, corev1.PodReady); c != nil {
		t.Errorf("nobody said whether it is ready: %+v", c)
	}
}

func TestLost(t *testing.T) {
	control := scheduled()
	control.Status = StatusToControl(control, running(), view())
	got := LostToControl(control, now)
	if got.Phase != corev1.PodFailed || got.Reason != ReasonEndedByPool || condition(t, got, corev1.DisruptionTarget).Status != corev1.ConditionTrue ||
		condition(t, got, corev1.PodReady).Status != corev1.ConditionFalse {
		t.Errorf("lost: %+v", got)
	}
	terminated := got.ContainerStatuses[0].State.Terminated
	if terminated == nil || terminated.ExitCode != 137 || terminated.StartedAt != early {
		t.Errorf("container: %+v", terminated)
	}
	control.Status.Phase = corev1.PodSucceeded
	if got := LostToControl(control, now); got.Phase != corev1.PodSucceeded || find(got.Conditions, corev1.DisruptionTarget) != nil {
		t.Errorf("a pod that had succeeded: %+v", got)
	}
}

func TestSilent(t *testing.T) {
	control := scheduled()
	control.Status = StatusToControl(control, running(), view())
	control.Status = SilentToControl(control, now)
	if c := condition(t, control.Status, corev1.PodReady); c.Status != corev1.ConditionFalse || c.Reason != ReasonSilent || c.LastTransitionTime != now {
		t.Errorf("while the pool is silent: %+v", c)
	}
	if patch, err := StatusPatch(control, SilentToControl(control, later)); patch != nil || err != nil {
		t.Errorf("it is written twice: %s %v", patch, err)
	}
	if got := condition(t, StatusToControl(control, running(), view()), corev1.PodReady); got.Status != corev1.ConditionTrue {
		t.Errorf("when the pool is back: %+v", got)
	}
	if got := SilentToControl(scheduled(), now); find(got.Conditions, corev1.PodReady) != nil {
		t.Error("a pod that never ran got a condition")
	}
}

func TestRefusedToControl(t *testing.T) {
	got := RefusedToControl(scheduled(), &Refused{Problems: []string{"hostNetwork is not allowed"}})
	if got.Phase != corev1.PodFailed || got.Reason != ReasonRefused || !strings.Contains(got.Message, "hostNetwork is not allowed") {
		t.Errorf("got %+v", got)
	}
}

// TestStatusPatch applies the patch as the API server would, also over what others wrote meanwhile.
func TestStatusPatch(t *testing.T) {
	control := scheduled()
	want := StatusToControl(control, running(), view())
	patch, err := StatusPatch(control, want)
	if err != nil {
		t.Fatal(err)
	}
	live := control.DeepCopy()
	live.Status.Conditions = append(live.Status.Conditions, corev1.PodCondition{Type: "example.com/new", Status: corev1.ConditionTrue})
	raw, err := json.Marshal(live)
	if err != nil {
		t.Fatal(err)
	}
	merged, err := strategicpatch.StrategicMergePatch(raw, patch, corev1.Pod{})
	if err != nil {
		t.Fatal(err)
	}
	var got corev1.Pod
	if err := json.Unmarshal(merged, &got); err != nil {
		t.Fatal(err)
	}
	if condition(t, got.Status, "example.com/new").Status != corev1.ConditionTrue {
		t.Error("the patch removed a condition of somebody else")
	}
	if condition(t, got.Status, corev1.PodReady).Status != corev1.ConditionTrue || got.Status.PodIP != "10.1.0.7" || len(got.Status.PodIPs) != 2 {
		t.Errorf("after the patch: %+v", got.Status)
	}
	if !strings.Contains(string(patch), `"uid":"control-uid"`) {
		t.Errorf("the patch has no UID precondition: %s", patch)
	}
	if strings.Contains(string(patch), "qosClass") || strings.Contains(string(patch), "PodScheduled") && !strings.Contains(string(patch), "setElementOrder") {
		t.Errorf("the patch writes what is not a kubelet's: %s", patch)
	}
}

func TestTextToTenant(t *testing.T) {
	control, pool := scheduled(), running()
	cases := map[string]string{
		"back-off 10s restarting failed container=c pod=web_abc123-default(pool-uid)": "back-off 10s restarting failed container=c pod=web_default(control-uid)",
		"couldn't find key x in ConfigMap abc123-default/settings":                    "couldn't find key x in ConfigMap default/settings",
		"xabc123-default and abc123-default2 and abc123-default-x stay":               "xabc123-default and abc123-default2 and abc123-default-x stay",
		"it ran on node-7.":                                     "it ran on pool-a-0.",
		`secret "vivarium-token-control-uid" not found`:         `secret "the pod's ServiceAccount token" not found`,
		`configmap "kube-root-ca.crt.tenant" not found`:         `configmap "kube-root-ca.crt" not found`,
		"abc123-default":                                        "default",
		"the tenant's own word for zzz999-default is not ours.": "the tenant's own word for zzz999-default is not ours.",
	}
	for text, want := range cases {
		if got := TextToTenant(text, control, pool, place()); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
	pool.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Message: "in abc123-default/x"}}
	pool.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "i", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Message: "my own abc123-default"}}}}
	control.Spec.InitContainers = []corev1.Container{{Name: "i"}}
	got := StatusToControl(control, pool, view())
	if m := got.ContainerStatuses[0].State.Waiting.Message; m != "in default/x" {
		t.Errorf("why a container waits: %q", m)
	}
	if m := got.InitContainerStatuses[0].State.Terminated.Message; m != "my own abc123-default" {
		t.Errorf("a program's last words were changed: %q", m)
	}
}
