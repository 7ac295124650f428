package tenants

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/api/v1alpha1"
)

// client reads and writes one kind of objects at the admin API.
type client[P interface {
	runtime.Object
	metav1.Object
}, L runtime.Object] = gentype.ClientWithList[P, L]

// api is the admin API with the types that it speaks.
type api struct {
	rest       rest.Interface
	parameters runtime.ParameterCodec
}

func adminAPI(loopback *rest.Config) (api, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return api{}, fmt.Errorf("make the client of the admin API: %w", err)
	}
	config := rest.CopyConfig(loopback)
	config.GroupVersion = &v1alpha1.GroupVersion
	config.APIPath = "/apis"
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.ContentType = runtime.ContentTypeJSON
	// The client talks to its own process: a limit would only slow a burst of new tenants.
	config.QPS = -1
	restClient, err := rest.RESTClientFor(config)
	if err != nil {
		return api{}, fmt.Errorf("make the client of the admin API: %w", err)
	}
	return api{rest: restClient, parameters: runtime.NewParameterCodec(scheme)}, nil
}

// newClient makes the client of a kind.
func newClient[T, L any, P interface {
	*T
	runtime.Object
	metav1.Object
}, PL interface {
	*L
	runtime.Object
}](a api, resource string) *client[P, PL] {
	return gentype.NewClientWithList[P, PL](resource, a.rest, a.parameters, "", func() P { return new(T) }, func() PL { return new(L) })
}

// newInformer keeps every object of a kind in memory, fed by one watch.
func newInformer[P interface {
	runtime.Object
	metav1.Object
}, L runtime.Object](c *client[P, L], example P) cache.SharedIndexInformer {
	return cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return c.List(ctx, options)
		},
		WatchFuncWithContext: c.Watch,
	}, example, 0, cache.Indexers{})
}
