package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"vivarium.io/vivarium/charts"
	"vivarium.io/vivarium/internal/localcluster"
	"vivarium.io/vivarium/internal/localcluster/process"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/vxlan"
)

// vpcNode is a node of a pool whose network driver is vxlan, without a kubelet and a container runtime: the first process of
// namespaces of its own, with the pool's API, the agent and the plugins in them. What it leaves ends with it.
type vpcNode struct {
	vpcNodeConfig
	binaries  *localcluster.Binaries
	processes *process.Set
	pool      network.Pool
	agent     *process.Process
	pods      int
	// plain is the network namespace of a node without the driver, for the stock plugin.
	plain string
}

// The node's addresses, and another's on which pods are said to be.
const (
	vpcNodeAddress  = "10.99.0.1"
	otherVPCNode    = "10.99.0.2"
	remoteEndpoints = 10
)

// possibleVPCNode says what is missing for such a node.
func possibleVPCNode(programs string) (plugins string, err error) {
	if os.Getuid() != 0 {
		return "", errors.New("network namespaces need root")
	}
	if _, ok := findProgram("nft"); !ok {
		return "", errors.New("nft is not installed")
	}
	for _, dir := range []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"} {
		if _, err := os.Stat(filepath.Join(dir, "host-local")); err == nil {
			plugins = dir
			break
		}
	}
	if plugins == "" {
		return "", errors.New("the stock network plugins are not installed")
	}
	for _, name := range []string{"vpc-agent", "vivarium-vpc"} {
		if _, err := os.Stat(filepath.Join(programs, name)); err != nil {
			return "", fmt.Errorf("-programs: %w; run `make build` first", err)
		}
	}
	return plugins, nil
}

// runVPCNode is the node's first process: it measures and writes down what it found.
func runVPCNode(args []string) error {
	if len(args) != 1 {
		return errors.New("a file is needed")
	}
	raw, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	n := &vpcNode{processes: process.NewSet()}
	if err := json.Unmarshal(raw, &n.vpcNodeConfig); err != nil {
		return err
	}
	defer func() { _ = n.processes.Stop(0, func(string) bool { return true }) }()
	// Mounts of namespaces are not for others to see, and processes are those of this PID namespace.
	found := &vpcNodeFound{}
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("proc", "/proc", "proc", 0, "")); err != nil {
		found.Skipped = fmt.Sprintf("a node cannot have its own mounts here: %s", err)
	} else if err := n.start(ctx); err != nil {
		return err
	} else if found, err = n.measure(ctx); err != nil {
		return err
	}
	if raw, err = json.Marshal(found); err != nil {
		return err
	}
	return os.WriteFile(n.Result, raw, 0o644)
}

// start makes the node's network and starts the pool's API and the agent.
func (n *vpcNode) start(ctx context.Context) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "wire"
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("make the node's link: %w", err)
	}
	for _, name := range []string{"lo", "wire"} {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err == nil && name == "wire" {
			err = netlink.AddrAdd(link, &netlink.Addr{IPNet: netlink.NewIPNet(netip.MustParseAddr(vpcNodeAddress).AsSlice())})
		}
		if err != nil {
			return fmt.Errorf("make the node's link %s: %w", name, err)
		}
	}
	n.plain = filepath.Join(n.Dir, "plain")
	err := makeNetNS(n.plain)
	if err != nil {
		return err
	}
	if n.binaries, err = localcluster.OpenBinaries(n.Source); err != nil {
		return err
	}
	ports, err := localcluster.FreePorts()
	if err != nil {
		return err
	}
	plane, err := localcluster.NewControlPlane(localcluster.ControlPlaneConfig{
		Name: "pool", Dir: filepath.Join(n.Dir, "pool"), LogDir: filepath.Join(n.Dir, "logs"), Ports: ports, Binaries: n.binaries, Processes: n.processes,
	})
	if err != nil {
		return err
	}
	if err := plane.Start(ctx); err != nil {
		return err
	}
	if err := n.prepare(ctx, plane); err != nil {
		return err
	}
	kubeconfig, err := plane.Kubeconfig("agent", "system:serviceaccount:vivarium-network:vpc-agent")
	if err != nil {
		return err
	}
	file := filepath.Join(n.Dir, "agent.kubeconfig")
	if err := os.WriteFile(file, kubeconfig, 0o600); err != nil {
		return err
	}
	n.agent, _, err = n.processes.Ensure(process.Spec{
		Name: "vpc-agent", Path: filepath.Join(n.Programs, "vpc-agent"), Log: filepath.Join(n.Dir, "logs", "vpc-agent.log"), Args: []string{
			"--kubeconfig=" + file, "--tunnel-address=" + vpcNodeAddress, "--dir=" + n.state(), "--plugins=" + n.Plugins, "--protected=10.99.0.0/24",
		},
	})
	if err != nil {
		return err
	}
	return n.agent.Until(ctx, func(context.Context) error {
		_, err := os.Stat(filepath.Join(n.state(), "node.json"))
		return err
	})
}

