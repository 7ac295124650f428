//go:build linux

package plane

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/vxlan/internal/state"
)

// Pod is a pod that is, or is being, plugged into a VPC on this node. It is written down before anything is made for it
// and forgotten when nothing is left.
type Pod struct {
	// Container is the runtime's ID of the sandbox.
	Container string `json:"container"`
	// NetNS and Interface are where the pod's end is.
	NetNS     string `json:"netns"`
	Interface string `json:"interface"`
	// UID is that of the tenant's pod; Namespace and Name are for people.
	UID       types.UID    `json:"uid"`
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	VPC       types.UID    `json:"vpc"`
	Subnet    types.UID    `json:"subnet"`
	IPs       []netip.Addr `json:"ips"`
	MAC       string       `json:"mac"`
	// Groups are the security groups that it is in as long as nobody has said otherwise.
	Groups []string `json:"groups,omitempty"`

	// Rates bound its traffic.
	Rates netkeys.Rates `json:"rates,omitzero"`

	// Infra is the address by which this node alone knows the pod.
	Infra netip.Addr `json:"infra,omitzero"`
	// Port is the pod's port on its bridge, in the VPC's namespace.
	Port string `json:"port,omitempty"`
}

func (n *Node) vpcDir(vpc types.UID) string      { return filepath.Join(n.config.Dir, "vpcs", string(vpc)) }
func (n *Node) netnsPath(vpc types.UID) string   { return filepath.Join(n.vpcDir(vpc), "netns") }
func (n *Node) desiredPath(vpc types.UID) string { return filepath.Join(n.vpcDir(vpc), "desired.json") }

// podFile names the file of a pod by its container and its VPC, neither of which has an @: who looks for the pods of one VPC
// need not read those of all others. Either may be a pattern.
func (n *Node) podFile(container string, vpc types.UID) string {
	return filepath.Join(n.PodsDir(), container+"@"+string(vpc)+".json")
}

// PodsDir is the directory in which a file is made, or made anew, for every pod that is plugged in.
func (n *Node) PodsDir() string { return filepath.Join(n.config.Dir, "pods") }

// VPCOfPod gives the VPC of the pod that such a file is about.
func VPCOfPod(file string) (types.UID, bool) {
	_, vpc, ok := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".json"), "@")
	return types.UID(vpc), ok && state.ValidUID(types.UID(vpc))
}

// Known lists the VPCs that this node knows of or has something of.
func (n *Node) Known() ([]types.UID, error) {
	entries, err := os.ReadDir(filepath.Join(n.config.Dir, "vpcs"))
	if err != nil {
		return nil, fmt.Errorf("list VPCs: %w", err)
	}
	var out []types.UID
	for _, entry := range entries {
		if uid := types.UID(entry.Name()); state.ValidUID(uid) {
			out = append(out, uid)
		}
	}
	return out, nil
}

// Store writes down what a VPC is to be, for [Node.Attach] in whichever process. It reports whether that is news.
func (n *Node) Store(desired *state.Desired) (changed bool, err error) {
	if err := desired.Validate(); err != nil {
		return false, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err := os.MkdirAll(n.vpcDir(desired.UID), 0o700); err != nil {
		return false, fmt.Errorf("store VPC %s: %w", desired.UID, err)
	}
	raw, err := json.Marshal(desired)
	if err != nil {
		return false, fmt.Errorf("store VPC %s: %w", desired.UID, err)
	}
	if before, err := os.ReadFile(n.desiredPath(desired.UID)); err == nil && slices.Equal(before, raw) {
		return false, nil
	}
	return true, replaceFile(n.desiredPath(desired.UID), raw)
}

// Stored gives what was last written down; [ErrNotReady] where that is nothing.
func (n *Node) Stored(vpc types.UID) (*state.Desired, error) {
	if !state.ValidUID(vpc) {
		return nil, fmt.Errorf("%w: VPC %q", ErrRefused, vpc)
	}
	raw, err := os.ReadFile(n.desiredPath(vpc))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: VPC %s is not known", ErrNotReady, vpc)
	}
	if err != nil {
		return nil, fmt.Errorf("read VPC %s: %w", vpc, err)
	}
	var desired state.Desired
	if err := json.Unmarshal(raw, &desired); err != nil {
		return nil, fmt.Errorf("read VPC %s: %w", vpc, err)
	}
	return &desired, nil
}

func (n *Node) servicesPath(vpc types.UID) string {
	return filepath.Join(n.vpcDir(vpc), "services.json")
}

