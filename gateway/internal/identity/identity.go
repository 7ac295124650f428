package identity

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/gateway/internal/tenants"
	"vivarium.io/vivarium/internal/names"
)

// Groups that Kubernetes gives by itself, in the tenant's words.
const (
	groupAuthenticated   = "system:authenticated"
	groupServiceAccounts = "system:serviceaccounts"
	// groupOfNamespace starts the group of all ServiceAccounts of a namespace.
	groupOfNamespace = "system:serviceaccounts:"
	userAnonymous    = "system:anonymous"
)

// Identity is who asks. It is what a credential says; whether its tenant may act is another question, asked again for as
// long as a stream is open.
type Identity struct {
	Tenant names.TenantID
	// TenantUID is the Tenant object that the credential belongs to.
	TenantUID types.UID
	// User and Groups are in the tenant's words; Groups include those that everybody has.
	User   string
	Groups []string
	// UID is what a user that is acted as was given; empty otherwise.
	UID string
	// NotBefore is when the credential was made if it can be revoked by time, NotAfter when it ends; zero for a token, of which
	// the control cluster is asked again and again.
	NotBefore, NotAfter time.Time
	// Token is the digest of the bearer token, nil for a certificate. The token itself is kept nowhere.
	Token *TokenDigest
}

// ControlUser is the user that the control cluster sees.
func (i *Identity) ControlUser() string { return i.Tenant.UserToControl(i.User) }

// ControlGroups are the groups that the control cluster sees.
func (i *Identity) ControlGroups() []string {
	out := make([]string, len(i.Groups))
	for n, g := range i.Groups {
		out[n] = i.Tenant.UserGroupToControl(g)
	}
	return out
}

// IsServiceAccount reports whether it has the group of all ServiceAccounts.
func (i *Identity) IsServiceAccount() bool { return slices.Contains(i.Groups, groupServiceAccounts) }

// everybody adds the group that every authenticated user has, once, and drops what is empty or said twice.
func everybody(groups []string) []string {
	var out []string
	for _, g := range append(slices.Clip(groups), groupAuthenticated) {
		if g != "" && !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return out
}

func serviceAccountGroups(ns names.TenantNamespace) []string {
	return []string{groupServiceAccounts, groupOfNamespace + string(ns), groupAuthenticated}
}

// Tenants tells who the tenants are.
type Tenants interface {
	Get(id names.TenantID) (tenants.Tenant, bool)
	HasSynced() bool
}
