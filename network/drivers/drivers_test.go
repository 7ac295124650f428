package drivers

import "testing"

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
	if d, err := Binder("nope"); err == nil || d != nil {
		t.Errorf("an unknown driver: %v, %v", d, err)
	}
}
