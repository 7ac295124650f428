package tenancy

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrlfake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/adminclient"
	"vivarium.io/vivarium/internal/names"
)

func TestWelcome(t *testing.T) {
	tenant := func(name, tier string) *v1alpha1.Tenant {
		return &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"tier": tier}}}
	}
	tenants, err := New(ctrlfake.NewClientBuilder().WithScheme(adminclient.Scheme()).Build())
	if err != nil {
		t.Fatal(err)
	}
	for _, known := range []*v1alpha1.Tenant{tenant("aaaaaa", "gold"), tenant("bbbbbb", "iron"), tenant("cccccc", "iron")} {
		if err := tenants.informer.GetStore().Add(known); err != nil {
			t.Fatal(err)
		}
	}
	gold := &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "gold"}}
	for name, tc := range map[string]struct {
		choice *v1alpha1.TenantChoice
		want   []string
	}{
		"Everybody":    {nil, []string{"aaaaaa", "bbbbbb", "cccccc", "zzzzzz"}},
		"Nobody":       {&v1alpha1.TenantChoice{}, nil},
		"Named":        {&v1alpha1.TenantChoice{Names: []string{"bbbbbb"}}, []string{"bbbbbb"}},
		"Selected":     {&v1alpha1.TenantChoice{Selector: gold}, []string{"aaaaaa"}},
		"Both":         {&v1alpha1.TenantChoice{Names: []string{"cccccc"}, Selector: gold}, []string{"aaaaaa", "cccccc"}},
		"EveryTenant":  {&v1alpha1.TenantChoice{Selector: &metav1.LabelSelector{}}, []string{"aaaaaa", "bbbbbb", "cccccc"}},
		"Unknown":      {&v1alpha1.TenantChoice{Names: []string{"zzzzzz"}}, nil},
		"BrokenByHand": {&v1alpha1.TenantChoice{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a b": "c"}}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, id := range []names.TenantID{"aaaaaa", "bbbbbb", "cccccc", "zzzzzz"} {
				if tenants.Welcome(tc.choice, id) {
					got = append(got, string(id))
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("welcome are %v, want %v", got, tc.want)
			}
			if tc.choice != nil && !slices.Equal(tenants.Chosen(tc.choice), tc.want) {
				t.Errorf("chosen are %v, want %v", tenants.Chosen(tc.choice), tc.want)
			}
		})
	}
}
