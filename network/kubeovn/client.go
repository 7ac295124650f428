package kubeovn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/network"
)

const (
	// managedBy is LabelManagedBy on what the driver makes.
	managedBy = "network"
	// labelVPC carries the UID of the VPC that an object belongs to, also where the object stands for a subnet.
	labelVPC = netkeys.Domain + "/vpc-uid"
	// labelExternal is an operator's word that VPCs go out by this Subnet of the pool.
	labelExternal = netkeys.Domain + "/external"
	// namespace is where a pool keeps what Kube-OVN wants a namespace for: gateways, and the Services of load balancers.
	namespace = "vivarium-kube-ovn"
	// pollInterval is how often Kube-OVN's progress is asked for.
	pollInterval = 100 * time.Millisecond
)

// kind is one of Kube-OVN's kinds.
type kind struct {
	name, plural string
	namespaced   bool
	// ready reports whether Kube-OVN has done what the object wants, and what it says where not.
	ready func(*unstructured.Unstructured) (bool, string)
}

var group = schema.GroupVersion{Group: "kubeovn.io", Version: "v1"}

var (
	vpcs      = kind{"Vpc", "vpcs", false, truth("standby")}
	subnets   = kind{"Subnet", "subnets", false, subnetReady}
	groups    = kind{"SecurityGroup", "security-groups", false, truth("ingressLastSyncSuccess", "egressLastSyncSuccess")}
	gateways  = kind{"VpcEgressGateway", "vpc-egress-gateways", true, truth("ready")}
	balancers = kind{"SwitchLBRule", "switch-lb-rules", false, func(o *unstructured.Unstructured) (bool, string) {
		service, _, _ := unstructured.NestedString(o.Object, "status", "service")
		return service != "", "it has no Service yet"
	}}
	// inOrder is the order in which what belongs to a VPC is removed: users before what they use.
	inOrder = []kind{balancers, gateways, subnets, vpcs, groups}
)

func (k kind) resource() string { return k.plural + "." + group.Group }

func (k kind) in(pool network.Pool) dynamic.ResourceInterface {
	client := pool.Dynamic.Resource(group.WithResource(k.plural))
	if k.namespaced {
		return client.Namespace(namespace)
	}
	return client
}

// truth is the readiness of a kind that says so in fields of its status.
func truth(fields ...string) func(*unstructured.Unstructured) (bool, string) {
	return func(o *unstructured.Unstructured) (bool, string) {
		for _, field := range fields {
			if yes, _, _ := unstructured.NestedBool(o.Object, "status", field); !yes {
				return false, "status." + field + " is not true"
			}
		}
		return true, ""
	}
}

func subnetReady(o *unstructured.Unstructured) (bool, string) {
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	met := map[string]bool{}
	said := "it has no condition Ready yet"
	for _, one := range conditions {
		condition, _ := one.(map[string]any)
		name, _ := condition["type"].(string)
		met[name] = condition["status"] == "True"
		if (name == "Ready" || name == "Validated") && !met[name] {
			said = fmt.Sprintf("%s: %v: %v", name, condition["reason"], condition["message"])
		}
	}
	return met["Ready"] && met["Validated"], said
}

func (w object) labels(pool network.Pool) map[string]string {
	return map[string]string{
		names.LabelTenant:     w.tenant,
		names.LabelControl:    string(pool.ControlUID),
		names.LabelControlUID: string(w.uid),
		names.LabelPool:       pool.Name,
		names.LabelManagedBy:  managedBy,
		labelVPC:              string(w.vpc),
	}
}

// owned reports whether an object is this control cluster's and stands for the VPC or subnet with the UID.
func owned(pool network.Pool, o *unstructured.Unstructured, uid types.UID) bool {
	labels := o.GetLabels()
	return pool.ControlUID != "" && labels[names.LabelControl] == string(pool.ControlUID) &&
		labels[names.LabelManagedBy] == managedBy && labels[names.LabelControlUID] == string(uid)
}

func (w object) errorf(pool network.Pool, act string, err error) error {
	return fmt.Errorf("%s %s %s in pool %s: %w", act, w.kind.name, w.name, pool.Name, err)
}

