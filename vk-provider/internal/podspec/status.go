package podspec

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// Reasons of conditions and statuses that this package writes.
const (
	// ReasonEndedByPool is on a pod that its pool ended: evicted, preempted, lost with its node.
	ReasonEndedByPool = "TerminationByPool"
	// ReasonSilent is on a pod whose pool does not answer.
	ReasonSilent = "PoolUnreachable"
	// ReasonRefused is on a pod that no pool may run.
	ReasonRefused = "PoolPolicyViolation"
	// reasonUnknown is Kubernetes' own for a container whose end nobody saw.
	reasonUnknown = "ContainerStatusUnknown"
	// exitUnknown is the exit code that Kubernetes gives such a container.
	exitUnknown = 137
)

// ownedConditions are the conditions that a kubelet owns, and so do we. PodScheduled is the control scheduler's; the rest
// belongs to controllers and readiness gates.
var ownedConditions = []corev1.PodConditionType{
	corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.ContainersReady,
	corev1.PodResizePending, corev1.PodResizeInProgress,
}

// View is how a tenant sees the pool pod.
type View struct {
	Placement
	// PodIPs are the pod's addresses in its tenant's network.
	PodIPs []string
	// Settled is true when the pool pod is what the control pod wants, so that what the pool has observed of the one is
	// what it has observed of the other.
	Settled bool
	// Now stands in conditions that change without the pool saying when.
	Now metav1.Time
}

// StatusToControl gives the status of the control pod: the kubelet's part as the pool reports it, in the tenant's words,
// and everything else as it is. A pod that has ended stays ended.
func StatusToControl(control, pool *corev1.Pod, view View) corev1.PodStatus {
	status := *control.Status.DeepCopy()
	from := pool.Status.DeepCopy()
	say := phrasebook(control, pool, view.Placement)

	if !ended(status.Phase) || ended(from.Phase) {
		status.Reason, status.Message = from.Reason, say(from.Message)
	}
	if !ended(status.Phase) && from.Phase != "" {
		status.Phase = from.Phase
	}
	status.HostIP, status.HostIPs = hostIPs(view.Node.Addresses)
	status.PodIP, status.PodIPs = podIPs(view.PodIPs)
	status.StartTime = from.StartTime
	if status.StartTime == nil {
		// From here on the pod is known to have been given to the pool; see Accepted.
		created := pool.CreationTimestamp
		status.StartTime = &created
	}
	status.InitContainerStatuses = containers(from.InitContainerStatuses, initNames(control), say)
	status.ContainerStatuses = containers(from.ContainerStatuses, containerNames(control), say)
	status.EphemeralContainerStatuses = containers(from.EphemeralContainerStatuses, ephemeralNames(control), say)
	status.Resize, status.AllocatedResources, status.Resources = from.Resize, from.AllocatedResources, from.Resources

	observed := status.ObservedGeneration
	if view.Settled && from.ObservedGeneration != 0 && from.ObservedGeneration == pool.Generation {
		observed = control.Generation
	}
	status.ObservedGeneration = observed
	for _, kind := range ownedConditions {
		setCondition(&status, kind, find(from.Conditions, kind), observed, say)
	}
	setPlaced(&status, pool, observed, view.Now)
	if c := find(from.Conditions, corev1.DisruptionTarget); c != nil && c.Status == corev1.ConditionTrue && find(status.Conditions, corev1.DisruptionTarget) == nil {
		disrupt(&status, c.Reason, c.LastTransitionTime)
	}
	if pool.DeletionTimestamp != nil && control.DeletionTimestamp == nil && !ended(control.Status.Phase) && find(status.Conditions, corev1.DisruptionTarget) == nil {
		// Drained or deleted below: whoever counts failures must not take it for the pod's own.
		disrupt(&status, ReasonEndedByPool, *pool.DeletionTimestamp)
	}
	setReady(&status, control, from, observed, view.Now, say)
	return status
}

// Accepted reports whether a pool pod has existed for the control pod. It is what outlives a restart: a pod that was
// accepted is never created again.
func Accepted(control *corev1.Pod) bool { return control.Status.StartTime != nil }

