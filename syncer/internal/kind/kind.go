// Package kind says, for each kind of object that pods need, what of it crosses from the control cluster into a pool
// and what never does. A kind is data: how a pod refers to it, how its content is read in control, and in which kind of
// pool object it is kept. The engine moves it and knows no kind.
//
// The direction is always control -> pool; nothing of a ConfigMap, Secret or token ever flows back. Labels, annotations,
// owners and finalizers of a tenant's object never cross: in a pool they would be claims about the pool's objects.
//
// The package must never write anywhere. Start at [All] and [References].
package kind

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"maps"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/podrefs"
)

// Name names a kind.
type Name string

// The kinds.
const (
	ConfigMap Name = "ConfigMap"
	Secret    Name = "Secret"
	Token     Name = "Token"
)

// Key names one thing that pods need, by the name it has in a pool.
type Key struct {
	Kind      Name
	Namespace names.ControlNamespace
	Name      string
}

// String is the key as log lines and indexes have it.
func (k Key) String() string { return string(k.Kind) + "/" + string(k.Namespace) + "/" + k.Name }

// Content is what a pool object holds.
type Content struct {
	// Text is a ConfigMap's data.
	Text map[string]string
	// Data is a Secret's data, or a ConfigMap's binaryData.
	Data map[string][]byte
	// Type is a Secret's type; it cannot change while the object lives.
	Type corev1.SecretType
	// Immutable objects cannot change while they live.
	Immutable bool
}

// Hash identifies the content.
func (c Content) Hash() string {
	h := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(c.Text)) {
		field(h, "t", key, c.Text[key])
	}
	for _, key := range slices.Sorted(maps.Keys(c.Data)) {
		field(h, "d", key, string(c.Data[key]))
	}
	field(h, "s", string(c.Type), strconv.FormatBool(c.Immutable))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// field writes strings so that no two lists of strings are written alike.
func field(h hash.Hash, parts ...string) {
	for _, part := range parts {
		h.Write([]byte(strconv.Itoa(len(part)) + ":" + part))
	}
}

// Source says where content came from.
type Source struct {
	// UID is the control object's; the pool object is labelled with it.
	UID types.UID
	// Version changes whenever the content may have changed.
	Version string
}

// Wanted is what a pool object should be.
type Wanted struct {
	Source
	Content
	// RefreshAfter is when the content has to be read anew although its source did not change; zero for never.
	RefreshAfter time.Time
}

// ErrGone says that the control object does not exist, or is not the one that was meant any more.
var ErrGone = errors.New("does not exist in the control cluster")

// RefusedError says that something a pod refers to is not delivered. It is meant for the tenant: its text names nothing
// but what the tenant's pod names itself.
type RefusedError struct {
	// Reason is an event's reason.
	Reason  string
	Message string
	// Partial is true when the content that came with the error is worth delivering without what was refused.
	Partial bool
	// Cause is set when trying again may help; it is for the operator alone.
	Cause error
}

// Error implements error.
func (e *RefusedError) Error() string { return e.Message }

// Unwrap gives the cause.
func (e *RefusedError) Unwrap() error { return e.Cause }

// Kind is one kind of thing that pods need.
type Kind struct {
	Name Name
	// Resource is the pool object that holds it.
	Resource Resource
	// Read reads what the pool object should be, for a pod that refers to it. It returns [ErrGone], a [*RefusedError], or
	// a cause to try again.
	Read func(ctx context.Context, key Key, pod *corev1.Pod) (Wanted, error)
}

// References lists what a pod needs, in the order in which it is worth delivering. A pod that has ended needs nothing.
// Names that belong to the platform in a pool are left out: the pod translation refuses a pod that mentions them.
func References(controlPod *corev1.Pod) []Key {
	if Ended(controlPod) {
		return nil
	}
	refs := podrefs.Of(&controlPod.Spec)
	namespace := names.ControlNamespace(controlPod.Namespace)
	var keys []Key
	if len(refs.Tokens) > 0 {
		keys = append(keys, Key{Token, namespace, names.TokenSecret(controlPod.UID)})
	}
	for _, ref := range refs.ConfigMaps {
		if key, ok := ConfigMapKey(namespace, ref.Name); ok {
			keys = append(keys, key)
		}
	}
	for _, ref := range refs.Secrets {
		if key, ok := SecretKey(namespace, ref.Name); ok {
			keys = append(keys, key)
		}
	}
	return keys
}

// Ended reports whether a pod's containers are done for good.
func Ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
