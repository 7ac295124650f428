package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// stays has one tenant's pods keep connections to each other, on a node, between nodes and between pools, while whatever
// runs the network dies. Nothing but a reboot may break one, and after that the pods have the addresses that they had.
func stays(t *testing.T, one, two *vpcTenant) {
	for i, name := range []string{"pool-a", "pool-b"} {
		one.apply(t, onePod(fmt.Sprintf("keeps-%d", i), name, "", keeping("-from=0", one.ips...)))
	}
	keep := func(t *testing.T) {
		t.Helper()
		one.keeps(t, "keeps-0", one.web...)
		one.keeps(t, "keeps-1", one.web...)
		samePorts(t, []*vpcTenant{one, two})
	}
	keep(t)
	// A part that cannot do its work leaves nothing for the next.
	for _, part := range []struct {
		name string
		do   func(t *testing.T)
	}{
		{"GuardsOff", func(t *testing.T) { guardsOff(t, one, two); keep(t) }},
		{"DaemonsKilled", func(t *testing.T) { daemonsKilled(t, one); keep(t) }},
		{"PoolGone", func(t *testing.T) { poolGone(t, one); keep(t) }},
		{"ControlGone", func(t *testing.T) { controlGone(t, one, two) }},
	} {
		if !t.Run(part.name, part.do) {
			return
		}
	}
}

// node is a node of a pool as this machine sees it.
type node struct {
	name string
	pid  int
}

func localNodes(t *testing.T) (list []node) {
	t.Helper()
	for name, p := range processes(t) {
		if strings.HasPrefix(name, "pool-") && strings.Contains(name, "-node-") && p.Running {
			list = append(list, node{name, p.PID})
		}
	}
	if len(list) < 4 {
		t.Fatalf("only the nodes %v run", list)
	}
	return list
}

// signal sends a signal to a daemon of the node.
func (n node) signal(t *testing.T, daemon string, signal syscall.Signal) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// PID (COMMAND) STATE PARENT ...
		before, after, _ := strings.Cut(string(raw), ") ")
		id, command, _ := strings.Cut(before, " (")
		fields := strings.Fields(after)
		pid, err := strconv.Atoi(id)
		if err != nil || command != daemon || len(fields) < 2 || fields[1] != strconv.Itoa(n.pid) {
			continue
		}
		if err := syscall.Kill(pid, signal); err != nil {
			t.Errorf("signal %s of %s: %v", daemon, n.name, err)
		}
		sent++
	}
	if sent != 1 {
		t.Errorf("%s has %d processes %s", n.name, sent, daemon)
	}
}

// run runs a script as root of the node.
func (n node) run(t *testing.T, script string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "nsenter", "--target="+strconv.Itoa(n.pid), "--mount", "--net", "sh", "-ec", script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s$ %s: %v\n%s", n.name, script, err, out)
	}
}

// guardsOff takes the filters away from under the agents, who stand still: now the addresses that [nobodyElse] cannot reach
// are reached, which shows that it is the filters that keep them closed, and that the test would see them open. Then the
// agents are killed, and their successors close everything again.
func guardsOff(t *testing.T, one, two *vpcTenant) {
	nodes := localNodes(t)
	for _, n := range nodes {
		n.signal(t, "vpc-agent", syscall.SIGSTOP)
	}
	for _, n := range nodes {
		n.run(t, `
nft delete table inet vivarium-vpc
for netns in /run/vivarium-vpc/vpcs/*/netns; do
	nsenter --net=$netns nft 'flush chain inet vpc forward; add chain inet vpc forward { policy accept; }'
done`)
	}
	targets := notTheirs(t, two)
	var kubelets, pods int
	for _, shell := range one.shell {
		for _, open := range one.reached(t, shell, targets) {
			switch {
			case strings.HasSuffix(open, ":10250"):
				kubelets++
			case strings.HasPrefix(open, "198.18."):
				pods++
			}
		}
	}
	if kubelets == 0 || pods == 0 {
		t.Errorf("without filters %d kubelets and %d pods of another tenant are reached: what closes them is something else", kubelets, pods)
	}
	if notes := tunnelled(t, one, two); len(notes) == 0 {
		t.Error("without filters no packet of the tunnels out of a container arrives: what keeps them out is something else")
	}
	for _, n := range nodes {
		n.signal(t, "vpc-agent", syscall.SIGKILL)
	}
	// What is made now waits for their successors.
	one.run(t, "run", "late", "--image="+shellImage, "--", "sleep", "100000")
	for _, shell := range one.shell {
		eventually(t, shell+" is shut in again", func() error {
			if open := one.reached(t, shell, targets); len(open) > 0 {
				return fmt.Errorf("reaches %v", open)
			}
			return nil
		})
	}
	one.run(t, "wait", "--for=condition=Ready", "pod/late", "--timeout=3m")
	one.run(t, "delete", "pod", "late", "--now")
}

