//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/util/workqueue"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/kubetest"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/drivertest"
	"vivarium.io/vivarium/network/vxlan"
	"vivarium.io/vivarium/network/vxlan/internal/plane"
	"vivarium.io/vivarium/network/vxlan/internal/resolver"
	"vivarium.io/vivarium/network/vxlan/internal/state"
)

const patience = 2 * time.Minute

// host is a machine for agents: a network namespace, and a directory.
type host struct{ dir, netns string }

// newAgent makes an agent of a node in a network namespace of its own.
func newAgent(t *testing.T, client kubernetes.Interface) *Agent {
	t.Helper()
	return newHost(t).agent(t, client)
}

func newHost(t *testing.T) host {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		if _, err := os.Stat("/usr/sbin/nft"); err != nil {
			if kubetest.InCI() {
				t.Fatal("nft is not installed; run `make tools` first")
			}
			t.Skip("nft is not installed")
		}
	}
	type made struct {
		ns  *os.File
		err error
	}
	got := make(chan made)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		var ns *os.File
		if err == nil {
			ns, err = os.Open("/proc/thread-self/ns/net")
		}
		got <- made{ns, err}
	}()
	m := <-got
	if m.err != nil {
		t.Fatal(m.err)
	}
	t.Cleanup(func() { _ = m.ns.Close() })
	links, err := netlink.NewHandleAt(netns.NsHandle(m.ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer links.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	eth0 := &netlink.Bridge{LinkAttrs: attrs}
	if err := errors.Join(links.LinkAdd(eth0), links.LinkSetUp(eth0),
		links.AddrAdd(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}})); err != nil {
		t.Fatal(err)
	}
	return host{dir: t.TempDir(), netns: fmt.Sprintf("/proc/self/fd/%d", m.ns.Fd())}
}

func (h host) agent(t *testing.T, client kubernetes.Interface) *Agent {
	t.Helper()
	options := NewOptions()
	options.Dir, options.TunnelAddress = filepath.Join(h.dir, "state"), "192.0.2.1"
	options.ConfigFrom, options.ConfigTo = filepath.Join(h.dir, "from.conflist"), filepath.Join(h.dir, "to.conflist")
	if err := os.WriteFile(options.ConfigFrom, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	node, err := plane.New(plane.Config{Dir: options.Dir, Tunnel: netip.MustParseAddr(options.TunnelAddress), NetNS: h.netns})
	if err != nil {
		t.Fatal(err)
	}
	return &Agent{
		options: options, node: node, client: client, names: newNames(node, resolver.Upstream{}),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](10*time.Millisecond, time.Second)),
	}
}

// run runs an agent until the test ends, or stop is called.
func run(t *testing.T, a *Agent) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx, boot.NewHealth()) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func vpc(uid types.UID) (*network.VPC, *network.Subnet) {
	cidrs := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}
	return &network.VPC{
			Name: "abc123-main", UID: uid, Tenant: "abc123", CIDRs: cidrs, SecurityGroups: []network.SecurityGroup{{Name: "web"}},
			API: netip.MustParseAddrPort("192.0.2.9:6443"),
		}, &network.Subnet{
			Name: "abc123-a", UID: uid + "-s", VPC: uid, VNI: 77, CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}, Gateway: []netip.Addr{netip.MustParseAddr("10.0.1.1")},
		}
}

func endpoints(v *network.VPC, s *network.Subnet, sets ...string) []network.Endpoint {
	return []network.Endpoint{{
		Subnet: s.UID, IPs: []netip.Addr{netip.MustParseAddr("10.0.1.9")}, MAC: "02:00:00:00:00:09", Node: netip.MustParseAddr("192.0.2.2"),
		Pod: network.PodKey{UID: "pod-" + v.UID}, SecurityGroups: []string{"web"}, Sets: sets,
	}}
}

