package podspec

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network"
)

var update = flag.Bool("update", false, "rewrite testdata with what the code does now; review it as prose")

func simplePod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "abc123-default", UID: "control-uid"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "vivarium.test/echo:v1"}}},
	}
}

func place() Placement {
	return Placement{
		Tenant: "abc123", Namespace: "default",
		Node:     Node{Name: "pool-a-0", Addresses: []string{"192.0.2.1"}},
		Gateway:  Gateway{Host: "192.0.2.9", Port: "6443"},
		Identity: map[string]string{names.LabelTenant: "abc123", names.LabelControlUID: "control-uid"},
		Network:  network.PodMutation{Annotations: map[string]string{network.BindingAnnotation: "tenant=abc123,driver=flat"}},
	}
}

// TestGolden translates whole pods. Each file is a control pod and the pool pod that it becomes.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var control corev1.Pod
			if err := yaml.UnmarshalStrict(archive.Files[0].Data, &control); err != nil {
				t.Fatal(err)
			}
			before := control.DeepCopy()
			at := place()
			if strings.Contains(file, "mirrored") {
				at.Node = Node{Name: "pool-a-node-1", Addresses: []string{"192.0.2.1"}, PoolNode: "node-1"}
			}
			if strings.Contains(file, "vpc") {
				at.Gateway = Gateway{Host: network.APIAddress, Port: "443"}
				at.VPC = &InVPC{IPs: []string{"10.0.0.12", "fd00::c"}, Hidden: true}
			}
			if strings.Contains(file, "named") {
				at.VPC.Resolver = network.ResolverAddress
			}
			var got string
			pool, err := ToPool(&control, at)
			if err != nil {
				var r *Refused
				if !errors.As(err, &r) {
					t.Fatal(err)
				}
				got = "refused:\n- " + strings.Join(r.Problems, "\n- ") + "\n"
			} else {
				delete(pool.Annotations, AppliedAnnotation)
				raw, err := yaml.Marshal(pool)
				if err != nil {
					t.Fatal(err)
				}
				got = string(raw)
			}
			if diff := cmp.Diff(before, &control); diff != "" {
				t.Errorf("the control pod was changed (-before +after):\n%s", diff)
			}
			if *update {
				archive.Files = append(archive.Files[:1], txtar.File{Name: "pool", Data: []byte(got)})
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if len(archive.Files) < 2 {
				t.Fatal("no expectation; run with -update")
			}
			if diff := cmp.Diff(string(archive.Files[1].Data), got); diff != "" {
				t.Errorf("pool pod (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	cases := map[string]struct {
		change func(*corev1.PodSpec)
		want   string
	}{
		"HostPath": {func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
		}, `volume "v" is a path on the host`},
		"HostNetwork": {func(s *corev1.PodSpec) { s.HostNetwork = true }, "hostNetwork is not allowed"},
		"HostPort": {func(s *corev1.PodSpec) {
			s.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80}}
		}, "port of the host"},
		"FullHostname": {func(s *corev1.PodSpec) {
			s.SetHostnameAsFQDN, s.Subdomain = ptr.To(true), "db"
		}, "setHostnameAsFQDN with a subdomain is not supported"},
		"Privileged": {func(s *corev1.PodSpec) {
			s.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
		}, "privileged"},
		"PrivilegedInit": {func(s *corev1.PodSpec) {
			s.InitContainers = []corev1.Container{{Name: "i", SecurityContext: &corev1.SecurityContext{Privileged: ptr.To(true)}}}
		}, "privileged"},
		"Capability": {func(s *corev1.PodSpec) {
			s.Containers[0].SecurityContext = &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}}}
		}, "NET_ADMIN"},
		"UnsafeSysctl": {func(s *corev1.PodSpec) {
			s.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.msgmax", Value: "1"}}}
		}, "kernel.msgmax"},
		"ProbeOfAnotherHost": {func(s *corev1.PodSpec) {
			s.Containers[0].LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: "169.254.169.254"}}}
		}, "169.254.169.254"},
		"AnotherPodsToken": {func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: names.TokenSecret("other")}}}}
		}, "reserved"},
		"AnotherPodsTokenByEnv": {func(s *corev1.PodSpec) {
			s.Containers[0].Env = []corev1.EnvVar{{Name: "T", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: names.TokenSecret("other")}}}}}
		}, "reserved"},
		"AnotherPodsTokenByEnvFrom": {func(s *corev1.PodSpec) {
			s.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: names.TokenSecret("other")}}}}
		}, "reserved"},
		"AnotherPodsTokenProjected": {func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: names.TokenSecret("other")}}}}}}}}
		}, "reserved"},
		"AnotherPodsTokenToPull": {func(s *corev1.PodSpec) {
			s.ImagePullSecrets = []corev1.LocalObjectReference{{Name: names.TokenSecret("other")}}
		}, "reserved"},
		"ReservedConfigMap": {func(s *corev1.PodSpec) {
			s.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: names.RootCAConfigMap}}}}
		}, "reserved"},
		"UnknownField": {func(s *corev1.PodSpec) {
			s.Containers[0].Env = []corev1.EnvVar{{Name: "T", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.finalizers"}}}}
		}, `field "metadata.finalizers" is not supported`},
		"TrustBundle": {func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{}}}}}}}
		}, "not supported"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := simplePod()
			tc.change(&pod.Spec)
			_, err := ToPool(pod, place())
			var r *Refused
			if !errors.As(err, &r) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want a refusal with %q", err, tc.want)
			}
			if strings.Contains(err.Error(), "abc123") {
				t.Errorf("the refusal speaks of another world: %v", err)
			}
		})
	}
}

