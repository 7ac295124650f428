package kind

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Resource is one kind of pool object: how content is put in it and taken out, and the five calls that it needs.
type Resource struct {
	// Kind is the API's word for it.
	Kind string
	// Of reads the content of an object of the kind; false for any other object.
	Of func(object any) (Content, bool)

	Get    func(ctx context.Context, pool kubernetes.Interface, namespace, name string) (metav1.Object, error)
	Create func(ctx context.Context, pool kubernetes.Interface, meta metav1.ObjectMeta, content Content) (metav1.Object, error)
	Update func(ctx context.Context, pool kubernetes.Interface, meta metav1.ObjectMeta, content Content) (metav1.Object, error)
	Delete func(ctx context.Context, pool kubernetes.Interface, namespace, name string, options metav1.DeleteOptions) error
}

// configMaps holds content in ConfigMaps.
var configMaps = Resource{
	Kind: "ConfigMap",
	Of: func(object any) (Content, bool) {
		o, ok := object.(*corev1.ConfigMap)
		if !ok {
			return Content{}, false
		}
		return Content{Text: o.Data, Data: o.BinaryData, Immutable: o.Immutable != nil && *o.Immutable}, true
	},
	Get: func(ctx context.Context, pool kubernetes.Interface, namespace, name string) (metav1.Object, error) {
		return pool.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	},
	Create: func(ctx context.Context, pool kubernetes.Interface, meta metav1.ObjectMeta, content Content) (metav1.Object, error) {
		return pool.CoreV1().ConfigMaps(meta.Namespace).Create(ctx, newConfigMap(meta, content), metav1.CreateOptions{})
	},
	Update: func(ctx context.Context, pool kubernetes.Interface, meta metav1.ObjectMeta, content Content) (metav1.Object, error) {
		return pool.CoreV1().ConfigMaps(meta.Namespace).Update(ctx, newConfigMap(meta, content), metav1.UpdateOptions{})
	},
	Delete: func(ctx context.Context, pool kubernetes.Interface, namespace, name string, options metav1.DeleteOptions) error {
		return pool.CoreV1().ConfigMaps(namespace).Delete(ctx, name, options)
	},
}

func newConfigMap(meta metav1.ObjectMeta, content Content) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: meta, Data: content.Text, BinaryData: content.Data, Immutable: immutable(content)}
}

// secrets holds content in Secrets.
var secrets = Resource{
	Kind: "Secret",
	Of: func(object any) (Content, bool) {
		o, ok := object.(*corev1.Secret)
		if !ok {
			return Content{}, false
		}
		return Content{Data: o.Data, Type: o.Type, Immutable: o.Immutable != nil && *o.Immutable}, true
	},
	Get: func(ctx context.Context, pool kubernetes.Interface, namespace, name string) (metav1.Object, error) {
		return pool.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	},
	Create: func(ctx context.Context, pool kubernetes.Interface, meta metav1.ObjectMeta, content Content) (metav1.Object, error) {
		return pool.CoreV1().Secrets(meta.Namespace).Create(ctx, newSecret(meta, content), metav1.CreateOptions{})
	},
	Update: func(ctx context.Context, pool kubernetes.Interface, meta metav1.ObjectMeta, content Content) (metav1.Object, error) {
		return pool.CoreV1().Secrets(meta.Namespace).Update(ctx, newSecret(meta, content), metav1.UpdateOptions{})
	},
	Delete: func(ctx context.Context, pool kubernetes.Interface, namespace, name string, options metav1.DeleteOptions) error {
		return pool.CoreV1().Secrets(namespace).Delete(ctx, name, options)
	},
}

func newSecret(meta metav1.ObjectMeta, content Content) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: meta, Data: content.Data, Type: content.Type, Immutable: immutable(content)}
}

func immutable(content Content) *bool {
	if !content.Immutable {
		return nil
	}
	yes := true
	return &yes
}
