package selection

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"vivarium.io/vivarium/gateway/internal/translate"
)

// Selector is what a watch selects objects by, in the words of the control cluster.
type Selector struct {
	labels labels.Selector
	// notName and notNamespace are left out.
	notName, notNamespace []string
	fields                []requirement
}

// requirement is what one of the fields that frames tell must be, or must not.
type requirement struct {
	at    int
	value string
	not   bool
}

// Parse reads the selectors of a request; either may be empty. told are the fields that frames tell. It gives nil without an
// error for selectors that are better left to the control cluster: it finds objects by name and by namespace without looking
// at others, and knows fields of kinds that frames do not tell.
func Parse(labelSelector, fieldSelector string, told []translate.Field) (*Selector, error) {
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
		not := r.Operator == selection.NotEquals
		at := slices.IndexFunc(told, func(f translate.Field) bool { return f.Name == r.Field })
		switch {
		case at >= 0:
			s.fields = append(s.fields, requirement{at, r.Value, not})
		case not && r.Field == "metadata.name":
			s.notName = append(s.notName, r.Value)
		case not && r.Field == "metadata.namespace":
			s.notNamespace = append(s.notNamespace, r.Value)
		default:
			return nil, nil
		}
	}
	return s, nil
}

// OfFields reports whether [Selector.MatchesFields] has to be asked too.
func (s *Selector) OfFields() bool { return len(s.fields) > 0 }

// MatchesFields reports whether an object that matches otherwise is selected; told are its fields, in the order that [Parse]
// was given.
func (s *Selector) MatchesFields(told []string) bool {
	for _, r := range s.fields {
		if r.at >= len(told) || (told[r.at] == r.value) == r.not {
			return false
		}
	}
	return true
}

// Matches reports whether an object is selected by its key and labels.
func (s *Selector) Matches(key Key, of labels.Labels) bool {
	if !s.labels.Matches(of) {
		return false
	}
	if len(s.notName) == 0 && len(s.notNamespace) == 0 {
		return true
	}
	namespace, name := key.Split()
	return !slices.Contains(s.notName, name) && !slices.Contains(s.notNamespace, namespace)
}
