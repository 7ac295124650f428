package localcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"vivarium.io/vivarium/internal/localcluster/node"
)

// lock keeps other programs away from the directory, unless there is no source to build from or the directory is somebody
// else's to begin with.
func (s *starter) lock(ctx context.Context) (unlock func(), err error) {
	if s.source, err = FindSource(); err != nil {
		return nil, err
	}
	if s.binaries, err = OpenBinaries(s.source); err != nil {
		return nil, err
	}
	bare, err := newInstance(s.RunDir)
	if err != nil {
		return nil, err
	}
	if err := bare.checkOurs(); err != nil {
		return nil, err
	}
	return bare.lock(ctx, s.Progress)
}

// prepare opens or makes the instance, builds and installs what it needs, and writes down what it will be. Nothing is
// started yet, so nothing is left of a new instance that cannot be.
func (s *starter) prepare(ctx context.Context, plan func() error) (err error) {
	if err := s.open(); err != nil {
		return err
	}
	for _, step := range []func() error{func() error { return s.choose(ctx) }, func() error { return s.build(ctx) }, plan, s.checkPorts} {
		if err := step(); err != nil {
			if s.fresh {
				_ = os.RemoveAll(s.instance.dir)
			}
			return err
		}
	}
	return nil
}

// planPools gives those pools their places that come with every instance.
func (s *starter) planPools() error {
	for n := range s.Pools {
		if err := s.planPool(poolName(n), true); err != nil {
			return err
		}
	}
	return nil
}

// open opens the instance that is there, or makes a new one.
func (s *starter) open() error {
	instance, err := Open(s.RunDir)
	if errors.Is(err, ErrNoInstance) {
		base := s.PortBase
		if base == 0 {
			base = DefaultPortBase
		}
		if base < 1024 || base+portsUsed > 65536 {
			return fmt.Errorf("PORT_BASE %d: choose one from 1024 to %d", base, 65536-portsUsed)
		}
		instance, err = create(s.RunDir, base)
		s.fresh = true
	}
	if err != nil {
		return err
	}
	s.instance, s.state = instance, instance.current()
	if s.PortBase != 0 && s.PortBase != s.state.PortBase {
		return fmt.Errorf("%s holds an instance with PORT_BASE=%d; choose another RUN_DIR for PORT_BASE=%d, or run `vivarium down` first",
			s.instance.dir, s.state.PortBase, s.PortBase)
	}
	return nil
}

// choose settles the kind of the nodes, once in the life of an instance.
func (s *starter) choose(ctx context.Context) error {
	switch {
	case s.state.Nodes == "":
		kind, reason, err := chooseNodes(ctx, s.Nodes, s.Progress)
		if err != nil {
			return err
		}
		if err := s.save(func(st *state) { st.Nodes, st.Reason = kind, reason }); err != nil {
			return err
		}
	case s.Nodes != "" && s.Nodes != NodesAuto && s.Nodes != s.state.Nodes:
		return fmt.Errorf("%s holds an instance with NODES=%s; run `vivarium down` first, or choose another RUN_DIR", s.instance.dir, s.state.Nodes)
	case s.state.Nodes == NodesReal:
		if err := installTools(ctx, s.Progress); err != nil {
			return err
		}
	}
	if s.state.Nodes == NodesReal {
		s.Progress.Say("nodes: real (containerd and kubelet); containers will run")
		s.runtime, _ = node.FindRuntime()
		return nil
	}
	because := ""
	if s.state.Reason != "" {
		because = ", because " + s.state.Reason
	}
	s.Progress.Say("nodes: SIMULATED (KWOK)%s; no container will run", because)
	return nil
}