// LostToControl gives the status of a control pod whose pool pod is gone without our doing: it has ended, and whoever
// owns it makes another. What is known of its containers stays.
func LostToControl(control *corev1.Pod, now metav1.Time) corev1.PodStatus {
	status := EndedToControl(control, now)
	if control.Status.Phase == corev1.PodSucceeded || control.Status.Phase == corev1.PodFailed {
		return status
	}
	if find(status.Conditions, corev1.DisruptionTarget) == nil {
		disrupt(&status, ReasonEndedByPool, now)
	}
	status.Reason, status.Message = ReasonEndedByPool, "The pool that ran the pod removed it."
	return status
}

// EndedToControl gives the final status of a control pod whose pool pod is gone: containers that were last seen alive
// have ended in an unknown way.
func EndedToControl(control *corev1.Pod, now metav1.Time) corev1.PodStatus {
	status := *control.Status.DeepCopy()
	if ended(status.Phase) {
		return status
	}
	status.Phase = corev1.PodFailed
	for _, list := range [][]corev1.ContainerStatus{status.InitContainerStatuses, status.ContainerStatuses, status.EphemeralContainerStatuses} {
		for i := range list {
			end(&list[i], now)
		}
	}
	for _, kind := range []corev1.PodConditionType{corev1.ContainersReady, corev1.PodReady} {
		setCondition(&status, kind, &corev1.PodCondition{Status: corev1.ConditionFalse, Reason: "PodFailed", LastTransitionTime: now}, status.ObservedGeneration, verbatim)
	}
	return status
}

func end(c *corev1.ContainerStatus, now metav1.Time) {
	c.Ready = false
	no := false
	c.Started = &no
	if c.State.Terminated != nil {
		return
	}
	terminated := &corev1.ContainerStateTerminated{
		ExitCode: exitUnknown, Reason: reasonUnknown, FinishedAt: now,
		Message: "The container's end was not observed.", ContainerID: c.ContainerID,
	}
	if c.State.Running != nil {
		terminated.StartedAt = c.State.Running.StartedAt
	}
	c.State = corev1.ContainerState{Terminated: terminated}
}

// SilentToControl gives the status of a control pod whose pool does not answer: nothing is known of it, so nothing should
// be sent to it. The control cluster's own controllers do this only for a node that they themselves find dead.
func SilentToControl(control *corev1.Pod, now metav1.Time) corev1.PodStatus {
	status := *control.Status.DeepCopy()
	if ready := find(status.Conditions, corev1.PodReady); ready == nil || ready.Status == corev1.ConditionFalse || ended(status.Phase) {
		return status
	}
	setCondition(&status, corev1.PodReady, &corev1.PodCondition{
		Status: corev1.ConditionFalse, Reason: ReasonSilent, Message: "The pool that runs the pod does not answer.", LastTransitionTime: now,
	}, status.ObservedGeneration, verbatim)
	return status
}

// RefusedToControl gives the status of a control pod that no pool may run.
func RefusedToControl(control *corev1.Pod, refused *Refused) corev1.PodStatus {
	status := *control.Status.DeepCopy()
	if ended(status.Phase) {
		return status
	}
	status.Phase = corev1.PodFailed
	status.Reason, status.Message = ReasonRefused, "Pod was refused: "+refused.Error()
	return status
}

