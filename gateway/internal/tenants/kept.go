package tenants

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/gateway/internal/flows"
	"vivarium.io/vivarium/internal/names"
)

// removeKept deletes what the admin API keeps for a tenant of kinds that the control cluster must not have from it. Nobody
// acts on these objects, so that nobody would take a finalizer of the tenant's off.
func (c *Controller) removeKept(ctx context.Context, id names.TenantID) error {
	for _, resource := range flows.Resources() {
		if err := c.removeKeptOf(ctx, resource, id); err != nil {
			return err
		}
	}
	return nil
}

func (c *Controller) removeKeptOf(ctx context.Context, resource schema.GroupVersionResource, id names.TenantID) error {
	found, err := c.kept.list(ctx, resource, id, everything)
	if err != nil {
		return err
	}
	objects := c.kept.objects.Resource(resource)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(provideParallel)
	for i := range found {
		object := &found[i]
		group.Go(func() error {
			err := objects.Delete(ctx, object.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &object.UID}})
			if err == nil && len(object.Finalizers) > 0 {
				_, err = objects.Patch(ctx, object.Name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
			}
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				return fmt.Errorf("delete %s %q: %w", resource.Resource, object.Name, err)
			}
			return nil
		})
	}
	return group.Wait()
}
