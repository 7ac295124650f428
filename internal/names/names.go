// Package names is the only place that joins or splits a tenant's identity and a name.
//
// Three worlds have names: the tenant (what its kubectl sees), control (the shared kube-apiserver) and pool (a backend
// cluster). A namespace "web" of tenant "abc123" is "abc123-web" in control and in every pool; a cluster-scoped name, an
// API group, a user and a group of users are prefixed likewise. The prefix has a fixed length and a terminator, so no
// tenant's names are a prefix of another's.
//
// The package must never guess: a name that does not belong to the tenant on the way back is [ErrForeign], never passed
// through, trimmed or hashed. Each function's inverse stands beside it, and the law that joins them is in the test.
// Start at [TenantID].
package names

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// idLength is the exact length of a tenant ID; the fixed length is what makes splitting unambiguous.
const idLength = 6

// MaxTenantNamespace is the longest namespace a tenant may have: a control namespace is a DNS label of at most 63
// characters, and the prefix takes seven.
const MaxTenantNamespace = validation.DNS1123LabelMaxLength - idLength - 1

// ErrForeign says that a control name does not belong to the tenant that it was to be translated for.
var ErrForeign = errors.New("name belongs to another world")

// TenantID is a Tenant's name: exactly six of [a-z0-9]. Obtain one from [ParseTenantID] or [SplitNamespace]; the zero
// value belongs to no tenant and translates nothing.
type TenantID string

// TenantNamespace is a namespace as a tenant names it.
type TenantNamespace string

// ControlNamespace is a namespace of the control cluster; the pools use the same names.
type ControlNamespace string

// ParseTenantID checks a tenant ID. Its error is meant for whoever typed it.
func ParseTenantID(s string) (TenantID, error) {
	if !isID(s) {
		return "", fmt.Errorf("%q is not a tenant ID: it must be exactly %d characters of a-z and 0-9, as in \"demo01\"", s, idLength)
	}
	return TenantID(s), nil
}

func isID(s string) bool {
	if len(s) != idLength {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// Prefix is what every control name of the tenant starts with: the ID and its terminator.
func (t TenantID) Prefix() string { return string(t) + "-" }

// Owns reports whether a control name (namespace, cluster-scoped name, API group) belongs to the tenant.
func (t TenantID) Owns(control string) bool {
	// Without joining the prefix first: this is asked about every object there is.
	return isID(string(t)) && len(control) > idLength+1 && control[:idLength] == string(t) && control[idLength] == '-'
}

// NamespaceToControl gives the control namespace. It fails, in the tenant's words, on a name that is no DNS label or is
// longer than [MaxTenantNamespace].
func (t TenantID) NamespaceToControl(ns TenantNamespace) (ControlNamespace, error) {
	if len(ns) > MaxTenantNamespace {
		return "", fmt.Errorf("namespace %q: must be no more than %d characters", ns, MaxTenantNamespace)
	}
	if problems := validation.IsDNS1123Label(string(ns)); len(problems) > 0 {
		return "", fmt.Errorf("namespace %q: %s", ns, strings.Join(problems, "; "))
	}
	return ControlNamespace(t.Prefix() + string(ns)), nil
}

// NamespaceToTenant is the inverse of [TenantID.NamespaceToControl]; it returns [ErrForeign] for any other namespace.
func (t TenantID) NamespaceToTenant(ns ControlNamespace) (TenantNamespace, error) {
	s, err := t.NameToTenant(string(ns))
	return TenantNamespace(s), err
}

// SplitNamespace finds the tenant of a control namespace by its shape. It does not know whether that Tenant exists:
// whoever acts on the answer must check.
func SplitNamespace(ns ControlNamespace) (TenantID, TenantNamespace, bool) {
	if len(ns) <= idLength+1 || ns[idLength] != '-' || !isID(string(ns[:idLength])) {
		return "", "", false
	}
	return TenantID(ns[:idLength]), TenantNamespace(ns[idLength+1:]), true
}

// NameToControl gives the control name of a cluster-scoped object or the control form of an API group. It prefixes
// whatever it is given, also what looks prefixed already; the API server validates the rest.
func (t TenantID) NameToControl(name string) string { return t.Prefix() + name }

// SplitName finds the tenant of a cluster-scoped control name by its shape. It does not know whether that Tenant exists:
// whoever acts on the answer must check.
func SplitName(control string) (id TenantID, name string, ok bool) {
	id, ns, ok := SplitNamespace(ControlNamespace(control))
	return id, string(ns), ok
}

// NameToTenant is the inverse of [TenantID.NameToControl]; it returns [ErrForeign] for a name that is not the tenant's.
func (t TenantID) NameToTenant(control string) (string, error) {
	if !t.Owns(control) {
		return "", ErrForeign
	}
	return control[idLength+1:], nil
}

const (
	serviceAccountUser   = "system:serviceaccount:"
	serviceAccountsGroup = "system:serviceaccounts:"
)

// maxPrincipal bounds the names of users and groups.
const maxPrincipal = 253

// IsPrincipal reports whether the name of a user or a group can go into a header, a log and an error message as it is.
func IsPrincipal(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == 0x7f {
			return false
		}
	}
	return s != "" && len(s) <= maxPrincipal && s[0] != ' ' && s[len(s)-1] != ' '
}

// UserToControl gives the control cluster's user for a user of the tenant. A ServiceAccount keeps the form that the
// control cluster's own authenticator gives it; every other name is prefixed, so that no tenant can name a user of the
// platform.
func (t TenantID) UserToControl(user string) string {
	return t.principalToControl(serviceAccountUser, user)
}

// UserToTenant is the inverse of [TenantID.UserToControl].
func (t TenantID) UserToTenant(control string) (string, error) {
	return t.principalToTenant(serviceAccountUser, control)
}

// UserGroupToControl gives the control cluster's group for a group of users of the tenant. Groups that Kubernetes gives
// everybody (system:authenticated, system:masters) become groups of this tenant alone.
func (t TenantID) UserGroupToControl(group string) string {
	return t.principalToControl(serviceAccountsGroup, group)
}

// UserGroupToTenant is the inverse of [TenantID.UserGroupToControl].
func (t TenantID) UserGroupToTenant(control string) (string, error) {
	return t.principalToTenant(serviceAccountsGroup, control)
}

func (t TenantID) principalToControl(marker, name string) string {
	if rest, ok := strings.CutPrefix(name, marker); ok && rest != "" {
		return marker + t.Prefix() + rest
	}
	return t.Prefix() + name
}

func (t TenantID) principalToTenant(marker, control string) (string, error) {
	if rest, ok := strings.CutPrefix(control, marker); ok {
		inner, err := t.NameToTenant(rest)
		if err != nil {
			return "", err
		}
		return marker + inner, nil
	}
	return t.NameToTenant(control)
}

// SplitServiceAccount finds the tenant of a control ServiceAccount user name, "system:serviceaccount:<id>-ns:name".
func SplitServiceAccount(control string) (TenantID, bool) {
	rest, ok := strings.CutPrefix(control, serviceAccountUser)
	if !ok {
		return "", false
	}
	ns, name, ok := strings.Cut(rest, ":")
	if !ok || name == "" {
		return "", false
	}
	id, _, ok := SplitNamespace(ControlNamespace(ns))
	return id, ok
}
