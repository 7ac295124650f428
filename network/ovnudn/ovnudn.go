// Package ovnudn is the driver for pools whose network plugin is OVN-Kubernetes with user-defined networks: a VPC is one
// ClusterUserDefinedNetwork of layer 2, the primary network of all namespaces that its tenant has in the pool, and a subnet
// is a part of that network's range. README.md says what a pool needs and what the driver cannot do.
//
// The package must never touch an object that does not carry the platform's labels, nor leave the choice of an address to
// OVN-Kubernetes. It knows it by its custom resources alone and imports nothing of it. Start at [Driver]; objects.go says
// what is written, pod.go binds.
package ovnudn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/flat"
	"vivarium.io/vivarium/network/internal/custom"
)

// Name is the driver's name.
const Name = v1alpha1.DriverOVNUDN

// Driver is the driver. It has no state; the zero value is ready.
type Driver struct{}

var (
	_ network.Driver  = Driver{}
	_ network.Watcher = Driver{}
)

// Name implements [network.Driver].
func (Driver) Name() string { return Name }

// Capabilities implements [network.Driver]. The pool knows a pod by an address of its default network, which only the node
// may use: so every probe works, whatever addresses pods have in their own networks.
func (Driver) Capabilities() network.Capabilities {
	return network.Capabilities{VPC: true, OverlappingCIDRs: true, ExplicitIP: true, DualStack: true, Probes: network.ProbesAll}
}

// EnsureNamespace implements [network.Driver]. A namespace that was made without OVN-Kubernetes' label cannot get it any more,
// and its pods would be in the pool's default network.
func (Driver) EnsureNamespace(ctx context.Context, pool network.Pool, namespace network.Namespace) error {
	if err := (flat.Driver{}).EnsureNamespace(ctx, pool, namespace); err != nil {
		return err
	}
	got, err := pool.Client.CoreV1().Namespaces().Get(ctx, string(namespace.Name), metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read namespace %s in pool %s: %w", namespace.Name, pool.Name, err)
	}
	if _, ok := got.Labels[netkeys.UserDefinedNetwork]; !ok {
		return fmt.Errorf("%w: namespace %s in pool %s was made without label %s, before the pool had this driver; it has to be made anew",
			network.ErrInvalid, namespace.Name, pool.Name, netkeys.UserDefinedNetwork)
	}
	return nil
}

// WatchNamespaces implements [network.Watcher].
func (Driver) WatchNamespaces(ctx context.Context, pool network.Pool, changed func(names.ControlNamespace)) error {
	return flat.Driver{}.WatchNamespaces(ctx, pool, changed)
}

// EnsureVPC implements [network.Driver].
func (Driver) EnsureVPC(ctx context.Context, pool network.Pool, vpc *network.VPC) (network.PoolBinding, error) {
	return custom.Bound(networks.Resource()+"/"+networkName(vpc), network.ReasonVPCNotReady, ensureVPC(ctx, pool, vpc))
}

func ensureVPC(ctx context.Context, pool network.Pool, vpc *network.VPC) error {
	if err := check(pool, vpc); err != nil {
		return err
	}
	if err := choosesAddresses(ctx, pool); err != nil {
		return err
	}
	if err := onlyOne(ctx, pool, vpc); err != nil {
		return err
	}
	want := userDefinedNetwork(pool, vpc)
	if err := custom.Ensure(ctx, pool, want); err != nil {
		return err
	}
	return custom.Settled(ctx, pool, []custom.Object{want})
}

// choosesAddresses refuses a pool whose OVN-Kubernetes takes no address from us. One that does keeps an attachment of its
// default network to say it with.
func choosesAddresses(ctx context.Context, pool network.Pool) error {
	_, err := attachments.In(pool).Get(ctx, defaultNetwork, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%w: pool %s has no NetworkAttachmentDefinition %s/%s: addresses can be chosen where OVN-Kubernetes runs with --enable-preconfigured-udn-addresses, which makes it",
			network.ErrCapability, pool.Name, attachments.Namespace, defaultNetwork)
	case err != nil:
		return fmt.Errorf("read NetworkAttachmentDefinition %s/%s in pool %s: %w", attachments.Namespace, defaultNetwork, pool.Name, err)
	}
	return nil
}

