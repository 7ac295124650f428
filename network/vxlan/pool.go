package vxlan

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/util/retry"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/vxlan/internal/state"
)

// managedBy is LabelManagedBy on the ConfigMaps.
const managedBy = "network"

func configMaps(pool network.Pool) corev1client.ConfigMapInterface {
	return pool.Client.CoreV1().ConfigMaps(state.Namespace)
}

func labels(pool network.Pool, vpc types.UID) map[string]string {
	return map[string]string{
		names.LabelControl: string(pool.ControlUID), names.LabelPool: pool.Name, names.LabelManagedBy: managedBy, state.LabelVPC: string(vpc),
	}
}

func owned(pool network.Pool, object *corev1.ConfigMap) bool {
	return pool.ControlUID != "" && object.Labels[names.LabelControl] == string(pool.ControlUID) && object.Labels[names.LabelManagedBy] == managedBy
}

func selector(pool network.Pool) string {
	return names.LabelControl + "=" + string(pool.ControlUID) + "," + names.LabelManagedBy + "=" + managedBy + "," + state.LabelVPC
}

// EnsureVPC implements [network.Driver]. A VPC is ready where it is written down: a node makes it when its first pod comes,
// in less time than the pod's container takes, and a pod that comes before its node knows the VPC waits.
func (Driver) EnsureVPC(ctx context.Context, pool network.Pool, vpc *network.VPC) (network.PoolBinding, error) {
	v := vpcState(vpc)
	if err := v.Validate(); err != nil {
		return bound(pool, vpc.UID, fmt.Errorf("%w: %w", network.ErrInvalid, err))
	}
	return bound(pool, vpc.UID, change(ctx, pool, vpc.UID, true, func(data map[string]string) error {
		if before, err := state.ReadVPC(data); err == nil && (before.Tenant != v.Tenant || before.UID != v.UID) {
			return fmt.Errorf("%w: VPC %s is tenant %s's", network.ErrInvalid, v.Name, before.Tenant)
		}
		return state.VPCData(data, v)
	}))
}

// EnsureSubnet implements [network.Driver].
func (Driver) EnsureSubnet(ctx context.Context, pool network.Pool, vpc *network.VPC, subnet *network.Subnet) (network.PoolBinding, error) {
	if subnet.VPC != vpc.UID {
		return bound(pool, vpc.UID, fmt.Errorf("%w: subnet %s is not in VPC %s", network.ErrInvalid, subnet.Name, vpc.Name))
	}
	s := subnetState(subnet)
	return bound(pool, vpc.UID, change(ctx, pool, vpc.UID, false, func(data map[string]string) error {
		v, err := state.ReadVPC(data)
		if err != nil {
			return err
		}
		if before := v.Subnet(s.UID); before != nil && before.VNI != s.VNI {
			return fmt.Errorf("%w: subnet %s changes its VNI", network.ErrInvalid, subnet.Name)
		}
		if err := state.SubnetData(data, s); err != nil {
			return err
		}
		if _, err := state.ReadVPC(data); err != nil {
			return fmt.Errorf("%w: %w", network.ErrInvalid, err)
		}
		return nil
	}))
}

func bound(pool network.Pool, vpc types.UID, err error) (network.PoolBinding, error) {
	if err != nil {
		return network.PoolBinding{Reason: network.ReasonFor(err), Message: err.Error()}, err
	}
	return network.PoolBinding{Ready: true, Reason: network.ReasonReady, Ref: "configmaps/" + state.Namespace + "/" + state.VPCName(vpc)}, nil
}

// change changes the data of a VPC's ConfigMap, which create makes where it is missing. Of those who change parts of it at
// once each has its turn.
func change(ctx context.Context, pool network.Pool, vpc types.UID, create bool, edit func(data map[string]string) error) error {
	return retry.RetryOnConflict(retry.DefaultRetry, func() error { return changeOnce(ctx, pool, vpc, create, edit) })
}

