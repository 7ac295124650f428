//go:build binaries

// Package conformance exists for its imports: they keep the programs that internal/localcluster builds in this module's graph. It is never compiled.
package conformance

import (
	_ "github.com/onsi/ginkgo/v2/ginkgo"
	_ "k8s.io/kubernetes/test/e2e"
	_ "k8s.io/kubernetes/test/images/agnhost"
)
