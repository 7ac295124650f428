package names

import (
	"errors"
	"testing"
)

func TestPolicies(t *testing.T) {
	const id = TenantID("abc123")
	for _, name := range []string{"replicas.example.com", "abc123-x", "of-tenant.abc123-x", "a"} {
		control := id.PolicyToControl(name)
		if own, err := id.PolicyToTenant(control); err != nil || own != name {
			t.Errorf("%s comes back as %q, %v", name, own, err)
		}
		if own, err := TenantID("zzz999").PolicyToTenant(control); !errors.Is(err, ErrForeign) {
			t.Errorf("%s is %q to another tenant", control, own)
		}
		// What any tenant's policy is called in control must never be what a binding refers to.
		if _, _, ok := SplitNamespace(ControlNamespace(control)); ok {
			t.Errorf("%s could be the name of a policy", control)
		}
	}
	for _, control := range []string{"", "abc123-x", "of-tenant.", "of-tenant.abc123-", "vivarium-tenant-scope"} {
		if own, err := id.PolicyToTenant(control); !errors.Is(err, ErrForeign) {
			t.Errorf("%q is %q", control, own)
		}
	}
}
