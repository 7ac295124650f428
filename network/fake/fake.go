// Package fake is a network driver in memory, for the tests of everybody who uses one. It keeps every rule of
// network.Driver (network/drivertest says so), knows VPCs and subnets, records what it was asked, and fails on request.
//
// It must never be listed in network/drivers. Start at [New].
package fake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network"
)

// Name is the driver's name.
const Name = "fake"

// Call is one recorded call of a method that writes.
type Call struct {
	Method string
	Pool   string
	// Object is the namespace, or the UID of the VPC, subnet or pod.
	Object string
}

// Driver is a driver in memory. Make one with [New].
type Driver struct {
	// Fail, when set, is asked before each method that writes; its error is returned. Set it before the driver is used.
	Fail func(Call) error
	// Unfiltered makes it a driver without NetworkPolicies.
	Unfiltered atomic.Bool

	mu    sync.Mutex // guards what follows
	calls []Call
	pools map[string]*poolState
	now   func() time.Time
}

type poolState struct {
	namespaces map[names.ControlNamespace]made[network.Namespace]
	vpcs       map[types.UID]made[network.VPC]
	subnets    map[types.UID]made[network.Subnet]
	endpoints  map[types.UID][]network.Endpoint // by VPC
	policies   map[types.UID][]network.Policy   // by VPC
	services   map[types.UID][]network.Service  // by VPC
}

type made[T any] struct {
	value T
	at    time.Time
}

var (
	_ network.Driver   = (*Driver)(nil)
	_ network.Mesher   = (*Driver)(nil)
	_ network.Filterer = (*Driver)(nil)
	_ network.Servicer = (*Driver)(nil)
)

// New makes an empty driver.
func New() *Driver { return &Driver{pools: map[string]*poolState{}, now: time.Now} }

// Calls gives what was asked so far, in order.
func (d *Driver) Calls() []Call {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls)
}

// Namespaces gives the namespaces that are ready in a pool, in order.
func (d *Driver) Namespaces(pool string) []names.ControlNamespace {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []names.ControlNamespace
	for name := range d.state(pool).namespaces {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// Dump spells everything that is in a pool, for comparisons.
func (d *Driver) Dump(pool string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []string
	s := d.state(pool)
	for name, object := range s.namespaces {
		list = append(list, fmt.Sprintf("namespace %s %+v", name, object))
	}
	for uid, object := range s.vpcs {
		list = append(list, fmt.Sprintf("vpc %s %+v", uid, object))
	}
	for uid, object := range s.subnets {
		list = append(list, fmt.Sprintf("subnet %s %+v", uid, object))
	}
	for uid, endpoints := range s.endpoints {
		list = append(list, fmt.Sprintf("endpoints of %s %+v", uid, endpoints))
	}
	for uid, policies := range s.policies {
		list = append(list, fmt.Sprintf("policies of %s %+v", uid, policies))
	}
	for uid, services := range s.services {
		list = append(list, fmt.Sprintf("services of %s %+v", uid, services))
	}
	slices.Sort(list)
	return list
}

// Services gives what a pool leads a VPC's pods to, in order.
func (d *Driver) Services(pool string, vpc types.UID) []network.Service {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.state(pool).services[vpc])
}

// Policies gives what a pool holds a VPC's pods to.
func (d *Driver) Policies(pool string, vpc types.UID) []network.Policy {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.state(pool).policies[vpc])
}

// Endpoints gives what a pool knows of a VPC's pods, in order.
func (d *Driver) Endpoints(pool string, vpc types.UID) []network.Endpoint {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.state(pool).endpoints[vpc])
}

// Name implements [network.Driver].
func (*Driver) Name() string { return Name }

// Capabilities implements [network.Driver].
func (d *Driver) Capabilities() network.Capabilities {
	return network.Capabilities{VPC: true, OverlappingCIDRs: true, CrossPool: true, ExplicitIP: true, NetworkPolicies: !d.Unfiltered.Load(), Services: true, Enforced: true, DualStack: true, PodIPIsTenantIP: true, LeadsAPI: true, Probes: network.ProbesAll}
}

const addressAnnotation = "fake.network.vivarium.io/addresses"

// BindPod implements [network.Binder].
func (*Driver) BindPod(in network.PodBinding) (network.PodMutation, error) {
	if err := in.Validate(); err != nil {
		return network.PodMutation{}, err
	}
	if len(in.SecurityGroups) > 0 {
		return network.PodMutation{}, fmt.Errorf("%w: security groups", network.ErrCapability)
	}
	if !in.Bandwidth.None() {
		return network.PodMutation{}, fmt.Errorf("%w: bandwidth", network.ErrCapability)
	}
	binding := network.Binding{Tenant: in.Tenant, Driver: Name}
	annotations := map[string]string{}
	if in.VPC != nil {
		binding.VPC, binding.Subnet = in.VPC.UID, in.Subnet.UID
		var addresses []string
		for _, ip := range in.IPs {
			addresses = append(addresses, ip.String())
		}
		annotations[addressAnnotation] = strings.Join(addresses, ",")
	}
	annotations[network.BindingAnnotation] = binding.String()
	return network.PodMutation{Annotations: annotations}, nil
}

