// Package customs knows which custom kinds each tenant has: those of its own CustomResourceDefinitions and those that the
// operator shares with it.
//
// One informer follows the definitions of the control cluster, without their schemas; what a tenant has is a [Snapshot] in
// the tenant's own names, made when it is first asked for and kept until something changes. A kind that a request names and
// the snapshot lacks is looked up in the control cluster once, so that a tenant reads what it has written also before the
// informer has. The package must never show a tenant a definition that is neither its own, by prefix and label, nor shared
// with it. Start at [Registry].
package customs
