//go:build binaries

// Package kustomize exists for its import: it keeps the program that internal/localcluster builds in this module's graph. It is never compiled.
package kustomize

import _ "sigs.k8s.io/kustomize/kustomize/v5"
