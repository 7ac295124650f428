package admin

import (
	"context"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"vivarium.io/vivarium/api/v1alpha1"
)

// A Tenant's kubeconfig holds a private key. Components read Tenants all day and need none of it, so they are shown
// Tenants without; what they write back keeps what they were not shown.

// seesAll reports whether the caller is an operator or the gateway itself.
func seesAll(ctx context.Context) bool {
	caller, ok := request.UserFrom(ctx)
	return ok && slices.Contains(caller.GetGroups(), user.SystemPrivilegedGroup)
}

// shown finishes a read or write for the caller of ctx.
func shown(ctx context.Context) func(runtime.Object, error) (runtime.Object, error) {
	return func(obj runtime.Object, err error) (runtime.Object, error) {
		if err != nil || obj == nil || seesAll(ctx) {
			return obj, err
		}
		return hide(obj), nil
	}
}

// hide gives obj without what only operators may see. It never changes obj, which a cache may share.
func hide(obj runtime.Object) runtime.Object {
	if cached, ok := obj.(runtime.CacheableObject); ok {
		obj = cached.GetObject()
	}
	switch o := obj.(type) {
	case *v1alpha1.Tenant:
		out := *o
		hideFrom(&out.ObjectMeta)
		return &out
	case *v1alpha1.TenantList:
		out := *o
		out.Items = slices.Clone(o.Items)
		for i := range out.Items {
			hideFrom(&out.Items[i].ObjectMeta)
		}
		return &out
	default:
		return obj
	}
}

func hideFrom(meta *metav1.ObjectMeta) {
	if _, ok := meta.Annotations[v1alpha1.AnnotationKubeconfig]; ok {
		meta.Annotations = maps.Clone(meta.Annotations)
		delete(meta.Annotations, v1alpha1.AnnotationKubeconfig)
	}
}

// restoreHidden puts back into obj what the caller, not having been shown it, seems to have removed.
func restoreHidden(ctx context.Context, obj, old metav1.Object) {
	kubeconfig, ok := old.GetAnnotations()[v1alpha1.AnnotationKubeconfig]
	if !ok || seesAll(ctx) {
		return
	}
	annotations := maps.Clone(obj.GetAnnotations())
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[v1alpha1.AnnotationKubeconfig] = kubeconfig
	obj.SetAnnotations(annotations)
}
