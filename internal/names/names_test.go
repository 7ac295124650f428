package names

import (
	"errors"
	"strings"
	"testing"
)

func TestParseTenantID(t *testing.T) {
	for _, good := range []string{"demo01", "abc123", "000000", "zzzzzz"} {
		if _, err := ParseTenantID(good); err != nil {
			t.Errorf("ParseTenantID(%q): %v", good, err)
		}
	}
	for _, bad := range []string{"", "abc12", "abc1234", "abc12-", "a----b", "ABC123", "abc12\u0430", "abc 12", "abc12\n"} {
		if id, err := ParseTenantID(bad); err == nil {
			t.Errorf("ParseTenantID(%q) = %q, want an error", bad, id)
		}
	}
}

func TestNamespaces(t *testing.T) {
	id := TenantID("abc123")
	cases := map[string]struct {
		tenant  TenantNamespace
		control ControlNamespace
		ok      bool
	}{
		"Plain":          {"default", "abc123-default", true},
		"LooksPrefixed":  {"abc123-default", "abc123-abc123-default", true},
		"LooksForeign":   {"zzz999-default", "abc123-zzz999-default", true},
		"Longest":        {TenantNamespace(strings.Repeat("n", 56)), ControlNamespace("abc123-" + strings.Repeat("n", 56)), true},
		"TooLong":        {TenantNamespace(strings.Repeat("n", 57)), "", false},
		"Empty":          {"", "", false},
		"PathTraversal":  {"..", "", false},
		"UpperCase":      {"Default", "", false},
		"TrailingDash":   {"a-", "", false},
		"SlashInTheName": {"a/b", "", false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := id.NamespaceToControl(tc.tenant)
			if (err == nil) != tc.ok || got != tc.control {
				t.Fatalf("NamespaceToControl(%q) = %q, %v; want %q, ok %t", tc.tenant, got, err, tc.control, tc.ok)
			}
			if !tc.ok {
				return
			}
			back, err := id.NamespaceToTenant(got)
			if err != nil || back != tc.tenant {
				t.Errorf("NamespaceToTenant(%q) = %q, %v; want %q", got, back, err, tc.tenant)
			}
			owner, ns, ok := SplitNamespace(got)
			if !ok || owner != id || ns != tc.tenant {
				t.Errorf("SplitNamespace(%q) = %q, %q, %t", got, owner, ns, ok)
			}
		})
	}
}

func TestForeignNamesAreNeverTranslated(t *testing.T) {
	id := TenantID("abc123")
	for _, control := range []string{"", "abc123", "abc123-", "abc1234-x", "zzz999-x", "kube-system", "default", "xabc123-y", "ABC123-x"} {
		if got, err := id.NameToTenant(control); !errors.Is(err, ErrForeign) {
			t.Errorf("NameToTenant(%q) = %q, %v; want ErrForeign", control, got, err)
		}
	}
	for _, ns := range []ControlNamespace{"kube-system", "cattle-system", "abc123", "abc123-", "vivarium-system", SystemNamespace, "calico-apiserver"} {
		if id, _, ok := SplitNamespace(ns); ok && (ns == SystemNamespace || ns == "kube-system" || len(ns) <= 7) {
			t.Errorf("SplitNamespace(%q) claims tenant %q", ns, id)
		}
	}
	if TenantID("").Owns("-x") {
		t.Error("the zero TenantID owns a name")
	}
}

