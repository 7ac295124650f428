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
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/vxlan"
)

// sandbox is a pod as the plugins see it: a network namespace.
type sandbox struct {
	id, path string
	// node is the network namespace of the node.
	node    string
	stdin   []byte
	program string
	args    string
	ip      string
}

// sandbox makes a namespace, and what a runtime would give the plugin: the VPC's for k >= 0, the stock one otherwise.
func (n *vpcNode) sandbox(k int, index uint32) (*sandbox, error) {
	n.pods++
	s := &sandbox{id: fmt.Sprintf("pod-%d", n.pods), program: filepath.Join(n.Plugins, "bridge"), node: n.plain}
	s.path = filepath.Join(n.Dir, "sandboxes", s.id)
	if err := makeNetNS(s.path); err != nil {
		return nil, err
	}
	bridge := map[string]any{
		"cniVersion": "1.0.0", "name": "node", "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
		"ipam": map[string]any{
			"type": "host-local", "dataDir": filepath.Join(n.Dir, "addresses"), "ranges": []any{[]any{map[string]any{"subnet": "10.98.0.0/16"}}},
			"routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
		},
	}
	config := bridge
	s.args = "IgnoreUnknown=1"
	if k >= 0 {
		v, subnet := vpcOf(k)
		ips, mac := placeOf(index)
		namespace := names.ControlNamespace(string(v.Tenant) + "-default")
		mutation, err := vxlan.Driver{}.BindPod(network.PodBinding{
			Tenant: v.Tenant, VPC: v, Subnet: subnet, IPs: ips, MAC: mac, Pod: network.PodKey{Namespace: namespace, Name: s.id, UID: types.UID(s.id)},
		})
		if err != nil {
			return nil, err
		}
		config = map[string]any{
			"cniVersion": "1.0.0", "name": "node", "type": "vivarium-vpc", "dir": n.state(), "namespaces": []string{metav1.NamespaceSystem}, "delegate": bridge,
			"runtimeConfig": map[string]any{"io.kubernetes.cri.pod-annotations": mutation.Annotations},
		}
		s.program, s.node = filepath.Join(n.Programs, "vivarium-vpc"), "/proc/self/ns/net"
		s.args += ";K8S_POD_NAMESPACE=" + string(namespace) + ";K8S_POD_NAME=" + s.id
		s.ip = ips[0].String()
	}
	var err error
	s.stdin, err = json.Marshal(config)
	return s, err
}

// spent is what a call of a plugin took.
type spent struct{ wall, cpu time.Duration }

// call calls the plugin as a runtime does.
func (n *vpcNode) call(ctx context.Context, s *sandbox, command string) (spent, error) {
	cmd := exec.CommandContext(ctx, s.program)
	var out, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(s.stdin), &out, &complaint
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID="+s.id, "CNI_NETNS="+s.path, "CNI_IFNAME=eth0",
		"CNI_PATH="+n.Programs+":"+n.Plugins, "CNI_ARGS="+s.args)
	var begin time.Time
	err := inNetNS(s.node, func() error {
		begin = time.Now()
		return cmd.Start()
	})
	if err == nil {
		err = cmd.Wait()
	}
	took := spent{wall: time.Since(begin)}
	if err != nil {
		return took, fmt.Errorf("%s of %s: %w: %s%s", command, filepath.Base(s.program), err, out.Bytes(), complaint.Bytes())
	}
	took.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if command == "ADD" && s.ip == "" {
		var result struct {
			IPs []struct {
				Address netip.Prefix `json:"address"`
			} `json:"ips"`
		}
		if err := json.Unmarshal(out.Bytes(), &result); err != nil || len(result.IPs) == 0 {
			return took, fmt.Errorf("the result of %s: %w: %s", s.program, err, out.Bytes())
		}
		s.ip = result.IPs[0].Address.Addr().String()
	}
	return took, nil
}

func (s *sandbox) remove() error {
	return errors.Join(unix.Unmount(s.path, unix.MNT_DETACH), os.Remove(s.path))
}

// makeNetNS makes a network namespace that a file holds.
func makeNetNS(path string) error {
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o600)); err != nil {
		return err
	}
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
}

