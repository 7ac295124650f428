package provider

import (
	corev1 "k8s.io/api/core/v1"

	"vivarium.io/vivarium/vk-provider/internal/podspec"
)

// state is what is known of one pod, by its UID.
type state struct {
	// control is the control pod; nil when the cache has none. controlGone is true when its deletion was seen.
	control     *corev1.Pod
	controlGone bool
	// bound says whose the node is that the control pod is bound to.
	bound binding
	// pool is our pool pod; nil when the cache has none. poolGone is true when its deletion was seen.
	pool     *corev1.Pod
	poolGone bool
}

// binding is a control pod's tie to the pool that is looked at.
type binding int

const (
	// here: its node stands for this pool, so everything about the pod is this pool's to do.
	here binding = iota
	// elsewhere: its node stands for another pool.
	elsewhere
	// nowhere: its node is gone.
	nowhere
)

// action is what has to be done about one pod.
type action int

const (
	// forget: nothing is left.
	forget action = iota
	// rest: nothing to do until something changes.
	rest
	// create: make the pool pod.
	create
	// converge: bring the pool pod up to date and the status back.
	converge
	// report: only bring the status back.
	report
	// stop: delete the pool pod.
	stop
	// finish: the pool pod is gone or never was; give the control pod its last status and let it go.
	finish
	// lose: the pool ended the pod.
	lose
	// suspect: the pool pod has no control pod that we know of, but nobody saw it go.
	suspect
)

func (a action) String() string {
	return [...]string{"forget", "rest", "create", "converge", "report", "stop", "finish", "lose", "suspect"}[a]
}

// decide says what to do. It is pure and level-triggered: it may be asked about any state at any time. What it cannot
// know from caches (finish, lose) the actor proves with a live look before it writes.
func decide(s state) action {
	switch {
	case s.control == nil && s.pool == nil:
		return forget
	case s.control == nil:
		return decideOrphan(s)
	case s.bound != here && s.pool == nil:
		// That there is nothing here says nothing about the pod.
		return forget
	case s.bound == elsewhere:
		if s.pool.DeletionTimestamp != nil {
			return rest
		}
		return stop
	case s.control.DeletionTimestamp != nil:
		return decideDeleted(s)
	}
	over := ended(s.control)
	switch {
	case s.pool == nil && over:
		return rest
	case s.pool == nil && (podspec.Accepted(s.control) || s.poolGone):
		return lose
	case s.pool == nil:
		return create
	case over && !ended(s.pool) && s.pool.DeletionTimestamp == nil:
		// Somebody above ended the pod; its containers must not go on.
		return stop
	case s.pool.DeletionTimestamp != nil || over:
		// Being ended by the pool: its last words still count.
		return report
	default:
		return converge
	}
}

func decideOrphan(s state) action {
	switch {
	case s.pool.DeletionTimestamp != nil:
		return rest
	case s.controlGone:
		return stop
	default:
		return suspect
	}
}

func decideDeleted(s state) action {
	switch {
	case s.pool == nil && graceOf(s.control) == 0 && len(s.control.Finalizers) > 0:
		// We have let it go; somebody else's finalizer holds it.
		return rest
	case s.pool == nil:
		return finish
	case s.pool.DeletionTimestamp == nil, graceOf(s.control) < graceOf(s.pool):
		return stop
	default:
		return report
	}
}

func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// graceOf is how long a pod that is being deleted has.
func graceOf(pod *corev1.Pod) int64 {
	if pod.DeletionGracePeriodSeconds == nil {
		return 0
	}
	return *pod.DeletionGracePeriodSeconds
}

// forcedGrace is the grace below of a pod that is already gone above. Zero would take the pool's word for the pod away
// before its containers have stopped, and with it the proof that they have.
const forcedGrace = 1

// stopGrace is the grace to delete a pool pod with.
func stopGrace(s state) int64 {
	switch {
	case s.pool.Spec.NodeName == "":
		return 0 // it never started
	case s.control == nil, s.bound == elsewhere, s.control.DeletionTimestamp == nil:
		return forcedGrace
	default:
		return max(forcedGrace, graceOf(s.control))
	}
}