// TestToldByTheDriver: what the driver writes in the pool comes to the node whole, also what changes, and is removed when it
// is gone there; a VPC that cannot be read holds up no other.
func TestToldByTheDriver(t *testing.T) {
	pool := drivertest.FakePool(nil)
	client := pool.Client
	driver, ctx := vxlan.Driver{}, t.Context()
	v, s := vpc("v-1")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	tell := func(v *network.VPC, s *network.Subnet) {
		t.Helper()
		_, err := driver.EnsureVPC(ctx, pool, v)
		must(err)
		_, err = driver.EnsureSubnet(ctx, pool, v, s)
		must(err)
	}
	tell(v, s)
	must(driver.EnsurePolicies(ctx, pool, v, []network.Policy{{Pods: "p", Receive: true}}))
	must(driver.EnsureEndpoints(ctx, pool, v, endpoints(v, s, "p")))
	_, err := client.CoreV1().ConfigMaps(state.Namespace).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: state.VPCName("v-0"), Labels: map[string]string{state.LabelVPC: "v-0"}}, Data: map[string]string{"vpc": "scribble"},
	}, metav1.CreateOptions{})
	must(err)

	a := newAgent(t, client)
	run(t, a)
	stored := func(check func(*state.Desired) bool) {
		t.Helper()
		eventually(t, "what the node knows", func() error {
			got, err := a.node.Stored("v-1")
			if err == nil && !check(got) {
				err = fmt.Errorf("it knows %+v", got)
			}
			return err
		})
	}
	stored(func(d *state.Desired) bool {
		return d.Tenant == "abc123" && len(d.Subnets) == 1 && d.Subnets[0].VNI == 77 && len(d.Groups) == 1 && d.Groups[0].Pods == "web" &&
			len(d.Policies) == 1 && len(d.Endpoints) == 1 && slices.Equal(d.Endpoints[0].Sets, []string{"p"}) && slices.Equal(d.Endpoints[0].Groups, []string{"web"})
	})
	must(driver.EnsureEndpoints(ctx, pool, v, endpoints(v, s)))
	must(driver.EnsurePolicies(ctx, pool, v, nil))
	stored(func(d *state.Desired) bool {
		return len(d.Policies) == 0 && len(d.Endpoints) == 1 && len(d.Endpoints[0].Sets) == 0
	})
	// A pod that is on another node now: that one may send, and the one before may not any more.
	moved := endpoints(v, s)
	moved[0].Node = netip.MustParseAddr("192.0.2.3")
	must(driver.EnsureEndpoints(ctx, pool, v, moved))
	eventually(t, "the guard", func() error {
		raw, err := os.ReadFile(filepath.Join(a.options.Dir, "guard"))
		if err == nil && (!strings.Contains(string(raw), "192.0.2.3") || strings.Contains(string(raw), "192.0.2.2 ")) {
			err = fmt.Errorf("it is\n%s", raw)
		}
		return err
	})

	must(driver.DeleteSubnet(ctx, pool, s))
	must(driver.DeleteVPC(ctx, pool, v))
	eventually(t, "the VPC's end", func() error {
		known, err := a.node.Known()
		if err == nil && slices.Contains(known, "v-1") {
			err = errors.New("it is still known")
		}
		return err
	})
}

// TestServices: a VPC's Services come to the node, also what changes; those that cannot be read, or are none, change nothing of
// what was, and hold up nothing else.
func TestServices(t *testing.T) {
	pool := drivertest.FakePool(nil)
	driver, ctx := vxlan.Driver{}, t.Context()
	v, s := vpc("v-1")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := driver.EnsureVPC(ctx, pool, v)
	must(err)
	_, err = driver.EnsureSubnet(ctx, pool, v, s)
	must(err)
	var services []network.Service
	for i := range 40 {
		services = append(services, network.Service{Namespace: "web", Name: fmt.Sprint("s-", i), IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, byte(i)})}})
	}
	must(driver.EnsureServices(ctx, pool, v, services))
	a := newAgent(t, pool.Client)
	run(t, a)
	stored := func(want int) {
		t.Helper()
		eventually(t, "the Services that the node knows", func() error {
			got, err := a.node.StoredServices("v-1")
			if err == nil && len(got) != want {
				err = fmt.Errorf("they are %d, not %d", len(got), want)
			}
			return err
		})
	}
	stored(40)
	must(driver.EnsureServices(ctx, pool, v, services[:39]))
	stored(39)
	for name, data := range map[string]string{"scribble": "scribble", "refused": `[{"namespace":"web","name":"x","ports":[{"protocol":"tcp }","port":80}]}]`} {
		client := pool.Client.CoreV1().ConfigMaps(state.Namespace)
		_, err := client.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: state.VPCName("v-1") + "-services-x", Labels: map[string]string{state.LabelVPC: "v-1"}}, Data: map[string]string{"services": data},
		}, metav1.CreateOptions{})
		must(err)
		must(driver.EnsureEndpoints(ctx, pool, v, endpoints(v, s, name)))
		eventually(t, "the rest of the VPC", func() error {
			got, err := a.node.Stored("v-1")
			if err == nil && (len(got.Endpoints) != 1 || !slices.Equal(got.Endpoints[0].Sets, []string{name})) {
				err = fmt.Errorf("it is %+v", got)
			}
			return err
		})
		stored(39)
		must(client.Delete(ctx, state.VPCName("v-1")+"-services-x", metav1.DeleteOptions{}))
	}
	must(driver.EnsureServices(ctx, pool, v, services))
	stored(40)

	// What pods come and go is no reason to go through Services that are as they were; a look is.
	round := 0
	told := func() {
		t.Helper()
		for range 2 { // one worker: the first is through when the second is there
			round++
			name := fmt.Sprint("round-", round)
			must(driver.EnsureEndpoints(ctx, pool, v, endpoints(v, s, name)))
			eventually(t, "the endpoints", func() error {
				got, err := a.node.Stored("v-1")
				if err == nil && (len(got.Endpoints) != 1 || !slices.Equal(got.Endpoints[0].Sets, []string{name})) {
					err = fmt.Errorf("it is %+v", got)
				}
				return err
			})
		}
	}
	for {
		told()
		looks := a.looks.Load()
		must(a.node.StoreServices("v-1", services[:1]))
		told()
		got, err := a.node.StoredServices("v-1")
		must(err)
		if a.looks.Load() != looks {
			continue // somebody looked meanwhile
		}
		if len(got) != 1 {
			t.Errorf("%d were stored, for endpoints alone", len(got))
		}
		break
	}
	a.looks.Add(1)
	told()
	stored(40)
}

