// Package admin serves the operator's API, group vivarium.io, on a listener of its own: Tenants, ResourcePools,
// SharedAPIs, VPCs, Subnets and their IPBlocks, stored in etcd. It is a real Kubernetes API server, so watch, patch,
// server-side apply, OpenAPI, explain, columns, validation and status subresources are those that every tool knows. A second
// group keeps what tenants have of kinds on which the control cluster would act (package flows).
//
// Who may come in: client certificates from the admin CA and nobody else. Group system:masters may do everything; group
// vivarium:components reads, writes status, releases finalizers and keeps IPBlocks; a tenant's certificate is from another
// CA and is worth nothing here. The package must never show a tenant's kubeconfig to anybody but system:masters, and never
// let a Tenant be created while the control cluster already holds names that would become its own.
//
// Start at [New]. One kind is one file (tenant.go, resourcepool.go) on a strategy that all share (strategy.go).
package admin