func (n *vpcNode) state() string { return filepath.Join(n.Dir, "state") }

// prepare gives the pool what `pool register --network vxlan` does.
func (n *vpcNode) prepare(ctx context.Context, plane *localcluster.ControlPlane) error {
	kubeconfig, err := plane.AdminKubeconfig()
	if err != nil {
		return err
	}
	file := filepath.Join(n.Dir, "admin.kubeconfig")
	if err := os.WriteFile(file, kubeconfig, 0o600); err != nil {
		return err
	}
	manifest, err := charts.FS.ReadFile("vivarium-pool/files/vxlan/access.yaml")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, n.binaries.Path(localcluster.Kubectl), "--kubeconfig="+file, "--cache-dir="+filepath.Join(n.Dir, "cache"), "apply", "--server-side", "-f", "-")
	cmd.Stdin = bytes.NewReader(manifest)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("prepare the pool: %w\n%s", err, out)
	}
	config, err := plane.AdminConfig()
	if err != nil {
		return err
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	n.pool = network.Pool{Name: "pool", ControlUID: "bench", Client: client}
	return err
}

// vpc is the k-th VPC. All have the same addresses.
func vpcOf(k int) (*network.VPC, *network.Subnet) {
	v := &network.VPC{
		Name: fmt.Sprintf("bv%04d-main", k), UID: types.UID(fmt.Sprintf("vpc-%04d", k)), Tenant: names.TenantID(fmt.Sprintf("bv%04d", k)),
		CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}, Egress: network.EgressSharedNAT, API: netip.MustParseAddrPort("10.99.0.254:6443"),
	}
	return v, &network.Subnet{
		Name: fmt.Sprintf("bv%04d-web", k), UID: types.UID(fmt.Sprintf("subnet-%04d", k)), VPC: v.UID, VNI: uint32(100 + k),
		CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}, Gateway: []netip.Addr{netip.MustParseAddr("10.0.1.1")},
	}
}

func placeOf(index uint32) ([]netip.Addr, string) {
	return []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 1, byte(index)})}, network.MAC(index)
}

// write writes a VPC in the pool as the network controller does: with pods on another node, as a VPC has them.
func (n *vpcNode) write(ctx context.Context, k int) error {
	v, subnet := vpcOf(k)
	var endpoints []network.Endpoint
	for i := range remoteEndpoints {
		ips, mac := placeOf(uint32(200 + i))
		endpoints = append(endpoints, network.Endpoint{
			Subnet: subnet.UID, IPs: ips, MAC: mac, Node: netip.MustParseAddr(otherVPCNode), Pool: "other",
			Pod: network.PodKey{Namespace: names.ControlNamespace(string(v.Tenant) + "-default"), Name: fmt.Sprintf("far-%d", i), UID: types.UID(fmt.Sprintf("far-%04d-%d", k, i))},
		})
	}
	driver := vxlan.Driver{}
	if _, err := driver.EnsureVPC(ctx, n.pool, v); err != nil {
		return err
	}
	if _, err := driver.EnsureSubnet(ctx, n.pool, v, subnet); err != nil {
		return err
	}
	return driver.EnsureEndpoints(ctx, n.pool, v, endpoints)
}

