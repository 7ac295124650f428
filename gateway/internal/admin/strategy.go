package admin

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"vivarium.io/vivarium/api/v1alpha1"
)

// object is a pointer to a kind of this API.
type object[T any] interface {
	*T
	runtime.Object
	metav1.Object
}

// kind is what one kind adds to the common behaviour. All functions must leave their arguments unchanged, and none dials.
type kind[T any, P object[T]] struct {
	resource, singular string
	shortNames         []string
	finalizers         []string
	list               func() runtime.Object
	columns            []column[P]

	// serial is held while an object is checked and stored, by all kinds that are checked against each other; nil for none.
	// Without it two writes at once could each find nothing of the other. It reaches no further than this replica: what
	// lies between replicas is for whoever acts on the objects (the vk-provider serves neither of two pools that are one
	// cluster, the network controller one of two subnets that overlap).
	serial *sync.Mutex
	// conditional refuses updates that do not name the version that they change.
	conditional bool

	validate       func(P) field.ErrorList
	validateUpdate func(obj, old P) field.ErrorList
	// validateStatus and warnings may be nil.
	validateStatus func(obj, old P) field.ErrorList
	warnings       func(P) []string

	// parts gives what the common behaviour handles apart.
	parts func(P) parts
}

// parts point into an object.
type parts struct {
	spec, status any
	conditions   []metav1.Condition
	// copySpec and copyStatus overwrite a part with another object's.
	copySpec, copyStatus func(from runtime.Object)
}

// strategy is how the main resource of a kind is created, updated and deleted: status is not the caller's to write, and
// a changed spec is a new generation.
type strategy[T any, P object[T]] struct {
	runtime.ObjectTyper
	names.NameGenerator
	kind kind[T, P]
}

var (
	_ rest.RESTCreateUpdateStrategy = strategy[v1alpha1.Tenant, *v1alpha1.Tenant]{}
	_ rest.ResetFieldsStrategy      = strategy[v1alpha1.Tenant, *v1alpha1.Tenant]{}
)

func (strategy[T, P]) NamespaceScoped() bool            { return false }
func (strategy[T, P]) AllowCreateOnUpdate() bool        { return false }
func (s strategy[T, P]) AllowUnconditionalUpdate() bool { return !s.kind.conditional }
func (strategy[T, P]) Canonicalize(runtime.Object)      {}

func (s strategy[T, P]) PrepareForCreate(_ context.Context, obj runtime.Object) {
	p := obj.(P)
	s.kind.parts(p).copyStatus(P(new(T)))
	p.SetGeneration(1)
	// The finalizers are there from the first moment, so that no deletion can outrun the clean-up.
	finalizers := p.GetFinalizers()
	for _, name := range s.kind.finalizers {
		if !sets.New(finalizers...).Has(name) {
			finalizers = append(finalizers, name)
		}
	}
	p.SetFinalizers(finalizers)
}

func (s strategy[T, P]) Validate(_ context.Context, obj runtime.Object) field.ErrorList {
	return s.kind.validate(obj.(P))
}

func (s strategy[T, P]) WarningsOnCreate(_ context.Context, obj runtime.Object) []string {
	if s.kind.warnings == nil {
		return nil
	}
	return s.kind.warnings(obj.(P))
}

func (s strategy[T, P]) PrepareForUpdate(ctx context.Context, obj, old runtime.Object) {
	p, before := obj.(P), s.kind.parts(old.(P))
	now := s.kind.parts(p)
	now.copyStatus(old)
	restoreHidden(ctx, p, old.(P))
	if !equality.Semantic.DeepEqual(now.spec, before.spec) {
		p.SetGeneration(old.(P).GetGeneration() + 1)
	}
}

func (s strategy[T, P]) ValidateUpdate(_ context.Context, obj, old runtime.Object) field.ErrorList {
	if obj.(P).GetDeletionTimestamp() != nil && equality.Semantic.DeepEqual(s.kind.parts(obj.(P)).spec, s.kind.parts(old.(P)).spec) {
		// What is being removed must get rid of its finalizers even if today's rules would not have let it in.
		return nil
	}
	return append(s.kind.validate(obj.(P)), s.kind.validateUpdate(obj.(P), old.(P))...)
}

func (s strategy[T, P]) WarningsOnUpdate(ctx context.Context, obj, _ runtime.Object) []string {
	return s.WarningsOnCreate(ctx, obj)
}

// GetResetFields names what a write to the main resource cannot change, so that server-side apply gives nobody ownership
// of it.
func (strategy[T, P]) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return map[fieldpath.APIVersion]*fieldpath.Set{
		fieldpath.APIVersion(v1alpha1.GroupVersion.String()): fieldpath.NewSet(fieldpath.MakePathOrDie("status")),
	}
}

// statusStrategy is how the status subresource is updated: nothing else changes with it.
type statusStrategy[T any, P object[T]] struct{ strategy[T, P] }

func (s statusStrategy[T, P]) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	p, before := obj.(P), old.(P)
	s.kind.parts(p).copySpec(old)
	p.SetLabels(before.GetLabels())
	p.SetAnnotations(before.GetAnnotations())
	p.SetFinalizers(before.GetFinalizers())
	p.SetOwnerReferences(before.GetOwnerReferences())
}

func (s statusStrategy[T, P]) ValidateUpdate(_ context.Context, obj, old runtime.Object) field.ErrorList {
	problems := metav1validation.ValidateConditions(s.kind.parts(obj.(P)).conditions, field.NewPath("status", "conditions"))
	if s.kind.validateStatus != nil {
		problems = append(problems, s.kind.validateStatus(obj.(P), old.(P))...)
	}
	return problems
}

func (statusStrategy[T, P]) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return nil
}

func (statusStrategy[T, P]) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return map[fieldpath.APIVersion]*fieldpath.Set{
		fieldpath.APIVersion(v1alpha1.GroupVersion.String()): fieldpath.NewSet(
			fieldpath.MakePathOrDie("spec"),
			fieldpath.MakePathOrDie("metadata", "labels"),
			fieldpath.MakePathOrDie("metadata", "annotations"),
			fieldpath.MakePathOrDie("metadata", "finalizers"),
			fieldpath.MakePathOrDie("metadata", "ownerReferences"),
		),
	}
}

// outOfRange is the range check of this API, in one wording.
func outOfRange(path *field.Path, value, least, most int32) field.ErrorList {
	if value >= least && value <= most {
		return nil
	}
	return field.ErrorList{field.Invalid(path, value, fmt.Sprintf("must be from %d to %d", least, most))}
}
