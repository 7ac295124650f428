package flows

import (
	"context"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// What the status of each object says from its first moment.
const (
	// Applied is the condition that tells whether an object orders any request.
	Applied = "Applied"

	notApplied = "NotApplied"
	whyNot     = "kept and not applied: the platform shares the API server's capacity among clusters, and this does not divide this cluster's share"
)

// strategy is how objects of both kinds are made and changed, as by an API server.
type strategy struct {
	runtime.ObjectTyper
	names.NameGenerator
}

var (
	_ rest.RESTCreateUpdateStrategy = strategy{}
	_ rest.ResetFieldsStrategy      = strategy{}
)

func newStrategy(scheme runtime.ObjectTyper) strategy {
	return strategy{scheme, names.SimpleNameGenerator}
}

func (strategy) NamespaceScoped() bool          { return false }
func (strategy) AllowCreateOnUpdate() bool      { return false }
func (strategy) AllowUnconditionalUpdate() bool { return true }
func (strategy) Canonicalize(runtime.Object)    {}

func (strategy) PrepareForCreate(_ context.Context, obj runtime.Object) {
	now := metav1.Time{Time: time.Now().Truncate(time.Second)}
	switch o := obj.(type) {
	case *flowcontrolv1.FlowSchema:
		o.Generation = 1
		o.Status = flowcontrolv1.FlowSchemaStatus{Conditions: []flowcontrolv1.FlowSchemaCondition{{
			Type: Applied, Status: flowcontrolv1.ConditionFalse, LastTransitionTime: now, Reason: notApplied, Message: whyNot,
		}}}
	case *flowcontrolv1.PriorityLevelConfiguration:
		o.Generation = 1
		o.Status = flowcontrolv1.PriorityLevelConfigurationStatus{Conditions: []flowcontrolv1.PriorityLevelConfigurationCondition{{
			Type: Applied, Status: flowcontrolv1.ConditionFalse, LastTransitionTime: now, Reason: notApplied, Message: whyNot,
		}}}
	}
}

func (strategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	switch o := obj.(type) {
	case *flowcontrolv1.FlowSchema:
		before := old.(*flowcontrolv1.FlowSchema)
		o.Status = before.Status
		if !equality.Semantic.DeepEqual(o.Spec, before.Spec) {
			o.Generation = before.Generation + 1
		}
	case *flowcontrolv1.PriorityLevelConfiguration:
		before := old.(*flowcontrolv1.PriorityLevelConfiguration)
		o.Status = before.Status
		if !equality.Semantic.DeepEqual(o.Spec, before.Spec) {
			o.Generation = before.Generation + 1
		}
	}
}

func (strategy) Validate(_ context.Context, obj runtime.Object) field.ErrorList { return validate(obj) }

func (strategy) ValidateUpdate(_ context.Context, obj, _ runtime.Object) field.ErrorList {
	return validate(obj)
}

func (strategy) WarningsOnCreate(context.Context, runtime.Object) []string { return nil }
func (strategy) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return nil
}

// GetResetFields names what a write to the object itself cannot change.
func (strategy) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return map[fieldpath.APIVersion]*fieldpath.Set{
		fieldpath.APIVersion(GroupVersion.String()): fieldpath.NewSet(fieldpath.MakePathOrDie("status")),
	}
}

// statusStrategy is how the status is changed: nothing else changes with it.
type statusStrategy struct{ strategy }

func (statusStrategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	switch o := obj.(type) {
	case *flowcontrolv1.FlowSchema:
		before := old.(*flowcontrolv1.FlowSchema)
		o.Spec, o.ObjectMeta = before.Spec, onlyManagers(o.ObjectMeta, before.ObjectMeta)
	case *flowcontrolv1.PriorityLevelConfiguration:
		before := old.(*flowcontrolv1.PriorityLevelConfiguration)
		o.Spec, o.ObjectMeta = before.Spec, onlyManagers(o.ObjectMeta, before.ObjectMeta)
	}
}

// onlyManagers keeps what metadata was, but for who manages which field and the version that the writer meant.
func onlyManagers(now, before metav1.ObjectMeta) metav1.ObjectMeta {
	before.ManagedFields, before.ResourceVersion, before.UID = now.ManagedFields, now.ResourceVersion, now.UID
	return before
}

func (statusStrategy) ValidateUpdate(_ context.Context, obj, _ runtime.Object) field.ErrorList {
	return validateStatus(obj)
}

func (statusStrategy) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return map[fieldpath.APIVersion]*fieldpath.Set{
		fieldpath.APIVersion(GroupVersion.String()): fieldpath.NewSet(
			fieldpath.MakePathOrDie("spec"), fieldpath.MakePathOrDie("metadata"),
		),
	}
}
