// Package control speaks to the control cluster's kube-apiserver, in two voices that never mix: as a tenant, through one
// chain of RoundTrippers that sets the identity and then lets package guard look at the result, and as the gateway itself,
// for what is nobody's (discovery, OpenAPI, who a token belongs to).
//
// A tenant's request carries only what is built here: no header of a client is copied unless it is listed. Redirects are
// never followed and no trouble on the way to the control cluster is told to a tenant in the control cluster's words.
//
// Start at [Client.Do].
package control
