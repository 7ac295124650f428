// Package openapi holds the generated OpenAPI models of metrics.k8s.io, without which the API machinery serves no group. It
// must never be edited: hack/generate.sh writes it from k8s.io/metrics.
package openapi