func changeOnce(ctx context.Context, pool network.Pool, vpc types.UID, create bool, edit func(data map[string]string) error) error {
	if pool.ControlUID == "" || !state.ValidUID(vpc) {
		return fmt.Errorf("%w: VPC %q in pool %s", network.ErrInvalid, vpc, pool.Name)
	}
	name := state.VPCName(vpc)
	got, err := configMaps(pool).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) && create:
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels(pool, vpc)}, Data: map[string]string{}}
		if err := edit(object.Data); err != nil {
			return err
		}
		_, err = configMaps(pool).Create(ctx, object, metav1.CreateOptions{})
		return wrap("create", pool, name, err)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%w: VPC %s is not in pool %s yet", network.ErrNotReady, vpc, pool.Name)
	case err != nil:
		return wrap("read", pool, name, err)
	case !owned(pool, got):
		return wrap("write", pool, name, network.ErrForeign)
	}
	data := maps.Clone(got.Data)
	if data == nil {
		data = map[string]string{}
	}
	if err := edit(data); err != nil {
		return err
	}
	if maps.Equal(data, got.Data) {
		return nil
	}
	got = got.DeepCopy()
	got.Data = data
	_, err = configMaps(pool).Update(ctx, got, metav1.UpdateOptions{})
	return wrap("update", pool, name, err)
}

func wrap(act string, pool network.Pool, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s ConfigMap %s/%s in pool %s: %w", act, state.Namespace, name, pool.Name, err)
}

// EnsureEndpoints implements [network.Mesher].
func (Driver) EnsureEndpoints(ctx context.Context, pool network.Pool, vpc *network.VPC, endpoints []network.Endpoint) error {
	if err := network.ValidateEndpoints(vpc, endpoints); err != nil {
		return err
	}
	var all []state.Endpoint
	for _, e := range network.SortedEndpoints(endpoints) {
		all = append(all, state.Endpoint{Pod: e.Pod.UID, Subnet: e.Subnet, IPs: e.IPs, MAC: e.MAC, Node: e.Node, Groups: e.SecurityGroups, Sets: e.Sets, Ports: e.Ports})
	}
	want, err := state.Shards(vpc.UID, all)
	if err != nil {
		return err
	}
	return ensureParts(ctx, pool, vpc.UID, want, state.IsShard)
}

// EnsureServices implements [network.Servicer].
func (Driver) EnsureServices(ctx context.Context, pool network.Pool, vpc *network.VPC, services []network.Service) error {
	if err := network.ValidateServices(services); err != nil {
		return fmt.Errorf("VPC %s: %w", vpc.Name, err)
	}
	want, err := state.ServiceShards(vpc.UID, network.SortedServices(services))
	if err != nil {
		return err
	}
	return ensureParts(ctx, pool, vpc.UID, want, state.IsServiceShard)
}

// ensureParts makes the ConfigMaps of a VPC that are parts of one kind be those that are wanted, by name.
func ensureParts(ctx context.Context, pool network.Pool, vpc types.UID, want map[string]map[string]string, part func(types.UID, string) bool) error {
	there, err := ofVPC(ctx, pool, vpc)
	if err != nil {
		return err
	}
	// Parts must not outlive their VPC.
	if !slices.ContainsFunc(there, func(o corev1.ConfigMap) bool { return o.Name == state.VPCName(vpc) }) {
		return fmt.Errorf("%w: VPC %s is not in pool %s yet", network.ErrNotReady, vpc, pool.Name)
	}
	var problems []error
	for i := range there {
		object := &there[i]
		if !part(vpc, object.Name) {
			continue
		}
		data, wanted := want[object.Name]
		delete(want, object.Name)
		switch {
		case !wanted:
			problems = append(problems, remove(ctx, pool, object))
		case !maps.Equal(data, object.Data):
			object.Data = data
			_, err := configMaps(pool).Update(ctx, object, metav1.UpdateOptions{})
			problems = append(problems, wrap("update", pool, object.Name, err))
		}
	}
	for name, data := range want {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels(pool, vpc)}, Data: data}
		_, err := configMaps(pool).Create(ctx, object, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			err = network.ErrForeign
		}
		problems = append(problems, wrap("create", pool, name, err))
	}
	return errors.Join(problems...)
}

// EnsurePolicies implements [network.Filterer].
func (Driver) EnsurePolicies(ctx context.Context, pool network.Pool, vpc *network.VPC, policies []network.Policy) error {
	for i := range policies {
		if err := policies[i].Validate(); err != nil {
			return fmt.Errorf("VPC %s: %w", vpc.Name, err)
		}
	}
	return change(ctx, pool, vpc.UID, false, func(data map[string]string) error {
		return state.PoliciesData(data, vpc.UID, policies)
	})
}

