//go:build binaries

// Package kubectl exists for its import: it keeps the program that internal/localcluster builds in this module's graph. It is never compiled.
package kubectl

import _ "k8s.io/kubernetes/cmd/kubectl"
