package podrefs

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestOf(t *testing.T) {
	yes, ten := true, int64(600)
	local := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	spec := &corev1.PodSpec{
		ImagePullSecrets: []corev1.LocalObjectReference{local("pull")},
		Volumes: []corev1.Volume{
			{Name: "a", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: local("cm"), Optional: &yes}}},
			{Name: "b", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "sec", Optional: &yes}}},
			{Name: "c", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
			{Name: "d", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "vault/token", Audience: "vault", ExpirationSeconds: &ten}},
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: local("kube-root-ca.crt")}},
				{Secret: &corev1.SecretProjection{LocalObjectReference: local("proj")}},
			}}}},
			{Name: "e", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{NodePublishSecretRef: &corev1.LocalObjectReference{Name: "csi"}}}},
		},
		InitContainers: []corev1.Container{{EnvFrom: []corev1.EnvFromSource{
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: local("initsec")}},
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local("cm")}},
		}}},
		Containers: []corev1.Container{{Env: []corev1.EnvVar{
			{Name: "PLAIN", Value: "x"},
			{Name: "A", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: local("envcm")}}},
			{Name: "B", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: local("sec"), Optional: &yes}}},
		}}},
		EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: local("debug")}}},
		}}},
	}
	want := Refs{
		ConfigMaps: []Ref{{Name: "cm"}, {Name: "kube-root-ca.crt"}, {Name: "envcm"}},
		Secrets:    []Ref{{Name: "pull", Optional: true}, {Name: "sec", Optional: true}, {Name: "proj"}, {Name: "csi"}, {Name: "initsec"}, {Name: "debug"}},
		Claims:     []string{"data"},
		Tokens: []Token{
			{Volume: "d", Path: "token", ExpirationSeconds: 3600, Key: TokenKey("d", "token")},
			{Volume: "d", Path: "vault/token", Audience: "vault", ExpirationSeconds: 600, Key: TokenKey("d", "vault/token")},
		},
	}
	if diff := cmp.Diff(want, Of(spec)); diff != "" {
		t.Errorf("Of (-want +got):\n%s", diff)
	}
	if TokenKey("d", "a/b") == TokenKey("d", "a.b") {
		t.Error("two paths share a key")
	}
}

// TestEachContainerWritesThrough pins what the pod translation relies on: a visitor may edit ephemeral containers.
func TestEachContainerWritesThrough(t *testing.T) {
	spec := &corev1.PodSpec{EphemeralContainers: []corev1.EphemeralContainer{{}}}
	EachContainer(spec, func(c *corev1.Container) { c.Image = "x" })
	if spec.EphemeralContainers[0].Image != "x" {
		t.Error("the change was lost")
	}
}
