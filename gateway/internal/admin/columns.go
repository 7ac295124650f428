package admin

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metatable "k8s.io/apimachinery/pkg/api/meta/table"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// column is one column of kubectl get.
type column[P any] struct {
	name, kind, description string
	// wide columns are shown by -o wide alone.
	wide  bool
	value func(P) any
}

// table renders a kind as kubectl shows it. It implements rest.TableConvertor.
type table[T any, P object[T]] []column[P]

const (
	text   = "string"
	number = "integer"
)

// ConvertToTable gives one row per object.
func (t table[T, P]) ConvertToTable(_ context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	out := &metav1.Table{}
	if list, err := meta.ListAccessor(obj); err == nil {
		out.ResourceVersion = list.GetResourceVersion()
		out.Continue = list.GetContinue()
		out.RemainingItemCount = list.GetRemainingItemCount()
	} else if object, err := meta.CommonAccessor(obj); err == nil {
		out.ResourceVersion = object.GetResourceVersion()
	}
	if opt, ok := options.(*metav1.TableOptions); !ok || !opt.NoHeaders {
		out.ColumnDefinitions = t.definitions()
	}
	var err error
	out.Rows, err = metatable.MetaToTableRow(obj, func(obj runtime.Object, _ metav1.Object, _, _ string) ([]any, error) {
		cells := make([]any, len(t))
		for i, column := range t {
			cells[i] = column.value(obj.(P))
		}
		return cells, nil
	})
	return out, err
}

func (t table[T, P]) definitions() []metav1.TableColumnDefinition {
	out := make([]metav1.TableColumnDefinition, len(t))
	for i, c := range t {
		out[i] = metav1.TableColumnDefinition{Name: c.name, Type: c.kind, Description: c.description}
		if c.name == nameColumn {
			out[i].Format = "name"
		}
		if c.wide {
			out[i].Priority = 1
		}
	}
	return out
}

const nameColumn = "Name"

func nameOf[P metav1.Object]() column[P] {
	return column[P]{name: nameColumn, kind: text, description: "Name of the object.", value: func(p P) any { return p.GetName() }}
}

func ageOf[P metav1.Object]() column[P] {
	return column[P]{name: "Age", kind: text, description: "Time since the object was created.", value: func(p P) any {
		return metatable.ConvertToHumanReadableDateType(p.GetCreationTimestamp())
	}}
}

// conditionStatus is what a condition column shows: unknown until somebody has set it.
func conditionStatus(conditions []metav1.Condition, kind string) string {
	if c := meta.FindStatusCondition(conditions, kind); c != nil {
		return string(c.Status)
	}
	return string(metav1.ConditionUnknown)
}

// trouble is the message of the first of the conditions that is not as it should be.
func trouble(conditions []metav1.Condition, kinds ...string) string {
	for _, condition := range conditions {
		if slices.Contains(kinds, condition.Type) && condition.Status != metav1.ConditionTrue {
			return condition.Message
		}
	}
	return ""
}
