package localcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"vivarium.io/vivarium/internal/localcluster/node"
	"vivarium.io/vivarium/internal/localcluster/process"
)

// nodePatience bounds the wait for a node to become ready.
const nodePatience = 6 * time.Minute

// poolPlane describes the control plane of a pool.
func (s *starter) poolPlane(index int) (*ControlPlane, error) {
	pool := s.state.Pools[index]
	return NewControlPlane(ControlPlaneConfig{
		Name: pool.Name, Dir: s.instance.clusterDir(pool.Name), LogDir: s.instance.logs(),
		Ports: poolPorts(s.state.PortBase, index), Binaries: s.binaries, Processes: s.instance.processes,
		// Nodes have to reach it, and nobody beyond them.
		Address:           s.state.address(),
		ControllerManager: true, Scheduler: true, Progress: s.Progress,
		// What runs a pool's network is privileged, in pools as elsewhere.
		APIServerFlags: []string{"--allow-privileged=true"},
	})
}

// startPool starts a pool cluster with its nodes and returns when these are ready for pods.
func (s *starter) startPool(ctx context.Context, index int) error {
	pool := s.state.Pools[index]
	plane, err := s.poolPlane(index)
	if err != nil {
		return err
	}
	err = s.Progress.Step(pool.Name, func() error {
		group, ctx := errgroup.WithContext(ctx)
		if s.state.Nodes == NodesReal {
			// Nodes take as long as the control plane; they find it when it is there.
			for n := range pool.Nodes {
				group.Go(func() error { return s.startNode(ctx, plane, index, n) })
			}
		}
		group.Go(func() error { return plane.Start(ctx) })
		return group.Wait()
	})
	if err != nil {
		return err
	}
	raw, err := plane.AdminKubeconfig()
	if err != nil {
		return err
	}
	if err := writeFile(s.instance.poolKubeconfig(pool.Name), raw, 0o600); err != nil {
		return err
	}
	config, err := plane.AdminConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make a client of %s: %w", pool.Name, err)
	}
	group, ctx := errgroup.WithContext(ctx)
	if s.state.Nodes == NodesKwok {
		if err := s.simulateNodes(ctx, plane, client, index); err != nil {
			return err
		}
	} else {
		group.Go(func() error { return s.measure(ctx, plane, index) })
	}
	group.Go(func() error {
		return s.Progress.Step(fmt.Sprintf("%s: %d node(s)", pool.Name, pool.Nodes), func() error {
			for n := range pool.Nodes {
				if err := s.nodeReady(ctx, client, index, n); err != nil {
					return err
				}
			}
			return nil
		})
	})
	return group.Wait()
}

// startNode starts a real node and gives it the images.
func (s *starter) startNode(ctx context.Context, plane *ControlPlane, index, n int) error {
	pool := s.state.Pools[index]
	id, name := nodeID(pool.Name, n), nodeName(n)
	address := nodeAddress(s.state.Network, index, n)
	kubeconfig, err := plane.kubeconfigFile(name, "system:node:"+name, "system:nodes")
	if err != nil {
		return err
	}
	serving, err := plane.Issue(Request{Name: "kubelet-" + name, User: "system:node:" + name, Groups: []string{"system:nodes"}, Hosts: []string{name, address.Addr().String()}})
	if err != nil {
		return err
	}
	peers := map[netip.Prefix]netip.Addr{}
	for other := range pool.Nodes {
		if other != n {
			peers[podNetwork(s.state.Network, index, other)] = nodeAddress(s.state.Network, index, other).Addr()
		}
	}
	vpc, err := s.vpc(plane, index, name)
	if err != nil {
		return err
	}
	dir := s.instance.nodeDir(pool.Name, n)
	outcome, err := node.Start(s.instance.processes, s.Self, node.Config{
		Name: name, ID: id, Dir: dir, LogDir: s.instance.logs(),
		Kubelet: s.binaries.Path(Kubelet), Containerd: s.runtime, SandboxImage: pauseImage,
		Kubeconfig: kubeconfig, CAFile: plane.CAFile(), CertFile: serving.Cert, KeyFile: serving.Key,
		Link: linkName(s.state.ID, hostNumber(index, n)), Bridge: bridgeName(s.state.ID),
		Address: address, Gateway: hostAddress(s.state.Network), PodCIDR: podNetwork(s.state.Network, index, n), Peers: peers,
		Cgroup: s.state.nodeCgroup(pool.Name, n), VPC: vpc,
	})
	if err != nil {
		return err
	}
	if outcome == process.Restarted || outcome == process.Replaced {
		s.Progress.Say("%s had to be %s, and its pods with it", id, outcome)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, nodePatience, fmt.Errorf("waited %s", nodePatience))
	defer cancel()
	return s.importImages(ctx, s.instance.processes.Get(id), dir)
}