// ObservePod implements [network.Binder].
func (*Driver) ObservePod(poolPod *corev1.Pod) (network.PodNetworkStatus, error) {
	if _, err := network.BindingOf(poolPod, Name); err != nil {
		return network.PodNetworkStatus{}, err
	}
	status, err := network.ObservePodIPs(poolPod)
	if want := poolPod.Annotations[addressAnnotation]; err == nil && status.Ready && want != "" {
		var got []string
		for _, ip := range status.IPs {
			got = append(got, ip.String())
		}
		if strings.Join(got, ",") != want {
			return network.PodNetworkStatus{}, fmt.Errorf("%w: has %v, not %s", network.ErrBindingMismatch, got, want)
		}
	}
	return status, err
}

// OwnedKeys implements [network.Binder].
func (*Driver) OwnedKeys(key string) bool {
	return key == network.BindingAnnotation || key == addressAnnotation
}

// EnsureNamespace implements [network.Driver].
func (d *Driver) EnsureNamespace(ctx context.Context, pool network.Pool, namespace network.Namespace) error {
	if owner, _, ok := names.SplitNamespace(namespace.Name); !ok || owner != namespace.Tenant {
		return fmt.Errorf("%w: namespace %s is not tenant %s's", network.ErrInvalid, namespace.Name, namespace.Tenant)
	}
	return d.write(ctx, Call{"EnsureNamespace", pool.Name, string(namespace.Name)}, func(s *poolState) error {
		keep(s.namespaces, namespace.Name, namespace, d.now())
		return nil
	})
}

// EnsureVPC implements [network.Driver].
func (d *Driver) EnsureVPC(ctx context.Context, pool network.Pool, vpc *network.VPC) (network.PoolBinding, error) {
	return bound("vpcs/"+vpc.Name, d.write(ctx, Call{"EnsureVPC", pool.Name, string(vpc.UID)}, func(s *poolState) error {
		if old, ok := s.vpcs[vpc.UID]; ok && old.value.Tenant != vpc.Tenant {
			return fmt.Errorf("%w: VPC %s changes its tenant", network.ErrInvalid, vpc.Name)
		}
		keep(s.vpcs, vpc.UID, *vpc, d.now())
		return nil
	}))
}

// EnsureSubnet implements [network.Driver].
func (d *Driver) EnsureSubnet(ctx context.Context, pool network.Pool, vpc *network.VPC, subnet *network.Subnet) (network.PoolBinding, error) {
	return bound("subnets/"+subnet.Name, d.write(ctx, Call{"EnsureSubnet", pool.Name, string(subnet.UID)}, func(s *poolState) error {
		if subnet.VPC != vpc.UID {
			return fmt.Errorf("%w: subnet %s is not in VPC %s", network.ErrInvalid, subnet.Name, vpc.Name)
		}
		if _, ok := s.vpcs[vpc.UID]; !ok {
			return fmt.Errorf("%w: VPC %s is not in pool %s yet", network.ErrNotReady, vpc.Name, pool.Name)
		}
		if old, ok := s.subnets[subnet.UID]; ok && !slices.Equal(old.value.CIDRs, subnet.CIDRs) {
			return fmt.Errorf("%w: subnet %s changes its addresses", network.ErrInvalid, subnet.Name)
		}
		keep(s.subnets, subnet.UID, *subnet, d.now())
		return nil
	}))
}

// EnsureEndpoints implements [network.Mesher].
func (d *Driver) EnsureEndpoints(ctx context.Context, pool network.Pool, vpc *network.VPC, endpoints []network.Endpoint) error {
	return d.write(ctx, Call{"EnsureEndpoints", pool.Name, string(vpc.UID)}, func(s *poolState) error {
		if err := network.ValidateEndpoints(vpc, endpoints); err != nil {
			return err
		}
		if _, ok := s.vpcs[vpc.UID]; !ok {
			return fmt.Errorf("%w: VPC %s is not in pool %s yet", network.ErrNotReady, vpc.Name, pool.Name)
		}
		s.endpoints[vpc.UID] = network.SortedEndpoints(endpoints)
		if len(endpoints) == 0 {
			delete(s.endpoints, vpc.UID)
		}
		return nil
	})
}

// EnsurePolicies implements [network.Filterer].
func (d *Driver) EnsurePolicies(ctx context.Context, pool network.Pool, vpc *network.VPC, policies []network.Policy) error {
	return d.write(ctx, Call{"EnsurePolicies", pool.Name, string(vpc.UID)}, func(s *poolState) error {
		for i := range policies {
			if err := policies[i].Validate(); err != nil {
				return err
			}
		}
		if _, ok := s.vpcs[vpc.UID]; !ok {
			return fmt.Errorf("%w: VPC %s is not in pool %s yet", network.ErrNotReady, vpc.Name, pool.Name)
		}
		s.policies[vpc.UID] = slices.Clone(policies)
		if len(policies) == 0 {
			delete(s.policies, vpc.UID)
		}
		return nil
	})
}

