package nodes

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/vk-provider/internal/capacity"
)

// report writes the ResourcePool's status where it differs.
func (c *Controller) report(ctx context.Context, p *pass, found pools.Status, checked bool) error {
	if !checked {
		return nil
	}
	if wordIsOld(p.resource, found.Restored) {
		return c.forgetWord(ctx, p.resource)
	}
	want := p.resource.DeepCopy()
	summarize(&want.Status, p, found)
	if p.cache != nil {
		want.Status.LargestFree = c.largestFree(p)
	}
	c.tellOrphans(want)
	c.tellRevision(p, found.Restored, want)
	if same(p.resource.Status, want.Status) {
		return nil
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := c.config.Admin.Status().Patch(call, want, client.MergeFromWithOptions(p.resource, client.MergeFromWithOptimisticLock{}), client.FieldOwner(Component))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write status of ResourcePool %s: %w", p.resource.Name, err)
	}
	return nil
}

// tellRevision writes down how far the pool has come. What was written before a restore goes with the news of it: whoever reads
// it later, with the operator's word that all is well, would take it for another restore.
func (c *Controller) tellRevision(p *pass, restored pools.Finding, resource *v1alpha1.ResourcePool) {
	if restored.Good() && !meta.IsStatusConditionTrue(p.resource.Status.Conditions, v1alpha1.PoolRestored) {
		resource.Status.Revision = ""
	}
	if p.cache == nil || !restored.Good() && !c.revisionIsOld(p.resource.Name) {
		return
	}
	if revision := p.cache.Pool.Revision(); revision != "" {
		resource.Status.Revision = revision
	}
}

// revisionEvery is how often it is written down how far a pool has come, when nothing else has to be.
const revisionEvery = time.Minute

// revisionIsOld reports whether it is time to write down how far a pool has come. Each look would be a write each.
func (c *Controller) revisionIsOld(pool string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.revised[pool]) < revisionEvery {
		return false
	}
	c.revised[pool] = time.Now()
	return true
}

// wordIsOld reports whether a ResourcePool has the operator's word about a restore that is over, or that another one came
// after: it must not be taken for one about the next.
func wordIsOld(resource *v1alpha1.ResourcePool, restored pools.Finding) bool {
	if _, word := resource.Annotations[v1alpha1.AnnotationRestored]; !word {
		return false
	}
	about := meta.FindStatusCondition(resource.Status.Conditions, v1alpha1.PoolRestored)
	return about == nil || restored.Good() && about.Message != restored.Message
}

// forgetWord takes the operator's word about a restore back.
func (c *Controller) forgetWord(ctx context.Context, resource *v1alpha1.ResourcePool) error {
	_, err := c.changePool(ctx, resource, func(changed *v1alpha1.ResourcePool) { delete(changed.Annotations, v1alpha1.AnnotationRestored) })
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("take %s from ResourcePool %s: %w", v1alpha1.AnnotationRestored, resource.Name, err)
	}
	return nil
}

// tellOrphans says that orphans are kept for as long as they are.
func (c *Controller) tellOrphans(resource *v1alpha1.ResourcePool) {
	if c.config.Orphans == nil {
		return
	}
	reason, message := c.config.Orphans(resource.Name)
	if reason == "" {
		meta.RemoveStatusCondition(&resource.Status.Conditions, v1alpha1.PoolOrphansKept)
		return
	}
	meta.SetStatusCondition(&resource.Status.Conditions, metav1.Condition{
		Type: v1alpha1.PoolOrphansKept, Status: metav1.ConditionTrue, Reason: reason, Message: message, ObservedGeneration: resource.Generation,
	})
}

// summarize fills a ResourcePool's status. Counts that cannot be known now stay.
func summarize(status *v1alpha1.ResourcePoolStatus, p *pass, found pools.Status) {
	status.ObservedGeneration = p.resource.Generation
	if found.Version != "" {
		status.KubernetesVersion = found.Version
	}
	status.VirtualNodes = int32(len(p.nodes)) //nolint:gosec // bounded by spec.nodes.max
	if p.cache != nil {
		count, simulated := capacity.InUse(capacity.Pool{Name: p.resource.Name, Spec: p.resource.Spec}, p.cache.Nodes())
		status.Nodes, status.Simulated = int32(count), simulated //nolint:gosec // nodes of a cluster
		status.Pods = int32(len(p.cache.Ours()))                 //nolint:gosec // pods of a cluster
		total := corev1.ResourceList{}
		for i := range p.plan {
			capacity.Add(total, p.plan[i].Offer())
		}
		status.Allocatable = total
		status.Capacity, status.KubeletVersions = capacity.Totals(capacity.Pool{Name: p.resource.Name, Spec: p.resource.Spec}, p.cache.Nodes())
	}
	set := func(kind string, f pools.Finding) {
		meta.SetStatusCondition(&status.Conditions, metav1.Condition{
			Type: kind, Status: f.Status, Reason: f.Reason, Message: f.Message, ObservedGeneration: p.resource.Generation,
		})
	}
	set(v1alpha1.PoolReachable, found.Reachable)
	set(v1alpha1.PoolIdentified, found.Identified)
	set(v1alpha1.PoolAuthorized, found.Authorized)
	set(v1alpha1.PoolReady, verdict(p, found))
	if found.Restored.Good() {
		set(v1alpha1.PoolRestored, found.Restored)
	} else {
		meta.RemoveStatusCondition(&status.Conditions, v1alpha1.PoolRestored)
	}
	if p.drained != nil {
		set(v1alpha1.PoolDrained, p.drained.finding())
	} else {
		meta.RemoveStatusCondition(&status.Conditions, v1alpha1.PoolDrained)
	}
}

// verdict sums the findings up.
func verdict(p *pass, found pools.Status) pools.Finding {
	for _, f := range []pools.Finding{found.Reachable, found.Identified, found.Authorized} {
		if !f.Good() {
			return pools.Finding{Status: metav1.ConditionFalse, Reason: f.Reason, Message: f.Message}
		}
	}
	switch {
	case found.Restored.Good():
		return pools.Finding{Status: metav1.ConditionFalse, Reason: v1alpha1.PoolRestored, Message: "the pool was restored from a backup, and its operator has not confirmed yet what runs there"}
	case p.leaving():
		return pools.Finding{Status: metav1.ConditionFalse, Reason: "Draining", Message: "the ResourcePool is being deleted; its pods are evicted first"}
	case p.cache == nil:
		return pools.Finding{Status: metav1.ConditionUnknown, Reason: "Starting", Message: "the pool's nodes and pods are being read"}
	case len(p.plan) == 0:
		return pools.Finding{Status: metav1.ConditionFalse, Reason: "NoCapacity", Message: "no node of the pool is ready, open and large enough for spec.nodes.shape"}
	}
	return pools.Finding{Status: metav1.ConditionTrue, Reason: "PodsCanRun", Message: "pods can be placed in the pool"}
}
