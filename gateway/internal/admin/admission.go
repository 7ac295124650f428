package admin

import (
	"context"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/registry/rest"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

// NameScanner finds what the control cluster holds under a tenant's prefix.
type NameScanner interface {
	// Find names the objects and API groups whose names belong to the tenant; none when control holds nothing of it. An
	// error means that it could not be told.
	Find(ctx context.Context, id names.TenantID) ([]string, error)
}

// scanTimeout bounds the look at the control cluster while somebody waits for a Tenant to be created.
const scanTimeout = 10 * time.Second

// gate is the admission of this API: the checks that need more than the object itself. The machinery calls it after the
// object has passed validation and before it is stored.
type gate struct {
	scanner NameScanner
	// These read what is stored; set before the server runs.
	tenants, pools, vpcs, subnets, blocks rest.Lister
}

var _ admission.ValidationInterface = &gate{}

func (*gate) Handles(operation admission.Operation) bool {
	return operation == admission.Create || operation == admission.Update || operation == admission.Delete
}

func (g *gate) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetSubresource() != "" {
		return nil
	}
	if a.GetOperation() == admission.Delete {
		switch obj := a.GetOldObject().(type) {
		case *v1alpha1.VPC:
			return g.deleteVPC(ctx, obj)
		case *v1alpha1.Subnet:
			return g.deleteSubnet(ctx, obj)
		default:
			return nil
		}
	}
	if a.GetOperation() == admission.Update {
		if err := componentUpdate(a); err != nil {
			return err
		}
	}
	switch obj := a.GetObject().(type) {
	case *v1alpha1.Tenant:
		return g.tenant(ctx, a, obj)
	case *v1alpha1.ResourcePool:
		return g.pool(ctx, a, obj)
	case *v1alpha1.VPC:
		return g.vpc(ctx, a, obj)
	case *v1alpha1.Subnet:
		return g.subnet(ctx, a, obj)
	default:
		return nil
	}
}

func (g *gate) tenant(ctx context.Context, a admission.Attributes, t *v1alpha1.Tenant) error {
	var problems field.ErrorList
	if old, ok := a.GetOldObject().(*v1alpha1.Tenant); !ok || !equality.Semantic.DeepEqual(old.Spec.CredentialsNotBefore, t.Spec.CredentialsNotBefore) {
		problems = validateRevocation(t, time.Now())
	}
	if old, ok := a.GetOldObject().(*v1alpha1.Tenant); !ok || !slices.Equal(old.Spec.Network.DefaultSubnets, t.Spec.Network.DefaultSubnets) {
		missing, err := g.defaultSubnets(ctx, t)
		if err != nil {
			return err
		}
		problems = append(problems, missing...)
	}
	if a.GetOperation() == admission.Create {
		path := field.NewPath("metadata", "name")
		id, err := names.ParseTenantID(t.Name)
		if err != nil {
			problems = append(problems, field.Invalid(path, t.Name, err.Error()))
			return invalid("Tenant", t.Name, problems)
		}
		pool, err := g.poolInTheWay(ctx, id)
		if err != nil {
			return err
		}
		if pool != "" {
			problems = append(problems, field.Invalid(path, t.Name, fmt.Sprintf("is taken: the virtual nodes of resource pool %q have names that start with %q", pool, id.Prefix())))
			return invalid("Tenant", t.Name, problems)
		}
		network, err := g.tenantNetwork(ctx, t)
		if err != nil {
			return err
		}
		problems = append(problems, network...)
		ctx, cancel := context.WithTimeout(ctx, scanTimeout)
		defer cancel()
		found, err := g.scanner.Find(ctx, id)
		if err != nil {
			return apierrors.NewServiceUnavailable(fmt.Sprintf("cannot tell whether the control cluster already has names that start with %q: %v", id.Prefix(), err))
		}
		if len(found) > 0 {
			problems = append(problems, field.Invalid(path, t.Name, taken(id, found)))
		}
	}
	return invalid("Tenant", t.Name, problems)
}

