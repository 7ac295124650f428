// Package kinds decides which kinds, verbs and subresources a tenant has.
//
// Everything is denied unless the table in stock.go says otherwise: a kind that nobody decided about must never reach the
// control cluster, however new it is. A test walks the discovery of a real kube-apiserver and fails on such a kind. What
// is refused although Kubernetes has it is refused with a reason that a tenant can act on.
//
// Start at [Table.Decide].
package kinds
