package kind

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"vivarium.io/vivarium/internal/names"
)

func volume(source corev1.VolumeSource) corev1.Volume {
	return corev1.Volume{Name: "v", VolumeSource: source}
}

func configMap(name string) corev1.Volume {
	return volume(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}})
}

func secret(name string) corev1.Volume {
	return volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}})
}

func TestReferences(t *testing.T) {
	token := volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}}},
	}}})
	cases := map[string]struct {
		reason  string
		phase   corev1.PodPhase
		volumes []corev1.Volume
		want    []Key
	}{
		"Nothing": {"a pod without volumes needs nothing", corev1.PodRunning, nil, nil},
		"Ordinary": {"the token first: every pod waits for it", corev1.PodPending, []corev1.Volume{configMap("c"), secret("s"), token}, []Key{
			{Token, "abc123-web", "vivarium-token-u1"}, {ConfigMap, "abc123-web", "c"}, {ConfigMap, "abc123-web", names.RootCAConfigMap}, {Secret, "abc123-web", "s"},
		}},
		"Ended":    {"its containers are done", corev1.PodSucceeded, []corev1.Volume{configMap("c"), token}, nil},
		"Failed":   {"likewise", corev1.PodFailed, []corev1.Volume{secret("s")}, nil},
		"Reserved": {"names that are the platform's in a pool are nobody's to ask for", corev1.PodPending, []corev1.Volume{configMap(names.RootCAConfigMap), secret("vivarium-token-u2")}, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "abc123-web", Name: "p", UID: "u1"}, Spec: corev1.PodSpec{Volumes: tc.volumes}, Status: corev1.PodStatus{Phase: tc.phase}}
			if diff := cmp.Diff(tc.want, References(pod)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func TestHash(t *testing.T) {
	different := []Content{
		{},
		{Text: map[string]string{"a": "b"}},
		{Text: map[string]string{"a": "c"}},
		{Text: map[string]string{"ab": ""}},
		{Text: map[string]string{"a": "", "b": ""}},
		{Data: map[string][]byte{"a": []byte("b")}},
		{Text: map[string]string{"a": "b"}, Immutable: true},
		{Data: map[string][]byte{"a": []byte("b")}, Type: corev1.SecretTypeOpaque},
		{Text: map[string]string{"a": "1:b"}},
	}
	seen := map[string]int{}
	for i, c := range different {
		if j, ok := seen[c.Hash()]; ok {
			t.Errorf("contents %d and %d hash alike", i, j)
		}
		seen[c.Hash()] = i
		if c.Hash() != different[i].Hash() {
			t.Errorf("content %d hashes differently each time", i)
		}
	}
	if (Content{Data: map[string][]byte{}}).Hash() != (Content{}).Hash() {
		t.Error("an empty map differs from none, but an API server keeps neither")
	}
}

func TestSecretToPool(t *testing.T) {
	cases := map[string]struct {
		control, pool corev1.SecretType
		refused       bool
	}{
		"Opaque":       {corev1.SecretTypeOpaque, corev1.SecretTypeOpaque, false},
		"NoType":       {"", corev1.SecretTypeOpaque, false},
		"TLS":          {corev1.SecretTypeTLS, corev1.SecretTypeOpaque, false},
		"Custom":       {"example.com/thing", corev1.SecretTypeOpaque, false},
		"Helm":         {"helm.sh/release.v1", corev1.SecretTypeOpaque, false},
		"DockerConfig": {corev1.SecretTypeDockerConfigJson, corev1.SecretTypeDockerConfigJson, false},
		"Dockercfg":    {corev1.SecretTypeDockercfg, corev1.SecretTypeDockercfg, false},
		"Token":        {corev1.SecretTypeServiceAccountToken, "", true},
		"Bootstrap":    {corev1.SecretTypeBootstrapToken, "", true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			in := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "abc123-web", UID: "u", ResourceVersion: "7"}, Type: tc.control, Data: map[string][]byte{"k": []byte("v")}}
			got, err := SecretToPool(in)
			if (err != nil) != tc.refused || got.Type != tc.pool {
				t.Fatalf("got type %q, %v", got.Type, err)
			}
			if tc.refused {
				if got.Data != nil || strings.Contains(err.Error(), "abc123") {
					t.Errorf("content %v with error %q", got.Data, err)
				}
				return
			}
			if got.Version != "u/7" || string(got.Data["k"]) != "v" {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestRootCA: a pod's root CA is the gateway's, whatever control holds under that name, and a changed CA is another
// version.
func TestRootCA(t *testing.T) {
	control := fake.NewClientset(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "abc123-web", Name: "kube-root-ca.crt"}, Data: map[string]string{"ca.crt": "control's"}})
	ca := "gateway's"
	kinds := All(control, func() string { return ca }, TokenConfig{Audience: "g"})
	key := Key{ConfigMap, "abc123-web", names.RootCAConfigMap}
	first, err := kinds[ConfigMap].Read(t.Context(), key, nil)
	if err != nil || first.Text["ca.crt"] != "gateway's" || first.Version != RootCASource(ca).Version {
		t.Fatalf("got %+v, %v", first, err)
	}
	ca = "gateway's next"
	second, err := kinds[ConfigMap].Read(t.Context(), key, nil)
	if err != nil || second.Version == first.Version || second.Text["ca.crt"] != ca {
		t.Errorf("after the change: %+v, %v", second, err)
	}
}
