// Package engine brings one object across: it decides what one key needs, reads the source in the control cluster, and
// makes the pool object agree by hash. It knows no kind; package kind tells it what a kind is.
//
// It must never write or delete a pool object that is not marked as ours, nor write into a pool namespace that is not:
// the mark is checked before every write and delete, and every update and delete carries the UID and version that the
// mark was seen on. Start at [Decide] for what is done when, and [Engine] for how.
package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/syncer/internal/kind"
)

// ManagedBy is LabelManagedBy of pool objects that the syncer made.
const ManagedBy = "syncer"

// ErrConflict says that the pool has an object of the wanted name that is not ours. It is left alone.
var ErrConflict = errors.New("the pool has another object of this name")

// EnsureNamespaceFn makes sure that a pool has a namespace and that it is ours; see pools.EnsureNamespace.
type EnsureNamespaceFn func(ctx context.Context, namespace names.ControlNamespace) error

// Engine brings objects into one pool. It has no state and is safe for concurrent use, save for two calls about one key.
type Engine struct {
	Pool            *pools.Pool
	Kinds           kind.Kinds
	EnsureNamespace EnsureNamespaceFn
}

// Write reads the key's source, for a pod that refers to it, and makes the pool object agree; copy is what is known of
// it, nil for none. It returns what is in the pool afterwards. kind.ErrGone means that there is nothing to write. A
// [*kind.RefusedError] may come with a result: then the rest was written.
func (e *Engine) Write(ctx context.Context, key kind.Key, pod *corev1.Pod, copied *Copy) (*Copy, error) {
	k, ok := e.Kinds[key.Kind]
	if !ok {
		return nil, fmt.Errorf("write %s: no such kind", key)
	}
	wanted, err := k.Read(ctx, key, pod)
	var refused *kind.RefusedError
	if err != nil && !(errors.As(err, &refused) && refused.Partial) {
		return nil, err
	}
	written, writeErr := e.apply(ctx, k.Resource, key, wanted, copied)
	if writeErr != nil {
		return written, writeErr
	}
	return written, err
}

// apply makes the pool object of a key what is wanted.
func (e *Engine) apply(ctx context.Context, resource kind.Resource, key kind.Key, wanted kind.Wanted, copied *Copy) (*Copy, error) {
	meta, err := e.meta(key, wanted)
	if err != nil {
		return nil, err
	}
	if err := e.EnsureNamespace(ctx, key.Namespace); err != nil {
		return nil, err
	}
	if copied == nil {
		written, err := resource.Create(ctx, e.Pool.Client, meta, wanted.Content)
		if !apierrors.IsAlreadyExists(err) {
			return e.done("create", resource, key, written, err)
		}
		// Another replica's, or one that the cache does not know yet, or not ours at all.
		found, err := resource.Get(ctx, e.Pool.Client, meta.Namespace, meta.Name)
		if err != nil {
			return nil, e.wrap("read", resource, key, err)
		}
		var ok bool
		if copied, ok = CopyOf(resource, found); !ok {
			return nil, e.wrap("read", resource, key, fmt.Errorf("got a %T", found))
		}
	}
	if !e.Pool.Owns(ManagedBy, copied) {
		return nil, e.wrap("write", resource, key, ErrConflict)
	}
	if copied.Hash == wanted.Hash() && copied.fresh(wanted.Source) && wanted.RefreshAfter.IsZero() {
		return copied, nil
	}
	if copied.Immutable || copied.Type != wanted.Type {
		// Neither can change while the object lives.
		if err := e.Delete(ctx, key, copied); err != nil {
			return nil, err
		}
		written, err := resource.Create(ctx, e.Pool.Client, meta, wanted.Content)
		return e.done("replace", resource, key, written, err)
	}
	meta.UID, meta.ResourceVersion = copied.UID, copied.ResourceVersion
	written, err := resource.Update(ctx, e.Pool.Client, meta, wanted.Content)
	return e.done("update", resource, key, written, err)
}

// Delete removes the pool object of a key, exactly the one that copied was seen on. That it is gone already is no error.
func (e *Engine) Delete(ctx context.Context, key kind.Key, copied *Copy) error {
	resource := e.Kinds[key.Kind].Resource
	if !e.Pool.Owns(ManagedBy, copied) {
		return e.wrap("delete", resource, key, ErrConflict)
	}
	err := resource.Delete(ctx, e.Pool.Client, copied.Namespace, copied.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &copied.UID, ResourceVersion: &copied.ResourceVersion},
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return e.wrap("delete", resource, key, err)
}

// meta is a pool object's metadata: ours alone, nothing of the tenant's.
func (e *Engine) meta(key kind.Key, wanted kind.Wanted) (metav1.ObjectMeta, error) {
	tenant, _, ok := names.SplitNamespace(key.Namespace)
	if !ok {
		return metav1.ObjectMeta{}, fmt.Errorf("write %s: %w", key, names.ErrForeign)
	}
	annotations := map[string]string{annotationSource: wanted.Version, annotationHash: wanted.Hash()}
	if !wanted.RefreshAfter.IsZero() {
		annotations[annotationRefresh] = wanted.RefreshAfter.UTC().Format(time.RFC3339)
	}
	return metav1.ObjectMeta{
		Namespace:   string(key.Namespace),
		Name:        key.Name,
		Labels:      e.Pool.Labels(ManagedBy, tenant, wanted.UID),
		Annotations: annotations,
	}, nil
}

func (e *Engine) done(act string, resource kind.Resource, key kind.Key, written any, err error) (*Copy, error) {
	if err != nil {
		return nil, e.wrap(act, resource, key, err)
	}
	copied, _ := CopyOf(resource, written)
	return copied, nil
}

func (e *Engine) wrap(act string, resource kind.Resource, key kind.Key, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s %s/%s in pool %s: %w", act, resource.Kind, key.Namespace, key.Name, e.Pool.Name, err)
}
