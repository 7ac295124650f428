package names

import "vivarium.io/vivarium/api/v1alpha1"

// templateVPC is the label of a VPC that is made with its tenant.
const templateVPC = "main"

// VPC is the name of the tenant's VPC, be it made with the tenant or referred to; empty for a tenant without one.
func (t TenantID) VPC(network v1alpha1.TenantNetwork) string {
	switch {
	case network.Mode != v1alpha1.NetworkVPC:
		return ""
	case network.Template != nil:
		return t.NameToControl(templateVPC)
	default:
		return network.VPC
	}
}
