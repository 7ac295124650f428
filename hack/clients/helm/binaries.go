//go:build binaries

// Package helm exists for its imports: they keep the programs that internal/localcluster builds in this module's graph. It is never compiled.
package helm

import (
	_ "helm.sh/helm/v3/cmd/helm"
	_ "helm.sh/helm/v4/cmd/helm"
)
