package nodes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/vk-provider/internal/bounce"
)

const (
	// evictionsAtOnce bounds what one pass evicts.
	evictionsAtOnce = 50
	// drainEvery is how often a pool that is drained is looked at: budgets give way as replacements become ready.
	drainEvery = 2 * time.Second
)

// drain empties a pool whose ResourcePool is being deleted: no new pods, the running ones evicted within their budgets,
// then the Nodes, then our hold on the ResourcePool.
func (c *Controller) drain(ctx context.Context, p *pass) error {
	for _, node := range p.nodes {
		if _, err := c.close(ctx, p, node, true); err != nil {
			return err
		}
	}
	left, err := c.evict(ctx, p, everyPod)
	if err != nil || left.pods > 0 {
		return err
	}
	// A pod leaves the control cluster only after it has left the pool, so what may remain in a pool that does not
	// answer is what was deleted by force.
	if p.cache != nil && !p.health.silent && len(p.cache.Ours()) > 0 {
		return nil
	}
	for _, node := range p.nodes {
		if err := c.remove(ctx, p, node); err != nil {
			return err
		}
	}
	return c.release(ctx, p.resource)
}

// empty evicts the pods of a pool that is drained, and notes on the pass how far that is. The pool's Nodes take no new pods
// by now. It goes on from wherever it is, so it may be stopped and started at any time.
func (c *Controller) empty(ctx context.Context, p *pass) error {
	p.drained = &remains{}
	if p.health.silent || !p.health.known {
		// Nobody could tell when a pod has ended.
		p.drained.unseen = true
		return nil
	}
	which := evictable
	if p.resource.Spec.Drain.Unmanaged {
		which = livingPod
	}
	left, err := c.evict(ctx, p, which)
	p.drained = &left
	if left.pods > left.unmanaged {
		c.queue.AddAfter(p.resource.Name, drainEvery)
	}
	return err
}

// remains are the pods that are left in a pool that is emptied.
type remains struct {
	// pods counts all of them; held those that a disruption budget holds, and unmanaged those that are left alone because no
	// controller would make them anew.
	pods, held, unmanaged int
	// unseen is true when the pool does not answer.
	unseen bool
}

// kept says what eviction does about a pod.
type kept int

const (
	evicted kept = iota
	// ignored pods have ended already and are in nobody's way.
	ignored
	// spared pods stay although they are in the way.
	spared
)

func everyPod(*corev1.Pod) kept { return evicted }

func livingPod(pod *corev1.Pod) kept {
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return ignored
	}
	return evicted
}

func evictable(pod *corev1.Pod) kept {
	if what := livingPod(pod); what != evicted || pod.DeletionTimestamp != nil || bounce.Owner(pod) != "" {
		return what
	}
	return spared
}

// evict asks for the eviction of the pods on the pool's Nodes and tells what is left. One pod that cannot be evicted does not
// keep the others.
func (c *Controller) evict(ctx context.Context, p *pass, which func(*corev1.Pod) kept) (left remains, err error) {
	asked := 0
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(p.nodes)) {
		for _, pod := range c.config.Cache.PodsOnNode(name) {
			what := which(pod)
			if what == ignored {
				continue
			}
			left.pods++
			if what == spared {
				left.unmanaged++
				continue
			}
			if pod.DeletionTimestamp != nil || asked == evictionsAtOnce {
				continue
			}
			asked++
			call, cancel := context.WithTimeout(ctx, callTimeout)
			err := c.config.Control.PolicyV1().Evictions(pod.Namespace).Evict(call, &policyv1.Eviction{
				ObjectMeta:    metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace},
				DeleteOptions: &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))},
			})
			cancel()
			switch {
			case apierrors.IsTooManyRequests(err):
				left.held++
				asked-- // it moved nothing; others may go
			case err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err):
				problems = append(problems, fmt.Errorf("evict pod %s/%s: %w", pod.Namespace, pod.Name, err))
			}
			if len(problems) > evictionsAtOnce || ctx.Err() != nil {
				return left, errors.Join(problems...)
			}
		}
	}
	return left, errors.Join(problems...)
}

// finding says it in a condition.
func (r *remains) finding() pools.Finding {
	count := func(n int, what string) string {
		if n == 1 {
			return "1 pod " + what
		}
		return fmt.Sprintf("%d pods %s", n, what)
	}
	var parts []string
	if moving := r.pods - r.held - r.unmanaged; moving > 0 {
		parts = append(parts, count(moving, "to go"))
	}
	if r.held > 0 {
		parts = append(parts, count(r.held, "held by disruption budgets"))
	}
	if r.unmanaged > 0 {
		parts = append(parts, count(r.unmanaged, "that no controller would make anew and that spec.drain.unmanaged does not include"))
	}
	f := pools.Finding{Status: metav1.ConditionFalse, Reason: "Evicting", Message: strings.Join(parts, ", ")}
	switch {
	case r.unseen:
		f.Reason, f.Message = "PoolSilent", "the pool does not answer, so nothing is evicted"
	case r.pods == 0:
		return pools.Finding{Status: metav1.ConditionTrue, Reason: "Empty", Message: "no pod is left"}
	case r.pods == r.unmanaged:
		f.Reason = "UnmanagedPods"
	case r.pods == r.unmanaged+r.held:
		f.Reason = "HeldByBudgets"
	}
	return f
}

// changePool changes a ResourcePool, unless somebody else has meanwhile.
func (c *Controller) changePool(ctx context.Context, resource *v1alpha1.ResourcePool, change func(*v1alpha1.ResourcePool)) (*v1alpha1.ResourcePool, error) {
	changed := resource.DeepCopy()
	change(changed)
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return changed, c.config.Admin.Patch(call, changed, client.MergeFromWithOptions(resource, client.MergeFromWithOptimisticLock{}), client.FieldOwner(Component))
}

// release takes our finalizer from a ResourcePool.
func (c *Controller) release(ctx context.Context, resource *v1alpha1.ResourcePool) error {
	if !slices.Contains(resource.Finalizers, v1alpha1.FinalizerPool) {
		return nil
	}
	_, err := c.changePool(ctx, resource, func(changed *v1alpha1.ResourcePool) {
		changed.Finalizers = slices.DeleteFunc(changed.Finalizers, func(f string) bool { return f == v1alpha1.FinalizerPool })
	})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("let ResourcePool %s go: %w", resource.Name, err)
	}
	boot.Logger(ctx).Info("pool drained", "pool", resource.Name)
	return nil
}
