package podsecurity

import "testing"

func TestKeysComeBack(t *testing.T) {
	for _, key := range []string{Enforce, EnforceVersion, "pod-security.kubernetes.io/warn", "pod-security.kubernetes.io/audit-version", "app"} {
		if got, ok := ToTenant(ToControl(key)); !ok || got != key {
			t.Errorf("%s comes back as %q, %t", key, got, ok)
		}
	}
	for _, key := range []string{Enforce, EnforceVersion} {
		if ToControl(key) == key {
			t.Errorf("a tenant's %s is what the control cluster acts on", key)
		}
		if got, ok := ToTenant(key); ok {
			t.Errorf("the platform's %s is shown as %q", key, got)
		}
	}
}

func TestEnforced(t *testing.T) {
	for wanted, want := range map[string]string{
		"": Baseline, Privileged: Baseline, Baseline: Baseline, Restricted: Restricted, "Restricted": Baseline, "none": Baseline,
	} {
		if got := Enforced(wanted); got != want {
			t.Errorf("Enforced(%q) = %q, want %q", wanted, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		key, value string
		ok         bool
	}{
		{Enforce, "privileged", true},
		{Enforce, "restricted", true},
		{Enforce, "", false},
		{Enforce, "Baseline", false},
		{EnforceVersion, "latest", true},
		{EnforceVersion, "v1.36", true},
		{EnforceVersion, "v1.05", false},
		{EnforceVersion, "1.36", false},
		{"pod-security.kubernetes.io/warn", "anything", true},
	} {
		if got := Check(c.key, c.value); (got == "") != c.ok {
			t.Errorf("Check(%s, %q) = %q", c.key, c.value, got)
		}
	}
}
