package localcluster

import (
	"cmp"
	"slices"

	"vivarium.io/vivarium/internal/localcluster/process"
)

// Status is what `vivarium status` tells of an instance. Scripts read it as JSON or YAML.
type Status struct {
	// RunDir is the instance's directory and PortBase its first port.
	RunDir   string `json:"runDir"`
	PortBase int    `json:"portBase"`
	// Running is true when every process runs.
	Running bool `json:"running"`
	// Kubernetes is the version of all clusters.
	Kubernetes string `json:"kubernetes"`
	// Pools are the local pool clusters, registered or not.
	Pools []PoolStatus `json:"pools"`
	// Processes are those that the instance started.
	Processes []ProcessStatus `json:"processes"`
}

// PoolStatus tells of a pool cluster.
type PoolStatus struct {
	Name string `json:"name"`
	// Nodes is how many there are, and Simulated is true when they run no containers.
	Nodes     int  `json:"nodes"`
	Simulated bool `json:"simulated"`
	// Kubeconfig is the file of the pool's administrator.
	Kubeconfig string `json:"kubeconfig"`
}

// ProcessStatus tells of a process.
type ProcessStatus struct {
	Name    string `json:"name"`
	PID     int    `json:"pid"`
	Running bool   `json:"running"`
	Log     string `json:"log"`
}

// Status looks at the instance. It changes nothing.
func (i *Instance) Status() Status {
	s := i.current()
	status := Status{RunDir: i.dir, PortBase: s.PortBase, Kubernetes: s.Kubernetes, Running: true, Pools: []PoolStatus{}, Processes: []ProcessStatus{}}
	for _, pool := range s.Pools {
		status.Pools = append(status.Pools, PoolStatus{
			Name: pool.Name, Nodes: pool.Nodes, Simulated: s.Nodes == NodesKwok, Kubeconfig: i.poolKubeconfig(pool.Name),
		})
	}
	for _, p := range i.processes.All() {
		alive := p.Alive()
		status.Running = status.Running && alive
		status.Processes = append(status.Processes, ProcessStatus{Name: p.Name(), PID: p.ID().PID, Running: alive, Log: p.Log()})
	}
	// The platform comes first, then the clusters.
	order := func(p ProcessStatus) int {
		return cmp.Or(slices.IndexFunc(components, func(c component) bool { return c.name == p.Name })+1, len(components)+1)
	}
	slices.SortStableFunc(status.Processes, func(a, b ProcessStatus) int { return order(a) - order(b) })
	return status
}

// Nodes gives the running real nodes by their ID, each with its first process.
func (i *Instance) nodes() map[string]*process.Process {
	s := i.current()
	running := map[string]*process.Process{}
	for _, pool := range s.Pools {
		for n := range pool.Nodes {
			id := nodeID(pool.Name, n)
			if p := i.processes.Get(id); s.Nodes == NodesReal && p != nil && p.Alive() {
				running[id] = p
			}
		}
	}
	return running
}
