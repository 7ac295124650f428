package customs

import (
	"context"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"vivarium.io/vivarium/internal/names"
)

// stored are the definitions of a control cluster; it counts how often they are listed.
type stored struct {
	items []apiextensionsv1.CustomResourceDefinition
	lists int
}

func (s *stored) Get(context.Context, string, metav1.GetOptions) (*apiextensionsv1.CustomResourceDefinition, error) {
	return s.items[0].DeepCopy(), nil
}

func (s *stored) List(context.Context, metav1.ListOptions) (*apiextensionsv1.CustomResourceDefinitionList, error) {
	s.lists++
	return &apiextensionsv1.CustomResourceDefinitionList{Items: s.items}, nil
}

// TestNow checks that discovery knows a definition that the informer cannot tell of, and that nobody is asked once the
// informer surely has caught up.
func TestNow(t *testing.T) {
	r, err := New(Config{Control: &rest.Config{Host: "127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	crd := apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "widgets.abc123-example.com", ResourceVersion: "7", Labels: map[string]string{names.LabelTenant: "abc123"}},
		Spec:       apiextensionsv1.CustomResourceDefinitionSpec{Group: "abc123-example.com", Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true}}},
		Status: apiextensionsv1.CustomResourceDefinitionStatus{
			AcceptedNames: apiextensionsv1.CustomResourceDefinitionNames{Plural: "widgets", Kind: "Widget", ListKind: "WidgetList"},
			Conditions:    []apiextensionsv1.CustomResourceDefinitionCondition{{Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionTrue}},
		},
	}
	control := &stored{items: []apiextensionsv1.CustomResourceDefinition{crd}}
	r.definitions = control

	r.followedSince.Store(time.Now().Add(-time.Hour).UnixNano())
	if _, ok := r.Now(t.Context(), "abc123").Group("example.com"); ok || control.lists != 0 {
		t.Errorf("while definitions are followed: %t, %d lists", ok, control.lists)
	}
	for name, since := range map[string]int64{"not followed": 0, "followed since a moment": time.Now().UnixNano()} {
		control.lists = 0
		r.followedSince.Store(since)
		if _, ok := r.Now(t.Context(), "abc123").Group("example.com"); !ok || control.lists != 1 {
			t.Errorf("%s: %t, %d lists", name, ok, control.lists)
		}
	}
	if _, ok := r.Now(t.Context(), "zzz999").Group("example.com"); ok {
		t.Error("another tenant sees it")
	}
}
