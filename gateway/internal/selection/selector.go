package selection

import (
	"fmt"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// Selector is what a watch selects objects by, in the words of the control cluster.
type Selector struct {
	labels labels.Selector
	// not are names and namespaces that are left out.
	notName, notNamespace []string
}

// Parse reads the selectors of a request; either may be empty. It gives nil without an error for those that are better left
// to the control cluster: it finds objects by name and by namespace without looking at others, and knows fields of kinds
// that frames do not tell.
func Parse(labelSelector, fieldSelector string) (*Selector, error) {
	s := &Selector{}
	var err error
	if s.labels, err = labels.Parse(labelSelector); err != nil {
		return nil, fmt.Errorf("read a label selector: %w", err)
	}
	chosen, err := fields.ParseSelector(fieldSelector)
	if err != nil {
		return nil, fmt.Errorf("read a field selector: %w", err)
	}
	for _, r := range chosen.Requirements() {
		switch {
		case r.Operator != selection.NotEquals:
			return nil, nil
		case r.Field == "metadata.name":
			s.notName = append(s.notName, r.Value)
		case r.Field == "metadata.namespace":
			s.notNamespace = append(s.notNamespace, r.Value)
		default:
			return nil, nil
		}
	}
	return s, nil
}
