package names

import "strings"

// inertPolicy starts the name by which a binding in control refers to its tenant's admission policy. No policy has such a
// name: a tenant's begins with its ID and a dash. So the control cluster's own admission finds nothing to apply, and what
// the tenant's policies say is left to the gateway.
const inertPolicy = "of-tenant."

// PolicyToControl gives how a binding in control refers to an admission policy of the tenant. It is not the policy's own
// name there, so that the binding binds nothing.
func (t TenantID) PolicyToControl(name string) string { return inertPolicy + t.Prefix() + name }

// PolicyToTenant is the inverse of [TenantID.PolicyToControl]; it returns [ErrForeign] for any other name.
func (t TenantID) PolicyToTenant(control string) (string, error) {
	name, ok := strings.CutPrefix(control, inertPolicy)
	if !ok {
		return "", ErrForeign
	}
	return t.NameToTenant(name)
}

// PolicyWebhook is what the control cluster calls the gateway when it asks whether tenants' policies let a write pass.
const PolicyWebhook = "policies." + Domain

// PolicyWebhookAll is what it calls it for those tenants about which it asks whatever is written.
const PolicyWebhookAll = "all." + PolicyWebhook

// PolicyWebhooks is the name of the configurations in which it is told to.
const PolicyWebhooks = "vivarium-tenant-policies"