// TestNames: a VPC's resolver is where the VPC's namespace is, from when the plugin has made that until the VPC is gone, also
// when it is made anew, and with an agent whose pool says nothing. It knows what the node does, and leaves nothing.
func TestNames(t *testing.T) {
	pool := drivertest.FakePool(nil)
	driver, ctx := vxlan.Driver{}, t.Context()
	v, s := vpc("v-1")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := driver.EnsureVPC(ctx, pool, v)
	must(err)
	_, err = driver.EnsureSubnet(ctx, pool, v, s)
	must(err)
	h := newHost(t)
	a := h.agent(t, pool.Client)
	stop := run(t, a)
	eventually(t, "the VPC", func() error { _, err := a.node.Stored("v-1"); return err })
	// answered waits until the VPC's resolver is where the VPC is, which may be nowhere.
	answered := func(a *Agent, services int) (space string) {
		t.Helper()
		eventually(t, "the resolver", func() error {
			now, err := a.node.Space("v-1")
			if err != nil {
				return err
			}
			a.names.mu.Lock()
			defer a.names.mu.Unlock()
			r := a.names.resolvers["v-1"]
			switch {
			case (r == nil) != (now == "") || r != nil && r.space != now:
				return fmt.Errorf("the VPC is in %q, its resolver is %+v", now, r)
			case r != nil && len(r.told.services) != services:
				return fmt.Errorf("it knows %v", r.told.services)
			}
			space = now
			return nil
		})
		return space
	}
	// plugin makes the VPC's namespace, as for its first pod.
	plugin := func() {
		t.Helper()
		eventually(t, "the VPC's namespace", func() error { return a.node.Ensure("v-1", true) })
		must(os.WriteFile(filepath.Join(a.node.PodsDir(), "c@v-1.json"), []byte(`{"container":"c","vpc":"v-1","netns":"/"}`), 0o600))
		must(os.Rename(filepath.Join(a.node.PodsDir(), "c@v-1.json"), filepath.Join(a.node.PodsDir(), "d@v-1.json")))
	}
	if space := answered(a, 0); space != "" {
		t.Fatalf("a VPC without pods has the namespace %s", space)
	}
	// An agent whose pool does not answer is told by the plugin alone.
	stop()
	a = h.agent(t, drivertest.SilentPool(t).Client)
	stop = run(t, a)
	plugin()
	eventually(t, "the resolver by what the plugin wrote", func() error {
		a.names.mu.Lock()
		defer a.names.mu.Unlock()
		if len(a.names.resolvers) != 1 {
			return fmt.Errorf("there are %v", a.names.resolvers)
		}
		return nil
	})
	// So it is when the namespace is made anew: what the plugin writes first has the agent let go of the old one.
	netns := filepath.Join(a.options.Dir, "vpcs", "v-1", "netns")
	gone, err := a.node.Space("v-1")
	must(err)
	must(errors.Join(unix.Unmount(netns, unix.MNT_DETACH), os.Remove(netns)))
	must(os.WriteFile(filepath.Join(a.node.PodsDir(), "e@v-1.json"), []byte(`{"container":"e","vpc":"v-1","netns":"/"}`), 0o600))
	plugin()
	must(os.Remove(filepath.Join(a.node.PodsDir(), "e@v-1.json")))
	if anew := answered(a, 0); anew == "" || anew == gone {
		t.Errorf("the VPC is in %q, and was in %q", anew, gone)
	}
	stop()
	a = h.agent(t, pool.Client)
	stop = run(t, a)
	eventually(t, "the resolver", func() error {
		a.names.mu.Lock()
		defer a.names.mu.Unlock()
		if len(a.names.resolvers) != 1 {
			return fmt.Errorf("there are %v", a.names.resolvers)
		}
		return nil
	})
	first := answered(a, 0)
	if first == "" {
		t.Fatal("the VPC has no namespace")
	}
	must(driver.EnsureServices(ctx, pool, v, []network.Service{{Namespace: "web", Name: "x", IPs: []netip.Addr{netip.MustParseAddr("10.96.0.1")}}}))
	answered(a, 1)
	// Somebody takes the namespace away; the next look lets go of it and finds the new one.
	must(errors.Join(unix.Unmount(netns, unix.MNT_DETACH), os.Remove(netns)))
	a.queue.Add("v-1")
	eventually(t, "the VPC made anew", func() error {
		now, err := a.node.Space("v-1")
		if err == nil && (now == "" || now == first) {
			a.queue.Add("v-1")
			err = fmt.Errorf("it is in %q, and was in %q", now, first)
		}
		return err
	})
	answered(a, 1)
	stop()
	if len(a.names.resolvers) > 0 {
		t.Errorf("the agent has ended and serves %v", a.names.resolvers)
	}
	// Another one, whose pool does not answer.
	a = h.agent(t, drivertest.SilentPool(t).Client)
	stop = run(t, a)
	if answered(a, 1) == "" {
		t.Error("the VPC is gone")
	}
	eventually(t, "the resolver without a pool", func() error {
		a.names.mu.Lock()
		defer a.names.mu.Unlock()
		if len(a.names.resolvers) != 1 {
			return fmt.Errorf("there are %v", a.names.resolvers)
		}
		return nil
	})
	stop()
	a = h.agent(t, pool.Client)
	run(t, a)
	answered(a, 1)
	must(os.Remove(filepath.Join(a.node.PodsDir(), "d@v-1.json")))
	must(driver.DeleteSubnet(ctx, pool, s))
	must(driver.DeleteVPC(ctx, pool, v))
	eventually(t, "the VPC's end", func() error {
		known, err := a.node.Known()
		if err == nil && len(known) > 0 {
			err = fmt.Errorf("known are %v", known)
		}
		return err
	})
	if space := answered(a, 0); space != "" {
		t.Errorf("the VPC is still in %s", space)
	}
}

