package flows

import (
	"context"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metatable "k8s.io/apimachinery/pkg/api/meta/table"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// table shows both kinds with the columns that kubectl has for them everywhere.
type table struct{}

const (
	none    = "<none>"
	unknown = "?"
)

// ConvertToTable implements rest.TableConvertor.
func (table) ConvertToTable(_ context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	out := &metav1.Table{}
	if list, err := meta.ListAccessor(obj); err == nil {
		out.ResourceVersion, out.Continue, out.RemainingItemCount = list.GetResourceVersion(), list.GetContinue(), list.GetRemainingItemCount()
	} else if object, err := meta.CommonAccessor(obj); err == nil {
		out.ResourceVersion = object.GetResourceVersion()
	}
	if opt, ok := options.(*metav1.TableOptions); !ok || !opt.NoHeaders {
		out.ColumnDefinitions = columns(obj)
	}
	var err error
	out.Rows, err = metatable.MetaToTableRow(obj, func(obj runtime.Object, _ metav1.Object, name, age string) ([]any, error) {
		if schema, ok := obj.(*flowcontrolv1.FlowSchema); ok {
			return schemaCells(schema, name, age), nil
		}
		return levelCells(obj.(*flowcontrolv1.PriorityLevelConfiguration), name, age), nil
	})
	return out, err
}

func columns(obj runtime.Object) []metav1.TableColumnDefinition {
	name := metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]}
	age := column("Age", metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"])
	switch obj.(type) {
	case *flowcontrolv1.FlowSchema, *flowcontrolv1.FlowSchemaList:
		spec := flowcontrolv1.FlowSchemaSpec{}.SwaggerDoc()
		return []metav1.TableColumnDefinition{
			name,
			column("PriorityLevel", flowcontrolv1.PriorityLevelConfigurationReference{}.SwaggerDoc()["name"]),
			column("MatchingPrecedence", spec["matchingPrecedence"]),
			column("DistinguisherMethod", spec["distinguisherMethod"]),
			age,
			column("MissingPL", "references a broken or non-existent PriorityLevelConfiguration"),
		}
	}
	queuing := flowcontrolv1.QueuingConfiguration{}.SwaggerDoc()
	return []metav1.TableColumnDefinition{
		name,
		column("Type", flowcontrolv1.PriorityLevelConfigurationSpec{}.SwaggerDoc()["type"]),
		column("NominalConcurrencyShares", flowcontrolv1.LimitedPriorityLevelConfiguration{}.SwaggerDoc()["nominalConcurrencyShares"]),
		column("Queues", queuing["queues"]), column("HandSize", queuing["handSize"]), column("QueueLengthLimit", queuing["queueLengthLimit"]),
		age,
	}
}

func column(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "string", Description: description}
}

func schemaCells(s *flowcontrolv1.FlowSchema, name, age string) []any {
	method, missing := none, unknown
	if m := s.Spec.DistinguisherMethod; m != nil {
		method = string(m.Type)
	}
	for _, condition := range s.Status.Conditions {
		if condition.Type == flowcontrolv1.FlowSchemaConditionDangling {
			missing = string(condition.Status)
		}
	}
	return []any{name, s.Spec.PriorityLevelConfiguration.Name, int64(s.Spec.MatchingPrecedence), method, age, missing}
}

func levelCells(l *flowcontrolv1.PriorityLevelConfiguration, name, age string) []any {
	cells := []any{name, string(l.Spec.Type), none, none, none, none, age}
	if l.Spec.Limited == nil {
		return cells
	}
	if shares := l.Spec.Limited.NominalConcurrencyShares; shares != nil {
		cells[2] = int64(*shares)
	}
	if q := l.Spec.Limited.LimitResponse.Queuing; q != nil {
		cells[3], cells[4], cells[5] = int64(q.Queues), int64(q.HandSize), int64(q.QueueLengthLimit)
	}
	return cells
}
