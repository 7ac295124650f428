package podspec

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"vivarium.io/vivarium/network"
)

func inVPC(resolver string) Placement {
	at := place()
	at.VPC = &InVPC{IPs: []string{"10.0.0.12"}, Hidden: true, Resolver: resolver}
	return at
}

// TestVPCDNS: in a VPC nothing of the resolver is the pool's to say.
func TestVPCDNS(t *testing.T) {
	five, two := ptr.To("5"), ptr.To("2")
	cluster := []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local"}
	cases := map[string]struct {
		resolver string
		policy   corev1.DNSPolicy
		asked    *corev1.PodDNSConfig
		want     *corev1.PodDNSConfig
	}{
		"NobodyAnswers": {"", corev1.DNSClusterFirst, nil, &corev1.PodDNSConfig{Nameservers: []string{noResolver}}},
		"Asked":         {"", corev1.DNSDefault, &corev1.PodDNSConfig{Nameservers: []string{"192.0.2.53"}}, &corev1.PodDNSConfig{Nameservers: []string{"192.0.2.53"}}},
		"Own":           {"10.0.0.2", corev1.DNSNone, &corev1.PodDNSConfig{Nameservers: []string{"192.0.2.53"}}, &corev1.PodDNSConfig{Nameservers: []string{"192.0.2.53"}}},
		"Resolver": {"10.0.0.2", corev1.DNSClusterFirst, nil,
			&corev1.PodDNSConfig{Nameservers: []string{"10.0.0.2"}, Searches: cluster, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: five}}}},
		"ResolverNoCluster": {"10.0.0.2", corev1.DNSDefault, nil, &corev1.PodDNSConfig{Nameservers: []string{"10.0.0.2"}}},
		"Merged": {"10.0.0.2", corev1.DNSClusterFirst,
			&corev1.PodDNSConfig{Nameservers: []string{"10.0.0.2", "192.0.2.53"}, Searches: []string{"corp"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: two}}},
			&corev1.PodDNSConfig{Nameservers: []string{"10.0.0.2", "192.0.2.53"}, Searches: append(cluster[:3:3], "corp"), Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: two}}}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := simplePod()
			pod.Spec.DNSPolicy, pod.Spec.DNSConfig = tc.policy, tc.asked
			got, err := ToPool(pod, inVPC(tc.resolver))
			if err != nil {
				t.Fatal(err)
			}
			if got.Spec.DNSPolicy != corev1.DNSNone {
				t.Errorf("policy %s", got.Spec.DNSPolicy)
			}
			if diff := cmp.Diff(tc.want, got.Spec.DNSConfig); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestVPCHostsFile: a pod with a subdomain knows its full name, where somebody answers for names.
func TestVPCHostsFile(t *testing.T) {
	long := strings.Repeat("a", 62) + "-b"
	cases := map[string]struct {
		resolver string
		spec     corev1.PodSpec
		want     string
	}{
		"Name":          {network.ResolverAddress, corev1.PodSpec{}, "web"},
		"Hostname":      {network.ResolverAddress, corev1.PodSpec{Hostname: "db-0"}, "db-0"},
		"Subdomain":     {network.ResolverAddress, corev1.PodSpec{Hostname: "db-0", Subdomain: "db"}, "db-0.db.default.svc.cluster.local\tdb-0"},
		"OnlySubdomain": {network.ResolverAddress, corev1.PodSpec{Subdomain: "db"}, "web.db.default.svc.cluster.local\tweb"},
		"Long":          {network.ResolverAddress, corev1.PodSpec{Hostname: long, Subdomain: "db"}, long[:62] + ".db.default.svc.cluster.local\t" + long[:62]},
		"Override":      {network.ResolverAddress, corev1.PodSpec{HostnameOverride: ptr.To("mine.example.com"), Subdomain: "db"}, "mine.example.com"},
		"NobodyAnswers": {"", corev1.PodSpec{Hostname: "db-0", Subdomain: "db"}, "db-0"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := simplePod()
			pod.Spec.Hostname, pod.Spec.Subdomain, pod.Spec.HostnameOverride = tc.spec.Hostname, tc.spec.Subdomain, tc.spec.HostnameOverride
			got, err := ToPool(pod, inVPC(tc.resolver))
			if err != nil {
				t.Fatal(err)
			}
			if file := got.Annotations[HostsAnnotation]; !strings.HasSuffix(file, "\n10.0.0.12\t"+tc.want+"\n") {
				t.Errorf("want %q in:\n%s", tc.want, file)
			}
			if got.Spec.Subdomain != "" {
				t.Errorf("subdomain %q would be one of the pool's namespace", got.Spec.Subdomain)
			}
		})
	}
}

// TestVPCProbes: a probe runs outside the pod's network, so that a host in it could be anybody's.
func TestVPCProbes(t *testing.T) {
	target := &corev1.HTTPGetAction{Host: "10.0.0.9", Port: intstr.FromInt32(80)}
	for name, set := range map[string]func(*corev1.Container){
		"Readiness": func(c *corev1.Container) {
			c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: target}}
		},
		"LivenessTCP": func(c *corev1.Container) {
			c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Host: "10.0.0.9", Port: intstr.FromInt32(80)}}}
		},
		"Startup": func(c *corev1.Container) {
			c.StartupProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: target}}
		},
		"PostStart": func(c *corev1.Container) {
			c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{HTTPGet: target}}
		},
		"PreStop": func(c *corev1.Container) {
			c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{HTTPGet: target}}
		},
	} {
		pod := simplePod()
		set(&pod.Spec.Containers[0])
		if _, err := ToPool(pod, inVPC("")); err == nil || !strings.Contains(err.Error(), "host") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestVPCVolumeName: a volume of the tenant's that is called as ours stays the tenant's.
func TestVPCVolumeName(t *testing.T) {
	pod := simplePod()
	pod.Spec.Volumes = []corev1.Volume{{Name: hostsVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	got, err := ToPool(pod, inVPC(""))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Spec.Volumes) != 2 || got.Spec.Volumes[1].Name != hostsVolume+"-x" || got.Spec.Containers[0].VolumeMounts[0].Name != hostsVolume+"-x" {
		t.Errorf("volumes %+v", got.Spec.Volumes)
	}
}

// TestVPCShown: where the pool's address is the tenant's, nothing is written out.
func TestVPCShown(t *testing.T) {
	pod := simplePod()
	pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}}}
	at := inVPC("")
	at.VPC.Hidden = false
	got, err := ToPool(pod, at)
	if err != nil {
		t.Fatal(err)
	}
	env := got.Spec.Containers[0].Env
	if env[len(env)-1].ValueFrom == nil || len(got.Spec.Volumes) > 0 || got.Annotations[HostsAnnotation] != "" {
		t.Errorf("got %+v", got)
	}
}