// EnsureServices implements [network.Servicer].
func (d *Driver) EnsureServices(ctx context.Context, pool network.Pool, vpc *network.VPC, services []network.Service) error {
	return d.write(ctx, Call{"EnsureServices", pool.Name, string(vpc.UID)}, func(s *poolState) error {
		if err := network.ValidateServices(services); err != nil {
			return err
		}
		if _, ok := s.vpcs[vpc.UID]; !ok {
			return fmt.Errorf("%w: VPC %s is not in pool %s yet", network.ErrNotReady, vpc.Name, pool.Name)
		}
		s.services[vpc.UID] = network.SortedServices(services)
		if len(services) == 0 {
			delete(s.services, vpc.UID)
		}
		return nil
	})
}

func bound(ref string, err error) (network.PoolBinding, error) {
	if err != nil {
		return network.PoolBinding{Reason: network.ReasonFor(err), Message: err.Error()}, err
	}
	return network.PoolBinding{Ready: true, Reason: network.ReasonReady, Ref: ref}, nil
}

// ReleasePod implements [network.Driver].
func (d *Driver) ReleasePod(ctx context.Context, pool network.Pool, pod network.PodKey) error {
	return d.write(ctx, Call{"ReleasePod", pool.Name, string(pod.UID)}, func(*poolState) error { return nil })
}

// DeleteSubnet implements [network.Driver].
func (d *Driver) DeleteSubnet(ctx context.Context, pool network.Pool, subnet *network.Subnet) error {
	return d.write(ctx, Call{"DeleteSubnet", pool.Name, string(subnet.UID)}, func(s *poolState) error {
		delete(s.subnets, subnet.UID)
		return nil
	})
}

// DeleteVPC implements [network.Driver].
func (d *Driver) DeleteVPC(ctx context.Context, pool network.Pool, vpc *network.VPC) error {
	return d.write(ctx, Call{"DeleteVPC", pool.Name, string(vpc.UID)}, func(s *poolState) error {
		for _, subnet := range s.subnets {
			if subnet.value.VPC == vpc.UID {
				return fmt.Errorf("%w: VPC %s has subnet %s", network.ErrInUse, vpc.Name, subnet.value.Name)
			}
		}
		delete(s.vpcs, vpc.UID)
		delete(s.endpoints, vpc.UID)
		delete(s.policies, vpc.UID)
		delete(s.services, vpc.UID)
		return nil
	})
}

// Sweep implements [network.Driver].
func (d *Driver) Sweep(ctx context.Context, pool network.Pool, live network.LiveSet) error {
	return d.write(ctx, Call{"Sweep", pool.Name, ""}, func(s *poolState) error {
		sweep(s.subnets, live.AsOf, func(uid types.UID) bool { return live.Subnets[uid] })
		sweep(s.vpcs, live.AsOf, func(uid types.UID) bool { return live.VPCs[uid] })
		maps.DeleteFunc(s.endpoints, func(uid types.UID, _ []network.Endpoint) bool { _, there := s.vpcs[uid]; return !there })
		maps.DeleteFunc(s.services, func(uid types.UID, _ []network.Service) bool { _, there := s.vpcs[uid]; return !there })
		maps.DeleteFunc(s.policies, func(uid types.UID, _ []network.Policy) bool { _, there := s.vpcs[uid]; return !there })
		sweep(s.namespaces, live.AsOf, func(name names.ControlNamespace) bool { _, ok := live.Namespaces[name]; return ok })
		return nil
	})
}

// write records the call and runs it on the pool's state.
func (d *Driver) write(ctx context.Context, call Call, do func(*poolState) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s in pool %s: %w", call.Method, call.Pool, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, call)
	if d.Fail != nil {
		if err := d.Fail(call); err != nil {
			return err
		}
	}
	if call.Pool == "" {
		return errors.New("the pool has no name")
	}
	return do(d.state(call.Pool))
}

func (d *Driver) state(pool string) *poolState {
	s := d.pools[pool]
	if s == nil {
		s = &poolState{
			namespaces: map[names.ControlNamespace]made[network.Namespace]{},
			vpcs:       map[types.UID]made[network.VPC]{},
			subnets:    map[types.UID]made[network.Subnet]{},
			endpoints:  map[types.UID][]network.Endpoint{},
			policies:   map[types.UID][]network.Policy{},
			services:   map[types.UID][]network.Service{},
		}
		d.pools[pool] = s
	}
	return s
}

func keep[K comparable, T any](into map[K]made[T], key K, value T, now time.Time) {
	if old, ok := into[key]; ok {
		now = old.at
	}
	into[key] = made[T]{value, now}
}

func sweep[K comparable, T any](from map[K]made[T], asOf time.Time, alive func(K) bool) {
	for key, object := range from {
		if !alive(key) && object.at.Before(asOf) {
			delete(from, key)
		}
	}
}
