// Package discovery answers what a tenant's API is: /api and /apis in both forms, /openapi/v2 and /openapi/v3, /version,
// the health paths, and who issues ServiceAccounts' tokens.
//
// What the control cluster publishes is fetched as the gateway itself, cached, and cut down to what the kinds table
// serves; nothing in it is anybody's, so one copy serves all tenants. The package must never show a group or a kind that
// is not served, nor an address of the control cluster, nor of its keys more than the public ones.
//
// Start at [Server.Serve].
package discovery
