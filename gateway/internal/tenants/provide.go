package tenants

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

// A tenant administers its cluster and may change what is made here, as on a cluster of its own; so each kind is put right
// in the way Kubernetes puts right its own copy. What is missing comes back, always. What is there:
//   - namespaces: the mark of the tenant and the pod security labels come back when they are missing; another level is the
//     operator's decision and stays;
//   - cluster-admin role and binding: missing rules and subjects are added, unless the autoupdate annotation says false;
//   - admin, edit and view: the rules are the control cluster's, and what the tenant adds by roles of its own with an
//     aggregation label, at all times;
//   - the kubernetes Service and its endpoints: always exactly so.
// The level and schema that carry the weight are out of a tenant's reach and always exactly so.

// writer is what typed clients have in common.
type writer[P any] interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (P, error)
	Create(ctx context.Context, obj P, options metav1.CreateOptions) (P, error)
	Update(ctx context.Context, obj P, options metav1.UpdateOptions) (P, error)
}

// attempts is how often a write is tried again after losing a race, before the queue takes over.
const attempts = 3

// ensure makes want exist and lets correct change what is there, which reports whether it did. Likely says whether the
// object is expected to be there already, which saves a request when it is right. Safe against others doing the same.
func ensure[P metav1.Object](ctx context.Context, kind string, w writer[P], want P, likely bool, correct func(have P) bool) error {
	var err error
	for range attempts {
		if !likely {
			_, err = w.Create(ctx, want, metav1.CreateOptions{})
			if err == nil {
				return nil
			}
			if !apierrors.IsAlreadyExists(err) {
				return fmt.Errorf("create %s %q: %w", kind, want.GetName(), err)
			}
			likely = true
		}
		var have P
		have, err = w.Get(ctx, want.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			likely = false
			continue
		}
		if err != nil {
			return fmt.Errorf("get %s %q: %w", kind, want.GetName(), err)
		}
		if have.GetDeletionTimestamp() != nil {
			return fmt.Errorf("%s %q is still being deleted", kind, want.GetName())
		}
		if !correct(have) {
			return nil
		}
		_, err = w.Update(ctx, have, metav1.UpdateOptions{})
		if err == nil {
			return nil
		}
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return fmt.Errorf("update %s %q: %w", kind, want.GetName(), err)
		}
	}
	return fmt.Errorf("write %s %q: %w", kind, want.GetName(), err)
}

// provideParallel bounds the requests for one tenant at a time.
const provideParallel = 8

// provide makes the control cluster hold what the tenant needs. It may be called at any time and by several at once.
func (c *Controller) provide(ctx context.Context, id names.TenantID, t *v1alpha1.Tenant) error {
	// A tenant that was ready has everything, probably.
	likely := readyCondition(t) == metav1.ConditionTrue
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(provideParallel)
	for _, ns := range baseNamespaces() {
		group.Go(func() error { return c.provideNamespace(ctx, id, ns, likely) })
	}
	fixed := []*rbacv1.ClusterRole{clusterAdminRole(id)}
	for name, rules := range stockRoles() {
		fixed = append(fixed, stockRole(id, name, rules))
	}
	for _, role := range fixed {
		group.Go(func() error {
			return ensure(ctx, "clusterrole", c.control.RbacV1().ClusterRoles(), role, likely, correctRole(role))
		})
	}
	group.Go(func() error { return c.provideBinding(ctx, id, likely) })
	for _, role := range userRoles() {
		group.Go(func() error { return c.provideUserRole(ctx, id, role, likely) })
	}
	group.Go(func() error { return c.provideFairness(ctx, id, t, likely) })
	return group.Wait()
}

// provideNamespace makes one of the base namespaces and what is in it.
func (c *Controller) provideNamespace(ctx context.Context, id names.TenantID, ns names.TenantNamespace, likely bool) error {
	want := namespaceOf(id, ns)
	foreign := false
	err := ensure(ctx, "namespace", c.control.CoreV1().Namespaces(), want, likely, func(have *corev1.Namespace) bool {
		// Admission found nothing under the prefix, so this is the tenant's own, made again, or somebody's who came later.
		foreign = have.Labels[names.LabelTenant] != string(id)
		return !foreign && putBack(&have.Labels, want.Labels)
	})
	switch {
	case err != nil:
		return err
	case foreign:
		return fmt.Errorf("namespace %q has no label %s=%s: it is not the tenant's and in its way", want.Name, names.LabelTenant, id)
	}
	account := accountOf(id, ns)
	if err := ensure(ctx, "serviceaccount", c.control.CoreV1().ServiceAccounts(account.Namespace), account, likely, isRight); err != nil {
		return err
	}
	if ns != defaultNamespace {
		return nil
	}
	return c.provideService(ctx, id, want.Name, likely)
}

func isRight[P any](P) bool { return false }

