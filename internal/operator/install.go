package operator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"vivarium.io/vivarium/internal/names"
)

// fieldManager owns what the command line applies in a pool.
const fieldManager = "vivarium-cli"

// tokenSecret is the Secret in the pool that the pool fills with the ServiceAccount's token; charts/vivarium-pool has it.
const tokenSecret = "vivarium-token"

// Manifests are the files of charts/vivarium-pool, as they are.
type Manifests struct {
	// Role is the ClusterRole, Access the ServiceAccount with its binding and token, Policy the admission policies.
	Role, Access, Policy []byte
}

// YAML is everything as one file, for operators who rather apply it themselves.
func (m Manifests) YAML() []byte {
	return bytes.Join([][]byte{m.Role, m.Access, m.Policy}, []byte("---\n"))
}

// installer applies manifests in a pool and remembers what was not there before.
type installer struct {
	typed   kubernetes.Interface
	dynamic dynamic.Interface
	// made is what this installer created, in order.
	made []*unstructured.Unstructured
}

func newInstaller(config *rest.Config) (*installer, error) {
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the pool: %w", err)
	}
	dyn, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the pool: %w", err)
	}
	return &installer{typed: typed, dynamic: dyn}, nil
}

// resources are the kinds that the manifests may have.
var resources = map[schema.GroupKind]string{
	{Group: "", Kind: "Namespace"}:                                                    "namespaces",
	{Group: "", Kind: "ServiceAccount"}:                                               "serviceaccounts",
	{Group: "", Kind: "Secret"}:                                                       "secrets",
	{Group: "rbac.authorization.k8s.io", Kind: "Role"}:                                "roles",
	{Group: "rbac.authorization.k8s.io", Kind: "RoleBinding"}:                         "rolebindings",
	{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole"}:                         "clusterroles",
	{Group: "rbac.authorization.k8s.io", Kind: "ClusterRoleBinding"}:                  "clusterrolebindings",
	{Group: "admissionregistration.k8s.io", Kind: "ValidatingAdmissionPolicy"}:        "validatingadmissionpolicies",
	{Group: "admissionregistration.k8s.io", Kind: "ValidatingAdmissionPolicyBinding"}: "validatingadmissionpolicybindings",
}

func (i *installer) client(object *unstructured.Unstructured) (dynamic.ResourceInterface, schema.GroupVersionResource, error) {
	gvk := object.GroupVersionKind()
	resource, ok := resources[gvk.GroupKind()]
	if !ok {
		return nil, schema.GroupVersionResource{}, fmt.Errorf("manifest has a %s, which nobody decided about", gvk.Kind)
	}
	gvr := gvk.GroupVersion().WithResource(resource)
	if namespace := object.GetNamespace(); namespace != "" {
		return i.dynamic.Resource(gvr).Namespace(namespace), gvr, nil
	}
	return i.dynamic.Resource(gvr), gvr, nil
}

// missing names, in words, what the credentials lack to apply the objects.
func (i *installer) missing(ctx context.Context, objects []*unstructured.Unstructured) ([]string, error) {
	lacks := map[string][]string{}
	asked := map[string]bool{}
	for _, object := range objects {
		_, gvr, err := i.client(object)
		if err != nil {
			return nil, err
		}
		name := gvr.GroupResource().String()
		for _, verb := range []string{"get", "create", "patch"} {
			if asked[verb+name] {
				continue
			}
			asked[verb+name] = true
			review, err := i.typed.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
				Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
					Verb: verb, Group: gvr.Group, Resource: gvr.Resource, Namespace: object.GetNamespace(),
				}},
			}, metav1.CreateOptions{})
			if err != nil {
				return nil, fmt.Errorf("ask the pool for our rights: %w", err)
			}
			if !review.Status.Allowed {
				lacks[name] = append(lacks[name], verb)
			}
		}
	}
	var words []string
	for name, verbs := range lacks {
		words = append(words, strings.Join(verbs, ", ")+" "+name)
	}
	slices.Sort(words)
	return words, nil
}

// apply makes every object what its manifest says.
func (i *installer) apply(ctx context.Context, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		client, _, err := i.client(object)
		if err != nil {
			return err
		}
		absent, err := i.absent(ctx, client, object)
		if err != nil {
			return err
		}
		applied, err := client.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
		if err != nil {
			return fmt.Errorf("apply %s %s in the pool: %w", object.GetKind(), object.GetName(), err)
		}
		if absent {
			i.made = append(i.made, applied)
		}
	}
	return nil
}

// absent reports whether an object is not there. One that an earlier removal is still deleting is waited for.
func (i *installer) absent(ctx context.Context, client dynamic.ResourceInterface, object *unstructured.Unstructured) (bool, error) {
	for {
		old, err := client.Get(ctx, object.GetName(), metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return true, nil
		case err != nil:
			return false, fmt.Errorf("read %s %s in the pool: %w", object.GetKind(), object.GetName(), err)
		case old.GetDeletionTimestamp() == nil:
			return false, nil
		}
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("%s %s in the pool is being deleted, and does not go", object.GetKind(), object.GetName())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// undo deletes what apply created, last first.
func (i *installer) undo(ctx context.Context) error {
	var problems []error
	for _, object := range slices.Backward(i.made) {
		client, _, err := i.client(object)
		if err != nil {
			continue
		}
		uid := object.GetUID()
		err = client.Delete(ctx, object.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if err != nil && !apierrors.IsNotFound(err) {
			problems = append(problems, fmt.Errorf("delete %s %s in the pool: %w", object.GetKind(), object.GetName(), err))
		}
	}
	i.made = nil
	return errors.Join(problems...)
}

// servesPolicies reports whether the pool has ValidatingAdmissionPolicy v1.
func (i *installer) servesPolicies() bool {
	list, err := i.typed.Discovery().ServerResourcesForGroupVersion("admissionregistration.k8s.io/v1")
	if err != nil {
		return false
	}
	return slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == "validatingadmissionpolicies" })
}

// token waits until the pool has filled the ServiceAccount's token in.
func (i *installer) token(ctx context.Context) (string, error) {
	for {
		secret, err := i.typed.CoreV1().Secrets(names.SystemNamespace).Get(ctx, tokenSecret, metav1.GetOptions{})
		if err == nil && len(secret.Data[corev1.ServiceAccountTokenKey]) > 0 {
			return string(secret.Data[corev1.ServiceAccountTokenKey]), nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("the pool did not make a token in Secret %s/%s; does its controller manager run?", names.SystemNamespace, tokenSecret)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// decode reads a YAML stream of objects.
func decode(manifests ...[]byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	for _, manifest := range manifests {
		decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
		for {
			object := &unstructured.Unstructured{}
			err := decoder.Decode(&object.Object)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("read a manifest: %w", err)
			}
			if len(object.Object) > 0 {
				objects = append(objects, object)
			}
		}
	}
	return objects, nil
}