// onlyOne refuses a tenant's second VPC: a namespace has one network, and all namespaces of the tenant have this one.
func onlyOne(ctx context.Context, pool network.Pool, vpc *network.VPC) error {
	list, err := custom.Ours(ctx, pool, networks, "")
	if err != nil {
		return err
	}
	for i := range list {
		labels := list[i].GetLabels()
		if labels[names.LabelTenant] != string(vpc.Tenant) || labels[custom.LabelVPC] == string(vpc.UID) {
			continue
		}
		kind := network.ErrCapability
		if list[i].GetDeletionTimestamp() != nil {
			kind = network.ErrNotReady
		}
		return fmt.Errorf("%w: tenant %s has network %s in pool %s, and its namespaces can have one", kind, vpc.Tenant, list[i].GetName(), pool.Name)
	}
	return nil
}

// EnsureSubnet implements [network.Driver]: the VPC's network is told of the subnet, so that it stays while there is one.
func (Driver) EnsureSubnet(ctx context.Context, pool network.Pool, vpc *network.VPC, s *network.Subnet) (network.PoolBinding, error) {
	return custom.Bound(networks.Resource()+"/"+networkName(vpc), network.ReasonSubnetNotReady, ensureSubnet(ctx, pool, vpc, s))
}

func ensureSubnet(ctx context.Context, pool network.Pool, vpc *network.VPC, s *network.Subnet) error {
	if err := errors.Join(check(pool, vpc), checkSubnet(vpc, s)); err != nil {
		return err
	}
	got, err := networks.In(pool).Get(ctx, networkName(vpc), metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%w: VPC %s is not in pool %s yet", network.ErrNotReady, vpc.Name, pool.Name)
	case err != nil:
		return fmt.Errorf("read %s %s in pool %s: %w", networks.Name, networkName(vpc), pool.Name, err)
	case !custom.Owned(pool, got, vpc.UID):
		return fmt.Errorf("%s %s in pool %s: %w", networks.Name, networkName(vpc), pool.Name, network.ErrForeign)
	}
	if ready, said := networks.Ready(got); !ready {
		return fmt.Errorf("%w: %s %s in pool %s: %s", network.ErrNotReady, networks.Name, got.GetName(), pool.Name, said)
	}
	key, value := subnetKey(s.UID), strings.Join(words(s.CIDRs), ",")
	switch before, known := got.GetAnnotations()[key]; {
	case known && before != value:
		return fmt.Errorf("%w: subnet %s is %s in pool %s and cannot become %s", network.ErrInvalid, s.Name, before, pool.Name, value)
	case known:
		return nil
	}
	return annotate(ctx, pool, got, func(all map[string]string) { all[key] = value })
}

// annotate changes the annotations of a network that is ours, as it was seen.
func annotate(ctx context.Context, pool network.Pool, o *unstructured.Unstructured, change func(map[string]string)) error {
	o = o.DeepCopy()
	all := maps.Clone(o.GetAnnotations())
	if all == nil {
		all = map[string]string{}
	}
	change(all)
	o.SetAnnotations(all)
	if _, err := networks.In(pool).Update(ctx, o, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update %s %s in pool %s: %w", networks.Name, o.GetName(), pool.Name, err)
	}
	return nil
}

// ReleasePod implements [network.Driver]: OVN-Kubernetes gives back what a pod held when the pod is gone.
func (Driver) ReleasePod(context.Context, network.Pool, network.PodKey) error { return nil }

// DeleteSubnet implements [network.Driver].
func (Driver) DeleteSubnet(ctx context.Context, pool network.Pool, s *network.Subnet) error {
	list, err := known(ctx, pool, "")
	if err != nil {
		return err
	}
	for i := range list {
		if _, there := list[i].GetAnnotations()[subnetKey(s.UID)]; !there {
			continue
		}
		if err := empty(ctx, pool, s.UID); err != nil {
			return err
		}
		return annotate(ctx, pool, &list[i], func(all map[string]string) { delete(all, subnetKey(s.UID)) })
	}
	return nil
}

