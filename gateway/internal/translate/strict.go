package translate

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/client-go/kubernetes/scheme"
)

// strict reads as an API server does that is asked to validate fields strictly. It knows the types of the built-in kinds.
var strict = json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{Strict: true})

// strictly says what an API server would say about a body with a repeated key if it were asked to validate its fields
// strictly: with all that is wrong, unknown fields among it. Such a body is refused in any case: readers differ on what it
// means, and one of them stands behind this one. It gives nil for a body with which an API server would find another fault.
func (q *request) strictly(body []byte) *Error {
	gvk := schema.GroupVersionKind{Group: q.root.Group, Version: q.root.Version, Kind: q.root.Kind}
	var into runtime.Object
	if q.root.Custom {
		into = new(unstructured.Unstructured)
	}
	_, actual, err := strict.Decode(body, &gvk, into)
	if err == nil || actual == nil || !runtime.IsStrictDecodingError(err) {
		return nil
	}
	return malformed("%s in version %q cannot be handled as a %s: %s", actual.Kind, actual.Version, gvk.Kind, err)
}
