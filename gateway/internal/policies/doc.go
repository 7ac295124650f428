// Package policies applies tenants' admission policies (ValidatingAdmissionPolicy, MutatingAdmissionPolicy) to every write in
// the tenant's world, also to those of the control cluster's own controllers, which do not pass the gateway.
//
// A tenant's policies and bindings lie in the control cluster under its prefix, where its API server checks them and does
// not apply them: a binding names a policy that does not exist there (names.PolicyToControl). What the API server does is to
// ask the gateway, by a webhook for the tenants that have bindings and for what their policies name (config.go, [Registry]).
// The gateway puts the question into the tenant's words ([Reviewer]) and has it answered by the API server's own admission
// plugins, which run in the gateway once per tenant with policies and are clients of that tenant's API ([Worlds]): what they
// know is what the tenant would see.
//
// The package must never let a write of one tenant be judged by another's policies, must not let through what it could not
// judge, and must not tell a tenant where it is asked. Start at [Reviewer.Serve].
package policies
