package tenants

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

// patience is how often a tenant that was ready may fail to be looked after before that is called a condition, about a
// second after the first time: a condition must not flap with every hiccup.
const patience = 6

// Reasons in conditions.
const (
	reasonProvided    = "Provided"
	reasonIncomplete  = "Incomplete"
	reasonTerminating = "Terminating"
	reasonRemoving    = "Removing"
	reasonStuck       = "Stuck"
	reasonPools       = "WaitingForPools"
)

// reconcile brings one tenant a step further and says when to look again, zero for not before something happens.
func (c *Controller) reconcile(ctx context.Context, id names.TenantID) (again time.Duration, err error) {
	obj, exists, err := c.informer.GetStore().GetByKey(string(id))
	if err != nil || !exists {
		// What a tenant left behind whose finalizers were taken off by force is not searched for and deleted: an admin API
		// that lost its storage would take every tenant's data with it. The name stays refused until somebody cleaned up.
		return 0, err
	}
	if _, err := names.ParseTenantID(string(id)); err != nil {
		return 0, nil // Admission refuses such names; whoever wrote it into etcd gets nothing for it.
	}
	t := obj.(*v1alpha1.Tenant).DeepCopy()
	if t.DeletionTimestamp != nil {
		return c.reconcileRemoval(ctx, id, t)
	}
	return resync, c.reconcileLife(ctx, id, t)
}

// reconcileLife brings a tenant to life, or keeps it there, and tells how that went.
func (c *Controller) reconcileLife(ctx context.Context, id names.TenantID, t *v1alpha1.Tenant) error {
	t, err := c.begin(ctx, t)
	status := t.Status.DeepCopy()
	var network *metav1.Condition
	if err == nil {
		t, network, err = c.equip(ctx, id, t, status)
	}
	if apierrors.IsConflict(err) {
		return err // Another replica was quicker; its work is seen next time.
	}
	if err == nil && readyCondition(t) != metav1.ConditionTrue {
		awaitRights(ctx, c.control, id)
	}
	status.ObservedGeneration = t.Generation
	status.Server = c.access.server
	ready := metav1.Condition{Type: v1alpha1.TenantReady, Status: metav1.ConditionTrue, Reason: reasonProvided, ObservedGeneration: t.Generation}
	if err != nil {
		if readyCondition(t) == metav1.ConditionTrue && c.queue.NumRequeues(id) < patience {
			return err
		}
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, reasonIncomplete, err.Error()
	}
	meta.SetStatusCondition(&status.Conditions, ready)
	if network != nil {
		meta.SetStatusCondition(&status.Conditions, *network)
	}
	status.Phase = phaseOf(t, ready.Status)
	if _, statusErr := c.updateStatus(ctx, t, status); err == nil {
		err = statusErr
	}
	return err
}

// equip makes what the tenant needs in control and of its network and issues its credentials, all at once. It gives the tenant
// as it is then, and what is to be said of its network.
func (c *Controller) equip(ctx context.Context, id names.TenantID, t *v1alpha1.Tenant, status *v1alpha1.TenantStatus) (_ *v1alpha1.Tenant, network *metav1.Condition, err error) {
	group, ctx := errgroup.WithContext(ctx)
	provided := t.DeepCopy() // the other half changes t
	group.Go(func() error { return c.provide(ctx, id, provided) })
	group.Go(func() error {
		var err error
		network, err = c.networks.provide(ctx, id, provided)
		return err
	})
	group.Go(func() error {
		var err error
		t, err = c.issueCredentials(ctx, id, t, status)
		return err
	})
	err = group.Wait()
	return t, network, err
}

func phaseOf(t *v1alpha1.Tenant, ready metav1.ConditionStatus) v1alpha1.TenantPhase {
	switch {
	case ready != metav1.ConditionTrue:
		return v1alpha1.TenantPending
	case t.Spec.Suspended:
		return v1alpha1.TenantSuspended
	default:
		return v1alpha1.TenantActive
	}
}

