package localcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/validation"

	"vivarium.io/vivarium/internal/localcluster/node"
	"vivarium.io/vivarium/internal/localcluster/process"
)

// The defaults of an instance.
const (
	DefaultRunDir   = ".run"
	DefaultPortBase = 16000
	DefaultPools    = 2
)

// UpConfig says what `vivarium up` starts.
type UpConfig struct {
	// RunDir is the instance's directory. Required.
	RunDir string
	// Self is this program, which nodes and the platform's own commands are run with. Required.
	Self string
	// PortBase is the first port. Zero keeps what the instance has, else [DefaultPortBase].
	PortBase int
	// Nodes is the kind of nodes. Default auto; an instance that exists keeps its own.
	Nodes NodeKind
	// Pools is how many pool clusters there are at least. NodesPerPool is how many nodes each new one gets; default 1.
	Pools, NodesPerPool int
	// Components says whether to run the platform, rather than just the clusters.
	Components bool
	// Tenants are made when they do not exist.
	Tenants []string
	// Manifests, a YAML stream, are applied to the control cluster before the components start.
	Manifests []byte
	// Progress is told what happens. Default: nobody.
	Progress *Progress
}

// starter is one run of [Up] or [AddPool].
type starter struct {
	UpConfig
	instance *Instance
	fresh    bool  // the instance was made by this run
	state    state // as it is after preparation
	binaries *Binaries
	kwok     *Binaries
	images   []Archive
	runtime  node.Runtime
	source   string
}

// Up makes sure that the whole system runs: it starts what is missing and says so. It returns when everything is ready.
// Cut short, it leaves what it has started, for another call to continue or [Down] to remove.
func Up(ctx context.Context, config UpConfig) error {
	begin := time.Now()
	s := &starter{UpConfig: config}
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.prepare(ctx, s.planPools); err != nil {
		return err
	}
	if err := s.start(ctx); err != nil {
		return fmt.Errorf("%w\nwhat has started so far keeps running; `vivarium up` continues, `vivarium down` removes it", err)
	}
	s.Progress.Say("\nready after %.1f s\n%s", time.Since(begin).Seconds(), s.nextSteps())
	return nil
}

// AddPool starts one more pool cluster in a running instance, without registering it with the platform.
func AddPool(ctx context.Context, config UpConfig, name string) error {
	s := &starter{UpConfig: config}
	if _, err := Open(config.RunDir); err != nil {
		return err
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.prepare(ctx, func() error { return s.planPool(name, false) }); err != nil {
		return err
	}
	if err := s.network(); err != nil {
		return err
	}
	if err := s.startPool(ctx, s.state.poolIndex(name)); err != nil {
		return err
	}
	s.Progress.Say("%s is ready; register it with\n  vivarium pool register %s --kubeconfig %s", name, name, s.instance.poolKubeconfig(name))
	return nil
}

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
		s.images, err = BuildImages(ctx, s.source, s.binaries, s.Progress)
		return err
	}
	if s.kwok, err = openKwok(s.source); err != nil {
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
	return s.save(func(st *state) { st.Pools = append(st.Pools, poolState{Name: name, Nodes: nodes, Register: register}) })
}

func (s *starter) save(change func(*state)) error {
	err := s.instance.save(change)
	s.state = s.instance.current()
	return err
}

// start starts everything, each thing as soon as what it needs is there.
func (s *starter) start(ctx context.Context) error {
	if err := s.network(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	// Registering a pool needs the pool and the platform.
	platform := make(chan struct{})
	group.Go(func() error {
		control, err := s.startControl(ctx)
		if err != nil || !s.Components {
			return err
		}
		if err := s.startComponents(ctx, control); err != nil {
			return err
		}
		close(platform)
		return s.ensureTenants(ctx)
	})
	for index, pool := range s.state.Pools {
		group.Go(func() error {
			if err := s.startPool(ctx, index); err != nil || !s.Components || !pool.Register {
				return err
			}
			select {
			case <-ctx.Done():
				return nil // the cause is reported by whoever failed
			case <-platform:
				return s.ensureRegistered(ctx, pool.Name)
			}
		})
	}
	return group.Wait()
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

// network makes the bridge between the host and real nodes.
func (s *starter) network() error {
	if s.state.Nodes != NodesReal {
		return nil
	}
	if !s.state.Network.IsValid() {
		network, err := node.FreeNetwork(networks(s.state.PortBase))
		if err != nil {
			return err
		}
		if err := s.save(func(st *state) { st.Network = network }); err != nil {
			return err
		}
	}
	notes, err := s.state.bridge().Ensure()
	for _, note := range notes {
		s.Progress.Say("%s", note)
	}
	return err
}

// startControl starts the control cluster.
func (s *starter) startControl(ctx context.Context) (*ControlPlane, error) {
	control, err := NewControlPlane(ControlPlaneConfig{
		Name: "control", Dir: s.instance.clusterDir("control"), LogDir: s.instance.logs(),
		Ports: controlPorts(s.state.PortBase), Binaries: s.binaries, Processes: s.instance.processes,
		ControllerManager: true, Scheduler: true, Progress: s.Progress,
	})
	if err != nil {
		return nil, err
	}
	if err := s.Progress.Step("control cluster", func() error { return control.Start(ctx) }); err != nil {
		return nil, err
	}
	raw, err := control.AdminKubeconfig()
	if err != nil {
		return nil, err
	}
	return control, writeFile(s.instance.controlKubeconfig(), raw, 0o600)
}

// ensure keeps a process of the instance running.
func (s *starter) ensure(spec process.Spec) (*process.Process, error) {
	spec.Log = filepath.Join(s.instance.logs(), spec.Name+".log")
	p, outcome, err := s.instance.processes.Ensure(spec)
	if outcome == process.Restarted || outcome == process.Replaced {
		s.Progress.Say("%s had to be %s", spec.Name, outcome)
	}
	return p, err
}

// nextSteps says what to type now.
func (s *starter) nextSteps() string {
	dir := s.instance.dir
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, dir); err == nil && !strings.HasPrefix(rel, "..") {
			dir = rel
		}
	}
	var names []string
	for _, pool := range s.state.Pools {
		names = append(names, pool.Name)
	}
	kind := "real nodes"
	if s.state.Nodes == NodesKwok {
		kind = "SIMULATED nodes"
	}
	lines := []string{
		fmt.Sprintf("  pools      %s, %s", strings.Join(names, ", "), kind),
		fmt.Sprintf("  control    KUBECONFIG=%s/control.kubeconfig kubectl get nodes", dir),
		fmt.Sprintf("  pool       KUBECONFIG=%s/pools/%s.kubeconfig kubectl get pods -A", dir, poolName(0)),
	}
	if s.Components {
		lines = append(lines, fmt.Sprintf("  operator   KUBECONFIG=%s/admin.kubeconfig kubectl get tenants,resourcepools", dir))
		for _, id := range s.Tenants {
			lines = append(lines, fmt.Sprintf("  tenant     KUBECONFIG=%s/tenants/%s.kubeconfig kubectl create deployment web --image=%s --replicas=4", dir, id, echoImage))
		}
	}
	lines = append(lines,
		fmt.Sprintf("  logs       %s/logs", dir),
		fmt.Sprintf("  stop       RUN_DIR=%s vivarium down", dir),
		fmt.Sprintf("kubectl and vivarium are in %s", filepath.Dir(s.Self)))
	return strings.Join(lines, "\n")
}
