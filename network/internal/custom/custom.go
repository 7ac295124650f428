// Package custom makes and removes the custom resources of a pool's network plugin that stand for VPCs and subnets of ours,
// and waits until the plugin has acted on them. Drivers of other people's networks share it.
//
// The package must never touch an object that does not carry the platform's labels, this control cluster's identity
// included. It imports nothing of any plugin and knows objects by the fields that a driver names. Start at [Ensure].
package custom

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
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
	// managedBy is LabelManagedBy on what is made.
	managedBy = "network"
	// LabelVPC carries the UID of the VPC that an object belongs to, also where the object stands for a subnet.
	LabelVPC = netkeys.Domain + "/vpc-uid"
	// pollInterval is how often the plugin's progress is asked for.
	pollInterval = 100 * time.Millisecond
)

// Patience is how long a call waits for the plugin to act before it says that it is not ready. Tests have more.
var Patience = 5 * time.Second

// Kind is one of a plugin's kinds.
type Kind struct {
	schema.GroupVersion
	Name, Plural string
	// Plugin is whose it is, as an operator calls it.
	Plugin string
	// Namespace is where all objects of the kind are; empty for a kind without namespaces.
	Namespace string
	// Ready reports whether the plugin has done what the object wants, and what it says where not.
	Ready func(*unstructured.Unstructured) (bool, string)
}

// Resource names the kind's resource, "vpcs.kubeovn.io".
func (k Kind) Resource() string { return k.Plural + "." + k.Group }

// In gives the client of the kind in a pool.
func (k Kind) In(pool network.Pool) dynamic.ResourceInterface {
	client := pool.Dynamic.Resource(k.WithResource(k.Plural))
	if k.Namespace != "" {
		return client.Namespace(k.Namespace)
	}
	return client
}

// Object is one wanted object in a pool. Only the fields that it names are ours; the plugin fills in others.
type Object struct {
	Kind Kind
	Name string
	// UID is the VPC's or subnet's that it stands for, VPC the VPC's.
	UID, VPC types.UID
	Tenant   string
	Spec     map[string]any
	// Fixed are the fields of Spec that cannot change.
	Fixed []string
	// Annotations are those that the plugin reads.
	Annotations map[string]string
}

// MostName is the longest name, short enough for what plugins make of them: values of labels, and a Service "slr-<name>".
const MostName = 55

// Name names what stands for a control object in a pool: readable, and one control object's alone, in whatever
// control cluster, because the UID is in it.
func Name(name string, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "/")))
	hash := hex.EncodeToString(sum[:8])
	name = "viv-" + name
	if most := MostName - 1 - len(hash); len(name) > most {
		name = strings.TrimRight(name[:most], "-")
	}
	return name + "-" + hash
}

// Labels are what the object carries in a pool.
func (w Object) Labels(pool network.Pool) map[string]string {
	return map[string]string{
		names.LabelTenant:     w.Tenant,
		names.LabelControl:    string(pool.ControlUID),
		names.LabelControlUID: string(w.UID),
		names.LabelPool:       pool.Name,
		names.LabelManagedBy:  managedBy,
		LabelVPC:              string(w.VPC),
	}
}

// Owned reports whether an object is this control cluster's and stands for the VPC or subnet with the UID.
func Owned(pool network.Pool, o *unstructured.Unstructured, uid types.UID) bool {
	labels := o.GetLabels()
	return pool.ControlUID != "" && labels[names.LabelControl] == string(pool.ControlUID) &&
		labels[names.LabelManagedBy] == managedBy && labels[names.LabelControlUID] == string(uid)
}

func (w Object) errorf(pool network.Pool, act string, err error) error {
	return fmt.Errorf("%s %s %s in pool %s: %w", act, w.Kind.Name, w.Name, pool.Name, err)
}

