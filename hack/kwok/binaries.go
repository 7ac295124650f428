//go:build binaries

// Package kwok exists for its import: it keeps the program that internal/localcluster builds in this module's graph. It is never compiled.
package kwok

import _ "sigs.k8s.io/kwok/cmd/kwok"