// onThread runs f on a thread that it may take elsewhere, and brings that back.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		err = f()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// inNetNS runs f in a network namespace.
func inNetNS(path string, f func() error) error {
	return onThread(func() error {
		ns, err := os.Open(path)
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

// start starts a program in the sandbox.
func (s *sandbox) start(cmd *exec.Cmd) error {
	return inNetNS(s.path, func() error {
		if lo, err := netlink.LinkByName("lo"); err == nil {
			_ = netlink.LinkSetUp(lo)
		}
		return cmd.Start()
	})
}

// calls are how long calls of both plugins took, by lane and command.
type calls map[string][]spent

// plugins calls both plugins in turns, for pods of the k-th VPC and of the stock bridge.
func (n *vpcNode) plugins(ctx context.Context, k int) (calls, error) {
	// A VPC's first pod is another thing, and so is a bridge's.
	var stay []*sandbox
	for _, lane := range []int{k, -1} {
		s, err := n.sandbox(lane, 50)
		if err != nil {
			return nil, err
		}
		if _, err := n.call(ctx, s, "ADD"); err != nil {
			return nil, err
		}
		stay = append(stay, s)
	}
	c := calls{}
	for round := range n.PluginRounds {
		order := []int{-1, k}
		if round%2 == 1 {
			order = []int{k, -1}
		}
		var pods []*sandbox
		for _, lane := range order {
			s, err := n.sandbox(lane, uint32(100+round%100))
			if err != nil {
				return nil, err
			}
			pods = append(pods, s)
		}
		for _, command := range []string{"ADD", "DEL"} {
			for i, s := range pods {
				took, err := n.call(ctx, s, command)
				if err != nil {
					return nil, err
				}
				lane := laneStock
				if order[i] >= 0 {
					lane = laneVPC
				}
				c[lane+command] = append(c[lane+command], took)
			}
		}
		for _, s := range pods {
			if err := s.remove(); err != nil {
				return nil, err
			}
		}
	}
	return c, n.end(ctx, stay)
}

// end takes pods from the network, and their sandboxes away.
func (n *vpcNode) end(ctx context.Context, pods []*sandbox) error {
	for _, s := range pods {
		if _, err := n.call(ctx, s, "DEL"); err != nil {
			return err
		}
		if err := s.remove(); err != nil {
			return err
		}
	}
	return nil
}

func millis(d time.Duration) float64 { return micros(d) / 1000 }

// ratio is a command's time in the VPC to that on the stock bridge, within rounds.
func (c calls) ratio(command string) Spread {
	var ratios []float64
	for i, took := range c[laneVPC+command] {
		ratios = append(ratios, float64(took.wall)/float64(c[laneStock+command][i].wall))
	}
	return spreadOf(ratios)
}

func (c calls) p50(lane, command string) (wall, cpu float64) {
	var walls, cpus []time.Duration
	for _, took := range c[lane+command] {
		walls, cpus = append(walls, took.wall), append(cpus, took.cpu)
	}
	return millis(quantile(walls, .5)), millis(quantile(cpus, .5))
}

func (c calls) figures(where string) []Figure {
	var out []Figure
	for _, command := range []string{"ADD", "DEL"} {
		for _, lane := range []string{laneStock, laneVPC} {
			wall, cpu := c.p50(lane, command)
			name := strings.ReplaceAll(strings.ToLower(command+" "+lane), " ", "-")
			out = append(out,
				Figure{Name: name, What: fmt.Sprintf("%s, %s: %s, p50", where, command, lane), Value: wall, Unit: "ms"},
				Figure{Name: name + "-cpu", What: fmt.Sprintf("%s, %s: %s, processor time, p50", where, command, lane), Value: cpu, Unit: "ms"})
		}
		ratio := c.ratio(command)
		out = append(out, Figure{
			Name: strings.ToLower(command) + "-ratio", What: fmt.Sprintf("%s, %s: to the stock plugin, median of rounds, middle half %.2f-%.2f", where, command, ratio.Low, ratio.High), Value: ratio.Median,
		})
	}
	return out
}