// StatusPatch gives the strategic merge patch for the control pod's status, nil when there is nothing to change. It fails
// on another pod of the same name.
func StatusPatch(control *corev1.Pod, want corev1.PodStatus) ([]byte, error) {
	if equality.Semantic.DeepEqual(control.Status, want) {
		return nil, nil
	}
	type statusOnly struct {
		Metadata struct {
			UID types.UID `json:"uid,omitempty"`
		} `json:"metadata"`
		Status corev1.PodStatus `json:"status"`
	}
	before, err := json.Marshal(statusOnly{Status: control.Status})
	if err != nil {
		return nil, fmt.Errorf("write status of pod %s/%s: %w", control.Namespace, control.Name, err)
	}
	wanted := statusOnly{Status: want}
	wanted.Metadata.UID = control.UID
	after, err := json.Marshal(wanted)
	if err != nil {
		return nil, fmt.Errorf("write status of pod %s/%s: %w", control.Namespace, control.Name, err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("compare status of pod %s/%s: %w", control.Namespace, control.Name, err)
	}
	return patch, nil
}

func ended(phase corev1.PodPhase) bool {
	return phase == corev1.PodSucceeded || phase == corev1.PodFailed
}

func disrupt(status *corev1.PodStatus, reason string, when metav1.Time) {
	switch reason {
	case "EvictionByEvictionAPI", "PreemptionByScheduler", "DeletionByTaintManager", "DeletionByPodGC", corev1.PodReasonTerminationByKubelet:
	default:
		reason = ReasonEndedByPool
	}
	// The pool's own words may name other pods and its nodes.
	setCondition(status, corev1.DisruptionTarget, &corev1.PodCondition{
		Status: corev1.ConditionTrue, Reason: reason, Message: "The pool ended the pod.", LastTransitionTime: when,
	}, status.ObservedGeneration, verbatim)
}

// setReady computes Ready as a kubelet does: the containers are, and every readiness gate of the control pod is open. The
// gates are stripped below, since only the control cluster's controllers open them.
func setReady(status *corev1.PodStatus, control *corev1.Pod, from *corev1.PodStatus, observed int64, now metav1.Time, say func(string) string) {
	ready := find(from.Conditions, corev1.PodReady)
	if ready == nil {
		return
	}
	if len(control.Spec.ReadinessGates) > 0 && ready.Status == corev1.ConditionTrue {
		var shut []string
		for _, gate := range control.Spec.ReadinessGates {
			if c := find(status.Conditions, gate.ConditionType); c == nil || c.Status != corev1.ConditionTrue {
				shut = append(shut, fmt.Sprintf("readiness gate %q is not True", gate.ConditionType))
			}
		}
		ready = &corev1.PodCondition{Status: corev1.ConditionTrue, LastTransitionTime: now}
		if len(shut) > 0 {
			ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "ReadinessGatesNotReady", strings.Join(shut, "; ")
		}
	}
	setCondition(status, corev1.PodReady, ready, observed, say)
}

// setCondition brings one condition in line; nil removes it. The time of a condition whose status does not change stays.
func setCondition(status *corev1.PodStatus, kind corev1.PodConditionType, want *corev1.PodCondition, observed int64, say func(string) string) {
	at := slices.IndexFunc(status.Conditions, func(c corev1.PodCondition) bool { return c.Type == kind })
	if want == nil {
		if at >= 0 {
			status.Conditions = slices.Delete(status.Conditions, at, at+1)
		}
		return
	}
	c := corev1.PodCondition{
		Type: kind, Status: want.Status, Reason: want.Reason, Message: say(want.Message),
		LastProbeTime: want.LastProbeTime, LastTransitionTime: want.LastTransitionTime, ObservedGeneration: observed,
	}
	if at < 0 {
		status.Conditions = append(status.Conditions, c)
		return
	}
	if old := status.Conditions[at]; old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	status.Conditions[at] = c
}

func find(conditions []corev1.PodCondition, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range conditions {
		if conditions[i].Type == kind {
			return &conditions[i]
		}
	}
	return nil
}

func hostIPs(addresses []string) (string, []corev1.HostIP) {
	var list []corev1.HostIP
	for _, a := range addresses {
		list = append(list, corev1.HostIP{IP: a})
	}
	if len(list) == 0 {
		return "", nil
	}
	return list[0].IP, list
}

func podIPs(addresses []string) (string, []corev1.PodIP) {
	var list []corev1.PodIP
	for _, a := range addresses {
		list = append(list, corev1.PodIP{IP: a})
	}
	if len(list) == 0 {
		return "", nil
	}
	return list[0].IP, list
}

// containers copies the statuses of the containers that the control pod has. A pool may run others in the pod, such as a
// service mesh's; they are none of the tenant's business and the API would refuse them.
func containers(from []corev1.ContainerStatus, known map[string]bool, say func(string) string) []corev1.ContainerStatus {
	var out []corev1.ContainerStatus
	for i := range from {
		c := from[i]
		if !known[c.Name] {
			continue
		}
		if c.State.Waiting != nil {
			c.State.Waiting.Message = say(c.State.Waiting.Message)
		}
		// The message of a terminated container is the tenant's own program's.
		out = append(out, c)
	}
	return out
}

func initNames(pod *corev1.Pod) map[string]bool {
	known := map[string]bool{}
	for i := range pod.Spec.InitContainers {
		known[pod.Spec.InitContainers[i].Name] = true
	}
	return known
}

func containerNames(pod *corev1.Pod) map[string]bool {
	known := map[string]bool{}
	for i := range pod.Spec.Containers {
		known[pod.Spec.Containers[i].Name] = true
	}
	return known
}

func ephemeralNames(pod *corev1.Pod) map[string]bool {
	known := map[string]bool{}
	for i := range pod.Spec.EphemeralContainers {
		known[pod.Spec.EphemeralContainers[i].Name] = true
	}
	return known
}
