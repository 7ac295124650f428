// Package adminclient makes clients of the gateway's admin API, group vivarium.io, for everybody who is not the gateway.
// They read and write live; whoever needs a cache builds an informer on [ListWatch].
//
// It must never dial by itself: a client can be made before the gateway is up. Start at [New].
package adminclient

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
)

// Scheme knows the admin API and nothing else.
func Scheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	// Registering types of one's own cannot fail but by a mistake that every test would show.
	_ = v1alpha1.AddToScheme(scheme)
	return scheme
}

// New makes a client.
func New(config *rest.Config) (client.WithWatch, error) {
	scheme := Scheme()
	made, err := client.NewWithWatch(config, client.Options{Scheme: scheme, Mapper: mapper(scheme)})
	if err != nil {
		return nil, fmt.Errorf("make a client of the admin API at %s: %w", config.Host, err)
	}
	return made, nil
}

// mapper knows the resources by heart, where the default one asks the server.
func mapper(scheme *runtime.Scheme) meta.RESTMapper {
	m := meta.NewDefaultRESTMapper([]schema.GroupVersion{v1alpha1.GroupVersion})
	for kind := range scheme.KnownTypes(v1alpha1.GroupVersion) {
		gvk := v1alpha1.GroupVersion.WithKind(kind)
		object, err := scheme.New(gvk)
		if err != nil {
			continue
		}
		if _, ok := object.(client.Object); ok {
			m.Add(gvk, meta.RESTScopeRoot)
		}
	}
	return m
}
