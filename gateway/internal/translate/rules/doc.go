// Package rules says, once for both encodings and both directions, which fields of the Kubernetes API hold a name of the
// tenant's world: a namespace, a cluster-scoped name, an API group, a user, text that names them, or a key.
//
// fields.txt is the decision about every string field of every kind that is served, one line each, reviewed by people.
// The generator joins it with the API types into zz_generated.rules.go; a field nobody decided about stops it. The package
// must never hold behaviour: what an operation does is for package translate. Start at [For].
package rules

//go:generate go run ./internal/generate
