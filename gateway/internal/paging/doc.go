// Package paging makes and reads continue tokens, by which a list is asked for in pages.
//
// The control cluster's token names the key of the next object in the clear, in the control cluster's words, and it will
// start wherever a token says. A tenant therefore gets a token that is sealed: it shows nothing, and it opens only for the
// tenant, the kind, the namespace and the selectors that it was made for. The package must never hand out or accept
// another one. The same property of the control cluster's tokens is what makes a list over all of a tenant's namespaces
// cheap: [Start] makes one that begins at the tenant's first key.
//
// Start at [Sealer].
package paging
