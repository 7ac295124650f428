package localcluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

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
	// Network is the network driver of each new pool: flat, the default, or vxlan, which needs real nodes.
	Network string
	// Components says whether to run the platform, rather than just the clusters.
	Components bool
	// Tenants are made when they do not exist.
	Tenants []string
	// TenantFlags are flags of `vivarium tenant create` for those that are made.
	TenantFlags []string
	// Manifests, a YAML stream, are applied to the control cluster before the components start.
	Manifests []byte
	// Progress is told what happens. Default: nobody.
	Progress *Progress
}

// starter is one run of [Up], [AddPool] or [Reboot].
type starter struct {
	UpConfig
	instance *Instance
	fresh    bool  // the instance was made by this run
	state    state // as it is after preparation
	binaries *Binaries
	kwok     *Binaries
	measurer *Binaries
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

// change begins a change of a running instance, which nobody else changes until unlock; plan says what is to be different.
func change(ctx context.Context, config UpConfig, plan func(*starter) error) (s *starter, unlock func(), err error) {
	if _, err := Open(config.RunDir); err != nil {
		return nil, nil, err
	}
	s = &starter{UpConfig: config}
	if unlock, err = s.lock(ctx); err != nil {
		return nil, nil, err
	}
	if err := s.prepare(ctx, func() error { return plan(s) }); err != nil {
		unlock()
		return nil, nil, err
	}
	return s, unlock, nil
}

// AddPool starts one more pool cluster in a running instance, without registering it with the platform.
func AddPool(ctx context.Context, config UpConfig, name string) error {
	s, unlock, err := change(ctx, config, func(s *starter) error { return s.planPool(name, false) })
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.network(); err != nil {
		return err
	}
	if err := s.startPool(ctx, s.state.poolIndex(name)); err != nil {
		return err
	}
	s.Progress.Say("%s is ready; register it with\n  vivarium pool register %s --kubeconfig %s", name, name, s.instance.poolKubeconfig(name))
	return nil
}

// Reboot kills a node with everything that runs on it, at once as a power cut would, and starts it again. What was on its
// disk is there again: images, containers that have ended, the kubelet's pods. What was in its memory and under /run is not.
// It returns when the node has started, before Kubernetes says that it is ready.
func Reboot(ctx context.Context, config UpConfig, id string) error {
	s, unlock, err := change(ctx, config, func(*starter) error { return nil })
	if err != nil {
		return err
	}
	defer unlock()
	for index, pool := range s.state.Pools {
		for n := range pool.Nodes {
			if p := s.instance.processes.Get(id); nodeID(pool.Name, n) == id && p != nil && s.state.Nodes == NodesReal {
				if err := p.Stop(0); err != nil {
					return err
				}
				plane, err := s.poolPlane(index)
				if err != nil {
					return err
				}
				return s.startNode(ctx, plane, index, n)
			}
		}
	}
	return fmt.Errorf("reboot %s: it is no node of this instance that runs containers; `vivarium status` lists them", id)
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
		// The gateway, as pods and this machine's users reach it: it serves tenants the keys.
		Issuer: "https://" + net.JoinHostPort(s.state.address(), strconv.Itoa(s.state.PortBase+portTenants)),
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