// ofVPC lists the ConfigMaps of a VPC that are ours, of all VPCs where vpc is empty.
func ofVPC(ctx context.Context, pool network.Pool, vpc types.UID) ([]corev1.ConfigMap, error) {
	if pool.ControlUID == "" {
		return nil, fmt.Errorf("%w: pool %s without an identity", network.ErrInvalid, pool.Name)
	}
	by := selector(pool)
	if vpc != "" {
		by += "=" + string(vpc)
	}
	list, err := configMaps(pool).List(ctx, metav1.ListOptions{LabelSelector: by})
	if err != nil {
		return nil, fmt.Errorf("list ConfigMaps in pool %s: %w", pool.Name, err)
	}
	return list.Items, nil
}

func remove(ctx context.Context, pool network.Pool, object *corev1.ConfigMap) error {
	err := configMaps(pool).Delete(ctx, object.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &object.UID, ResourceVersion: &object.ResourceVersion},
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return wrap("delete", pool, object.Name, err)
}

// DeleteSubnet implements [network.Driver].
func (Driver) DeleteSubnet(ctx context.Context, pool network.Pool, subnet *network.Subnet) error {
	pods, err := pool.Client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: subnetLabel + "=" + string(subnet.UID), Limit: 1})
	if err != nil {
		return fmt.Errorf("look for pods of subnet %s in pool %s: %w", subnet.Name, pool.Name, err)
	}
	if len(pods.Items) > 0 {
		return fmt.Errorf("%w: subnet %s has pods in pool %s, such as %s/%s", network.ErrInUse, subnet.Name, pool.Name, pods.Items[0].Namespace, pods.Items[0].Name)
	}
	err = change(ctx, pool, subnet.VPC, false, func(data map[string]string) error {
		delete(data, state.SubnetKey(subnet.UID))
		return nil
	})
	if errors.Is(err, network.ErrNotReady) {
		return nil
	}
	return err
}

// DeleteVPC implements [network.Driver].
func (Driver) DeleteVPC(ctx context.Context, pool network.Pool, vpc *network.VPC) error {
	objects, err := ofVPC(ctx, pool, vpc.UID)
	if err != nil {
		return err
	}
	for i := range objects {
		for key := range objects[i].Data {
			if uid, ok := state.SubnetOfKey(key); ok {
				return fmt.Errorf("%w: VPC %s has subnet %s in pool %s", network.ErrInUse, vpc.Name, uid, pool.Name)
			}
		}
	}
	var problems []error
	for i := range objects {
		problems = append(problems, remove(ctx, pool, &objects[i]))
	}
	return errors.Join(problems...)
}

// Sweep implements [network.Driver]: VPCs and subnets that nobody knows any more go, and fences with their namespaces.
func (d Driver) Sweep(ctx context.Context, pool network.Pool, live network.LiveSet) error {
	problems := []error{d.Driver.Sweep(ctx, pool, live)}
	objects, err := ofVPC(ctx, pool, "")
	if err != nil {
		return errors.Join(append(problems, err)...)
	}
	for i := range objects {
		object := &objects[i]
		if !owned(pool, object) || !object.CreationTimestamp.Time.Before(live.AsOf) {
			continue
		}
		if !live.VPCs[types.UID(object.Labels[state.LabelVPC])] {
			problems = append(problems, remove(ctx, pool, object))
			continue
		}
		// A subnet is written down later than its VPC: how old it is cannot be seen, so it goes only when the VPC was not
		// written to since the set was read.
		stale := false
		for key := range object.Data {
			if uid, ok := state.SubnetOfKey(key); ok && !live.Subnets[uid] && lastWritten(object).Time.Before(live.AsOf) {
				delete(object.Data, key)
				stale = true
			}
		}
		if stale {
			_, err := configMaps(pool).Update(ctx, object, metav1.UpdateOptions{})
			if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
				err = nil
			}
			problems = append(problems, wrap("update", pool, object.Name, err))
		}
	}
	return errors.Join(problems...)
}

// lastWritten is when somebody last wrote an object, as far as it tells.
func lastWritten(object *corev1.ConfigMap) metav1.Time {
	last := object.CreationTimestamp
	for _, entry := range object.ManagedFields {
		if entry.Time != nil && entry.Time.After(last.Time) {
			last = *entry.Time
		}
	}
	return last
}
