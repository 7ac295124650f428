package engine

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/syncer/internal/kind"
)

// Annotations on pool objects of ours. They are what makes the syncer's memory survive it.
const (
	// annotationSource is kind.Source.Version of what the object was made from.
	annotationSource = names.Domain + "/source-version"
	// annotationHash is kind.Content.Hash of what was written. The object's own hash differs when somebody changed it.
	annotationHash = names.Domain + "/content-hash"
	// annotationRefresh is kind.Wanted.RefreshAfter.
	annotationRefresh = names.Domain + "/refresh-after"
)

// Copy is what is remembered of a pool object: its metadata and what its content hashes to, but not the content, so that
// no Secret is kept in memory.
type Copy struct {
	metav1.ObjectMeta
	// Hash, Type and Immutable are those of the content that the object has now.
	Hash      string
	Type      corev1.SecretType
	Immutable bool
}

// CopyOf remembers a pool object of the resource; false for what is no such object.
func CopyOf(resource kind.Resource, object any) (*Copy, bool) {
	content, ok := resource.Of(object)
	if !ok {
		return nil, false
	}
	meta, ok := object.(metav1.ObjectMetaAccessor)
	if !ok {
		return nil, false
	}
	from := meta.GetObjectMeta()
	return &Copy{
		ObjectMeta: metav1.ObjectMeta{
			Name: from.GetName(), Namespace: from.GetNamespace(), UID: from.GetUID(), ResourceVersion: from.GetResourceVersion(),
			CreationTimestamp: from.GetCreationTimestamp(), DeletionTimestamp: from.GetDeletionTimestamp(),
			Labels: from.GetLabels(),
			Annotations: map[string]string{
				annotationSource:  from.GetAnnotations()[annotationSource],
				annotationHash:    from.GetAnnotations()[annotationHash],
				annotationRefresh: from.GetAnnotations()[annotationRefresh],
			},
		},
		Hash: content.Hash(), Type: content.Type, Immutable: content.Immutable,
	}, true
}

// Newer gives the later of two copies of one object; either may be nil.
func Newer(a, b *Copy) *Copy {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.UID != b.UID:
		if a.CreationTimestamp.Before(&b.CreationTimestamp) {
			return b
		}
		return a
	}
	// Resource versions of one kind are ordered numbers.
	av, aErr := strconv.ParseUint(a.ResourceVersion, 10, 64)
	bv, bErr := strconv.ParseUint(b.ResourceVersion, 10, 64)
	if aErr == nil && bErr == nil && bv > av {
		return b
	}
	return a
}

// fresh reports whether the copy is what was last written for the source, and nobody has changed it since.
func (c *Copy) fresh(source kind.Source) bool {
	return c.Annotations[annotationSource] == source.Version &&
		c.Annotations[annotationHash] == c.Hash &&
		c.Labels[names.LabelControlUID] == string(source.UID)
}

// refreshAfter is when the copy is to be read anew; zero for never, the distant past for what cannot be read.
func (c *Copy) refreshAfter() time.Time {
	text := c.Annotations[annotationRefresh]
	if text == "" {
		return time.Time{}
	}
	after, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Unix(0, 0)
	}
	return after
}
