package admin

import (
	"context"
	"fmt"
	"sync"

	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"vivarium.io/vivarium/api/v1alpha1"
)

// mainStorage serves a kind itself. Every way an object can leave the server passes shown, which hides what the caller
// may not see: whoever adds another way must do the same.
type mainStorage[T any, P object[T]] struct {
	*genericregistry.Store
	shortNames []string
	serial     *sync.Mutex
}

// statusStorage serves the status subresource of a kind.
type statusStorage[T any, P object[T]] struct {
	store *genericregistry.Store
}

var (
	_ rest.StandardStorage      = mainStorage[v1alpha1.Tenant, *v1alpha1.Tenant]{}
	_ rest.ShortNamesProvider   = mainStorage[v1alpha1.Tenant, *v1alpha1.Tenant]{}
	_ rest.CategoriesProvider   = mainStorage[v1alpha1.Tenant, *v1alpha1.Tenant]{}
	_ rest.SingularNameProvider = mainStorage[v1alpha1.Tenant, *v1alpha1.Tenant]{}
	_ rest.Patcher              = statusStorage[v1alpha1.Tenant, *v1alpha1.Tenant]{}
	_ rest.ResetFieldsStrategy  = statusStorage[v1alpha1.Tenant, *v1alpha1.Tenant]{}
)

// newStorage makes the storage of a kind and of its status.
func newStorage[T any, P object[T]](scheme apiScheme, options generic.RESTOptionsGetter, k kind[T, P]) (mainStorage[T, P], statusStorage[T, P], error) {
	main := strategy[T, P]{ObjectTyper: scheme, NameGenerator: names.SimpleNameGenerator, kind: k}
	store := &genericregistry.Store{
		NewFunc:                   func() runtime.Object { return P(new(T)) },
		NewListFunc:               k.list,
		DefaultQualifiedResource:  v1alpha1.Resource(k.resource),
		SingularQualifiedResource: v1alpha1.Resource(k.singular),
		CreateStrategy:            main,
		UpdateStrategy:            main,
		DeleteStrategy:            main,
		ResetFieldsStrategy:       main,
		TableConvertor:            table[T, P](k.columns),
		StorageVersioner:          v1alpha1.GroupVersion,
	}
	if err := store.CompleteWithOptions(&generic.StoreOptions{RESTOptions: options}); err != nil {
		return mainStorage[T, P]{}, statusStorage[T, P]{}, fmt.Errorf("store %s: %w", k.resource, err)
	}
	statusStore := *store
	status := statusStrategy[T, P]{main}
	statusStore.UpdateStrategy = status
	statusStore.ResetFieldsStrategy = status
	return mainStorage[T, P]{Store: store, shortNames: k.shortNames, serial: k.serial}, statusStorage[T, P]{store: &statusStore}, nil
}

// serve adds a kind and its status to resources, and gives what lists it.
func serve[T any, P object[T]](resources map[string]rest.Storage, scheme apiScheme, options generic.RESTOptionsGetter, k kind[T, P]) (rest.Lister, error) {
	main, status, err := newStorage(scheme, options, k)
	if err != nil {
		return nil, err
	}
	resources[k.resource], resources[k.resource+"/status"] = main, status
	return main.Store, nil
}

func (s mainStorage[T, P]) ShortNames() []string { return s.shortNames }

// Categories let kubectl get vivarium show everything of the platform.
func (mainStorage[T, P]) Categories() []string { return []string{"vivarium"} }

// alone waits until no other write of the kinds that are checked against each other is under way.
func (s mainStorage[T, P]) alone() (done func()) {
	if s.serial == nil {
		return func() {}
	}
	s.serial.Lock()
	return s.serial.Unlock
}

func (s mainStorage[T, P]) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	defer s.alone()()
	return shown(ctx)(s.Store.Create(ctx, obj, validate, options))
}

func (s mainStorage[T, P]) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return shown(ctx)(s.Store.Get(ctx, name, options))
}

func (s mainStorage[T, P]) List(ctx context.Context, options *metainternalversion.ListOptions) (runtime.Object, error) {
	return shown(ctx)(s.Store.List(ctx, options))
}

func (s mainStorage[T, P]) Watch(ctx context.Context, options *metainternalversion.ListOptions) (watch.Interface, error) {
	events, err := s.Store.Watch(ctx, options)
	if err != nil || seesAll(ctx) {
		return events, err
	}
	return watch.Filter(events, func(in watch.Event) (watch.Event, bool) {
		in.Object = hide(in.Object)
		return in, true
	}), nil
}

func (s mainStorage[T, P]) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, validateCreate rest.ValidateObjectFunc, validateUpdate rest.ValidateObjectUpdateFunc, forceCreate bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	defer s.alone()()
	obj, created, err := s.Store.Update(ctx, name, info, validateCreate, validateUpdate, forceCreate, options)
	obj, err = shown(ctx)(obj, err)
	return obj, created, err
}

func (s mainStorage[T, P]) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	defer s.alone()()
	obj, now, err := s.Store.Delete(ctx, name, validate, options)
	obj, err = shown(ctx)(obj, err)
	return obj, now, err
}

func (s mainStorage[T, P]) DeleteCollection(ctx context.Context, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions, list *metainternalversion.ListOptions) (runtime.Object, error) {
	defer s.alone()()
	return shown(ctx)(s.Store.DeleteCollection(ctx, validate, options, list))
}

func (s statusStorage[T, P]) New() runtime.Object { return P(new(T)) }

// Destroy has nothing to do: the main storage closes what both use.
func (statusStorage[T, P]) Destroy() {}

func (s statusStorage[T, P]) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return shown(ctx)(s.store.Get(ctx, name, options))
}

func (s statusStorage[T, P]) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, validateCreate rest.ValidateObjectFunc, validateUpdate rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	obj, created, err := s.store.Update(ctx, name, info, validateCreate, validateUpdate, false, options)
	obj, err = shown(ctx)(obj, err)
	return obj, created, err
}

func (s statusStorage[T, P]) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return s.store.GetResetFields()
}

func (s statusStorage[T, P]) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	return s.store.ConvertToTable(ctx, obj, options)
}
