//go:build binaries

// Package metricsserver exists for its import: it keeps the program that internal/localcluster builds in this module's graph. It is never compiled.
package metricsserver

import _ "sigs.k8s.io/metrics-server/cmd/metrics-server"