func TestPrincipals(t *testing.T) {
	id := TenantID("abc123")
	users := map[string]string{
		"alice":                              "abc123-alice",
		"system:serviceaccount:default:robo": "system:serviceaccount:abc123-default:robo",
		"system:kube-scheduler":              "abc123-system:kube-scheduler",
		"system:serviceaccount:":             "abc123-system:serviceaccount:",
		"zzz999-admin":                       "abc123-zzz999-admin",
	}
	for tenant, control := range users {
		if got := id.UserToControl(tenant); got != control {
			t.Errorf("UserToControl(%q) = %q, want %q", tenant, got, control)
		}
		if got, err := id.UserToTenant(control); err != nil || got != tenant {
			t.Errorf("UserToTenant(%q) = %q, %v; want %q", control, got, err, tenant)
		}
	}
	groups := map[string]string{
		"system:masters":                 "abc123-system:masters",
		"system:authenticated":           "abc123-system:authenticated",
		"system:serviceaccounts":         "abc123-system:serviceaccounts",
		"system:serviceaccounts:default": "system:serviceaccounts:abc123-default",
		"dev":                            "abc123-dev",
	}
	for tenant, control := range groups {
		if got := id.UserGroupToControl(tenant); got != control {
			t.Errorf("UserGroupToControl(%q) = %q, want %q", tenant, got, control)
		}
		if got, err := id.UserGroupToTenant(control); err != nil || got != tenant {
			t.Errorf("UserGroupToTenant(%q) = %q, %v; want %q", control, got, err, tenant)
		}
	}
	for _, control := range []string{"system:serviceaccount:zzz999-default:robo", "system:serviceaccount:kube-system:x", "kubernetes-admin", "system:masters"} {
		if got, err := id.UserToTenant(control); !errors.Is(err, ErrForeign) {
			t.Errorf("UserToTenant(%q) = %q, %v; want ErrForeign", control, got, err)
		}
	}
	if got, ok := SplitServiceAccount("system:serviceaccount:abc123-default:robo"); !ok || got != id {
		t.Errorf("SplitServiceAccount = %q, %t", got, ok)
	}
	for _, user := range []string{"abc123-alice", "system:serviceaccount:kube-system:x", "system:serviceaccount:abc123-default", "system:serviceaccount:abc123-default:"} {
		if got, ok := SplitServiceAccount(user); ok {
			t.Errorf("SplitServiceAccount(%q) = %q", user, got)
		}
	}
}

// FuzzRoundTrip holds the package's law: the way back undoes the way there, and no other tenant can read the result.
func FuzzRoundTrip(f *testing.F) {
	f.Add("default")
	f.Add("system:serviceaccount:a:b")
	f.Add("system:serviceaccounts:a")
	f.Add("zzz999-x")
	f.Fuzz(func(t *testing.T, name string) {
		if name == "" {
			return
		}
		id, other := TenantID("abc123"), TenantID("zzz999")
		for _, f := range []struct {
			to   func(TenantID, string) string
			back func(TenantID, string) (string, error)
		}{
			{TenantID.NameToControl, TenantID.NameToTenant},
			{TenantID.UserToControl, TenantID.UserToTenant},
			{TenantID.UserGroupToControl, TenantID.UserGroupToTenant},
		} {
			control := f.to(id, name)
			if got, err := f.back(id, control); err != nil || got != name {
				t.Fatalf("%q -> %q -> %q, %v", name, control, got, err)
			}
			if got, err := f.back(other, control); err == nil {
				t.Fatalf("another tenant reads %q as %q", control, got)
			}
		}
	})
}

func TestPoolNames(t *testing.T) {
	for _, name := range []string{"app", "kube-root-ca.crt"} {
		if got := ConfigMapToControl(ConfigMapToPool(name)); got != name {
			t.Errorf("ConfigMap %q comes back as %q", name, got)
		}
	}
	if ConfigMapToPool("kube-root-ca.crt") == "kube-root-ca.crt" {
		t.Error("the tenant's root CA would fight with the pool's own")
	}
	if uid, ok := TokenSecretOwner(TokenSecret("u-1")); !ok || uid != "u-1" {
		t.Errorf("TokenSecretOwner = %q, %t", uid, ok)
	}
	for key, want := range map[string]bool{"vivarium.io/tenant": true, "network.vivarium.io/ip": true, "myvivarium.io/x": false, "app": false, "vivarium.io": false} {
		if got := Reserved(key); got != want {
			t.Errorf("Reserved(%q) = %t", key, got)
		}
	}
}