// vpcAgent is who the agents of a pool's nodes are; charts/vivarium-pool says what it may do.
const vpcAgent = "system:serviceaccount:vivarium-network:vpc-agent"

// vpc is what a node of a pool with VPCs needs besides, nil for others.
func (s *starter) vpc(plane *ControlPlane, index int, name string) (*node.VPC, error) {
	if s.state.Pools[index].Network != networkVXLAN {
		return nil, nil
	}
	programs := filepath.Dir(s.Self)
	for _, program := range []string{"vpc-agent", "vivarium-vpc"} {
		if _, err := os.Stat(filepath.Join(programs, program)); err != nil {
			return nil, fmt.Errorf("start %s of %s: %s is not built; run `make build`", name, s.state.Pools[index].Name, program)
		}
	}
	kubeconfig, err := plane.kubeconfigFile("vpc-agent", vpcAgent)
	if err != nil {
		return nil, err
	}
	return &node.VPC{Programs: programs, Kubeconfig: kubeconfig, Protected: []netip.Prefix{s.state.Network}}, nil
}

// importImages brings those images into a node that it does not have yet.
func (s *starter) importImages(ctx context.Context, p *process.Process, dir string) error {
	file := filepath.Join(dir, "images.json")
	imported := map[string]string{}
	raw, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(raw, &imported)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the list of a node's images: %w", err)
	}
	for _, archive := range s.images {
		if imported[archive.Name] == archive.Path {
			continue
		}
		if _, err := node.Import(ctx, p.ID(), s.runtime, dir, archive.Path); err != nil {
			return errors.Join(err, p.Ended())
		}
		imported[archive.Name] = archive.Path
		if raw, err = json.Marshal(imported); err != nil {
			return fmt.Errorf("write the list of a node's images: %w", err)
		}
		if err := writeFile(file, raw, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// nodeReady waits until a node takes pods, and tells Kubernetes which addresses they get.
func (s *starter) nodeReady(ctx context.Context, client kubernetes.Interface, index, n int) error {
	pool := s.state.Pools[index].Name
	ctx, cancel := context.WithTimeoutCause(ctx, nodePatience, fmt.Errorf("waited %s", nodePatience))
	defer cancel()
	var problem error
	for {
		var object *corev1.Node
		object, problem = client.CoreV1().Nodes().Get(ctx, nodeName(n), metav1.GetOptions{})
		if problem == nil {
			if problem = notReady(object); problem == nil {
				return s.setPodCIDR(ctx, client, object, index, n)
			}
		}
		if p := s.instance.processes.Get(nodeID(pool, n)); p != nil && !p.Alive() {
			return p.Ended()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %w\n%s", nodeID(pool, n), context.Cause(ctx), problem, s.nodeLogs(nodeID(pool, n)))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// nodeLogs gives the ends of a node's logs.
func (s *starter) nodeLogs(id string) string {
	if s.state.Nodes != NodesReal {
		return s.instance.logs() + " may tell why"
	}
	var tails []string
	for _, daemon := range []string{"containerd", "kubelet"} {
		tails = append(tails, process.LogTail(filepath.Join(s.instance.logs(), id+"-"+daemon+".log")))
	}
	return strings.Join(tails, "\n")
}

func notReady(object *corev1.Node) error {
	for _, condition := range object.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			if condition.Status == corev1.ConditionTrue {
				return nil
			}
			return fmt.Errorf("%s: %s", condition.Reason, condition.Message)
		}
	}
	return errors.New("it reports no readiness")
}

// setPodCIDR does what a controller manager with a cloud would: it could give the networks to nodes in another order.
func (s *starter) setPodCIDR(ctx context.Context, client kubernetes.Interface, object *corev1.Node, index, n int) error {
	if s.state.Nodes != NodesReal || object.Spec.PodCIDR != "" {
		return nil
	}
	cidr := podNetwork(s.state.Network, index, n)
	patch := fmt.Sprintf(`{"spec":{"podCIDR":%q,"podCIDRs":[%[1]q]}}`, cidr.String())
	if _, err := client.CoreV1().Nodes().Patch(ctx, object.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("set the pod network of %s: %w", object.Name, err)
	}
	return nil
}
