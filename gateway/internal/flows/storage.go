package flows

import (
	"context"
	"fmt"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// The resources.
const (
	schemas = "flowschemas"
	levels  = "prioritylevelconfigurations"
)

// Storage gives what serves both kinds and their status, by resource.
func Storage(scheme runtime.ObjectTyper, options generic.RESTOptionsGetter) (map[string]rest.Storage, error) {
	resources := map[string]rest.Storage{}
	for resource, k := range map[string]kind{
		schemas: {
			singular: "flowschema",
			one:      func() runtime.Object { return &flowcontrolv1.FlowSchema{} },
			list:     func() runtime.Object { return &flowcontrolv1.FlowSchemaList{} },
		},
		levels: {
			singular: "prioritylevelconfiguration",
			one:      func() runtime.Object { return &flowcontrolv1.PriorityLevelConfiguration{} },
			list:     func() runtime.Object { return &flowcontrolv1.PriorityLevelConfigurationList{} },
		},
	} {
		main := newStrategy(scheme)
		store := &genericregistry.Store{
			NewFunc:                   k.one,
			NewListFunc:               k.list,
			DefaultQualifiedResource:  flowcontrolv1.Resource(resource),
			SingularQualifiedResource: flowcontrolv1.Resource(k.singular),
			CreateStrategy:            main,
			UpdateStrategy:            main,
			DeleteStrategy:            main,
			ResetFieldsStrategy:       main,
			TableConvertor:            table{},
			StorageVersioner:          GroupVersion,
		}
		if err := store.CompleteWithOptions(&generic.StoreOptions{RESTOptions: options}); err != nil {
			return nil, fmt.Errorf("store %s: %w", resource, err)
		}
		statusStore := *store
		statusStore.UpdateStrategy = statusStrategy{main}
		statusStore.ResetFieldsStrategy = statusStrategy{main}
		resources[resource], resources[resource+"/status"] = store, status{&statusStore}
	}
	return resources, nil
}

type kind struct {
	singular  string
	one, list func() runtime.Object
}

// status serves the subresource.
type status struct{ store *genericregistry.Store }

var (
	_ rest.Patcher             = status{}
	_ rest.ResetFieldsStrategy = status{}
)

func (s status) New() runtime.Object { return s.store.New() }

// Destroy has nothing to do: the main storage closes what both use.
func (status) Destroy() {}

func (s status) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return s.store.Get(ctx, name, options)
}

func (s status) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, validateCreate rest.ValidateObjectFunc, validateUpdate rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return s.store.Update(ctx, name, info, validateCreate, validateUpdate, false, options)
}

func (s status) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return s.store.GetResetFields()
}

func (s status) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	return s.store.ConvertToTable(ctx, obj, options)
}

// Resources are those of which tenants have objects here, schemas before the levels that they name.
func Resources() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{GroupVersion.WithResource(schemas), GroupVersion.WithResource(levels)}
}