// StoreServices writes down which Services a VPC has that is stored already.
func (n *Node) StoreServices(vpc types.UID, services []network.Service) error {
	if !state.ValidUID(vpc) {
		return fmt.Errorf("%w: VPC %q", ErrRefused, vpc)
	}
	if err := network.ValidateServices(services); err != nil {
		return fmt.Errorf("%w: VPC %s: %w", ErrRefused, vpc, err)
	}
	raw, err := json.Marshal(network.SortedServices(services))
	if err != nil {
		return fmt.Errorf("store services of VPC %s: %w", vpc, err)
	}
	if before, err := os.ReadFile(n.servicesPath(vpc)); err == nil && slices.Equal(before, raw) {
		return nil
	}
	return replaceFile(n.servicesPath(vpc), raw)
}

// StoredServices gives those that were last written down. None were where nobody has said anything yet.
func (n *Node) StoredServices(vpc types.UID) ([]network.Service, error) {
	if !state.ValidUID(vpc) {
		return nil, fmt.Errorf("%w: VPC %q", ErrRefused, vpc)
	}
	raw, err := os.ReadFile(n.servicesPath(vpc))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read services of VPC %s: %w", vpc, err)
	}
	var services []network.Service
	if err := json.Unmarshal(raw, &services); err != nil {
		return nil, fmt.Errorf("read services of VPC %s: %w", vpc, err)
	}
	return services, network.ValidateServices(services)
}

// Pods gives the pods of a VPC on this node, of all VPCs where vpc is empty, in a constant order.
func (n *Node) Pods(vpc types.UID) ([]Pod, error) {
	if vpc == "" {
		vpc = "*"
	}
	return n.podsIn(n.podFile("*", vpc))
}

// pod reads what is written of a pod, nil where that is nothing.
func (n *Node) pod(container string) (*Pod, error) {
	if !validContainer(container) {
		return nil, fmt.Errorf("%w: container %q", ErrRefused, container)
	}
	pods, err := n.podsIn(n.podFile(container, "*"))
	if err != nil || len(pods) == 0 {
		return nil, err
	}
	return &pods[0], nil
}

func (n *Node) podsIn(pattern string) ([]Pod, error) {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	var out []Pod
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read a pod: %w", err)
		}
		var pod Pod
		if err := json.Unmarshal(raw, &pod); err != nil {
			return nil, fmt.Errorf("read pod %s: %w", filepath.Base(file), err)
		}
		out = append(out, pod)
	}
	return out, nil
}

func (n *Node) savePod(pod *Pod) error {
	raw, err := json.Marshal(pod)
	if err != nil {
		return fmt.Errorf("write pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return replaceFile(n.podFile(pod.Container, pod.VPC), raw)
}

func validContainer(id string) bool {
	return id != "" && len(id) < 128 && !strings.ContainsFunc(id, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	})
}

// replaceFile writes a file whole or not at all.
func replaceFile(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = tmp.Write(content)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(tmp.Name())))
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}

// lock orders what processes do on this node about one thing: a VPC's UID, or the node itself. It ends with the process
// at the latest.
func (n *Node) lock(thing string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(n.config.Dir, "locks", thing), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", thing, err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", thing, err)
		}
		return func() { _ = f.Close() }, nil
	}
}

// nodeLock is the thing that is not a VPC. No UID has a dot.
const nodeLock = ".node"

// published is the part of the configuration that other processes on the node need.
type published struct {
	Tunnel    netip.Addr     `json:"tunnel"`
	Protected []netip.Prefix `json:"protected,omitempty"`
	Allowed   []netip.Prefix `json:"allowed,omitempty"`
	Plugins   string         `json:"plugins"`
}

func (n *Node) publishedPath() string { return filepath.Join(n.config.Dir, "node.json") }

// Publish writes the node's configuration down for [Open].
func (n *Node) Publish() error {
	raw, err := json.Marshal(published{n.config.Tunnel, n.config.Protected, n.config.Allowed, n.config.Plugins})
	if err != nil {
		return fmt.Errorf("publish the node's configuration: %w", err)
	}
	return replaceFile(n.publishedPath(), raw)
}

// Open opens the node whose directory is given, as another process published it; [ErrNotReady] where none has.
func Open(dir string) (*Node, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "node.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: no agent has run since the node was booted", ErrNotReady)
	}
	if err != nil {
		return nil, fmt.Errorf("open the node: %w", err)
	}
	var p published
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, fmt.Errorf("open the node: %w", err)
	}
	return New(Config{Dir: dir, Tunnel: p.Tunnel, Protected: p.Protected, Allowed: p.Allowed, Plugins: p.Plugins})
}

// Has reports whether a container has, or had and not wholly lost, something here.
func (n *Node) Has(container string) (bool, error) {
	pod, err := n.pod(container)
	return pod != nil, err
}
