package podspec

import (
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/podrefs"
)

// volume translates one volume. What mounts something that belongs to nobody in particular (a path, a share, a disk of
// the pool's network) is refused: tenants could meet there.
func (t *translator) volume(in *corev1.Volume) corev1.Volume {
	out := corev1.Volume{Name: in.Name}
	switch {
	case in.EmptyDir != nil:
		out.EmptyDir = in.EmptyDir
	case in.Image != nil:
		out.Image = in.Image
	case in.Secret != nil:
		t.checkSecret(in.Secret.SecretName)
		out.Secret = in.Secret
	case in.ConfigMap != nil:
		out.ConfigMap = in.ConfigMap
		out.ConfigMap.Name = t.configMap(in.ConfigMap.Name)
	case in.DownwardAPI != nil:
		out.DownwardAPI = &corev1.DownwardAPIVolumeSource{DefaultMode: in.DownwardAPI.DefaultMode, Items: t.downward(in.DownwardAPI.Items)}
	case in.Projected != nil:
		out.Projected = &corev1.ProjectedVolumeSource{DefaultMode: in.Projected.DefaultMode}
		for i := range in.Projected.Sources {
			out.Projected.Sources = append(out.Projected.Sources, t.projection(in.Name, &in.Projected.Sources[i]))
		}
	case in.PersistentVolumeClaim != nil, in.Ephemeral != nil:
		t.refuse("volume %q is a persistent volume, which pools do not offer yet", in.Name)
	case in.HostPath != nil:
		t.refuse("volume %q is a path on the host", in.Name)
	default:
		t.refuse("volume %q has a type that is not supported: %s", in.Name, volumeType(in.VolumeSource))
	}
	return out
}

func (t *translator) projection(volume string, in *corev1.VolumeProjection) corev1.VolumeProjection {
	switch {
	case in.Secret != nil:
		t.checkSecret(in.Secret.Name)
		return corev1.VolumeProjection{Secret: in.Secret}
	case in.ConfigMap != nil:
		in.ConfigMap.Name = t.configMap(in.ConfigMap.Name)
		return corev1.VolumeProjection{ConfigMap: in.ConfigMap}
	case in.DownwardAPI != nil:
		return corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{Items: t.downward(in.DownwardAPI.Items)}}
	case in.ServiceAccountToken != nil:
		// The syncer asks for the token in the control cluster and keeps it fresh under this key.
		item := corev1.KeyToPath{Key: podrefs.TokenKey(volume, in.ServiceAccountToken.Path), Path: in.ServiceAccountToken.Path}
		if sc := t.control.Spec.SecurityContext; sc != nil && sc.FSGroup != nil {
			// A kubelet gives a token to the pod's group alone, and adds the group's rights to these. Where there is only a
			// user it would give the file to that user, which it does for no Secret: such a token stays readable by all.
			item.Mode = ptr.To[int32](0o600)
		}
		return corev1.VolumeProjection{Secret: &corev1.SecretProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: names.TokenSecret(t.control.UID)},
			Items:                []corev1.KeyToPath{item},
		}}
	default:
		t.refuse("volume %q projects something that is not supported", volume)
		return corev1.VolumeProjection{}
	}
}

func (t *translator) downward(in []corev1.DownwardAPIVolumeFile) []corev1.DownwardAPIVolumeFile {
	var out []corev1.DownwardAPIVolumeFile
	for _, item := range in {
		to := corev1.DownwardAPIVolumeFile{Path: item.Path, ResourceFieldRef: item.ResourceFieldRef, Mode: item.Mode}
		if item.FieldRef != nil {
			to.FieldRef = &corev1.ObjectFieldSelector{APIVersion: item.FieldRef.APIVersion, FieldPath: t.fileField(item.FieldRef.FieldPath)}
		}
		out = append(out, to)
	}
	return out
}

// configMap gives a ConfigMap's name in the pool. The name that the tenant's root CA has there is taken.
func (t *translator) configMap(name string) string {
	if name == names.RootCAConfigMap {
		t.refuse("ConfigMap %q: the name is reserved", name)
	}
	return names.ConfigMapToPool(name)
}

// checkSecret refuses the names that pods' tokens have in the pool: they could be another pod's.
func (t *translator) checkSecret(name string) {
	if _, ok := names.TokenSecretOwner(name); ok {
		t.refuse("Secret %q: the name is reserved", name)
	}
}

// volumeType names the source that is set.
func volumeType(source corev1.VolumeSource) string {
	v := reflect.ValueOf(source)
	for i := range v.NumField() {
		if !v.Field(i).IsNil() {
			return v.Type().Field(i).Name
		}
	}
	return "none that is known"
}
