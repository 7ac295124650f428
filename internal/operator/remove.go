package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
)

// Pool reads a ResourcePool.
func (o *Operator) Pool(ctx context.Context, name string) (*v1alpha1.ResourcePool, error) {
	resource := &v1alpha1.ResourcePool{}
	err := o.Admin.Get(ctx, client.ObjectKey{Name: name}, resource)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("there is no pool %s", name)
	}
	resource.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ResourcePool"))
	return resource, o.admin(err)
}

// CordonPool keeps new pods away from a pool, or lets them in again, which also stops a drain.
func (o *Operator) CordonPool(ctx context.Context, name string, cordoned bool) error {
	return o.changePool(ctx, name, func(resource *v1alpha1.ResourcePool) {
		resource.Spec.Cordoned = cordoned
		if !cordoned {
			resource.Spec.Drain = nil
		}
	})
}

// DrainPool has a pool emptied, and follows that until it is done or ctx ends; the drain itself goes on then.
func (o *Operator) DrainPool(ctx context.Context, name string, unmanaged bool, within time.Duration) error {
	err := o.changePool(ctx, name, func(resource *v1alpha1.ResourcePool) {
		resource.Spec.Drain = &v1alpha1.PoolDrain{Unmanaged: unmanaged}
	})
	if err != nil || within == 0 {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	resource := &v1alpha1.ResourcePool{}
	said := ""
	err = o.await(wait, resource, name, func() (bool, error) {
		if resource.Spec.Drain == nil {
			return false, fmt.Errorf("pool %s: somebody has stopped the drain", name)
		}
		c := meta.FindStatusCondition(resource.Status.Conditions, v1alpha1.PoolDrained)
		if c == nil || c.ObservedGeneration != resource.Generation {
			return false, nil
		}
		if c.Message != said {
			said = c.Message
			o.say("%s", said)
		}
		return c.Status == metav1.ConditionTrue, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("pool %s is not empty yet: %s\nIt is drained on; run the command again to follow, or `vivarium pool uncordon %s` to stop", name, said, name)
	}
	return o.admin(err)
}

// FencePool notes the operator's word that nothing runs in a pool any more. It refuses while the pool answers.
func (o *Operator) FencePool(ctx context.Context, name string) error {
	resource, err := o.Pool(ctx, name)
	if err != nil {
		return err
	}
	if meta.IsStatusConditionTrue(resource.Status.Conditions, v1alpha1.PoolReachable) && meta.IsStatusConditionTrue(resource.Status.Conditions, v1alpha1.PoolIdentified) {
		return fmt.Errorf("pool %s answers, so its pods can be ended in order: use `vivarium pool drain %s`", name, name)
	}
	return o.changePool(ctx, name, func(resource *v1alpha1.ResourcePool) {
		metav1.SetMetaDataAnnotation(&resource.ObjectMeta, v1alpha1.AnnotationFenced, "true")
	})
}

// PoolRestored notes the operator's word that nothing of tenants runs in a restored pool but what its API server knows.
func (o *Operator) PoolRestored(ctx context.Context, name string) error {
	resource, err := o.Pool(ctx, name)
	if err != nil {
		return err
	}
	if !meta.IsStatusConditionTrue(resource.Status.Conditions, v1alpha1.PoolRestored) {
		return fmt.Errorf("pool %s was not found to be restored from a backup, so there is nothing to confirm", name)
	}
	return o.changePool(ctx, name, func(resource *v1alpha1.ResourcePool) {
		metav1.SetMetaDataAnnotation(&resource.ObjectMeta, v1alpha1.AnnotationRestored, "true")
	})
}

// changePool changes a ResourcePool.
func (o *Operator) changePool(ctx context.Context, name string, change func(*v1alpha1.ResourcePool)) error {
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		resource, err := o.Pool(ctx, name)
		if err != nil {
			return err
		}
		before := resource.DeepCopy()
		change(resource)
		return o.Admin.Patch(ctx, resource, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	})
	return o.admin(err)
}

// RemovePool gives a pool back: its pods end, our namespaces there are deleted, and the stored credentials go last. A
// forced removal does not wait for a pool that cannot be reached; what is in it stays there. While it has pods it is refused,
// unless they are to be evicted or given up.
func (o *Operator) RemovePool(ctx context.Context, name string, evict, force bool, within time.Duration) error {
	resource, err := o.Pool(ctx, name)
	if err != nil {
		return err
	}
	if !evict && !force && resource.DeletionTimestamp == nil {
		pods, err := o.podsOf(ctx, name)
		if err != nil {
			return err
		}
		if pods > 0 {
			return fmt.Errorf("pool %s has %d pods of tenants: empty it first (vivarium pool drain %s), or give --evict to have them evicted now", name, pods, name)
		}
	}
	if err := o.Admin.Delete(ctx, resource, client.Preconditions{UID: &resource.UID}); client.IgnoreNotFound(err) != nil {
		return o.admin(err)
	}
	if force {
		if err := o.admin(o.letGo(ctx, name)); err != nil {
			return err
		}
	}
	wait, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	uid := resource.UID
	err = o.await(wait, resource, name, func() (bool, error) { return resource.UID != uid, nil })
	if err != nil && !apierrors.IsNotFound(err) {
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("pool %s is still being emptied: %s\nRun the command again to wait on, or with --force to give up what is in the pool", name, reason(err, resource.Status.Conditions))
		}
		return o.admin(err)
	}
	secrets := o.Control.CoreV1().Secrets(names.SystemNamespace)
	secret, err := secrets.Get(ctx, resource.Spec.Credentials.KubeconfigSecret, metav1.GetOptions{})
	if err == nil && secret.Labels[names.LabelManagedBy] == managedBy {
		err = secrets.Delete(ctx, secret.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &secret.UID}})
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete the stored credentials of pool %s: %w", name, err)
	}
	return nil
}

