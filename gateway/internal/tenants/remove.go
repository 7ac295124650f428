package tenants

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"vivarium.io/vivarium/internal/names"
)

// deletable are the cluster-scoped kinds that a tenant can make or that are made for it, besides namespaces, in the order
// of their removal. Nothing else is ever deleted by its name: what is left of other kinds is reported, and keeps the name
// from being given away, until somebody decides.
func deletable() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"},
		{Group: "certificates.k8s.io", Version: "v1", Resource: "certificatesigningrequests"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicybindings"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingadmissionpolicybindings"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingadmissionpolicies"},
		{Group: "flowcontrol.apiserver.k8s.io", Version: "v1", Resource: "flowschemas"},
		{Group: "flowcontrol.apiserver.k8s.io", Version: "v1", Resource: "prioritylevelconfigurations"},
	}
}

var namespaceResource = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}

// removal is how far a removal has come.
type removal struct {
	// left names what is still there; empty when nothing of the tenant is left in the control cluster.
	left string
	// stuck is true when waiting alone will not help.
	stuck bool
}

// remove takes one step of emptying the control cluster of a tenant and says what is left. It may be called at any time
// and by several at once; each step starts from what it finds.
//
// Namespaces come first, because what is in them may need the rest; then definitions with their objects; then
// cluster-scoped objects; then a look at
// everything, which alone decides whether the tenant is gone.
func (c *Controller) remove(ctx context.Context, id names.TenantID) (removal, error) {
	waiting, err := c.removeNamespaces(ctx, id)
	if err != nil || waiting.left != "" {
		return waiting, err
	}
	waiting, err = c.removeDefinitions(ctx, id)
	if err != nil || waiting.left != "" {
		return waiting, err
	}
	if err := c.removeKept(ctx, id); err != nil {
		return removal{}, err
	}
	resources := deletable()
	if c.shared != nil {
		resources = append(c.shared(), resources...)
	}
	for _, resource := range resources {
		objects, err := c.scanner.list(ctx, resource, id, everything)
		if err != nil {
			return removal{}, err
		}
		if err := c.deleteAll(ctx, resource, id, objects); err != nil {
			return removal{}, err
		}
	}
	found, err := c.scanner.Find(ctx, id)
	if err != nil {
		return removal{}, err
	}
	// A group is discovered for a moment longer than its last definition is there.
	held := slices.ContainsFunc(found, func(what string) bool { return !strings.HasPrefix(what, groupFound) })
	return removal{left: enumerate(found), stuck: held}, nil
}

var definitionResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// removeDefinitions deletes the tenant's CustomResourceDefinitions, those that carry both its prefix and its label, and
// says which are still there: each stays until its last object is gone.
func (c *Controller) removeDefinitions(ctx context.Context, id names.TenantID) (removal, error) {
	list, err := c.scanner.objects.Resource(definitionResource).List(ctx, metav1.ListOptions{LabelSelector: names.LabelTenant + "=" + string(id)})
	if err != nil {
		return removal{}, fmt.Errorf("list %s of the control cluster: %w", definitionResource.GroupResource(), err)
	}
	var left []string
	for i := range list.Items {
		definition := &list.Items[i]
		if _, err := id.DefinitionToTenant(definition.Name); err != nil {
			// Somebody put the label on what is not the tenant's.
			continue
		}
		left = append(left, definition.Name)
		if definition.DeletionTimestamp != nil {
			continue
		}
		policy := metav1.DeletePropagationBackground
		err := c.scanner.objects.Resource(definitionResource).Delete(ctx, definition.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &definition.UID}, PropagationPolicy: &policy,
		})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return removal{}, fmt.Errorf("delete custom resource definition %q: %w", definition.Name, err)
		}
	}
	if len(left) == 0 {
		return removal{}, nil
	}
	return removal{left: "custom resource definitions " + enumerate(left) + ", which wait for the finalizers of their objects"}, nil
}

