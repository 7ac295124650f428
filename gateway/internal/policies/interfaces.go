package policies

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured/unstructuredscheme"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// interfaces are what a plugin needs to handle objects of which nothing but their documents is known. They implement
// admission.ObjectInterfaces.
type interfaces struct {
	versions func(group, resource string) (versions []string, kind string)
}

// GetObjectCreater implements admission.ObjectInterfaces.
func (interfaces) GetObjectCreater() runtime.ObjectCreater { return documents{} }

// GetObjectTyper implements admission.ObjectInterfaces.
func (interfaces) GetObjectTyper() runtime.ObjectTyper {
	return unstructuredscheme.NewUnstructuredObjectTyper()
}

// GetObjectDefaulter implements admission.ObjectInterfaces: the control cluster fills in defaults after each patch.
func (interfaces) GetObjectDefaulter() runtime.ObjectDefaulter { return documents{} }

// GetObjectConvertor implements admission.ObjectInterfaces.
func (interfaces) GetObjectConvertor() runtime.ObjectConvertor { return documents{} }

// GetEquivalentResourceMapper implements admission.ObjectInterfaces.
func (i interfaces) GetEquivalentResourceMapper() runtime.EquivalentResourceMapper { return i }

// builtInVersions are built-in kinds that are served in several versions or groups.
var builtInVersions = [][]schema.GroupVersionResource{
	{{Group: "autoscaling", Version: "v1", Resource: "horizontalpodautoscalers"}, {Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"}},
	{{Version: "v1", Resource: "events"}, {Group: "events.k8s.io", Version: "v1", Resource: "events"}},
}

var builtInKinds = map[string]string{"horizontalpodautoscalers": "HorizontalPodAutoscaler", "events": "Event"}

// EquivalentResourcesFor implements runtime.EquivalentResourceMapper.
func (i interfaces) EquivalentResourcesFor(resource schema.GroupVersionResource, _ string) []schema.GroupVersionResource {
	for _, same := range builtInVersions {
		if slices.Contains(same, resource) {
			return same
		}
	}
	versions, _ := i.versions(resource.Group, resource.Resource)
	out := make([]schema.GroupVersionResource, len(versions))
	for n, version := range versions {
		out[n] = resource.GroupResource().WithVersion(version)
	}
	return out
}

// KindFor implements runtime.EquivalentResourceMapper.
func (i interfaces) KindFor(resource schema.GroupVersionResource, subresource string) schema.GroupVersionKind {
	if subresource == "scale" {
		return schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}
	}
	if resource.Group == "autoscaling" || resource.Resource == "events" && (resource.Group == "" || resource.Group == "events.k8s.io") {
		return resource.GroupVersion().WithKind(builtInKinds[resource.Resource])
	}
	if _, kind := i.versions(resource.Group, resource.Resource); kind != "" {
		return resource.GroupVersion().WithKind(kind)
	}
	return schema.GroupVersionKind{}
}

// documents makes, fills and converts objects without types.
type documents struct{}

// New implements runtime.ObjectCreater.
func (documents) New(kind schema.GroupVersionKind) (runtime.Object, error) {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(kind)
	return object, nil
}

// Default implements runtime.ObjectDefaulter.
func (documents) Default(runtime.Object) {}

// Convert implements runtime.ObjectConvertor: custom objects are the same in all of their versions, for conversion webhooks
// are refused. Between versions of a built-in kind nobody here can convert, and the policy's failurePolicy decides.
func (documents) Convert(in, out, _ any) error {
	from, ok := in.(*unstructured.Unstructured)
	to, ok2 := out.(*unstructured.Unstructured)
	if !ok || !ok2 {
		return fmt.Errorf("convert %T to %T", in, out)
	}
	want, have := to.GroupVersionKind(), from.GroupVersionKind()
	if want != have && slices.ContainsFunc(slices.Concat(builtInVersions...), func(r schema.GroupVersionResource) bool {
		return r.GroupVersion().WithKind(builtInKinds[r.Resource]) == have
	}) {
		return fmt.Errorf("%s cannot be converted to %s here: name that version in the policy's rules", have, want.GroupVersion())
	}
	to.Object = runtime.DeepCopyJSON(from.Object)
	to.SetGroupVersionKind(want)
	return nil
}

// ConvertToVersion implements runtime.ObjectConvertor.
func (documents) ConvertToVersion(in runtime.Object, _ runtime.GroupVersioner) (runtime.Object, error) {
	return in, nil
}

// ConvertFieldLabel implements runtime.ObjectConvertor.
func (documents) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}
