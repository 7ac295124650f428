package nodes

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/internal/names"
)

// recheckTenants is how often it is looked whether what admission goes by is still as it was written.
const recheckTenants = 5 * time.Minute

// published is what admission was told of a pool's tenants; data is nil for nothing.
type published struct {
	data map[string]string
	at   time.Time
}

// publish tells the control cluster's admission which tenants' pods may come to a pool, for it has them tolerate the taint
// that keeps all others away: a ConfigMap that the policy vivarium-pool-tenants takes as its parameter. It is a
// convenience for the scheduler; who is welcome is decided where pods are made.
func (c *Controller) publish(ctx context.Context, p *pass) error {
	pool := p.resource.Name
	var want map[string]string
	if choice := p.resource.Spec.Tenants; choice != nil && !p.leaving() {
		want = map[string]string{}
		for _, tenant := range c.config.Chosen(choice) {
			want[tenant] = ""
		}
	}
	c.mu.Lock()
	told, ever := c.published[pool]
	c.mu.Unlock()
	if ever && (want == nil) == (told.data == nil) && maps.Equal(want, told.data) && time.Since(told.at) < recheckTenants {
		return nil
	}
	if err := c.tellAdmission(ctx, pool, want); err != nil {
		return fmt.Errorf("tell admission the tenants of pool %s: %w", pool, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.published[pool] = published{want, time.Now()}
	return nil
}

func (c *Controller) tellAdmission(ctx context.Context, pool string, want map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	configs := c.config.Control.CoreV1().ConfigMaps(names.SystemNamespace)
	name := "pool-" + pool + "-tenants"
	there, err := configs.Get(ctx, name, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	switch {
	case err != nil && !missing:
		return err
	case missing && want == nil:
		return nil
	case missing:
		_, err = configs.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{names.LabelPool: pool, names.LabelManagedBy: Component}},
			Data:       want,
		}, metav1.CreateOptions{FieldManager: Component})
		return err
	case there.Labels[names.LabelPool] != pool || there.Labels[names.LabelManagedBy] != Component:
		return fmt.Errorf("ConfigMap %s/%s is not the platform's", names.SystemNamespace, name)
	case want == nil:
		err = configs.Delete(ctx, name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(there.UID))})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	case same(there.Data, want):
		return nil
	}
	changed := there.DeepCopy()
	changed.Data = want
	_, err = configs.Update(ctx, changed, metav1.UpdateOptions{FieldManager: Component})
	return err
}
