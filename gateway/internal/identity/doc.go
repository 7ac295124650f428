// Package identity tells who asks, and for which tenant.
//
// A client is known by a certificate of the tenants' CA or by a token of one of its ServiceAccounts, and by nothing else:
// nobody is anonymous, and no header is believed. The tenant comes out of the credential, never out of the request, and
// the Tenant object must exist, be the very one that the credential was made for, and be neither suspended nor going.
// The package must never give an identity without having looked that up.
//
// Start at [Authenticator.Authenticate]; [Impersonator] is what `kubectl --as` means inside a tenant.
package identity