// build builds what others wrote, and the images.
func (s *starter) build(ctx context.Context) (err error) {
	need := uint64(1 * gibibyte)
	if len(s.binaries.Missing()) > 0 {
		cache := filepath.Dir(filepath.Dir(s.binaries.Dir()))
		if err := os.MkdirAll(cache, 0o755); err != nil {
			return fmt.Errorf("make the cache directory: %w", err)
		}
		if err := needSpace(cache, 4*gibibyte, "building Kubernetes", "set XDG_CACHE_HOME to another disk"); err != nil {
			return err
		}
		need = 3 * gibibyte
	}
	if err := needSpace(s.instance.dir, need, "the instance", "set RUN_DIR to a directory on another disk"); err != nil {
		return err
	}
	if err := s.binaries.Build(ctx, s.Progress); err != nil {
		return err
	}
	if err := s.save(func(st *state) { st.Kubernetes = s.binaries.Version() }); err != nil {
		return err
	}
	if err := s.linkKubectl(); err != nil {
		return err
	}
	if s.state.Nodes == NodesReal {
		if s.measurer, err = openMeasurer(s.source); err != nil {
			return err
		}
		if err := s.measurer.Build(ctx, s.Progress); err != nil {
			return err
		}
		s.images, err = BuildImages(ctx, s.source, s.binaries, s.Progress)
		return err
	}
	if s.kwok, err = OpenKwok(s.source); err != nil {
		return err
	}
	return s.kwok.Build(ctx, s.Progress)
}

// linkKubectl puts kubectl beside this program, for machines that have none.
func (s *starter) linkKubectl() error {
	link, target := filepath.Join(filepath.Dir(s.Self), Kubectl), s.binaries.Path(Kubectl)
	if now, err := os.Readlink(link); err == nil && now == target {
		return nil
	}
	if _, err := os.Lstat(link); err == nil {
		if _, err := os.Readlink(link); err != nil {
			return nil // somebody's own kubectl, as good as ours
		}
		if err := os.Remove(link); err != nil {
			return fmt.Errorf("link kubectl: %w", err)
		}
	}
	if err := os.Symlink(target, link); err != nil {
		return fmt.Errorf("link kubectl: %w", err)
	}
	return nil
}

// planPool gives a pool its place, unless it has one.
func (s *starter) planPool(name string, register bool) error {
	if s.state.poolIndex(name) >= 0 {
		return nil
	}
	if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
		return fmt.Errorf("start pool %q: %s", name, problems[0])
	}
	nodes := max(s.NodesPerPool, 1)
	if nodes > maxNodesPerPool {
		return fmt.Errorf("%d nodes per pool: at most %d are possible", nodes, maxNodesPerPool)
	}
	if len(s.state.Pools) >= maxPools {
		return fmt.Errorf("start pool %s: one instance holds at most %d pools", name, maxPools)
	}
	network := s.Network
	switch {
	case network == "":
		network = networkFlat
	case network != networkFlat && network != networkVXLAN:
		return fmt.Errorf("NETWORK: %q is none of %s, %s", network, networkFlat, networkVXLAN)
	case network == networkVXLAN && s.state.Nodes != NodesReal:
		return fmt.Errorf("NETWORK=%s needs real nodes: simulated ones have no network", networkVXLAN)
	}
	return s.save(func(st *state) {
		st.Pools = append(st.Pools, poolState{Name: name, Nodes: nodes, Register: register, Network: network})
	})
}

// checkPorts looks for strangers on the ports of those processes that are to be started.
func (s *starter) checkPorts() error {
	ports := map[string][]int{}
	plane := func(cluster string, p Ports) {
		ports[cluster+"-"+Etcd] = []int{p.EtcdClient, p.EtcdPeer}
		ports[cluster+"-"+KubeAPIServer] = []int{p.APIServer}
		ports[cluster+"-"+ControllerManager] = []int{p.ControllerManager}
		ports[cluster+"-"+Scheduler] = []int{p.Scheduler}
	}
	base := s.state.PortBase
	plane("control", controlPorts(base))
	for index, pool := range s.state.Pools {
		plane(pool.Name, poolPorts(base, index))
		if s.state.Nodes == NodesKwok {
			ports[pool.Name+"-"+Kwok] = []int{simulatorPort(base, index)}
		} else {
			ports[pool.Name+"-"+MetricsServer] = []int{measurerPort(base, index)}
		}
	}
	if s.Components {
		for _, c := range components {
			ports[c.name] = nil
			for _, offset := range c.ports {
				ports[c.name] = append(ports[c.name], base+offset)
			}
		}
	}
	for name, list := range ports {
		p := s.instance.processes.Get(name)
		if p != nil && p.Alive() {
			continue
		}
		err := checkFree(list)
		// One of ours that was just killed may hold its ports for a moment more.
		for deadline := time.Now().Add(10 * time.Second); err != nil && p != nil && time.Now().Before(deadline); err = checkFree(list) {
			time.Sleep(100 * time.Millisecond)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