// taken says why an ID cannot be used, by the first thing in its way.
func taken(id names.TenantID, found []string) string {
	more := ""
	if n := len(found) - 1; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("is taken: the control cluster has %s%s; everything that starts with %q would become the tenant's", found[0], more, id.Prefix())
}

// poolInTheWay gives the pool whose virtual Nodes are, or will be, named as if they were the tenant's.
func (g *gate) poolInTheWay(ctx context.Context, id names.TenantID) (string, error) {
	pools, err := g.listPools(ctx)
	if err != nil {
		return "", err
	}
	for _, pool := range pools {
		if id.Owns(pool.Name + "-0") {
			return pool.Name, nil
		}
	}
	return "", nil
}

func (g *gate) pool(ctx context.Context, a admission.Attributes, p *v1alpha1.ResourcePool) error {
	old, _ := a.GetOldObject().(*v1alpha1.ResourcePool)
	problems, err := g.reservedByVPCs(ctx, p, old)
	if err != nil {
		return err
	}
	if a.GetOperation() != admission.Create {
		return invalid("ResourcePool", p.Name, problems)
	}
	pools, err := g.listPools(ctx)
	if err != nil {
		return err
	}
	for _, other := range pools {
		if other.Spec.ClusterUID == p.Spec.ClusterUID && other.Name != p.Name {
			problems = append(problems, field.Invalid(field.NewPath("spec", "clusterUID"), p.Spec.ClusterUID,
				fmt.Sprintf("is the cluster of resource pool %q already", other.Name)))
		}
	}
	if id, _, ok := names.SplitNamespace(names.ControlNamespace(p.Name + "-0")); ok {
		tenants, err := g.listTenants(ctx)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(tenants, func(t v1alpha1.Tenant) bool { return t.Name == string(id) }) {
			problems = append(problems, field.Invalid(field.NewPath("metadata", "name"), p.Name,
				fmt.Sprintf("is taken: the pool's virtual nodes would have names that start with %q, which are tenant %q's", id.Prefix(), id)))
		}
	}
	return invalid("ResourcePool", p.Name, problems)
}

// componentUpdate lets callers other than operators change finalizers and nothing else, and leaves the gateway's own
// finalizer to the gateway.
func componentUpdate(a admission.Attributes) error {
	if slices.Contains(a.GetUserInfo().GetGroups(), user.SystemPrivilegedGroup) {
		return nil
	}
	now, ok := a.GetObject().DeepCopyObject().(metav1.Object)
	old, okOld := a.GetOldObject().DeepCopyObject().(metav1.Object)
	if !ok || !okOld {
		return admission.NewForbidden(a, fmt.Errorf("not an object"))
	}
	if slices.Contains(now.GetFinalizers(), v1alpha1.FinalizerControl) != slices.Contains(old.GetFinalizers(), v1alpha1.FinalizerControl) {
		return admission.NewForbidden(a, fmt.Errorf("the finalizer %s is the gateway's", v1alpha1.FinalizerControl))
	}
	for _, o := range []metav1.Object{now, old} {
		o.SetFinalizers(nil)
		// These follow from the write itself.
		o.SetManagedFields(nil)
		o.SetResourceVersion("")
		o.SetGeneration(0)
		o.(runtime.Object).GetObjectKind().SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(""))
	}
	if !equality.Semantic.DeepEqual(now, old) {
		return admission.NewForbidden(a, fmt.Errorf("group %s may change metadata.finalizers and the status subresource alone", GroupComponents))
	}
	return nil
}

func invalid(kind, name string, problems field.ErrorList) error {
	if len(problems) == 0 {
		return nil
	}
	return apierrors.NewInvalid(v1alpha1.GroupVersion.WithKind(kind).GroupKind(), name, problems)
}
