package drivers

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"vivarium.io/vivarium/api/v1alpha1"
)

func TestByName(t *testing.T) {
	if d, err := ByName(""); err != nil || d.Name() != Default {
		t.Errorf("the default: %v, %v", d, err)
	}
	seen := map[string]bool{}
	for _, driver := range All() {
		if seen[driver.Name()] {
			t.Errorf("two drivers are called %q", driver.Name())
		}
		seen[driver.Name()] = true
		if got, err := ByName(driver.Name()); err != nil || got.Name() != driver.Name() {
			t.Errorf("ByName(%q) = %v, %v", driver.Name(), got, err)
		}
	}
	// What an operator may write in a ResourcePool and what there is are one list.
	var named []string
	for _, driver := range All() {
		named = append(named, driver.Name())
	}
	if diff := cmp.Diff(v1alpha1.Drivers(), named); diff != "" {
		t.Errorf("drivers that the API knows against those that there are (-known +there):\n%s", diff)
	}
	if d, err := Binder("nope"); err == nil || d != nil {
		t.Errorf("an unknown driver: %v, %v", d, err)
	}
}
