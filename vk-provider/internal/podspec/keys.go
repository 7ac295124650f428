package podspec

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/netkeys"
)

// labelCrosses reports whether a control pod's label is copied to the pool pod. The topology of the virtual node is put
// on the control pod when it is bound; the pool puts its own there.
func labelCrosses(key string) bool {
	switch key {
	case corev1.LabelTopologyZone, corev1.LabelTopologyRegion:
		return false
	}
	return !names.Reserved(key) && !netkeys.Forbidden(key)
}

// annotationCrosses reports whether a control pod's annotation is copied. Those in Kubernetes' own domains are
// instructions to a kubelet, a scheduler or an autoscaler, and these are the pool's: none crosses. The downward API shows
// them to the pod all the same.
func annotationCrosses(key string) bool {
	domain, _, ok := strings.Cut(key, "/")
	if ok && (inDomain(domain, "kubernetes.io") || inDomain(domain, "k8s.io")) {
		return false
	}
	return !names.Reserved(key) && !netkeys.Forbidden(key)
}

func inDomain(domain, parent string) bool {
	return domain == parent || strings.HasSuffix(domain, "."+parent)
}
