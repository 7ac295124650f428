package names

import (
	"errors"
	"strings"
	"testing"
)

func TestDefinitions(t *testing.T) {
	const id = TenantID("abc123")
	for name, want := range map[string]string{
		"widgets.example.com":        "widgets.abc123-example.com",
		"widgets.abc123-example.com": "widgets.abc123-abc123-example.com",
		"a.b":                        "a.abc123-b",
	} {
		control, err := id.DefinitionToControl(name)
		if err != nil || control != want {
			t.Errorf("%s: %s, %v, want %s", name, control, err, want)
		}
		if own, err := id.DefinitionToTenant(control); err != nil || own != name {
			t.Errorf("%s comes back as %q, %v", name, own, err)
		}
		for _, other := range []TenantID{"zzz999", "abc12", ""} {
			if own, err := other.DefinitionToTenant(control); !errors.Is(err, ErrForeign) {
				t.Errorf("%s is %q to %q", control, own, other)
			}
		}
	}
	for _, control := range []string{"widgets.example.com", "widgets", "", ".abc123-x", "widgets.abc123-", "abc123-widgets.example.com", "w.x.abc123-y"} {
		if own, err := id.DefinitionToTenant(control); !errors.Is(err, ErrForeign) {
			t.Errorf("%q is %q, %v", control, own, err)
		}
	}
	if _, err := id.DefinitionToControl("w." + strings.Repeat("a", MaxTenantDefinition-2)); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"", "widgets", "widgets.", ".example.com"} {
		if control, err := id.DefinitionToControl(name); err == nil {
			t.Errorf("%q becomes %q", name, control)
		}
	}
	if _, err := id.DefinitionToControl("w." + strings.Repeat("a", MaxTenantDefinition-1)); err == nil || !strings.Contains(err.Error(), "246") || strings.Contains(err.Error(), "abc123") {
		t.Errorf("a name that is too long: %v", err)
	}
}

func TestGroups(t *testing.T) {
	const id = TenantID("abc123")
	control, err := id.GroupToControl("example.com")
	if err != nil || control != "abc123-example.com" {
		t.Errorf("%s, %v", control, err)
	}
	if own, err := id.GroupToTenant(control); err != nil || own != "example.com" {
		t.Errorf("%s, %v", own, err)
	}
	if owner, group, ok := SplitGroup(control); !ok || owner != id || group != "example.com" {
		t.Errorf("%s %s %v", owner, group, ok)
	}
	for _, foreign := range []string{"example.com", "apps", "", "zzz999-example.com"} {
		if _, err := id.GroupToTenant(foreign); !errors.Is(err, ErrForeign) {
			t.Errorf("%q: %v", foreign, err)
		}
	}
	for _, plain := range []string{"example.com", "apps", "", "system.example.com", "a-b.example.com"} {
		if owner, _, ok := SplitGroup(plain); ok {
			t.Errorf("%q is of %s", plain, owner)
		}
	}
	if _, err := id.GroupToControl(strings.Repeat("a", MaxTenantGroup+1)); err == nil {
		t.Error("no error for a group that is too long")
	}
}