// ensure makes an object agree with what is wanted. It does not wait for Kube-OVN.
func ensure(ctx context.Context, pool network.Pool, want object) error {
	client := want.kind.in(pool)
	got, err := client.Get(ctx, want.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		o := &unstructured.Unstructured{Object: map[string]any{"spec": want.spec}}
		o.SetGroupVersionKind(group.WithKind(want.kind.name))
		o.SetName(want.name)
		o.SetLabels(want.labels(pool))
		o.SetAnnotations(want.annotations)
		if want.kind.namespaced {
			o.SetNamespace(namespace)
		}
		_, err = client.Create(ctx, o.DeepCopy(), metav1.CreateOptions{})
		switch {
		case err == nil:
			return nil
		case apierrors.IsNotFound(err):
			return fmt.Errorf("%w: pool %s does not serve %s, or has no namespace %s: is Kube-OVN there, and the chart's part for it?",
				network.ErrNotReady, pool.Name, want.kind.resource(), namespace)
		case !apierrors.IsAlreadyExists(err):
			return want.errorf(pool, "create", err)
		}
		got, err = client.Get(ctx, want.name, metav1.GetOptions{})
	}
	switch {
	case err != nil:
		return want.errorf(pool, "read", err)
	case !owned(pool, got, want.uid):
		return want.errorf(pool, "write", network.ErrForeign)
	case got.GetDeletionTimestamp() != nil:
		return want.errorf(pool, "write", fmt.Errorf("%w: it is being deleted", network.ErrNotReady))
	}
	spec, _, _ := unstructured.NestedMap(got.Object, "spec")
	if spec == nil {
		spec = map[string]any{}
	}
	changed := false
	for key, value := range want.spec {
		if same(spec[key], value) {
			continue
		}
		if slices.Contains(want.fixed, key) {
			return want.errorf(pool, "write", fmt.Errorf("%w: field %s is %v and cannot become %v", network.ErrInvalid, key, spec[key], value))
		}
		spec[key], changed = value, true
	}
	labels, annotations := with(got.GetLabels(), want.labels(pool)), with(got.GetAnnotations(), want.annotations)
	if !changed && maps.Equal(labels, got.GetLabels()) && maps.Equal(annotations, got.GetAnnotations()) {
		return nil
	}
	got = got.DeepCopy()
	got.Object["spec"] = spec
	got.SetLabels(labels)
	got.SetAnnotations(annotations)
	if _, err := client.Update(ctx, got, metav1.UpdateOptions{}); err != nil {
		return want.errorf(pool, "update", err)
	}
	return nil
}

func with(old, more map[string]string) map[string]string {
	if len(more) == 0 {
		return old
	}
	all := maps.Clone(old)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, more)
	return all
}

// same compares values of JSON. Kube-OVN's own writes leave out what is empty or false, and read numbers as any.
func same(got, want any) bool {
	switch want := want.(type) {
	case bool:
		got, _ := got.(bool)
		return got == want
	case []any:
		got, _ := got.([]any)
		return slices.EqualFunc(got, want, same)
	case map[string]any:
		got, _ := got.(map[string]any)
		for key, value := range want {
			if !same(got[key], value) {
				return false
			}
		}
		return true
	}
	return equality.Semantic.DeepEqual(got, want)
}

// settled waits until Kube-OVN has done what the objects want.
func settled(ctx context.Context, pool network.Pool, wants []object) error {
	return eventually(ctx, func() error {
		for _, want := range wants {
			got, err := want.kind.in(pool).Get(ctx, want.name, metav1.GetOptions{})
			if err != nil {
				return want.errorf(pool, "read", err)
			}
			if ready, said := want.kind.ready(got); !ready {
				return fmt.Errorf("%w: %s %s in pool %s: %s", network.ErrNotReady, want.kind.name, want.name, pool.Name, said)
			}
		}
		return nil
	})
}

// eventually asks again while the answer is that something is not ready, for as long as there is patience.
func eventually(ctx context.Context, ask func() error) error {
	enough := time.NewTimer(patience)
	defer enough.Stop()
	for {
		err := ask()
		if !errors.Is(err, network.ErrNotReady) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-enough.C:
			return err
		case <-time.After(pollInterval):
		}
	}
}

