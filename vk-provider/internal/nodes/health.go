package nodes

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/vk-provider/internal/control"
)

// health is what a pool's state means for its virtual Nodes.
type health struct {
	// known is false while nothing can be said; Nodes then stay as they are.
	known bool
	// ready says whether the Nodes are Ready. Held Nodes are, although nobody can see their pods: the control cluster's own
	// controllers evict from every Node that is not, whatever anybody else wants.
	ready bool
	// open says whether new pods may come.
	open bool
	// silent says that nothing is known of the pool's pods.
	silent bool
	// taint is the key of the taint that has the Nodes' pods evicted; empty for none.
	taint string
	// reason and message are for the Ready condition.
	reason, message string
}

// Reasons of the Ready condition of virtual Nodes, besides control.ReasonHeld.
const (
	reasonReady       = "PoolReady"
	reasonUnreachable = "PoolUnreachable"
	reasonFenced      = "PoolFenced"
	reasonNodeDown    = "PoolNodeNotReady"
)

// fencedValue tells our out-of-service taint from one that somebody else has put there.
const fencedValue = "pool-fenced"

// outlook is what is known when a pool is judged.
type outlook struct {
	status  pools.Status
	checked bool
	// frozen says that every pool has just fallen silent, which is taken for our own connection.
	frozen bool
	// others says that another pool answers: our own connection is not what is broken, and there is somewhere to go.
	others bool
	policy v1alpha1.FailurePolicy
	// fenced is the operator's word that nothing runs in the pool.
	fenced bool
}

// judge says what a pool's status means. The messages are read by tenants as well, so they do not repeat what a pool said.
//
// Pods are evicted for one reason alone: the pool itself has stopped answering, another one answers, and its policy or its
// operator says so. Everything else that keeps us from seeing it, credentials that are refused or lead to another cluster, is
// our own trouble, and its pods may be running well.
func judge(o outlook) health {
	silent := !o.status.Reachable.Good() || !o.status.Identified.Good()
	held := func(message string) health {
		return health{known: true, ready: true, silent: true, reason: control.ReasonHeld, message: message}
	}
	switch {
	case !o.checked:
		return health{}
	case !silent:
		return health{known: true, ready: true, open: o.status.Authorized.Good() && !o.status.Restored.Good(), reason: reasonReady, message: "the pool answers"}
	case o.fenced:
		return health{known: true, silent: true, taint: corev1.TaintNodeOutOfService, reason: reasonFenced, message: "the pool's operator says that nothing runs there any more"}
	case o.frozen && !o.status.Reachable.Good():
		return health{}
	case !o.status.Lost():
		return held("the pool cannot be asked for its pods; they are kept")
	case !o.others:
		return held("no pool answers; pods are kept")
	case o.policy == v1alpha1.FailureHold:
		return held("the pool does not answer; its pods are kept until it does")
	case o.policy == v1alpha1.FailureFence:
		return held("the pool does not answer; its pods are kept until it does, or until its operator says that they cannot be running")
	default:
		return health{known: true, silent: true, taint: corev1.TaintNodeNotReady, reason: reasonUnreachable, message: "the pool does not answer"}
	}
}

// taints gives a Node's taints as its pool's health wants them; those of others stay. The control cluster's own controllers
// put the same taint on a Node that is not ready, one Node in ten seconds at best, so that a pool of many would be given up
// over half an hour.
func taints(node *corev1.Node, h health, now metav1.Time) []corev1.Taint {
	if !h.known {
		return node.Spec.Taints
	}
	ready := condition(node, corev1.NodeReady)
	isReady := ready != nil && ready.Status == corev1.ConditionTrue
	out := slices.DeleteFunc(slices.Clone(node.Spec.Taints), func(t corev1.Taint) bool {
		switch {
		case t.Key == corev1.TaintNodeNotReady && t.Effect == corev1.TaintEffectNoSchedule:
			// Admission puts it on every new Node. The node lifecycle controller takes it away too; whoever is first.
			return isReady
		case t.Key == corev1.TaintNodeNotReady && t.Effect == corev1.TaintEffectNoExecute:
			return h.ready
		case t.Key == corev1.TaintNodeOutOfService && t.Value == fencedValue:
			return h.taint != corev1.TaintNodeOutOfService
		}
		return false
	})
	if h.taint != "" && !slices.ContainsFunc(out, func(t corev1.Taint) bool { return t.Key == h.taint && t.Effect == corev1.TaintEffectNoExecute }) {
		taint := corev1.Taint{Key: h.taint, Effect: corev1.TaintEffectNoExecute, TimeAdded: &now}
		if h.taint == corev1.TaintNodeOutOfService {
			taint.Value = fencedValue
		}
		out = append(out, taint)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// outlook gathers what a pool is judged by.
func (c *Controller) outlook(resource *v1alpha1.ResourcePool, status pools.Status, checked bool) outlook {
	_, fenced := resource.Annotations[v1alpha1.AnnotationFenced]
	return outlook{
		status: status, checked: checked, frozen: c.frozen(), others: c.othersAnswer(resource.Name),
		policy: resource.Spec.Failure.Policy, fenced: fenced,
	}
}

// othersAnswer reports whether another pool answers now.
func (c *Controller) othersAnswer(pool string) bool {
	return slices.ContainsFunc(c.config.Registry.Resources(), func(r *v1alpha1.ResourcePool) bool {
		return r.Name != pool && c.answers(r.Name)
	})
}

// answers reports whether a pool has answered lately.
func (c *Controller) answers(pool string) bool {
	status, ok := c.config.Registry.Status(pool)
	silence, ever := c.config.Registry.Silence(pool)
	return ok && status.Reachable.Good() && (!ever || silence <= suspicious)
}