// daemonsKilled ends every runtime and every kubelet.
func daemonsKilled(t *testing.T, v *vpcTenant) {
	for _, n := range localNodes(t) {
		n.signal(t, "containerd", syscall.SIGKILL)
		n.signal(t, "kubelet", syscall.SIGKILL)
	}
	v.run(t, "run", "late", "--image="+shellImage, "--", "sleep", "100000")
	v.run(t, "wait", "--for=condition=Ready", "pod/late", "--timeout=3m")
	v.run(t, "delete", "pod", "late", "--now")
	v.meet(t)
	v.sameContainers(t, "")
}

// sameContainers says that no container of the tenant was started again, save in pods on a node.
func (v *vpcTenant) sameContainers(t *testing.T, save string) {
	t.Helper()
	for _, name := range []string{"pool-a", "pool-b"} {
		for _, line := range v.onNodes(t, name) {
			fields := strings.Fields(line)
			if again := fields[len(fields)-1] != "0"; again && name+"-"+fields[1] != save {
				t.Errorf("a container was started again: %s in %s", line, name)
			}
		}
	}
}

// onNodes gives name, node and restarts of the tenant's pods in a pool.
func (v *vpcTenant) onNodes(t *testing.T, name string) []string {
	t.Helper()
	out := pool(name).run(t, "-n", v.name+"-default", "get", "pods", "-l", "app in (web,shell)", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.status.containerStatuses[0].restartCount}{"\n"}{end}`)
	return strings.FieldsFunc(out, func(r rune) bool { return r == '\n' })
}

// killed ends processes of the instance, and what of it depends on them may end as it likes.
func killed(t *testing.T, names ...string) {
	t.Helper()
	all := processes(t)
	for _, name := range names {
		if p := all[name]; p.Running {
			if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
				t.Errorf("kill %s: %v", name, err)
			}
		} else {
			t.Errorf("%s does not run", name)
		}
	}
}

// again starts what was killed. A pool that has just come back may not answer at once, which one who starts it says.
func again(t *testing.T) {
	t.Helper()
	eventually(t, "up", func() error {
		// A clean-up runs after the test's own context has ended.
		out, err := up(context.WithoutCancel(t.Context()))
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
}

// poolGone ends a pool's API, and its agents. A subnet and a VPC that are deleted now wait for it, and say so.
func poolGone(t *testing.T, v *vpcTenant) {
	operator := admin()
	spare := v.name + "-spare"
	operator.apply(t, `
apiVersion: vivarium.io/v1alpha1
kind: VPC
metadata: {name: `+spare+`}
spec: {tenant: `+v.name+`, cidrs: [10.7.0.0/16]}
`)
	operator.apply(t, `
apiVersion: vivarium.io/v1alpha1
kind: Subnet
metadata: {name: `+spare+`}
spec: {vpc: `+spare+`, cidrs: [10.7.1.0/24]}
`)
	operator.run(t, "wait", "--for=condition=Ready", "subnet/"+spare, "vpc/"+spare, "--timeout=3m")
	killed(t, "pool-b-kube-apiserver", "pool-b-etcd")
	t.Cleanup(func() { again(t) })
	for _, n := range localNodes(t) {
		if strings.HasPrefix(n.name, "pool-b-") {
			n.signal(t, "vpc-agent", syscall.SIGKILL)
		}
	}
	operator.run(t, "delete", "subnet", spare, "--wait=false")
	operator.shows(t, []string{"get", "subnet", spare, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")]}`}, "Deleting", "pool-b")
	v.keeps(t, "keeps-0", v.web...)
	again(t)
	operator.run(t, "wait", "--for=delete", "subnet/"+spare, "--timeout=3m")
	operator.run(t, "delete", "vpc", spare, "--timeout=3m")
}

