package localcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"vivarium.io/vivarium/internal/localcluster/node"
)

// Problem is something that keeps an instance from working, or from working well.
type Problem struct {
	// What is wrong, and Remedy, what to do about it.
	What   string `json:"what"`
	Remedy string `json:"remedy"`
}

// Doctor looks at the machine and, where there is one, at the instance in dir. It changes nothing.
func Doctor(ctx context.Context, dir string) ([]Problem, error) {
	problems := machineProblems(dir)
	i, err := Open(dir)
	if errors.Is(err, ErrNoInstance) {
		return problems, nil
	}
	if err != nil {
		return append(problems, Problem{What: err.Error(), Remedy: "remove the instance with `vivarium down`"}), nil
	}
	return append(problems, i.problems(ctx)...), nil
}

func machineProblems(dir string) []Problem {
	var problems []Problem
	add := func(what, remedy string, args ...any) {
		problems = append(problems, Problem{What: what, Remedy: fmt.Sprintf(remedy, args...)})
	}
	source, err := FindSource()
	if err != nil {
		add(err.Error(), "run in a checkout, or set %s", SourceEnv)
	} else if binaries, err := OpenBinaries(source); err != nil {
		add(err.Error(), "restore hack/kubernetes of the checkout")
	} else if missing := binaries.Missing(); len(missing) > 0 {
		if _, err := exec.LookPath("go"); err != nil {
			add("Go is not installed, and Kubernetes is not built yet", "install Go")
		}
	}
	if err := node.Possible(); err != nil {
		add(err.Error(), "run as root on a machine that may make namespaces and cgroups, or live with simulated nodes (NODES=kwok)")
	} else if packages := missingTools(); len(packages) > 0 {
		add("real nodes lack "+strings.Join(packages, ", "), "apt-get install %s (`vivarium up` does it as root), or NODES=kwok", strings.Join(packages, " "))
	}
	for existing := dir; ; existing = filepath.Dir(existing) {
		if _, err := os.Stat(existing); err == nil {
			if err := needSpace(existing, gibibyte, "an instance", "set RUN_DIR to a directory on another disk"); err != nil {
				add(err.Error(), "free some space")
			}
			return problems
		}
	}
}

// problems looks at the processes of the instance, and asks those that run how they are.
func (i *Instance) problems(ctx context.Context) []Problem {
	var problems []Problem
	const again = "run `vivarium up` again; it starts what is missing"
	for _, p := range i.Status().Processes {
		if !p.Running {
			problems = append(problems, Problem{What: p.Name + " does not run", Remedy: again + "; why it ended is in " + p.Log})
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	s := i.current()
	clusters := map[string]Ports{"control": controlPorts(s.PortBase)}
	for index, pool := range s.Pools {
		clusters[pool.Name] = poolPorts(s.PortBase, index)
	}
	for name, ports := range clusters {
		address := localhost
		if name != "control" {
			address = s.address()
		}
		plane, err := NewControlPlane(ControlPlaneConfig{Name: name, Dir: i.clusterDir(name), Ports: ports, Address: address})
		if err == nil {
			var probe prober
			if probe, err = plane.prober(); err == nil {
				err = probe.get(ctx, plane.Server()+"/readyz")
			}
		}
		if err != nil {
			problems = append(problems, Problem{What: fmt.Sprintf("cluster %s is not well: %v", name, err), Remedy: again})
		}
	}
	probe := newProber(nil)
	for _, c := range components {
		if p := i.processes.Get(c.name); p == nil || !p.Alive() {
			continue
		}
		if err := probe.get(ctx, "http://"+localAddress(s.PortBase+c.ports[len(c.ports)-1])+"/readyz"); err != nil {
			problems = append(problems, Problem{What: fmt.Sprintf("%s is not ready: %v", c.name, err), Remedy: "see " + i.processes.Get(c.name).Log()})
		}
	}
	return problems
}
