// Package tenants is the life of a tenant: what the control cluster holds of it, its credentials, its share of capacity,
// and its removal.
//
// [Directory] is the tenant listener's view, one look-up per request. [Controller] makes the control cluster match each
// Tenant object, and empties it again. Objects are found by the tenant's prefix with its separator, and namespaces by
// their label as well: the package must never delete anything that is not the tenant's by name, and never let a name go
// before nothing in control starts with it.
//
// Start at [Controller] and its reconcile.
package tenants