// podsOf counts the pods that a pool has now and that have not ended. The pool's status says it a moment later.
func (o *Operator) podsOf(ctx context.Context, pool string) (count int, err error) {
	nodes, err := o.Control.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: names.LabelPool + "=" + pool})
	if err != nil {
		return 0, Explain("the control cluster", "", fmt.Errorf("list the virtual nodes of pool %s: %w", pool, err))
	}
	for _, node := range nodes.Items {
		pods, err := o.Control.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: fields.AndSelectors(
			fields.OneTermEqualSelector("spec.nodeName", node.Name),
			fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
			fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
		).String()})
		if err != nil {
			return 0, Explain("the control cluster", "", fmt.Errorf("list the pods of pool %s: %w", pool, err))
		}
		count += len(pods.Items)
	}
	return count, nil
}

// Uninstall removes from a cluster what [Operator.Register] set up there, with an administrator's kubeconfig. It refuses
// while a tenant's namespace is left, of whichever control cluster.
func Uninstall(ctx context.Context, kubeconfig []byte, manifests Manifests) error {
	config, err := pools.ParseKubeconfig(kubeconfig)
	if err != nil {
		return err
	}
	install, err := newInstaller(config)
	if err != nil {
		return err
	}
	left, err := install.typed.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: names.LabelTenant, Limit: 1})
	if err != nil {
		return Explain("the pool", config.Host, err)
	}
	if len(left.Items) > 0 {
		return fmt.Errorf("the cluster still has tenants' namespaces (%s and maybe more): some platform uses it as a pool", left.Items[0].Name)
	}
	objects, err := decode(manifests.Role, manifests.Access, manifests.Policy)
	if err != nil {
		return err
	}
	var problems []error
	for _, object := range slices.Backward(objects) {
		pool, _, err := install.client(object)
		if err == nil {
			err = client.IgnoreNotFound(pool.Delete(ctx, object.GetName(), metav1.DeleteOptions{}))
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("delete %s %s in the pool: %w", object.GetKind(), object.GetName(), err))
		}
	}
	return errors.Join(problems...)
}
