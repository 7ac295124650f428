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
	"slices"
	"sync"

	"vivarium.io/vivarium/internal/localcluster/node"
	"vivarium.io/vivarium/internal/localcluster/process"
)

// NodeKind says what the nodes of local pools are.
type NodeKind string

// The kinds of nodes.
const (
	// NodesReal run containers.
	NodesReal NodeKind = "real"
	// NodesKwok are simulated: their pods look as if they ran.
	NodesKwok NodeKind = "kwok"
	// NodesAuto are real where the machine can run them and simulated elsewhere.
	NodesAuto NodeKind = "auto"
)

// state is what an instance remembers in its directory. It is written before what it describes is made.
type state struct {
	// ID is part of the names of everything that the instance takes from the machine.
	ID string `json:"id"`
	// PortBase is the first port.
	PortBase int `json:"portBase"`
	// Nodes is real or kwok, and Reason why, where it was not asked for.
	Nodes  NodeKind `json:"nodes"`
	Reason string   `json:"reason,omitempty"`
	// Network holds the addresses of nodes and pods; zero without real nodes.
	Network netip.Prefix `json:"network,omitzero"`
	// Pools are the pool clusters. Their order gives them ports and addresses, so none is ever taken out.
	Pools []poolState `json:"pools"`
	// Kubernetes is the version of the clusters.
	Kubernetes string `json:"kubernetes"`
}

type poolState struct {
	Name string `json:"name"`
	// Nodes is how many nodes the pool has.
	Nodes int `json:"nodes"`
	// Register says that `up` registers the pool with the platform; otherwise the operator does.
	Register bool `json:"register"`
	// Network is the network driver of the pool.
	Network string `json:"network,omitempty"`
}

// The network drivers that local pools can have; the first is the default.
const (
	networkFlat  = "flat"
	networkVXLAN = "vxlan"
)

const stateFile = "instance.json"

// Instance is one local system with everything that belongs to it, in one directory. One program at a time may change it.
type Instance struct {
	dir       string
	processes *process.Set

	mu    sync.Mutex // guards state
	state state
}

// ErrNoInstance says that a directory holds no instance.
var ErrNoInstance = errors.New("no instance there")

// Open opens the instance in dir, to look at it or to change it with [Instance.Lock].
func Open(dir string) (*Instance, error) {
	i, err := newInstance(dir)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(i.dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open %s: %w; start one with `vivarium up`, or name another directory with RUN_DIR", i.dir, ErrNoInstance)
	}
	if err != nil {
		return nil, fmt.Errorf("open the instance: %w", err)
	}
	if err := json.Unmarshal(raw, &i.state); err != nil {
		return nil, fmt.Errorf("open the instance: read %s: %w", filepath.Join(i.dir, stateFile), err)
	}
	return i, i.openProcesses()
}

// create makes a new instance in dir, which must not hold anything else.
func create(dir string, portBase int) (*Instance, error) {
	i, err := newInstance(dir)
	if err != nil {
		return nil, err
	}
	if err := i.checkOurs(); err != nil {
		return nil, err
	}
	i.state = state{ID: instanceID(i.dir), PortBase: portBase}
	if err := i.save(func(*state) {}); err != nil {
		return nil, err
	}
	return i, i.openProcesses()
}

// checkOurs is an error when the directory holds something, but not an instance.
func (i *Instance) checkOurs() error {
	entries, err := os.ReadDir(i.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look into the run directory: %w", err)
	}
	is := func(name string) func(fs.DirEntry) bool { return func(e fs.DirEntry) bool { return e.Name() == name } }
	if len(entries) == 0 || slices.ContainsFunc(entries, is(stateFile)) || len(entries) == 1 && is(lockName)(entries[0]) {
		return nil
	}
	return fmt.Errorf("%s holds something else than an instance; empty it, or choose another RUN_DIR", i.dir)
}

func newInstance(dir string) (*Instance, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the run directory: %w", err)
	}
	return &Instance{dir: abs}, nil
}

func (i *Instance) openProcesses() (err error) {
	i.processes, err = process.OpenSet(i.path("run"), processMark(i.state.ID))
	return err
}

// save changes the state and writes it down.
func (i *Instance) save(change func(*state)) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(&i.state)
	raw, err := json.MarshalIndent(i.state, "", "  ")
	if err != nil {
		return fmt.Errorf("save the instance's state: %w", err)
	}
	return writeFile(i.path(stateFile), append(raw, '\n'), 0o644)
}

// current gives a copy of the state.
func (i *Instance) current() state {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := i.state
	s.Pools = slices.Clone(s.Pools)
	return s
}

const lockName = "lock"

// lock keeps other programs from changing the instance.
func (i *Instance) lock(ctx context.Context, progress *Progress) (unlock func(), err error) {
	if err := os.MkdirAll(i.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the run directory: %w", err)
	}
	return lockFile(ctx, i.path(lockName), func() {
		progress.Say("another vivarium is at work on %s; waiting for it ...", i.dir)
	})
}

// TenantKubeconfig is the file that a tenant's admin uses.
func (i *Instance) TenantKubeconfig(id string) string { return i.path("tenants", id+".kubeconfig") }

// Where things are in the instance's directory. Others rely on the kubeconfigs and logs.

func (i *Instance) path(parts ...string) string {
	return filepath.Join(append([]string{i.dir}, parts...)...)
}

func (i *Instance) logs() string                      { return i.path("logs") }
func (i *Instance) adminKubeconfig() string           { return i.path("admin.kubeconfig") }
func (i *Instance) controlKubeconfig() string         { return i.path("control.kubeconfig") }
func (i *Instance) poolKubeconfig(pool string) string { return i.path("pools", pool+".kubeconfig") }
func (i *Instance) clusterDir(cluster string) string  { return i.path("clusters", cluster) }
func (i *Instance) nodeDir(pool string, n int) string { return i.path("nodes", nodeID(pool, n)) }
func nodeID(pool string, n int) string                { return pool + "-" + nodeName(n) }
func (s state) nodeCgroup(pool string, n int) string  { return cgroupName(s.ID) + "/" + nodeID(pool, n) }
func (s state) poolIndex(name string) int {
	return slices.IndexFunc(s.Pools, func(p poolState) bool { return p.Name == name })
}

// address is where the instance's servers that pods must reach listen.
func (s state) address() string {
	if s.Nodes == NodesReal {
		return hostAddress(s.Network).String()
	}
	return localhost
}

func (s state) bridge() node.Bridge {
	bridge := node.Bridge{
		Name: bridgeName(s.ID), Table: tableName(s.ID), Sibling: isBridgeName,
		Ports: fmt.Sprintf("%d:%d", s.PortBase, s.PortBase+portsUsed-1),
	}
	if s.Network.IsValid() {
		bridge.Address, bridge.Network = netip.PrefixFrom(hostAddress(s.Network), 24), s.Network
	}
	return bridge
}