// TestMisnamed: a ConfigMap that says to be another VPC's changes nothing of that one.
func TestMisnamed(t *testing.T) {
	pool := drivertest.FakePool(nil)
	client := pool.Client
	v, s := vpc("v-1")
	if _, err := (vxlan.Driver{}).EnsureVPC(t.Context(), pool, v); err != nil {
		t.Fatal(err)
	}
	if _, err := (vxlan.Driver{}).EnsureSubnet(t.Context(), pool, v, s); err != nil {
		t.Fatal(err)
	}
	object, err := client.CoreV1().ConfigMaps(state.Namespace).Get(t.Context(), state.VPCName("v-1"), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	thief := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: state.VPCName("v-2"), Namespace: state.Namespace, Labels: map[string]string{state.LabelVPC: "v-2"}}, Data: object.Data}
	if _, err := client.CoreV1().ConfigMaps(state.Namespace).Create(t.Context(), thief, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	a := newAgent(t, client)
	stop := run(t, a)
	eventually(t, "the first VPC", func() error { _, err := a.node.Stored("v-1"); return err })
	stop()
	if _, err := a.desired("v-2"); err == nil {
		t.Error("a VPC under another's name is taken")
	}
	if _, err := a.node.Stored("v-2"); !errors.Is(err, plane.ErrNotReady) {
		t.Errorf("it is stored: %v", err)
	}
}

// TestSilentPool: an agent whose pool does not answer guards its node for what it knew, lets pods be plugged in, and removes
// nothing.
func TestSilentPool(t *testing.T) {
	a := newAgent(t, drivertest.SilentPool(t).Client)
	v, _ := vpc("v-1")
	if _, err := a.node.Store(&state.Desired{VPC: state.VPC{UID: v.UID, Tenant: v.Tenant, CIDRs: v.CIDRs, API: v.API}}); err != nil {
		t.Fatal(err)
	}
	stop := run(t, a)
	eventually(t, "the network configuration", func() error { _, err := os.Stat(a.options.ConfigTo); return err })
	if _, err := os.Stat(filepath.Join(a.options.Dir, "guard")); err != nil {
		t.Errorf("the configuration is there before the guard: %v", err)
	}
	stop()
	if known, err := os.ReadDir(filepath.Join(a.options.Dir, "vpcs")); err != nil || len(known) != 1 {
		t.Errorf("left are %v, %v", known, err)
	}
}

// TestUnguarded: where the node cannot be guarded, the runtime finds no network configuration.
func TestUnguarded(t *testing.T) {
	a := newAgent(t, fake.NewClientset())
	// Nothing can be written where the guard is to be recorded.
	if err := os.Mkdir(filepath.Join(a.options.Dir, "guard"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context(), boot.NewHealth()); err == nil {
		t.Error("Run goes on")
	}
	if _, err := os.Stat(a.options.ConfigTo); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the network configuration is there: %v", err)
	}
}