func (c *Controller) provideService(ctx context.Context, id names.TenantID, namespace string, likely bool) error {
	service := serviceOf(id, c.pods)
	err := ensure(ctx, "service", c.control.CoreV1().Services(namespace), service, likely, func(have *corev1.Service) bool {
		before := have.DeepCopy()
		putBack(&have.Labels, service.Labels)
		// The rest of the spec, its address above all, is the control cluster's.
		have.Spec.Type, have.Spec.Selector = service.Spec.Type, nil
		if len(have.Spec.Ports) != 1 || have.Spec.Ports[0].Port != service.Spec.Ports[0].Port ||
			have.Spec.Ports[0].TargetPort != service.Spec.Ports[0].TargetPort || have.Spec.Ports[0].Name != portName {
			have.Spec.Ports = service.Spec.Ports
		}
		return !equality.Semantic.DeepEqual(before, have)
	})
	if err != nil {
		return err
	}
	slice := endpointSliceOf(id, c.pods)
	err = ensure(ctx, "endpointslice", c.control.DiscoveryV1().EndpointSlices(namespace), slice, likely, func(have *discoveryv1.EndpointSlice) bool {
		changed := putBack(&have.Labels, slice.Labels)
		same := equality.Semantic.DeepEqual(have.Endpoints, slice.Endpoints) && equality.Semantic.DeepEqual(have.Ports, slice.Ports)
		have.Endpoints, have.Ports = slice.Endpoints, slice.Ports
		return changed || !same
	})
	if err != nil {
		return err
	}
	endpoints := endpointsOf(id, c.pods)
	return ensure(ctx, "endpoints", c.control.CoreV1().Endpoints(namespace), endpoints, likely, func(have *corev1.Endpoints) bool { //nolint:staticcheck // see endpointsOf
		changed := putBack(&have.Labels, endpoints.Labels)
		same := equality.Semantic.DeepEqual(have.Subsets, endpoints.Subsets)
		have.Subsets = endpoints.Subsets
		return changed || !same
	})
}

// correctRole adds what a role lacks of what every cluster has.
func correctRole(want *rbacv1.ClusterRole) func(*rbacv1.ClusterRole) bool {
	return func(have *rbacv1.ClusterRole) bool {
		if have.Annotations[autoupdateAnnotation] == "false" {
			return false
		}
		marked := putBack(&have.Labels, want.Labels)
		var added bool
		have.Rules, added = addMissing(have.Rules, want.Rules, sameRule)
		return marked || added
	}
}

func (c *Controller) provideBinding(ctx context.Context, id names.TenantID, likely bool) error {
	bindings := c.control.RbacV1().ClusterRoleBindings()
	want := clusterAdminBinding(id)
	var elsewhere *rbacv1.ClusterRoleBinding
	correct := func(have *rbacv1.ClusterRoleBinding) bool {
		elsewhere = nil
		if have.Annotations[autoupdateAnnotation] == "false" {
			return false
		}
		if have.RoleRef != want.RoleRef {
			elsewhere = have
			return false
		}
		marked := putBack(&have.Labels, want.Labels)
		var added bool
		have.Subjects, added = addMissing(have.Subjects, want.Subjects, func(a, b rbacv1.Subject) bool { return a == b })
		return marked || added
	}
	if err := ensure(ctx, "clusterrolebinding", bindings, want, likely, correct); err != nil || elsewhere == nil {
		return err
	}
	// Where a binding leads cannot be changed; it is made anew, as the control cluster does with its own.
	err := bindings.Delete(ctx, want.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &elsewhere.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("replace clusterrolebinding %q: %w", want.Name, err)
	}
	return ensure(ctx, "clusterrolebinding", bindings, want, false, correct)
}

func (c *Controller) provideUserRole(ctx context.Context, id names.TenantID, role string, likely bool) error {
	rules, err := c.roles.rules(ctx, id, role)
	if err != nil {
		return err
	}
	want := userRole(id, role, rules)
	return ensure(ctx, "clusterrole", c.control.RbacV1().ClusterRoles(), want, likely, func(have *rbacv1.ClusterRole) bool {
		if have.Annotations[autoupdateAnnotation] == "false" {
			return false
		}
		marked := putBack(&have.Labels, want.Labels)
		if have.AggregationRule == nil && equality.Semantic.DeepEqual(have.Rules, rules) {
			return marked
		}
		have.AggregationRule, have.Rules = nil, rules
		return true
	})
}

func (c *Controller) provideFairness(ctx context.Context, id names.TenantID, t *v1alpha1.Tenant, likely bool) error {
	schemas, levels := c.control.FlowcontrolV1().FlowSchemas(), c.control.FlowcontrolV1().PriorityLevelConfigurations()
	own := id.NameToControl(flowName)
	existing, err := schemas.Get(ctx, own, metav1.GetOptions{})
	alone := err == nil && existing.Spec.PriorityLevelConfiguration.Name == own
	switch {
	case apierrors.IsNotFound(err):
		alone = c.rank(t) < ownLevels
	case err != nil:
		return fmt.Errorf("get flowschema %q: %w", own, err)
	}
	level := ownLevel(id, t.Spec.Weight)
	if !alone {
		level = tierOf(t.Spec.Weight).level()
	}
	err = ensure(ctx, "prioritylevelconfiguration", levels, level, likely || !alone, func(have *flowcontrolv1.PriorityLevelConfiguration) bool {
		same := equality.Semantic.DeepEqual(have.Spec, level.Spec)
		have.Spec = level.Spec
		return !same
	})
	if err != nil {
		return err
	}
	schema := flowSchema(id, level.Name)
	return ensure(ctx, "flowschema", schemas, schema, existing != nil && existing.Name != "", func(have *flowcontrolv1.FlowSchema) bool {
		same := equality.Semantic.DeepEqual(have.Spec, schema.Spec)
		have.Spec = schema.Spec
		return !same
	})
}
