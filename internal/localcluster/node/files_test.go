package node

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"
)

func exampleConfig() Config {
	return Config{
		Name: "node-0", ID: "pool-a-node-0",
		Containerd: Runtime{Containerd: "/usr/bin/containerd", CNIPlugins: "/usr/lib/cni"}, SandboxImage: "vivarium.test/pause:v1",
		Address: netip.MustParsePrefix("10.64.0.16/24"), Gateway: netip.MustParseAddr("10.64.0.1"),
		PodCIDR: netip.MustParsePrefix("10.64.16.0/24"), Cgroup: "/vivarium-01234567/pool-a-node-0",
		Peers: map[netip.Prefix]netip.Addr{netip.MustParsePrefix("10.64.17.0/24"): netip.MustParseAddr("10.64.0.17")},
	}
}

// TestKubeletConfig holds what must not be like on an ordinary node, or what must be.
func TestKubeletConfig(t *testing.T) {
	var got kubeletv1beta1.KubeletConfiguration
	if err := yaml.UnmarshalStrict(kubeletConfig(exampleConfig()), &got); err != nil {
		t.Fatal(err)
	}
	if got.CgroupRoot != "/vivarium-01234567/pool-a-node-0" || got.CgroupDriver != "cgroupfs" || *got.FailCgroupV1 {
		t.Errorf("cgroups: %q %q %v", got.CgroupRoot, got.CgroupDriver, *got.FailCgroupV1)
	}
	if *got.Authentication.Anonymous.Enabled || !*got.Authentication.Webhook.Enabled || got.Authorization.Mode != "Webhook" || got.ReadOnlyPort != 0 {
		t.Errorf("strangers may ask the kubelet: %+v %+v", got.Authentication, got.Authorization)
	}
	for signal, threshold := range got.EvictionHard {
		if threshold != "0%" {
			t.Errorf("pods are evicted by %s at %s", signal, threshold)
		}
	}
	if len(got.EnforceNodeAllocatable) != 1 || got.EnforceNodeAllocatable[0] != "none" {
		t.Errorf("the kubelet enforces %v on the machine", got.EnforceNodeAllocatable)
	}
}

func TestCNIConfig(t *testing.T) {
	var got struct {
		Plugins []struct {
			Type   string
			IPMasq bool
			IPAM   struct {
				Type   string
				Ranges [][]struct{ Subnet string }
			}
		}
	}
	if err := json.Unmarshal(cniConfig(exampleConfig()), &got); err != nil {
		t.Fatal(err)
	}
	bridge := got.Plugins[0]
	if bridge.Type != "bridge" || bridge.IPAM.Type != "host-local" || bridge.IPAM.Ranges[0][0].Subnet != "10.64.16.0/24" {
		t.Errorf("plugins: %+v", got.Plugins)
	}
	if bridge.IPMasq {
		t.Error("the gateway would see the node instead of the pod")
	}
}

func TestContainerdConfig(t *testing.T) {
	got := string(containerdConfig(exampleConfig()))
	for _, want := range []string{`sandbox_image = "vivarium.test/pause:v1"`, `bin_dir = "/usr/lib/cni"`, "restrict_oom_score_adj = true"} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %s:\n%s", want, got)
		}
	}
	if strings.Count(got, snapshotterMark) != 1 {
		t.Errorf("no place for the snapshotter:\n%s", got)
	}
}

func TestReachableResolvers(t *testing.T) {
	cases := map[string]struct {
		reason, conf, want string
		ok                 bool
	}{
		"Plain":    {"nothing to leave out", "search a\nnameserver 192.0.2.1\n", "search a\nnameserver 192.0.2.1\n", true},
		"Stub":     {"the host's loopback is not the node's", "nameserver 127.0.0.53\noptions edns0\n", "options edns0\n", false},
		"Mixed":    {"one that can be reached is enough", "nameserver ::1\nnameserver 2001:db8::1\n", "nameserver 2001:db8::1\n", true},
		"Nonsense": {"a name is no address", "nameserver dns\n", "", false},
		"Comment":  {"comments stay", "# nameserver 127.0.0.1\nnameserver 192.0.2.1\n", "# nameserver 127.0.0.1\nnameserver 192.0.2.1\n", true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, ok := reachableResolvers(tc.conf)
			if diff := cmp.Diff(tc.want, got); diff != "" || ok != tc.ok {
				t.Errorf("%s: ok %v (-want +got):\n%s", tc.reason, ok, diff)
			}
		})
	}
}

func TestNameservers(t *testing.T) {
	conf := "search a\n# nameserver 192.0.2.9\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver dns\nnameserver 2001:db8::1 # first\noptions edns0\n"
	if diff := cmp.Diff([]string{"192.0.2.1", "2001:db8::1"}, nameservers(conf)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestConfigFile holds that a node reads what was written for it, and that a change of anything makes it another node.
func TestConfigFile(t *testing.T) {
	dir := t.TempDir()
	config := exampleConfig()
	config.Dir = filepath.Join(dir, "node")
	for _, file := range []*string{&config.Kubeconfig, &config.CAFile, &config.CertFile, &config.KeyFile} {
		*file = "/dev/null"
	}
	file, revision, err := writeFiles(config)
	if err != nil {
		t.Fatal(err)
	}
	got, err := readConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("config (-written +read):\n%s", diff)
	}
	if _, again, err := writeFiles(config); err != nil || again != revision {
		t.Errorf("the same node has another revision: %v", err)
	}
	config.PodCIDR = netip.MustParsePrefix("10.64.18.0/24")
	if _, other, err := writeFiles(config); err != nil || other == revision {
		t.Errorf("another node has the same revision: %v", err)
	}
}
