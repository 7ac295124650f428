package kind

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"vivarium.io/vivarium/internal/names"
)

// rootCAKey is the key of a cluster's CA in its kube-root-ca.crt.
const rootCAKey = "ca.crt"

// ConfigMapKey is the key of a control ConfigMap; false for a name that in a pool belongs to the platform.
func ConfigMapKey(namespace names.ControlNamespace, control string) (Key, bool) {
	if control == names.RootCAConfigMap {
		return Key{}, false
	}
	return Key{ConfigMap, namespace, names.ConfigMapToPool(control)}, true
}

// IsRootCA reports whether the key is a tenant's root CA, which exists in every namespace and does not come from the
// control cluster.
func IsRootCA(key Key) bool { return key.Kind == ConfigMap && key.Name == names.RootCAConfigMap }

// ConfigMaps makes the kind of ConfigMaps. The tenant's kube-root-ca.crt is the gateway's CA, whatever the control
// cluster holds under that name: a pod speaks with the gateway.
func ConfigMaps(control kubernetes.Interface, rootCA func() string) Kind {
	return Kind{
		Name:     ConfigMap,
		Resource: configMaps,
		Read: func(ctx context.Context, key Key, _ *corev1.Pod) (Wanted, error) {
			if IsRootCA(key) {
				return rootCAToPool(rootCA()), nil
			}
			name := names.ConfigMapToControl(key.Name)
			got, err := control.CoreV1().ConfigMaps(string(key.Namespace)).Get(ctx, name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return Wanted{}, ErrGone
			}
			if err != nil {
				return Wanted{}, fmt.Errorf("read ConfigMap %s/%s: %w", key.Namespace, name, err)
			}
			return ConfigMapToPool(got), nil
		},
	}
}

// ConfigMapToPool is what of a control ConfigMap crosses.
func ConfigMapToPool(control *corev1.ConfigMap) Wanted {
	return Wanted{
		Source: SourceOf(control),
		Content: Content{
			Text: control.Data, Data: control.BinaryData,
			Immutable: control.Immutable != nil && *control.Immutable,
		},
	}
}

// SourceOf identifies a control object and its version.
func SourceOf(control metav1.Object) Source {
	return Source{UID: control.GetUID(), Version: string(control.GetUID()) + "/" + control.GetResourceVersion()}
}

func rootCAToPool(rootCA string) Wanted {
	content := Content{Text: map[string]string{rootCAKey: rootCA}}
	return Wanted{Source: Source{UID: rootCAKey, Version: "root-ca/" + content.Hash()}, Content: content}
}

// RootCASource is the source of a tenant's root CA.
func RootCASource(rootCA string) Source { return rootCAToPool(rootCA).Source }