// everything is more than a tenant has of anything; what is beyond it is found by the next step.
const everything = 10_000

// removeNamespaces deletes the tenant's namespaces, those that carry both its prefix and its label, and says which are
// still there.
func (c *Controller) removeNamespaces(ctx context.Context, id names.TenantID) (removal, error) {
	found, err := c.scanner.list(ctx, namespaceResource, id, everything)
	if err != nil {
		return removal{}, err
	}
	var (
		fresh         []metav1.PartialObjectMetadata
		left, foreign []string
	)
	for _, ns := range found {
		switch {
		case ns.Labels[names.LabelTenant] != string(id):
			foreign = append(foreign, fmt.Sprintf("namespace %q without label %s=%s, which is not deleted for that reason", ns.Name, names.LabelTenant, id))
			continue
		case ns.DeletionTimestamp == nil:
			fresh = append(fresh, ns)
		}
		left = append(left, ns.Name)
	}
	if err := c.deleteAll(ctx, namespaceResource, id, fresh); err != nil {
		return removal{}, err
	}
	if len(left) == 0 {
		return removal{left: enumerate(foreign), stuck: len(foreign) > 0}, nil
	}
	why, err := c.whyTerminating(ctx, left)
	if err != nil {
		return removal{}, err
	}
	return removal{left: "namespaces " + enumerate(left) + why}, nil
}

// whyTerminating gives what the control cluster says about the first of the namespaces that does not simply take its time.
func (c *Controller) whyTerminating(ctx context.Context, namespaces []string) (string, error) {
	for _, name := range namespaces {
		ns, err := c.control.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("get namespace %q: %w", name, err)
		}
		if err := c.releaseNamespace(ctx, ns); err != nil {
			return "", err
		}
		for _, condition := range ns.Status.Conditions {
			switch condition.Type {
			case corev1.NamespaceContentRemaining, corev1.NamespaceFinalizersRemaining, corev1.NamespaceDeletionContentFailure,
				corev1.NamespaceDeletionDiscoveryFailure, corev1.NamespaceDeletionGVParsingFailure:
				if condition.Status == corev1.ConditionTrue {
					return fmt.Sprintf("; %q: %s", name, condition.Message), nil
				}
			}
		}
	}
	return "", nil
}

// releaseNamespace takes the tenant's own finalizers off a namespace that has been emptied: whoever would do so cannot any
// more.
func (c *Controller) releaseNamespace(ctx context.Context, ns *corev1.Namespace) error {
	if ns.DeletionTimestamp == nil || len(ns.Spec.Finalizers) == 0 || slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		return nil
	}
	ns = ns.DeepCopy()
	ns.Spec.Finalizers = nil
	_, err := c.control.CoreV1().Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("finalize namespace %q: %w", ns.Name, err)
	}
	return nil
}

// deleteAll deletes objects of one kind, each only if it still is the one that was found.
func (c *Controller) deleteAll(ctx context.Context, resource schema.GroupVersionResource, id names.TenantID, objects []metav1.PartialObjectMetadata) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(provideParallel)
	for _, object := range objects {
		if !id.Owns(object.Name) {
			return fmt.Errorf("delete %s %q: %w", resource.Resource, object.Name, names.ErrForeign)
		}
		if object.DeletionTimestamp != nil {
			continue
		}
		group.Go(func() error {
			policy := metav1.DeletePropagationBackground
			err := c.scanner.objects.Resource(resource).Delete(ctx, object.Name, metav1.DeleteOptions{
				Preconditions: &metav1.Preconditions{UID: &object.UID}, PropagationPolicy: &policy,
			})
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				return fmt.Errorf("delete %s %q: %w", resource.Resource, object.Name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// mentioned is how many things a message names before it counts the rest.
const mentioned = 5

func enumerate(things []string) string {
	if n := len(things); n > mentioned {
		return fmt.Sprintf("%s and %d more", strings.Join(things[:mentioned], ", "), n-mentioned)
	}
	return strings.Join(things, ", ")
}