// issueCredentials keeps the kubeconfig annotation and the status that belongs to it. It gives the tenant as it is then.
func (c *Controller) issueCredentials(ctx context.Context, id names.TenantID, t *v1alpha1.Tenant, status *v1alpha1.TenantStatus) (*v1alpha1.Tenant, error) {
	var notBefore time.Time
	if at := t.Spec.CredentialsNotBefore; at != nil {
		notBefore = at.Time
	}
	have := t.Annotations[v1alpha1.AnnotationKubeconfig]
	want, expiry, err := c.authority.refresh(have, principal{id: id, uid: t.UID}, c.access, notBefore, time.Now())
	if err != nil {
		return t, err
	}
	if want != have {
		change := t.DeepCopy()
		metav1.SetMetaDataAnnotation(&change.ObjectMeta, v1alpha1.AnnotationKubeconfig, want)
		// The resource version makes this a race that one replica wins, or two would hand out different certificates.
		updated, err := c.tenants.Update(ctx, change, metav1.UpdateOptions{})
		if err != nil {
			return t, fmt.Errorf("store the kubeconfig of tenant %s: %w", id, err)
		}
		t = updated
	}
	status.CertificateExpiry = &metav1.Time{Time: expiry}
	return t, nil
}

// reconcileRemoval empties the control cluster of a tenant that is being deleted, removes the network that was made with it
// and then lets go of its finalizer.
func (c *Controller) reconcileRemoval(ctx context.Context, id names.TenantID, t *v1alpha1.Tenant) (time.Duration, error) {
	if !slices.Contains(t.Finalizers, v1alpha1.FinalizerControl) {
		return 0, nil
	}
	progress, err := c.remove(ctx, id)
	where := "in the control cluster: "
	if err == nil && progress.left == "" {
		// No pod has an address any more.
		progress, err = c.networks.remove(ctx, id, t)
		where = "of the network: "
	}
	cleaned := metav1.Condition{Type: v1alpha1.TenantCleaned, Status: metav1.ConditionFalse, Reason: reasonRemoving, ObservedGeneration: t.Generation}
	again := removalPoll
	switch {
	case err != nil:
		cleaned.Message = "cannot remove what the tenant has: " + err.Error()
	case progress.left == "":
		cleaned.Reason, cleaned.Message = reasonPools, "nothing is left in the control cluster; the pools are being emptied"
	default:
		cleaned.Message = where + progress.left
		if progress.stuck {
			cleaned.Reason, again = reasonStuck, stuckPoll
		}
	}
	status := t.Status.DeepCopy()
	status.Phase = v1alpha1.TenantTerminating
	status.ObservedGeneration = t.Generation
	meta.SetStatusCondition(&status.Conditions, cleaned)
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: v1alpha1.TenantReady, Status: metav1.ConditionFalse, Reason: reasonTerminating,
		Message: "the tenant is being removed", ObservedGeneration: t.Generation,
	})
	t, statusErr := c.updateStatus(ctx, t, status)
	if err != nil || statusErr != nil {
		return 0, firstOf(err, statusErr)
	}
	if progress.left != "" {
		return again, nil
	}
	t.Finalizers = slices.DeleteFunc(t.Finalizers, func(name string) bool { return name == v1alpha1.FinalizerControl })
	if _, err := c.tenants.Update(ctx, t, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("release tenant %s: %w", id, err)
	}
	return 0, nil
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// updateStatus writes status if it says anything new, and gives the tenant as it is then.
func (c *Controller) updateStatus(ctx context.Context, t *v1alpha1.Tenant, status *v1alpha1.TenantStatus) (*v1alpha1.Tenant, error) {
	if equality.Semantic.DeepEqual(&t.Status, status) {
		return t, nil
	}
	change := t.DeepCopy()
	change.Status = *status
	updated, err := c.tenants.UpdateStatus(ctx, change, metav1.UpdateOptions{})
	if err != nil {
		return t, fmt.Errorf("report on tenant %s: %w", t.Name, err)
	}
	return updated, nil
}

func readyCondition(t *v1alpha1.Tenant) metav1.ConditionStatus {
	if c := meta.FindStatusCondition(t.Status.Conditions, v1alpha1.TenantReady); c != nil {
		return c.Status
	}
	return metav1.ConditionUnknown
}

// rank is how many tenants came before this one.
func (c *Controller) rank(t *v1alpha1.Tenant) int {
	before := 0
	for _, obj := range c.informer.GetStore().List() {
		other := obj.(*v1alpha1.Tenant)
		if other.CreationTimestamp.Time.Before(t.CreationTimestamp.Time) ||
			(other.CreationTimestamp.Equal(&t.CreationTimestamp) && other.Name < t.Name) {
			before++
		}
	}
	return before
}