// known lists the networks of ours, of one VPC or of all.
func known(ctx context.Context, pool network.Pool, vpc types.UID) ([]unstructured.Unstructured, error) {
	if pool.ControlUID == "" || pool.Dynamic == nil {
		return nil, fmt.Errorf("%w: pool %s has no identity or no client", network.ErrInvalid, pool.Name)
	}
	return custom.Ours(ctx, pool, networks, vpc)
}

// empty refuses while a pod is in a subnet.
func empty(ctx context.Context, pool network.Pool, subnet types.UID) error {
	pods, err := pool.Client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: labelSubnet + "=" + string(subnet), Limit: 1})
	if err != nil {
		return fmt.Errorf("look for pods of subnet %s in pool %s: %w", subnet, pool.Name, err)
	}
	if len(pods.Items) > 0 {
		return fmt.Errorf("%w: subnet %s has pods in pool %s, such as %s/%s", network.ErrInUse, subnet, pool.Name, pods.Items[0].Namespace, pods.Items[0].Name)
	}
	return nil
}

// DeleteVPC implements [network.Driver].
func (Driver) DeleteVPC(ctx context.Context, pool network.Pool, vpc *network.VPC) error {
	list, err := known(ctx, pool, vpc.UID)
	if err != nil {
		return err
	}
	for i := range list {
		if own := subnetsOf(&list[i]); len(own) > 0 {
			return fmt.Errorf("%w: VPC %s has subnet %s in pool %s", network.ErrInUse, vpc.Name, own[0], pool.Name)
		}
	}
	return remove(ctx, pool, list)
}

func remove(ctx context.Context, pool network.Pool, list []unstructured.Unstructured) error {
	var problems []error
	for i := range list {
		err := custom.Remove(ctx, pool, networks, &list[i])
		if err == nil {
			err = custom.Gone(ctx, pool, networks, &list[i])
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// Sweep implements [network.Driver].
func (Driver) Sweep(ctx context.Context, pool network.Pool, live network.LiveSet) error {
	problems := []error{flat.Driver{}.Sweep(ctx, pool, live)}
	list, err := known(ctx, pool, "")
	if err != nil {
		return errors.Join(append(problems, err)...)
	}
	for i := range list {
		o := &list[i]
		alive := live.VPCs[types.UID(o.GetLabels()[custom.LabelVPC])]
		// How old a subnet is cannot be seen: of a VPC that lives, one goes only when nobody wrote to it since the set was read.
		old := o.GetCreationTimestamp().Time.Before(live.AsOf) && (!alive || lastWritten(o).Before(live.AsOf))
		if !old {
			continue
		}
		stale, used := []types.UID{}, false
		for _, uid := range subnetsOf(o) {
			if alive && live.Subnets[uid] {
				continue
			}
			if err := empty(ctx, pool, uid); err != nil {
				problems, used = append(problems, err), true
				continue
			}
			stale = append(stale, uid)
		}
		switch {
		case !alive && !used:
			problems = append(problems, remove(ctx, pool, list[i:i+1]))
		case alive && len(stale) > 0:
			problems = append(problems, annotate(ctx, pool, o, func(all map[string]string) {
				for _, uid := range stale {
					delete(all, subnetKey(uid))
				}
			}))
		}
	}
	return errors.Join(problems...)
}

// lastWritten is when somebody last wrote an object, as far as it tells.
func lastWritten(o *unstructured.Unstructured) time.Time {
	last := o.GetCreationTimestamp().Time
	for _, entry := range o.GetManagedFields() {
		if entry.Time != nil && entry.Time.After(last) {
			last = entry.Time.Time
		}
	}
	return last
}

// subnetsOf gives the UIDs of the subnets that a network was told of, in order.
func subnetsOf(o *unstructured.Unstructured) []types.UID {
	var all []types.UID
	for _, key := range slices.Sorted(maps.Keys(o.GetAnnotations())) {
		if uid, ok := strings.CutPrefix(key, subnetDomain); ok {
			all = append(all, types.UID(uid))
		}
	}
	return all
}
