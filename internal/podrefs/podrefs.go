// Package podrefs reads from a pod what else it needs: the ConfigMaps, Secrets, claims and ServiceAccount tokens it
// refers to. The syncer carries these into a pool and the pod translation points at them, so both must read alike; that
// is why it is a package.
//
// It is pure and must never decide what may cross: it only reports. Start at [Of].
package podrefs

import (
	"crypto/sha256"
	"encoding/hex"

	corev1 "k8s.io/api/core/v1"
)

// DefaultTokenExpirationSeconds is how long a projected token lives when the pod does not say
// (core/v1 ServiceAccountTokenProjection).
const DefaultTokenExpirationSeconds = 3600

// Refs is what one pod needs besides itself, each list in order of first mention and without repeats.
type Refs struct {
	ConfigMaps []Ref
	Secrets    []Ref
	Claims     []string
	Tokens     []Token
}

// Ref names one object in the pod's namespace.
type Ref struct {
	Name string
	// Optional is true when every mention of the object is optional: the pod starts without it.
	Optional bool
}

// Token is one projected ServiceAccount token.
type Token struct {
	// Volume and Path say where the pod mounts it.
	Volume, Path string
	// Audience as the pod wrote it; empty means the cluster's own API, which for a tenant is the gateway.
	Audience string
	// ExpirationSeconds is the lifetime asked for, always positive.
	ExpirationSeconds int64
	// Key is the token's key in the pod's token Secret (names.TokenSecret) in the pool.
	Key string
}

// Of reports the references of a pod spec. It reads every volume, every kind of container and the image pull secrets;
// it does not modify the spec.
func Of(spec *corev1.PodSpec) Refs {
	var c collector
	for i := range spec.ImagePullSecrets {
		c.secret(spec.ImagePullSecrets[i].Name, true)
	}
	for i := range spec.Volumes {
		c.volume(&spec.Volumes[i])
	}
	EachContainer(spec, func(container *corev1.Container) { c.container(container) })
	return c.refs
}

// EachContainer calls visit for every init, ordinary and ephemeral container of the spec, in that order. An ephemeral
// container is seen through its common part, so changes to slices and structs inside it are changes to the spec.
func EachContainer(spec *corev1.PodSpec, visit func(*corev1.Container)) {
	for i := range spec.InitContainers {
		visit(&spec.InitContainers[i])
	}
	for i := range spec.Containers {
		visit(&spec.Containers[i])
	}
	for i := range spec.EphemeralContainers {
		visit((*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
}

// TokenKey names a token in the pod's token Secret. Volume names are DNS labels and paths are free, so the path goes in
// as a digest.
func TokenKey(volume, path string) string {
	sum := sha256.Sum256([]byte(path))
	return volume + "." + hex.EncodeToString(sum[:6])
}

type collector struct{ refs Refs }

func (c *collector) configMap(name string, optional bool) {
	c.refs.ConfigMaps = add(c.refs.ConfigMaps, name, optional)
}

func (c *collector) secret(name string, optional bool) {
	c.refs.Secrets = add(c.refs.Secrets, name, optional)
}

func add(refs []Ref, name string, optional bool) []Ref {
	if name == "" {
		return refs
	}
	for i := range refs {
		if refs[i].Name == name {
			refs[i].Optional = refs[i].Optional && optional
			return refs
		}
	}
	return append(refs, Ref{Name: name, Optional: optional})
}

func (c *collector) volume(v *corev1.Volume) {
	switch {
	case v.ConfigMap != nil:
		c.configMap(v.ConfigMap.Name, isTrue(v.ConfigMap.Optional))
	case v.Secret != nil:
		c.secret(v.Secret.SecretName, isTrue(v.Secret.Optional))
	case v.PersistentVolumeClaim != nil:
		c.refs.Claims = append(c.refs.Claims, v.PersistentVolumeClaim.ClaimName)
	case v.Projected != nil:
		for i := range v.Projected.Sources {
			c.projection(v.Name, &v.Projected.Sources[i])
		}
	case v.CSI != nil && v.CSI.NodePublishSecretRef != nil:
		c.secret(v.CSI.NodePublishSecretRef.Name, false)
	}
}

func (c *collector) projection(volume string, s *corev1.VolumeProjection) {
	switch {
	case s.ConfigMap != nil:
		c.configMap(s.ConfigMap.Name, isTrue(s.ConfigMap.Optional))
	case s.Secret != nil:
		c.secret(s.Secret.Name, isTrue(s.Secret.Optional))
	case s.ServiceAccountToken != nil:
		t := s.ServiceAccountToken
		token := Token{
			Volume: volume, Path: t.Path, Audience: t.Audience,
			ExpirationSeconds: DefaultTokenExpirationSeconds,
			Key:               TokenKey(volume, t.Path),
		}
		if t.ExpirationSeconds != nil && *t.ExpirationSeconds > 0 {
			token.ExpirationSeconds = *t.ExpirationSeconds
		}
		c.refs.Tokens = append(c.refs.Tokens, token)
	}
}

func (c *collector) container(container *corev1.Container) {
	for i := range container.EnvFrom {
		e := &container.EnvFrom[i]
		if e.ConfigMapRef != nil {
			c.configMap(e.ConfigMapRef.Name, isTrue(e.ConfigMapRef.Optional))
		}
		if e.SecretRef != nil {
			c.secret(e.SecretRef.Name, isTrue(e.SecretRef.Optional))
		}
	}
	for i := range container.Env {
		from := container.Env[i].ValueFrom
		if from == nil {
			continue
		}
		if from.ConfigMapKeyRef != nil {
			c.configMap(from.ConfigMapKeyRef.Name, isTrue(from.ConfigMapKeyRef.Optional))
		}
		if from.SecretKeyRef != nil {
			c.secret(from.SecretKeyRef.Name, isTrue(from.SecretKeyRef.Optional))
		}
	}
}

func isTrue(b *bool) bool { return b != nil && *b }
