package provider

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/vk-provider/internal/podspec"
)

const eventMisplaced = string(network.ReasonBindingMismatch)

// inVPC says what a pod with a place in a VPC is told: its tenant's API is at the address that every VPC has for it, where the
// driver leads that somewhere, and otherwise where everybody else finds it; and names are asked for where every VPC has that,
// where the driver answers for them.
func inVPC(plan network.PodBinding, can network.Capabilities, gateway podspec.Gateway) (podspec.Gateway, *podspec.InVPC) {
	api, resolver := network.APIAddress, network.ResolverAddress
	if len(plan.IPs) > 0 && plan.IPs[0].Is6() {
		api, resolver = network.APIAddress6, network.ResolverAddress6
	}
	if can.LeadsAPI {
		gateway = podspec.Gateway{Host: api, Port: strconv.Itoa(network.APIPort)}
	}
	seen := &podspec.InVPC{Hidden: !can.PodIPIsTenantIP}
	for _, ip := range plan.IPs {
		seen.IPs = append(seen.IPs, ip.String())
	}
	if can.Services {
		seen.Resolver = resolver
	}
	return gateway, seen
}

// misplaced reports a pool pod that is not where it was planned to be in its tenant's VPC. In a flat network there is no
// plan to compare with, and nothing but the addresses to withhold.
func misplaced(at podspec.Placement, binder network.Binder, poolPod *corev1.Pod) error {
	if at.VPC == nil {
		return nil
	}
	want, err := network.ParseBinding(at.Network.Annotations[network.BindingAnnotation])
	if err != nil {
		return err
	}
	has, err := network.ParseBinding(poolPod.Annotations[network.BindingAnnotation])
	if err != nil {
		return err
	}
	if has != want {
		return fmt.Errorf("%w: bound to %s, not to %s", network.ErrBindingMismatch, has, want)
	}
	seen, err := binder.ObservePod(poolPod)
	if err != nil || !seen.Ready {
		return err
	}
	var got []string
	for _, ip := range seen.IPs {
		got = append(got, ip.String())
	}
	// A pool may name another family first.
	if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(at.VPC.IPs))) {
		return fmt.Errorf("%w: has %v, not %v", network.ErrBindingMismatch, got, at.VPC.IPs)
	}
	return nil
}

// removeMisplaced ends a pool pod that is in another network than planned: nothing of it is shown to the tenant, and it
// must not go on running there. Whoever owns the pod makes another.
func (w *worker) removeMisplaced(ctx context.Context, s state, cause error) error {
	w.warn(s.control, eventMisplaced, "The pod is not in the network that it was bound to; it is removed.")
	boot.Logger(ctx).Error("pool pod is not in its network and is removed", "pool", w.pool(), "controlNamespace", s.control.Namespace, "name", s.control.Name, "error", cause)
	return w.stop(ctx, s.pool, forcedGrace)
}
