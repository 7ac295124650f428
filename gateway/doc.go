// Package gateway is what tenants and operators talk to: two listeners that share nothing but the process.
//
// The tenant listener makes one shared control cluster look like a cluster of each tenant's own. A request is read once
// (internal/route), its sender is known (internal/identity) and let in (internal/limits), what it asks for is decided
// (internal/kinds) and translated (internal/translate), sent as the tenant's user (internal/control) past one last look
// (internal/guard), and the answer comes back translated. The admin listener (internal/admin) serves the platform's own
// API, and internal/tenants makes Tenants come true. The tenant listener must never pass what it has not translated, and
// a tenant's credential is worth nothing at the admin listener.
//
// The process keeps nothing but caches: any number of replicas serve side by side. Start at [New] and [front.handler].
package gateway
