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

// client reads and writes Tenants at the admin API.
type client = gentype.ClientWithList[*v1alpha1.Tenant, *v1alpha1.TenantList]

func newClient(loopback *rest.Config) (*client, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("make the client of the admin API: %w", err)
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
		return nil, fmt.Errorf("make the client of the admin API: %w", err)
	}
	return gentype.NewClientWithList("tenants", restClient, runtime.NewParameterCodec(scheme), "",
		func() *v1alpha1.Tenant { return &v1alpha1.Tenant{} },
		func() *v1alpha1.TenantList { return &v1alpha1.TenantList{} }), nil
}

// newInformer keeps every Tenant in memory, fed by one watch.
func newInformer(c *client) cache.SharedIndexInformer {
	return cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return c.List(ctx, options)
		},
		WatchFuncWithContext: c.Watch,
	}, &v1alpha1.Tenant{}, 0, cache.Indexers{})
}
