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

// SecretKey is the key of a control Secret; false for a name that in a pool belongs to the platform.
func SecretKey(namespace names.ControlNamespace, control string) (Key, bool) {
	if _, taken := names.TokenSecretOwner(control); taken {
		return Key{}, false
	}
	return Key{Secret, namespace, control}, true
}

// Secrets makes the kind of Secrets.
func Secrets(control kubernetes.Interface) Kind {
	return Kind{
		Name:     Secret,
		Resource: secrets,
		Read: func(ctx context.Context, key Key, _ *corev1.Pod) (Wanted, error) {
			got, err := control.CoreV1().Secrets(string(key.Namespace)).Get(ctx, key.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return Wanted{}, ErrGone
			}
			if err != nil {
				return Wanted{}, fmt.Errorf("read Secret %s/%s: %w", key.Namespace, key.Name, err)
			}
			return SecretToPool(got)
		},
	}
}

// SecretToPool is what of a control Secret crosses.
func SecretToPool(control *corev1.Secret) (Wanted, error) {
	poolType, ok := secretTypeToPool(control.Type)
	if !ok {
		return Wanted{Source: SourceOf(control)}, &RefusedError{
			Reason:  "SecretRefused",
			Message: fmt.Sprintf("Secret %q has type %s, which is never given to pods", control.Name, control.Type),
		}
	}
	return Wanted{
		Source: SourceOf(control),
		Content: Content{
			Data: control.Data, Type: poolType,
			Immutable: control.Immutable != nil && *control.Immutable,
		},
	}, nil
}

// secretTypeToPool gives the type that a Secret has in a pool. A pool acts on types (its token controller fills or
// deletes service account tokens, other controllers watch their own), and a pod cannot see them. So only the types that
// kubelets read for image pulls keep theirs, and what would be a credential of the control cluster does not cross.
func secretTypeToPool(control corev1.SecretType) (corev1.SecretType, bool) {
	switch control {
	case corev1.SecretTypeServiceAccountToken, corev1.SecretTypeBootstrapToken:
		return "", false
	case corev1.SecretTypeDockercfg, corev1.SecretTypeDockerConfigJson:
		return control, true
	default:
		return corev1.SecretTypeOpaque, true
	}
}
