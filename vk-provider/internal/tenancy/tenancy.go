// Package tenancy knows which tenants a pool takes, and whether a tenant has a network of its own. It watches the Tenants,
// for pools choose them by their labels too.
//
// It must never take a tenant that it does not know for a chosen one. Start at [Tenants.Welcome].
package tenancy

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/adminclient"
	"vivarium.io/vivarium/internal/names"
)

// Tenants is a view of the Tenants there are. Safe for concurrent use.
type Tenants struct {
	informer cache.SharedIndexInformer
}

// New makes Tenants; Run fills it.
func New(admin client.WithWatch) (*Tenants, error) {
	t := &Tenants{informer: cache.NewSharedIndexInformer(adminclient.ListWatch[v1alpha1.TenantList](admin), &v1alpha1.Tenant{}, 0, cache.Indexers{})}
	if err := t.informer.SetTransform(onlyLabels); err != nil {
		return nil, fmt.Errorf("watch Tenants: %w", err)
	}
	return t, nil
}

// onlyLabels keeps the labels and the mode of the network. It drops what is not asked for here, a tenant's credentials among it.
func onlyLabels(object any) (any, error) {
	tenant, ok := object.(*v1alpha1.Tenant)
	if !ok {
		return object, nil
	}
	return &v1alpha1.Tenant{
		ObjectMeta: metav1.ObjectMeta{Name: tenant.Name, UID: tenant.UID, ResourceVersion: tenant.ResourceVersion, Labels: tenant.Labels},
		Spec:       v1alpha1.TenantSpec{Network: v1alpha1.TenantNetwork{Mode: tenant.Spec.Network.Mode}},
	}, nil
}

// Run fills the view until ctx is done.
func (t *Tenants) Run(ctx context.Context) { t.informer.RunWithContext(ctx) }

// HasSynced reports whether the Tenants that exist are known.
func (t *Tenants) HasSynced() bool { return t.informer.HasSynced() }

// OnChange calls changed whenever the answers may have changed, until ctx is done.
func (t *Tenants) OnChange(ctx context.Context, changed func()) error {
	registration, err := t.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { changed() }, UpdateFunc: func(_, _ any) { changed() }, DeleteFunc: func(any) { changed() },
	})
	if err != nil {
		return fmt.Errorf("watch Tenants: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = t.informer.RemoveEventHandler(registration) })
	return nil
}

// Welcome reports whether a tenant's pods may come to a pool that has this choice; nil is everybody's.
func (t *Tenants) Welcome(choice *v1alpha1.TenantChoice, id names.TenantID) bool {
	if choice == nil {
		return true
	}
	object, ok, err := t.informer.GetStore().GetByKey(string(id))
	if err != nil || !ok {
		return false
	}
	tenant, ok := object.(*v1alpha1.Tenant)
	return ok && choice.Chooses(tenant.Name, tenant.Labels)
}

// NetworkMode gives the mode of a tenant's network; false for a tenant that is not known, which may have any.
func (t *Tenants) NetworkMode(id names.TenantID) (v1alpha1.NetworkMode, bool) {
	object, ok, err := t.informer.GetStore().GetByKey(string(id))
	tenant, isTenant := object.(*v1alpha1.Tenant)
	if err != nil || !ok || !isTenant {
		return "", false
	}
	if tenant.Spec.Network.Mode == "" {
		return v1alpha1.NetworkFlat, true
	}
	return tenant.Spec.Network.Mode, true
}

// Chosen gives the names of the tenants that a choice chooses, in order.
func (t *Tenants) Chosen(choice *v1alpha1.TenantChoice) []string {
	var chosen []string
	for _, object := range t.informer.GetStore().List() {
		if tenant, ok := object.(*v1alpha1.Tenant); ok && choice.Chooses(tenant.Name, tenant.Labels) {
			chosen = append(chosen, tenant.Name)
		}
	}
	slices.Sort(chosen)
	return chosen
}