// controlGone ends the control cluster and the whole platform. Meanwhile the pods talk on, agents are killed, and a node
// is rebooted: its pods come back with their addresses, and nobody has to tell it anything.
func controlGone(t *testing.T, one, two *vpcTenant) {
	const rebooted = "pool-b-node-1"
	before := one.run(t, "get", "pods", "-l", "app in (web,shell)", "--sort-by=.metadata.name", "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.podIPs[*].ip}{"\n"}{end}`)
	killed(t, "control-kube-apiserver", "control-etcd", "control-kube-controller-manager", "control-kube-scheduler", "gateway", "vk-provider", "syncer", "network")
	t.Cleanup(func() { again(t) })
	for _, n := range localNodes(t) {
		n.signal(t, "vpc-agent", syscall.SIGKILL)
	}
	heard := map[string]int{}
	// Looked at from the pools: the tenants see nothing now.
	listen := func(v *vpcTenant, name, pod string, who ...string) {
		t.Helper()
		ns := v.name + "-default"
		if _, seen := heard[v.name+pod]; !seen {
			heard[v.name+pod] = -1
		}
		heard[v.name+pod] = v.keepsSince(t, pool(name), ns, pod, heard[v.name+pod], who...)
	}
	for range 3 {
		listen(one, "pool-a", "keeps-0", one.web...)
		listen(one, "pool-b", "keeps-1", one.web...)
		listen(one, "pool-a", "asks", "answers-"+one.name)
		listen(two, "pool-a", "asks", "answers-"+two.name)
	}
	if out, err := vivarium(t.Context(), "local-reboot", rebooted); err != nil {
		t.Fatalf("local-reboot: %v\n%s", err, out)
	}
	targets := everyWay(one.ips...)
	for _, name := range []string{"pool-a", "pool-b"} {
		for _, shell := range one.onNodes(t, name) {
			shell, _, _ := strings.Cut(shell, " ")
			if !slices.Contains(one.shell, shell) {
				continue
			}
			eventually(t, fmt.Sprintf("%s in %s asks after the reboot", shell, name), func() error {
				out, err := pool(name).try(t, "", append([]string{"-n", one.name + "-default", "exec", shell, "--", "/echo", "-ask", "-patience=10s"}, targets...)...)
				if err != nil {
					return fmt.Errorf("%w\n%s", err, out)
				}
				for target, name := range answers(out) {
					if !slices.Contains(one.web, name) {
						return fmt.Errorf("%q answers at %s", name, target)
					}
				}
				return nil
			})
		}
	}
	again(t)
	eventually(t, "the tenant sees its pods as they were", func() error {
		out, err := one.try(t, "", "get", "pods", "-l", "app in (web,shell)", "--sort-by=.metadata.name", "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.podIPs[*].ip}{"\n"}{end}`)
		if err != nil || out != before {
			return fmt.Errorf("%w: it sees\n%s, before it was\n%s", err, out, before)
		}
		return nil
	})
	one.run(t, "rollout", "status", "deployment/web", "--timeout=3m")
	one.sameContainers(t, rebooted)
	one.meet(t)
	two.meet(t)
	samePorts(t, []*vpcTenant{one, two})
}
