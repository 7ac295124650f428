// Package openapi holds the generated OpenAPI models of the operator's API, from which the admin listener serves
// `kubectl explain` and server-side apply. It must never be edited: hack/generate.sh writes it from api/v1alpha1.
package openapi
