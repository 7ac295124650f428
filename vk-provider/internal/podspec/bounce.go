package podspec

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/internal/names"
)

// ConditionPlaced is false on a control pod while its pool looks for a node for it or does not take it, and absent
// otherwise. PodScheduled belongs to the control cluster's scheduler, which has done its part.
const ConditionPlaced corev1.PodConditionType = names.Domain + "/Placed"

// Bounce is why a pool gives a pod back; it is the reason of the pod's status and of its DisruptionTarget condition.
type Bounce string

// The reasons.
const (
	Unschedulable Bounce = "PoolUnschedulable"
	Rejected      Bounce = "PoolRejected"
	// Excluded: the pool takes the pods of other tenants only.
	Excluded Bounce = "PoolExcluded"
	// Unfit: the pool asks for a Pod Security level that the pod does not meet.
	Unfit Bounce = "PoolSecurity"
)

// Message tells it to the tenant. It repeats nothing that a pool said.
func (b Bounce) Message() string {
	switch b {
	case Rejected:
		return "The pool did not take the pod."
	case Excluded:
		return "The pool takes no pods of this tenant."
	case Unfit:
		return "The pod does not meet the Pod Security level that the pool asks for."
	default:
		return "No node of the pool had room for the pod."
	}
}

// noRoom is what a tenant is told while its pod waits.
const noRoom = "No node of the pool has room for the pod at the moment."

// GivenBack tells why and when a control pod was given back, by what [BouncedToControl] has written.
func GivenBack(control *corev1.Pod) (why Bounce, at metav1.Time, ok bool) {
	why = Bounce(control.Status.Reason)
	c := find(control.Status.Conditions, corev1.DisruptionTarget)
	if control.Status.Phase != corev1.PodFailed || c == nil || c.Reason != string(why) {
		return "", metav1.Time{}, false
	}
	switch why {
	case Unschedulable, Rejected, Excluded, Unfit:
		return why, c.LastTransitionTime, true
	}
	return "", metav1.Time{}, false
}

// WaitsSince tells since when a control pod is said to have no place.
func WaitsSince(control *corev1.Pod) (metav1.Time, bool) {
	c := find(control.Status.Conditions, ConditionPlaced)
	if c == nil || c.Status != corev1.ConditionFalse || ended(control.Status.Phase) {
		return metav1.Time{}, false
	}
	return c.LastTransitionTime, true
}

// Unplaced reports whether the pool's scheduler has looked for a node for a pool pod and found none.
func Unplaced(pool *corev1.Pod) bool {
	c := find(pool.Status.Conditions, corev1.PodScheduled)
	return pool.Spec.NodeName == "" && pool.Status.Phase == corev1.PodPending &&
		c != nil && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable
}

// setPlaced keeps ConditionPlaced. Its time is when it was seen, not what the pool's clock says: others go on from it.
func setPlaced(status *corev1.PodStatus, pool *corev1.Pod, observed int64, now metav1.Time) {
	var want *corev1.PodCondition
	if Unplaced(pool) {
		want = &corev1.PodCondition{
			Status: corev1.ConditionFalse, Reason: string(Unschedulable), Message: noRoom, LastTransitionTime: now,
		}
	}
	setCondition(status, ConditionPlaced, want, observed, verbatim)
}

// WaitingToControl gives the status of a control pod that its pool does not take, and that is not given back yet, or never
// because nobody would make it anew.
func WaitingToControl(control *corev1.Pod, why Bounce, message string, now metav1.Time) corev1.PodStatus {
	status := *control.Status.DeepCopy()
	if ended(status.Phase) {
		return status
	}
	setCondition(&status, ConditionPlaced, &corev1.PodCondition{
		Status: corev1.ConditionFalse, Reason: string(why), Message: message, LastTransitionTime: now,
	}, control.Generation, verbatim)
	return status
}

// BouncedToControl gives the status of a control pod that its pool gave back. None of its containers ever ran, so nothing
// is said about them; whoever counts failures is told that it was not the pod's own.
func BouncedToControl(control *corev1.Pod, why Bounce, now metav1.Time) corev1.PodStatus {
	status := *control.Status.DeepCopy()
	if ended(status.Phase) {
		return status
	}
	status.Phase, status.Reason, status.Message = corev1.PodFailed, string(why), why.Message()
	setCondition(&status, ConditionPlaced, nil, 0, verbatim)
	setCondition(&status, corev1.DisruptionTarget, &corev1.PodCondition{
		Status: corev1.ConditionTrue, Reason: string(why), Message: why.Message(), LastTransitionTime: now,
	}, status.ObservedGeneration, verbatim)
	return status
}