// known waits until the agent has written down VPCs with all of their pods.
func (n *vpcNode) known(ctx context.Context, from, to int) error {
	for k := from; k < to; k++ {
		v, _ := vpcOf(k)
		file := filepath.Join(n.state(), "vpcs", string(v.UID), "desired.json")
		if err := n.agent.Until(ctx, func(context.Context) error {
			raw, err := os.ReadFile(file)
			if err == nil && strings.Count(string(raw), `"pod":`) < remoteEndpoints {
				err = fmt.Errorf("VPC %s is not known with all its pods", v.UID)
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// measure measures everything that the node is for.
func (n *vpcNode) measure(ctx context.Context) (*vpcNodeFound, error) {
	found := &vpcNodeFound{}
	if err := n.write(ctx, 0); err != nil {
		return nil, err
	}
	if err := n.known(ctx, 0, 1); err != nil {
		return nil, err
	}
	var err error
	if found.Traffic, err = n.traffic(ctx); err != nil {
		return nil, fmt.Errorf("traffic: %w", err)
	}
	one, err := n.plugins(ctx, 0)
	if err != nil {
		return nil, err
	}
	found.Pods = one.figures("one VPC on the node")
	if found.Many, err = n.many(ctx, one); err != nil {
		return nil, fmt.Errorf("%d VPCs: %w", n.VPCs, err)
	}
	return found, nil
}

// traffic lets two pods of a VPC talk, and two on the stock bridge, in turns.
func (n *vpcNode) traffic(ctx context.Context) ([]Traffic, error) {
	var lanes []gaugeLane
	for _, k := range []int{-1, 0} {
		var pair [2]*sandbox
		for i := range pair {
			s, err := n.sandbox(k, uint32(10+i))
			if err != nil {
				return nil, err
			}
			if _, err := n.call(ctx, s, "ADD"); err != nil {
				return nil, err
			}
			pair[i] = s
		}
		server := exec.CommandContext(ctx, n.Gauge, "serve")
		if err := pair[1].start(server); err != nil {
			return nil, err
		}
		defer func() { _ = server.Process.Kill(); _ = server.Wait() }()
		lane := gaugeLane{name: laneStock, to: pair[1].ip}
		if k >= 0 {
			lane.name = laneVPC
		}
		lane.run = func(ctx context.Context, args ...string) ([]byte, error) {
			var out bytes.Buffer
			cmd := exec.CommandContext(ctx, n.Gauge, args...)
			cmd.Stdout, cmd.Stderr = &out, os.Stderr
			if err := pair[0].start(cmd); err != nil {
				return nil, err
			}
			err := cmd.Wait()
			return out.Bytes(), err
		}
		lanes = append(lanes, lane)
		defer func() {
			for _, s := range pair {
				_, _ = n.call(context.WithoutCancel(ctx), s, "DEL")
				_ = s.remove()
			}
		}()
	}
	return gaugeAll(ctx, lanes, n.Rounds, n.Turn, true)
}

// footprint is what the node's VPCs take.
type footprint struct {
	agent  float64
	kernel float64
}

func (n *vpcNode) footprint() (footprint, error) {
	resident, err := memory(n.agent.ID().PID, "VmRSS")
	if err != nil {
		return footprint{}, err
	}
	kernel, err := kernelMemory()
	return footprint{float64(resident), kernel}, err
}

// kernelMemory is what the kernel holds for itself on the whole machine.
func kernelMemory() (float64, error) {
	raw, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	total := 0.0
	for line := range strings.Lines(string(raw)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		// Not what it could give back at once.
		case "SUnreclaim", "Percpu", "KernelStack":
			var kib float64
			if _, err := fmt.Sscan(value, &kib); err != nil {
				return 0, err
			}
			total += kib * 1024
		}
	}
	return total, nil
}

// agentCPU is what the agent and the programs that it ran have used.
func (n *vpcNode) agentCPU() (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.agent.ID().PID))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	var ticks int64
	for _, field := range fields[11:15] {
		var t int64
		if _, err := fmt.Sscan(field, &t); err != nil {
			return 0, err
		}
		ticks += t
	}
	return time.Duration(ticks) * (time.Second / userHZ), nil
}

// many gives the node as many VPCs as wanted, each with a pod.
func (n *vpcNode) many(ctx context.Context, one calls) ([]Figure, error) {
	before, err := n.footprint()
	if err != nil {
		return nil, err
	}
	used, err := n.agentCPU()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	for k := 1; k < n.VPCs; k++ {
		if err := n.write(ctx, k); err != nil {
			return nil, err
		}
	}
	if err := n.known(ctx, 1, n.VPCs); err != nil {
		return nil, err
	}
	knowing := time.Since(begin)
	var first, cpus []time.Duration
	var pods []*sandbox
	for k := range n.VPCs {
		s, err := n.sandbox(k, 20)
		if err != nil {
			return nil, err
		}
		took, err := n.call(ctx, s, "ADD")
		if err != nil {
			return nil, err
		}
		pods = append(pods, s)
		if k > 0 {
			first, cpus = append(first, took.wall), append(cpus, took.cpu)
		}
	}
	after, err := n.footprint()
	if err != nil {
		return nil, err
	}
	now, err := n.agentCPU()
	if err != nil {
		return nil, err
	}
	crowd, err := n.plugins(ctx, 0)
	if err != nil {
		return nil, err
	}
	each := float64(n.VPCs - 1)
	_, alone := one.p50(laneVPC, "ADD")
	wall, cpu := crowd.p50(laneVPC, "ADD")
	what := fmt.Sprintf("%d VPCs on the node, ", n.VPCs)
	figures := []Figure{
		{Name: "known", What: what + "written one after the other: until the node knows each, on average", Value: millis(knowing) / each, Unit: "ms"},
		{Name: "known-cpu", What: what + "processor time of the agent for each until all have a pod", Value: millis(now-used) / each, Unit: "ms"},
		{Name: "first-pod", What: what + "ADD of the first pod of a VPC, p50", Value: millis(quantile(first, .5)), Unit: "ms"},
		{Name: "first-pod-p99", What: what + "the same, p99", Value: millis(quantile(first, .99)), Unit: "ms"},
		{Name: "first-pod-cpu", What: what + "the same, processor time, p50", Value: millis(quantile(cpus, .5)), Unit: "ms"},
		{Name: "agent-memory", What: what + "resident memory of the agent, all", Value: after.agent / (1 << 20), Unit: "MiB"},
		{Name: "agent-memory-each", What: what + "resident memory of the agent for each", Value: (after.agent - before.agent) / each / 1024, Unit: "KiB"},
		{Name: "kernel-memory-each", What: what + "memory of the kernel that it cannot give back for each with its first pod, of the whole machine", Value: (after.kernel - before.kernel) / each / 1024, Unit: "KiB"},
		{Name: "add-many", What: what + "ADD of another pod, p50", Value: wall, Unit: "ms"},
		{Name: "add-many-ratio", What: what + "ADD of another pod: to the stock plugin, median of rounds; with one VPC it is " + fmt.Sprintf("%.2f", one.ratio("ADD").Median), Value: crowd.ratio("ADD").Median},
		{Name: "add-many-cpu", What: what + "processor time of such an ADD, to that with one VPC", Value: cpu / alone},
	}
	if n.Idle > 0 {
		begin := time.Now()
		used, err := n.agentCPU()
		if err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(n.Idle):
		}
		now, err := n.agentCPU()
		if err != nil {
			return nil, err
		}
		figures = append(figures, Figure{
			Name: "agent-idle", What: fmt.Sprintf("%sprocessor time of the agent and what it runs while nothing happens, over %s", what, n.Idle),
			Value: 100 * float64(now-used) / float64(time.Since(begin)), Unit: "% of a core",
		})
	}
	return figures, n.end(ctx, pods)
}
