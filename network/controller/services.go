package controller

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/services"
)

// What pods of a VPC are led to: the tenant's Services, and where they lead by its EndpointSlices. Whatever changes of that,
// pools are told anew.

// onServices watches what pods are led to.
func (f *fabric) onServices() error {
	return errors.Join(
		on(f.services, func(o *corev1.Service) { f.servicesChanged(o.Namespace) }),
		on(f.slices, func(o *discoveryv1.EndpointSlice) { f.servicesChanged(o.Namespace) }),
	)
}

// servicesChanged has pools told anew of the Services of a namespace's tenant.
func (f *fabric) servicesChanged(namespace string) {
	if vpc := f.vpcOf(namespace); vpc != nil {
		f.leads.AddAfter(vpc.UID, meshDelay)
	}
}

// visitServices tells every pool of a VPC of its tenant's Services, where the pool's driver can lead pods to them.
func (f *fabric) visitServices(ctx context.Context, uid types.UID) error {
	vpc := findUID[v1alpha1.VPC](f.vpcs, uid)
	if vpc == nil || vpc.DeletionTimestamp != nil {
		return nil
	}
	v, err := network.VPCOf(vpc, f.api)
	if err != nil {
		return nil // its own visit tells
	}
	compiled := services.Compile(v.Tenant, ofTenant[corev1.Service](f.services, v.Tenant), ofTenant[discoveryv1.EndpointSlice](f.slices, v.Tenant))
	var failed []error
	for _, binding := range vpc.Status.Pools {
		if !binding.Ready {
			continue
		}
		_, err := f.inPool(ctx, binding.Pool, func(ctx context.Context, pool network.Pool, driver network.Driver) (network.PoolBinding, error) {
			servicer, ok := driver.(network.Servicer)
			if !ok || !driver.Capabilities().Services {
				return network.PoolBinding{}, nil
			}
			return network.PoolBinding{}, f.once(toldKey{vpc.UID, pool.Name, "Services"}, compiled, func() error {
				return servicer.EnsureServices(ctx, pool, v, compiled)
			})
		})
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}
