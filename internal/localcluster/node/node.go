// Package node runs Kubernetes nodes on one Linux machine: containerd and a kubelet in mount, network, PID, IPC and UTS
// namespaces of their own, with a private root whose system directories are the host's. To Kubernetes each is a machine;
// to the host each is one process, the first in the node's namespaces, and killing it takes every container, mount and
// link of the node with it.
//
// A node must never write outside its own directory, cgroup and link on the host, nor change a setting of the host's
// kernel that is not given back when the last bridge goes. Start at [Start] for the host's side and at [Run] for the node's.
package node

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"vivarium.io/vivarium/internal/localcluster/process"
)

// Config describes a node. All fields are required save Peers.
type Config struct {
	// Name is the node's name in Kubernetes and its hostname.
	Name string
	// ID tells the node from every other on this machine; it names its process.
	ID string
	// Dir is the directory on the host that keeps the node's state.
	Dir string
	// LogDir is where the logs go, as <ID>-containerd.log and <ID>-kubelet.log.
	LogDir string
	// Kubelet is the program on the host.
	Kubelet string
	// Containerd are the programs and plugins on the host.
	Containerd Runtime
	// SandboxImage is what holds a pod's namespaces. It has to be imported.
	SandboxImage string

	// Kubeconfig, CAFile, CertFile and KeyFile are the node's credentials: its own toward the API server, who may talk to
	// its kubelet, and what the kubelet serves with.
	Kubeconfig, CAFile, CertFile, KeyFile string

	// Link is the host's end of the node's cable and Bridge what it is plugged into.
	Link, Bridge string
	// Address is the node's own and Gateway the host's, in the network of the bridge.
	Address netip.Prefix
	Gateway netip.Addr
	// PodCIDR is what the node's pods get their addresses from.
	PodCIDR netip.Prefix
	// Peers maps the pod networks of the cluster's other nodes to those nodes.
	Peers map[netip.Prefix]netip.Addr
	// Cgroup is the cgroup, from the root of every hierarchy, under which everything of the node lives.
	Cgroup string

	// VPC has the node's pods in the VPCs of their tenants; nil where all are on the node's bridge.
	VPC *VPC
}

// VPC is what a node needs for the network driver vxlan. All fields are required.
type VPC struct {
	// Programs is the directory on the host that has the agent and the network plugin.
	Programs string
	// Kubeconfig is the agent's credential, a file.
	Kubeconfig string
	// Protected are the ranges that no pod of a VPC reaches: everything of this machine's clusters.
	Protected []netip.Prefix
}

// Where a node finds its things in its own root.
const (
	homeDir    = "/node"
	logDir     = "/logs"
	kubeletDir = "/kubernetes"
	cniConfDir = homeDir + "/cni"
	// programDir and pluginDir are there for nodes with VPCs: our programs, and all network plugins in one place.
	programDir = "/vivarium"
	pluginDir  = "/run/cni-plugins"
	// Containerd's address is the default one, for the sake of ctr and crictl.
	containerdSocket = "/run/containerd/containerd.sock"
)

// InitArg is the first argument with which a program must call [Run].
const InitArg = "node-init"

// Start makes sure that the node runs, with a cable to its bridge. self is a program that calls [Run] when its first
// argument is [InitArg]. The node's API object appears a little later.
func Start(set *process.Set, self string, config Config) (process.Outcome, error) {
	file, revision, err := writeFiles(config)
	if err != nil {
		return "", err
	}
	if p := set.Get(config.ID); p == nil || !p.Alive() {
		// A machine that boots has no containers' cgroups. With those of its last life the kubelet asks the runtime about each,
		// and waits seconds for every answer. It can do with what cannot be removed.
		_ = RemoveCgroup(config.Cgroup)
	}
	if err := makeCgroup(config.Cgroup); err != nil {
		return "", err
	}
	p, outcome, err := set.Ensure(process.Spec{
		Name:       config.ID,
		Path:       self,
		Args:       []string{InitArg, file},
		Revision:   revision,
		Log:        filepath.Join(config.LogDir, config.ID+".log"),
		Namespaces: true,
	})
	if err != nil {
		return outcome, err
	}
	if err := plug(config, p.ID().PID, outcome != process.Kept); err != nil {
		return outcome, err
	}
	return outcome, nil
}

// writeFiles writes what the node reads when it starts, and gives the file to start from and a digest of all of them.
func writeFiles(config Config) (file, revision string, err error) {
	files := map[string][]byte{
		"kubelet.yaml":    kubeletConfig(config),
		"containerd.toml": containerdConfig(config),
		"resolv.conf":     resolvConf(),
	}
	credentials := map[string]string{
		"kubeconfig": config.Kubeconfig, "ca.crt": config.CAFile, "kubelet.crt": config.CertFile, "kubelet.key": config.KeyFile,
	}
	if config.VPC == nil {
		files["cni/10-node.conflist"] = cniConfig(config)
	} else {
		// The agent puts it where the runtime looks, when the node is guarded.
		files["vpc.conflist"] = vpcConfig(config)
		credentials["vpc.kubeconfig"] = config.VPC.Kubeconfig
	}
	for name, path := range credentials {
		if files[name], err = os.ReadFile(path); err != nil {
			return "", "", fmt.Errorf("prepare node %s: %w", config.ID, err)
		}
	}
	if files["node.json"], err = json.MarshalIndent(config, "", "  "); err != nil {
		return "", "", fmt.Errorf("prepare node %s: %w", config.ID, err)
	}
	for name, content := range files {
		path := filepath.Join(config.Dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", "", fmt.Errorf("prepare node %s: %w", config.ID, err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return "", "", fmt.Errorf("prepare node %s: %w", config.ID, err)
		}
	}
	// JSON orders the map's keys.
	all, err := json.Marshal(files)
	if err != nil {
		return "", "", fmt.Errorf("prepare node %s: %w", config.ID, err)
	}
	return filepath.Join(config.Dir, "node.json"), fmt.Sprintf("%.16x", sha256.Sum256(all)), nil
}

func readConfig(file string) (Config, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return Config{}, fmt.Errorf("read the node's configuration: %w", err)
	}
	var config Config
	if err := json.Unmarshal(raw, &config); err != nil {
		return Config{}, fmt.Errorf("read the node's configuration %s: %w", file, err)
	}
	return config, nil
}
