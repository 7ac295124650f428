package node

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

// kubeletConfig is that of an ordinary node but for what one of several on a machine, and a small one, has to have.
func kubeletConfig(config Config) []byte {
	raw, err := yaml.Marshal(kubeletv1beta1.KubeletConfiguration{
		TypeMeta: metav1.TypeMeta{APIVersion: kubeletv1beta1.SchemeGroupVersion.String(), Kind: "KubeletConfiguration"},
		Authentication: kubeletv1beta1.KubeletAuthentication{
			X509:      kubeletv1beta1.KubeletX509Authentication{ClientCAFile: homeDir + "/ca.crt"},
			Webhook:   kubeletv1beta1.KubeletWebhookAuthentication{Enabled: ptr.To(true)},
			Anonymous: kubeletv1beta1.KubeletAnonymousAuthentication{Enabled: ptr.To(false)},
		},
		Authorization:            kubeletv1beta1.KubeletAuthorization{Mode: kubeletv1beta1.KubeletAuthorizationModeWebhook},
		TLSCertFile:              homeDir + "/kubelet.crt",
		TLSPrivateKeyFile:        homeDir + "/kubelet.key",
		ContainerRuntimeEndpoint: "unix://" + containerdSocket,
		ResolverConfig:           ptr.To(homeDir + "/resolv.conf"),
		ClusterDomain:            "cluster.local",
		MaxPods:                  110,
		// A mounted ConfigMap follows its object by this; with the default of a minute people wonder.
		SyncFrequency:       metav1.Duration{Duration: 10 * time.Second},
		SerializeImagePulls: ptr.To(false),
		FailSwapOn:          ptr.To(false),
		// Two kubelets with one cgroup root delete each other's pods. systemd would need a bus, and slices for names.
		CgroupRoot:   config.Cgroup,
		CgroupDriver: "cgroupfs",
		FailCgroupV1: ptr.To(false),
		// The machine's own processes are not ours to confine.
		EnforceNodeAllocatable: []string{"none"},
		// A lower score than one's own needs a capability that containers and CI machines lack.
		OOMScoreAdj: ptr.To[int32](0),
		// The disk is the developer's, and may well be nearly full.
		EvictionHard: map[string]string{
			"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
			"imagefs.available": "0%", "imagefs.inodesFree": "0%",
		},
		// What was imported cannot be pulled again.
		ImageGCHighThresholdPercent: ptr.To[int32](100),
	})
	if err != nil {
		// The type marshals whatever its values are.
		panic(err)
	}
	return raw
}

// containerdConfig is the default one but for the paths of plugins, an image that no registry has, and the snapshotter,
// which the node chooses when it starts.
func containerdConfig(config Config) []byte {
	plugins := config.Containerd.CNIPlugins
	if config.VPC != nil {
		plugins = pluginDir
	}
	return fmt.Appendf(nil, `version = 2
# Without it a containerd whose kubelet side failed to load would stay, and be of no use.
required_plugins = ["io.containerd.grpc.v1.cri"]
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  # Without CAP_SYS_RESOURCE a sandbox that asks for a lower score than containerd's fails to start.
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = %q
  conf_dir = %q
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = %q
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
`, config.SandboxImage, plugins, cniConfDir, snapshotterMark)
}

// snapshotterMark stands in containerd's configuration for the name of the snapshotter.
const snapshotterMark = "SNAPSHOTTER"

type object = map[string]any

// cniConfig puts a node's pods on a bridge in the node. There is no masquerading: the host has a route to the pods.
func cniConfig(config Config) []byte {
	return conflist(bridgeConfig(config))
}

// vpcConfig puts pods into the VPCs of their tenants, and those of tenants without one on the bridge.
func vpcConfig(config Config) []byte {
	return conflist(object{
		"type": "vivarium-vpc", "dir": agentDir, "delegate": bridgeConfig(config),
		// The only pods of a pool's own that there may be.
		"namespaces":   []string{metav1.NamespaceSystem},
		"capabilities": object{"io.kubernetes.cri.pod-annotations": true},
	})
}

// agentDir is where the agent and its plugin meet.
const agentDir = "/run/vivarium-vpc"

func bridgeConfig(config Config) object {
	return object{
		"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
		"ipam": object{
			"type": "host-local",
			// Addresses are forgotten when the node goes down, like the pods that had them.
			"dataDir": "/run/cni",
			"ranges":  [][]object{{{"subnet": config.PodCIDR.String()}}},
			"routes":  []object{{"dst": "0.0.0.0/0"}},
		},
	}
}

func conflist(first object) []byte {
	raw, err := json.MarshalIndent(object{
		"cniVersion": "1.0.0",
		"name":       "node",
		"plugins":    []object{first, {"type": "portmap", "capabilities": object{"portMappings": true}}},
	}, "", "  ")
	if err != nil {
		// Strings and booleans marshal.
		panic(err)
	}
	return raw
}

// resolvConf gives the host's resolvers as seen from another network namespace: those on the host's loopback are left out,
// and where there are no others, what stands behind them is taken.
func resolvConf() []byte {
	for _, path := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if conf, ok := reachableResolvers(string(raw)); ok {
			return []byte(conf)
		}
	}
	return []byte("# The host has no resolver that a node can reach.\n")
}

// nameservers gives the resolvers of such a file.
func nameservers(conf string) []string {
	var out []string
	for line := range strings.Lines(conf) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "nameserver" {
			if addr, err := netip.ParseAddr(fields[1]); err == nil && addr.Zone() == "" {
				out = append(out, addr.String())
			}
		}
	}
	return out
}

func reachableResolvers(conf string) (string, bool) {
	var out strings.Builder
	found := false
	for line := range strings.Lines(conf) {
		fields := strings.Fields(line)
		if len(fields) > 1 && fields[0] == "nameserver" {
			if addr, err := netip.ParseAddr(fields[1]); err != nil || addr.IsLoopback() {
				continue
			}
			found = true
		}
		out.WriteString(line)
	}
	return out.String(), found
}