// TestBadEphemeralContainerDoesNotEndThePod: it comes while the pod runs.
func TestBadEphemeralContainerDoesNotEndThePod(t *testing.T) {
	pod := simplePod()
	pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: "debug", SecurityContext: &corev1.SecurityContext{Privileged: ptr.To(true)},
	}}}
	if _, err := ToPool(pod, place()); err != nil {
		t.Errorf("the pod is refused: %v", err)
	}
	if _, err := EphemeralToPool(pod, place()); err == nil {
		t.Error("the container is accepted")
	}
	pod.Spec.EphemeralContainers[0].SecurityContext = nil
	got, err := EphemeralToPool(pod, place())
	if err != nil || len(got) != 1 || got[0].Env[0].Name != "KUBERNETES_SERVICE_HOST" {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestHostnameIsFullWithoutSubdomain: such a pod's full name is its host name, so there is nothing to refuse.
func TestHostnameIsFullWithoutSubdomain(t *testing.T) {
	pod := simplePod()
	pod.Spec.SetHostnameAsFQDN, pod.Spec.Hostname = ptr.To(true), "db-0"
	pool, err := ToPool(pod, place())
	if err != nil {
		t.Fatal(err)
	}
	if pool.Spec.Hostname != "db-0" || pool.Spec.SetHostnameAsFQDN != nil {
		t.Errorf("hostname %q, setHostnameAsFQDN %v", pool.Spec.Hostname, pool.Spec.SetHostnameAsFQDN)
	}
}

// TestTokenIsForTheGroup: a pod with a group of its own gets its token for that group alone, as from a kubelet.
func TestTokenIsForTheGroup(t *testing.T) {
	for _, group := range []*int64{nil, ptr.To[int64](2000)} {
		pod := simplePod()
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: group}
		pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}},
		}}}}
		pool, err := ToPool(pod, place())
		if err != nil {
			t.Fatal(err)
		}
		var want *int32
		if group != nil {
			want = ptr.To[int32](0o600)
		}
		if diff := cmp.Diff(want, pool.Spec.Volumes[0].Projected.Sources[0].Secret.Items[0].Mode); diff != "" {
			t.Errorf("group %v: mode (-want +got):\n%s", ptr.Deref(group, 0), diff)
		}
	}
}

// FuzzDownwardAPI holds that no path makes the translation panic or show the control cluster's namespace.
func FuzzDownwardAPI(f *testing.F) {
	for _, path := range []string{"metadata.namespace", "metadata.labels['a']", "metadata.annotations['vivarium.io/x']", "metadata.labels['", "status.hostIP"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if strings.Contains(path, "abc123") {
			return
		}
		pod := simplePod()
		ref := &corev1.ObjectFieldSelector{FieldPath: path}
		pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "E", ValueFrom: &corev1.EnvVarSource{FieldRef: ref}}}
		pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{Path: "f", FieldRef: ref}}}}}}
		pool, err := ToPool(pod, place())
		if err != nil {
			return
		}
		raw, err := yaml.Marshal(pool.Spec)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), "abc123-default") {
			t.Errorf("path %q shows the control namespace:\n%s", path, raw)
		}
	})
}