// find gives the object of that name if it is ours; nil where there is none, or somebody else's, which is left alone.
func find(ctx context.Context, pool network.Pool, k kind, name string, uid types.UID) (*unstructured.Unstructured, error) {
	if pool.ControlUID == "" || pool.Dynamic == nil {
		return nil, fmt.Errorf("%w: pool %s has no identity or no client", network.ErrInvalid, pool.Name)
	}
	got, err := k.in(pool).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read %s %s in pool %s: %w", k.name, name, pool.Name, err)
	case !owned(pool, got, uid):
		return nil, nil
	}
	return got, nil
}

// ours gives what this control cluster has of a kind, of one VPC or of all. A pool without Kube-OVN has nothing.
func ours(ctx context.Context, pool network.Pool, k kind, vpc types.UID) ([]unstructured.Unstructured, error) {
	selector := names.LabelControl + "=" + string(pool.ControlUID) + "," + names.LabelManagedBy + "=" + managedBy + "," + labelVPC
	if vpc != "" {
		selector += "=" + string(vpc)
	}
	list, err := k.in(pool).List(ctx, metav1.ListOptions{LabelSelector: selector})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("list %s in pool %s: %w", k.resource(), pool.Name, err)
	}
	return list.Items, nil
}

func remove(ctx context.Context, pool network.Pool, k kind, o *unstructured.Unstructured) error {
	if o.GetDeletionTimestamp() != nil {
		return nil
	}
	uid := o.GetUID()
	err := k.in(pool).Delete(ctx, o.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s %s in pool %s: %w", k.name, o.GetName(), pool.Name, err)
	}
	return nil
}

// gone waits until Kube-OVN has let go of a removed object.
func gone(ctx context.Context, pool network.Pool, k kind, o *unstructured.Unstructured) error {
	return eventually(ctx, func() error {
		got, err := k.in(pool).Get(ctx, o.GetName(), metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) || err == nil && got.GetUID() != o.GetUID():
			return nil
		case err != nil:
			return fmt.Errorf("read %s %s in pool %s: %w", k.name, o.GetName(), pool.Name, err)
		}
		return fmt.Errorf("%w: %s %s in pool %s is still being deleted", network.ErrNotReady, k.name, o.GetName(), pool.Name)
	})
}

// prune removes what a VPC does not want any more. A security group is emptied instead: a pod whose groups are all gone
// would have no filter, and one that is in an empty group is closed.
func prune(ctx context.Context, pool network.Pool, vpc *network.VPC, wants []object) error {
	for _, k := range []kind{balancers, gateways, subnets, groups} {
		list, err := ours(ctx, pool, k, vpc.UID)
		if err != nil {
			return err
		}
		for i := range list {
			o := &list[i]
			wanted := slices.ContainsFunc(wants, func(w object) bool { return w.kind.plural == k.plural && w.name == o.GetName() })
			if wanted || types.UID(o.GetLabels()[names.LabelControlUID]) != vpc.UID {
				continue
			}
			if k.plural == groups.plural {
				err = ensure(ctx, pool, ofVPC(vpc, groups, o.GetName(), map[string]any{"ingressRules": []any{}, "egressRules": []any{}, "allowSameGroupTraffic": false}))
			} else if err = remove(ctx, pool, k, o); err == nil {
				err = gone(ctx, pool, k, o)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// externalSubnet gives the name of the Subnet by which VPCs go out: the operator's, who marks it.
func externalSubnet(ctx context.Context, pool network.Pool) (string, error) {
	list, err := subnets.in(pool).List(ctx, metav1.ListOptions{LabelSelector: labelExternal + "=true"})
	switch {
	case apierrors.IsNotFound(err):
		return "", fmt.Errorf("%w: pool %s does not serve %s: is Kube-OVN there?", network.ErrNotReady, pool.Name, subnets.resource())
	case err != nil:
		return "", fmt.Errorf("list %s in pool %s: %w", subnets.resource(), pool.Name, err)
	}
	var marked []string
	for i := range list.Items {
		marked = append(marked, list.Items[i].GetName())
	}
	if len(marked) == 0 {
		return "", fmt.Errorf("%w: pool %s has no Subnet with label %s=true, which a VPC needs to reach the outside and its tenant's API",
			network.ErrCapability, pool.Name, labelExternal)
	}
	return slices.Min(marked), nil
}