// Ensure makes an object agree with what is wanted. It does not wait for the plugin.
func Ensure(ctx context.Context, pool network.Pool, want Object) error {
	client := want.Kind.In(pool)
	got, err := client.Get(ctx, want.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		o := &unstructured.Unstructured{Object: map[string]any{"spec": want.Spec}}
		o.SetGroupVersionKind(want.Kind.WithKind(want.Kind.Name))
		o.SetName(want.Name)
		o.SetLabels(want.Labels(pool))
		o.SetAnnotations(want.Annotations)
		if want.Kind.Namespace != "" {
			o.SetNamespace(want.Kind.Namespace)
		}
		_, err = client.Create(ctx, o.DeepCopy(), metav1.CreateOptions{})
		switch {
		case err == nil:
			return nil
		case apierrors.IsNotFound(err):
			return fmt.Errorf("%w: pool %s does not serve %s, or lacks a namespace for it: is %s there, and the chart's part for it?",
				network.ErrNotReady, pool.Name, want.Kind.Resource(), want.Kind.Plugin)
		case !apierrors.IsAlreadyExists(err):
			return want.errorf(pool, "create", err)
		}
		got, err = client.Get(ctx, want.Name, metav1.GetOptions{})
	}
	switch {
	case err != nil:
		return want.errorf(pool, "read", err)
	case !Owned(pool, got, want.UID):
		return want.errorf(pool, "write", network.ErrForeign)
	case got.GetDeletionTimestamp() != nil:
		return want.errorf(pool, "write", fmt.Errorf("%w: it is being deleted", network.ErrNotReady))
	}
	spec, _, _ := unstructured.NestedMap(got.Object, "spec")
	if spec == nil {
		spec = map[string]any{}
	}
	changed := false
	for key, value := range want.Spec {
		if same(spec[key], value) {
			continue
		}
		if slices.Contains(want.Fixed, key) {
			return want.errorf(pool, "write", fmt.Errorf("%w: field %s is %v and cannot become %v", network.ErrInvalid, key, spec[key], value))
		}
		spec[key], changed = value, true
	}
	labels, annotations := with(got.GetLabels(), want.Labels(pool)), with(got.GetAnnotations(), want.Annotations)
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

// same compares values of JSON. Plugins' own writes leave out what is empty or false, and read numbers as any.
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

// Settled waits until the plugin has done what the objects want.
func Settled(ctx context.Context, pool network.Pool, wants []Object) error {
	return eventually(ctx, func() error {
		for _, want := range wants {
			got, err := want.Kind.In(pool).Get(ctx, want.Name, metav1.GetOptions{})
			if err != nil {
				return want.errorf(pool, "read", err)
			}
			if ready, said := want.Kind.Ready(got); !ready {
				return fmt.Errorf("%w: %s %s in pool %s: %s", network.ErrNotReady, want.Kind.Name, want.Name, pool.Name, said)
			}
		}
		return nil
	})
}

// eventually asks again while the answer is that something is not ready, for as long as there is patience.
func eventually(ctx context.Context, ask func() error) error {
	enough := time.NewTimer(Patience)
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

// Find gives the object of that name if it is ours; nil where there is none, or somebody else's, which is left alone.
func Find(ctx context.Context, pool network.Pool, k Kind, name string, uid types.UID) (*unstructured.Unstructured, error) {
	if pool.ControlUID == "" || pool.Dynamic == nil {
		return nil, fmt.Errorf("%w: pool %s has no identity or no client", network.ErrInvalid, pool.Name)
	}
	got, err := k.In(pool).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read %s %s in pool %s: %w", k.Name, name, pool.Name, err)
	case !Owned(pool, got, uid):
		return nil, nil
	}
	return got, nil
}

// Ours gives what this control cluster has of a kind, of one VPC or of all. A pool without the plugin has nothing.
func Ours(ctx context.Context, pool network.Pool, k Kind, vpc types.UID) ([]unstructured.Unstructured, error) {
	selector := names.LabelControl + "=" + string(pool.ControlUID) + "," + names.LabelManagedBy + "=" + managedBy + "," + LabelVPC
	if vpc != "" {
		selector += "=" + string(vpc)
	}
	list, err := k.In(pool).List(ctx, metav1.ListOptions{LabelSelector: selector})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("list %s in pool %s: %w", k.Resource(), pool.Name, err)
	}
	return list.Items, nil
}

// Remove deletes an object, as it was seen.
func Remove(ctx context.Context, pool network.Pool, k Kind, o *unstructured.Unstructured) error {
	if o.GetDeletionTimestamp() != nil {
		return nil
	}
	uid := o.GetUID()
	err := k.In(pool).Delete(ctx, o.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s %s in pool %s: %w", k.Name, o.GetName(), pool.Name, err)
	}
	return nil
}

// Gone waits until the plugin has let go of a removed object.
func Gone(ctx context.Context, pool network.Pool, k Kind, o *unstructured.Unstructured) error {
	return eventually(ctx, func() error {
		got, err := k.In(pool).Get(ctx, o.GetName(), metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) || err == nil && got.GetUID() != o.GetUID():
			return nil
		case err != nil:
			return fmt.Errorf("read %s %s in pool %s: %w", k.Name, o.GetName(), pool.Name, err)
		}
		return fmt.Errorf("%w: %s %s in pool %s is still being deleted", network.ErrNotReady, k.Name, o.GetName(), pool.Name)
	})
}

// Bound tells how a VPC or subnet fares that is ref in the pool; notReady is the reason where the plugin is awaited.
func Bound(ref string, notReady network.Reason, err error) (network.PoolBinding, error) {
	if err == nil {
		return network.PoolBinding{Ready: true, Reason: network.ReasonReady, Ref: ref}, nil
	}
	reason := network.ReasonFor(err)
	if errors.Is(err, network.ErrNotReady) {
		reason = notReady
	}
	return network.PoolBinding{Reason: reason, Message: err.Error()}, err
}
