// Package flows keeps tenants' FlowSchemas and PriorityLevelConfigurations: a storage of the admin API's server, with the
// defaults, the checks and the columns of an API server's own.
//
// They are kept here and not in the control cluster because a level there takes seats from everybody, used or not, and
// because each schema that changes makes every API server put all its levels together anew (ADR 35). Here they order no
// request: what holds between tenants is Tenant.spec.weight and the limits of the gateway. Their status says so.
//
// The package must never act on what it keeps. Names carry the tenant's prefix, as in the control cluster; everything
// else is in the tenant's words. Start at [Storage].
package flows
