package adminclient

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ListWatch is what an informer on a kind of the admin API needs; T is the kind's list, as in ListWatch[v1alpha1.TenantList].
func ListWatch[T any, L interface {
	*T
	client.ObjectList
}](admin client.WithWatch) cache.ListerWatcher {
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list := L(new(T))
			return list, admin.List(ctx, list, &client.ListOptions{Raw: &options})
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return admin.Watch(ctx, L(new(T)), &client.ListOptions{Raw: &options})
		},
	}, admin)
}
