package nodes

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/boot"
)

// unfence takes the operator's word back that nothing runs in a pool, because the pool answers: the word was about one
// outage, and must not end pods in the next.
func (c *Controller) unfence(ctx context.Context, p *pass) error {
	if _, fenced := p.resource.Annotations[v1alpha1.AnnotationFenced]; !fenced || !p.health.known || p.health.silent {
		return nil
	}
	changed, err := c.changePool(ctx, p.resource, func(changed *v1alpha1.ResourcePool) { delete(changed.Annotations, v1alpha1.AnnotationFenced) })
	if err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("take %s from ResourcePool %s: %w", v1alpha1.AnnotationFenced, p.resource.Name, err)
	}
	boot.Logger(ctx).Info("pool answers, so it is fenced no more", "pool", p.resource.Name)
	p.resource = changed
	return nil
}
