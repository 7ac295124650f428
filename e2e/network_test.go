package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// vpcTenant is a tenant with a VPC of its own in the system under test. Both have the same prefixes.
type vpcTenant struct {
	client
	// web serves and shell asks, both by pod name; both are on every node.
	web, shell []string
	// ips are the addresses of web, both families.
	ips []string
}

// What both tenants have alike: their prefixes, and the addresses of two pods that talk from equal ports to equal ports.
const (
	vpcCIDRs   = "10.0.0.0/16,fd00:7::/48"
	subnetOne  = "10.0.1.0/24"
	subnetSix  = "fd00:7:0:1::/64"
	askingIPs  = "10.0.1.210,fd00:7:0:1::d2"
	answersIP  = "10.0.1.211"
	answersIP6 = "fd00:7:0:1::d3"
)

// TestVPC runs two tenants whose networks have the same addresses, on two nodes in each of two pools: each reaches every
// pod of its own and nothing else that is not for it, whatever dies.
func TestVPC(t *testing.T) {
	needsContainers(t)
	if drivers := admin().run(t, "get", "resourcepools", "-o", "jsonpath={.items[*].spec.network.driver}"); !strings.Contains(drivers, "vxlan") {
		t.Skipf("the system was started with other network drivers: %s", drivers)
	}
	const first, second = "red7n3", "blu7n4"
	one, two := newVPCTenant(t, first, second), newVPCTenant(t, second, first)
	both := []*vpcTenant{one, two}
	startEverywhere(t, both...)
	t.Run("SameAddresses", func(t *testing.T) {
		if !slices.ContainsFunc(one.ips, func(ip string) bool { return slices.Contains(two.ips, ip) }) {
			t.Errorf("no address of %v is one of %v: the test shows nothing", one.ips, two.ips)
		}
	})
	t.Run("OwnPodsAnswer", func(t *testing.T) {
		for _, v := range both {
			v.meet(t)
		}
	})
	t.Run("NobodyElse", func(t *testing.T) { nobodyElse(t, one, two) })
	t.Run("Forged", func(t *testing.T) { forged(t, one, two) })
	t.Run("SamePorts", func(t *testing.T) { samePorts(t, both) })
	t.Run("Inside", func(t *testing.T) { inside(t, one) })
	t.Run("Chosen", func(t *testing.T) { chosen(t, one, two) })
	t.Run("Input", func(t *testing.T) { networkInput(t, one) })
	t.Run("Stays", func(t *testing.T) { stays(t, one, two) })
	t.Run("TenantGoes", func(t *testing.T) {
		if out, err := vivarium(t.Context(), "tenant", "delete", first, "--timeout=5m"); err != nil {
			t.Fatalf("tenant delete: %v\n%s", err, out)
		}
		for _, kind := range []string{"vpcs", "subnets", "ipblocks"} {
			if left := admin().run(t, "get", kind, "-o", "wide"); strings.Contains(left, first) {
				t.Errorf("left of the tenant's %s:\n%s", kind, left)
			}
		}
		two.meet(t)
	})
}

func nodeAddresses(t *testing.T, name string) []string {
	t.Helper()
	return pool(name).lines(t, "get", "nodes", "-o", `jsonpath={.items[*].status.addresses[?(@.type=="InternalIP")].address}`)
}

// newVPCTenant makes a tenant with a VPC; whatever it is shown is searched for the other.
func newVPCTenant(t *testing.T, id, other string) *vpcTenant {
	t.Helper()
	out, err := vivarium(t.Context(), "tenant", "create", id, "--vpc-cidr="+vpcCIDRs, "--subnet=web="+subnetOne+","+subnetSix, "--timeout=5m")
	if err != nil {
		t.Fatalf("tenant create: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		// The test's own context has ended by then.
		if out, err := vivarium(context.WithoutCancel(t.Context()), "tenant", "delete", id, "--wait=false"); err != nil && !strings.Contains(out, "there is no tenant") {
			t.Errorf("tenant delete: %v\n%s", err, out)
		}
	})
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if out, err := vivarium(t.Context(), "tenant", "kubeconfig", id, "--output", kubeconfig); err != nil {
		t.Fatalf("tenant kubeconfig: %v\n%s", err, out)
	}
	return &vpcTenant{client: client{name: id, kubeconfig: kubeconfig, foreign: []string{id + "-", other}}}
}

// startEverywhere runs the tenants' pods: servers with probes of all kinds, shells to ask from, and a pair that talks all
// the time. The first of a pool's nodes is filled while the second takes nothing, then the other way round, so that
// servers and shells are on all of them, and the pair is on the same two nodes for every tenant.
func startEverywhere(t *testing.T, tenants ...*vpcTenant) {
	t.Helper()
	pools := []string{"pool-a", "pool-b"}
	t.Cleanup(func() { only(t, pools, "") })
	only(t, pools, "node-0")
	all(tenants, func(v *vpcTenant) {
		v.apply(t, workload("web", 2, `readinessProbe: {httpGet: {port: 8080, path: /ready}, periodSeconds: 1, timeoutSeconds: 30}
        livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 30}
        startupProbe: {grpc: {port: 8080}, periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 100}`)+
			workload("shell", 2, `command: [sleep, "100000"]
        readinessProbe: {exec: {command: ["true"]}}`)+
			onePod("answers-"+v.name, pools[1], answersIP+","+answersIP6, "")+
			onePod("asks", pools[0], askingIPs, keeping("-from=45000", answersIP, answersIP6)))
		for _, name := range []string{"web", "shell"} {
			v.run(t, "rollout", "status", "deployment/"+name, "--timeout=3m")
		}
		v.run(t, "wait", "--for=condition=Ready", "pod/asks", "pod/answers-"+v.name, "--timeout=3m")
	})
	if t.Failed() {
		t.FailNow()
	}
	only(t, pools, "node-1")
	all(tenants, func(v *vpcTenant) {
		v.run(t, "scale", "deployment/web", "deployment/shell", "--replicas=4")
		for _, name := range []string{"web", "shell"} {
			v.run(t, "rollout", "status", "deployment/"+name, "--timeout=3m")
		}
		v.web = v.lines(t, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}")
		v.shell = v.lines(t, "get", "pods", "-l", "app=shell", "-o", "jsonpath={.items[*].metadata.name}")
		v.ips = v.lines(t, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.podIPs[*].ip}")
		if len(v.ips) != 8 {
			t.Errorf("%s sees addresses %v, want two for each of four pods", v.name, v.ips)
		}
		for _, ip := range v.ips {
			addr, err := netip.ParseAddr(ip)
			if err != nil || !netip.MustParsePrefix(subnetOne).Contains(addr) && !netip.MustParsePrefix(subnetSix).Contains(addr) {
				t.Errorf("%s sees the address %s, which is in no subnet of it", v.name, ip)
			}
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	only(t, pools, "")
	for _, name := range pools {
		for _, v := range tenants {
			on := pool(name).lines(t, "-n", v.name+"-default", "get", "pods", "-o", "jsonpath={range .items[*]}{.spec.nodeName}{\"\\n\"}{end}")
			slices.Sort(on)
			if nodes := slices.Compact(on); len(nodes) != 2 {
				t.Errorf("the pods of %s in %s are on %v: the test shows nothing between nodes", v.name, name, nodes)
			}
		}
	}
}

// only lets one node of each pool take pods; every node where it is empty.
func only(t *testing.T, pools []string, node string) {
	t.Helper()
	for _, name := range pools {
		for _, other := range []string{"node-0", "node-1"} {
			act := "cordon"
			if node == "" || node == other {
				act = "uncordon"
			}
			if out, err := pool(name).try(t, "", act, other); err != nil {
				t.Errorf("%s %s of %s: %v\n%s", act, other, name, err, out)
			}
		}
	}
}

// all does something for all tenants at once. Whoever ends the test from in there ends that part alone.
func all(tenants []*vpcTenant, do func(v *vpcTenant)) {
	var group sync.WaitGroup
	for _, v := range tenants {
		group.Go(func() { do(v) })
	}
	group.Wait()
}

// workload is a Deployment of the images' server, or of what container says besides, spread over the pools.
func workload(name string, replicas int, container string) string {
	return fmt.Sprintf(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: %[1]s}}}
      containers:
      - name: main
        image: %[3]s
        %[4]s
`, name, replicas, echoImage, container)
}

// onePod is a pod of the images' server in a pool, which to tenants is a zone, with addresses that it asks for unless there are none. It is
// not started again: what ends has ended.
func onePod(name, zone, ips, container string) string {
	if ips != "" {
		ips = ", annotations: {network.vivarium.io/ip: '" + ips + "'}"
	}
	return fmt.Sprintf(`---
apiVersion: v1
kind: Pod
metadata: {name: %s%s}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  nodeSelector: {topology.kubernetes.io/zone: %s}
  containers:
  - name: main
    image: %s
    %s
`, name, ips, zone, echoImage, container)
}

// keeping has a container talk to addresses, by TCP and UDP.
func keeping(flag string, ips ...string) string {
	return `args: ["-keep", "` + strings.Join(append([]string{flag}, everyWay(ips...)...), `", "`) + `"]`
}

func everyWay(ips ...string) (targets []string) {
	for _, ip := range ips {
		for _, protocol := range []string{"tcp", "udp"} {
			targets = append(targets, protocol+"/"+net.JoinHostPort(ip, "8080"))
		}
	}
	return targets
}

// ask has a shell ask who answers at targets, with flags of the images' program before them, and gives the names of pods, empty for targets where none does.
func (v *vpcTenant) ask(t *testing.T, shell string, targets ...string) map[string]string {
	t.Helper()
	out, err := v.try(t, "", append([]string{"exec", shell, "--", "/echo", "-ask"}, targets...)...)
	if err != nil {
		t.Fatalf("ask from %s: %v\n%s", shell, err, out)
	}
	return answers(out)
}

func answers(out string) map[string]string {
	names := map[string]string{}
	for line := range strings.Lines(out) {
		target, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		names[target] = strings.Trim(name, "-")
	}
	return names
}

// target is an address and a port, as nc takes them.
type target struct {
	ip   string
	port int
}

// reached gives those of the targets that a shell can open a connection to.
func (v *vpcTenant) reached(t *testing.T, shell string, targets []target) (open []string) {
	t.Helper()
	var script strings.Builder
	for _, to := range targets {
		fmt.Fprintf(&script, "(nc -w 3 %s %d </dev/null >/dev/null 2>&1 && echo %[1]s:%[2]d) & ", to.ip, to.port)
	}
	out, err := v.try(t, "", "exec", shell, "--", "sh", "-c", script.String()+"wait; echo done")
	if err != nil || !strings.HasSuffix(strings.TrimSpace(out), "done") {
		t.Fatalf("connect from %s: %v\n%s", shell, err, out)
	}
	return strings.Fields(strings.TrimSuffix(strings.TrimSpace(out), "done"))
}

// meet has every shell ask every server: it is the tenant's own that answers, whichever way it is asked.
func (v *vpcTenant) meet(t *testing.T) {
	t.Helper()
	targets := everyWay(v.ips...)
	for _, shell := range v.shell {
		eventually(t, fmt.Sprintf("%s: %s asks", v.name, shell), func() error {
			// Only where somebody does not answer does patience cost time.
			names := v.ask(t, shell, append([]string{"-patience=30s"}, targets...)...)
			for _, target := range targets {
				switch name := names[target]; {
				case name == "":
					return fmt.Errorf("nobody answers at %s", target)
				case !slices.Contains(v.web, name):
					t.Fatalf("%s: %s asked %s, and %s answered", v.name, shell, target, name)
				}
			}
			return nil
		})
	}
}

// samePorts looks at two pods that talk from the same addresses and ports to the same addresses and ports in two tenants,
// over the same nodes, all at once: each hears its own.
func samePorts(t *testing.T, tenants []*vpcTenant) {
	for _, v := range tenants {
		v.keeps(t, "asks", "answers-"+v.name)
	}
}

// keeps waits until a pod has heard more of its connections, and these are from nobody else than who.
func (v *vpcTenant) keeps(t *testing.T, pod string, who ...string) {
	t.Helper()
	v.keepsSince(t, v.client, "default", pod, -1, who...)
}

// keepsSince looks through a client's eyes, and gives how much the pod has heard.
func (v *vpcTenant) keepsSince(t *testing.T, c client, ns, pod string, than int, who ...string) (heard int) {
	t.Helper()
	slices.Sort(who)
	eventually(t, fmt.Sprintf("%s: %s talks", c.name, pod), func() error {
		out, err := c.try(t, "", "-n", ns, "logs", pod, "--tail=3")
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		if strings.Contains(out, "echo: ") {
			t.Fatalf("%s: %s lost a connection: %s", c.name, pod, out)
		}
		var connections int
		lines := strings.Split(strings.TrimSpace(out), "\n")
		said, names, _ := strings.Cut(lines[len(lines)-1], " answers each, of ")
		if _, err := fmt.Sscanf(said, "%d connections, at least %d", &connections, &heard); err != nil {
			return fmt.Errorf("says %q", out)
		}
		if than < 0 && heard > 0 {
			than = heard
		}
		if heard < than+5 || heard == 0 {
			return fmt.Errorf("has heard %d times of all, from %q", heard, names)
		}
		if len(who) > 0 && names != strings.Join(who, " ") {
			t.Fatalf("%s: %s hears %q, want %q", c.name, pod, names, who)
		}
		return nil
	})
	return heard
}

// nobodyElse has shells of one reach for what is not theirs. Each of these is seen to be there by somebody who may.
func nobodyElse(t *testing.T, one, two *vpcTenant) {
	two.run(t, "run", "alone", "--image="+echoImage, "--annotations=network.vivarium.io/ip=10.0.1.200,fd00:7:0:1::c8")
	two.run(t, "wait", "--for=condition=Ready", "pod/alone", "--timeout=3m")
	alone := everyWay("10.0.1.200", "fd00:7:0:1::c8")
	for target, name := range two.ask(t, two.shell[0], alone...) {
		if name != "alone" {
			t.Errorf("%q answers its own tenant at %s", name, target)
		}
	}
	for target, name := range one.ask(t, one.shell[0], alone...) {
		if name != "" {
			t.Errorf("%q answers another tenant at %s", name, target)
		}
	}
	targets := notTheirs(t, two)
	// The one that it may reach shows that the others could have been.
	targets = append(targets, target{"198.19.255.1", 443})
	for _, shell := range one.shell {
		if open := one.reached(t, shell, targets); !slices.Equal(open, []string{"198.19.255.1:443"}) {
			t.Errorf("of %v, %s reaches %v; want its API alone", targets, shell, open)
		}
	}
}

// notTheirs are addresses that are there and for no pod of another tenant: those by which nodes know a tenant's pods, the
// nodes' own, the metadata service's and a link's.
func notTheirs(t *testing.T, v *vpcTenant) []target {
	t.Helper()
	targets := []target{{"10.0.1.200", 8080}, {"169.254.169.254", 80}, {"169.254.64.2", 10250}}
	for _, name := range poolNames(t) {
		for _, ip := range pool(name).lines(t, "-n", v.name+"-default", "get", "pods", "-o", "jsonpath={.items[*].status.podIP}") {
			targets = append(targets, target{ip, 8080})
		}
		for _, ip := range nodeAddresses(t, name) {
			conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(t.Context(), "tcp", net.JoinHostPort(ip, "10250"))
			if err != nil {
				t.Errorf("the host does not reach the kubelet either: %v", err)
				continue
			}
			_ = conn.Close()
			targets = append(targets, target{ip, 10250})
		}
	}
	if len(targets) < 12 {
		t.Fatalf("only %v to try", targets)
	}
	return targets
}

// inside looks at the world from within a pod, and at the pod from its tenant's place.
func inside(t *testing.T, v *vpcTenant) {
	ip := v.run(t, "get", "pod", v.shell[0], "-o", "jsonpath={.status.podIP}")
	out := v.run(t, "exec", v.shell[0], "--", "sh", "-c", "hostname -i; ip -4 addr show eth0; cat /etc/hosts; env")
	for _, want := range []string{ip + "\n", "inet " + ip + "/24", ip + "\t" + v.shell[0], "KUBERNETES_SERVICE_HOST=198.19.255.1\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("a pod does not see %q:\n%s", want, out)
		}
	}
	v.run(t, "create", "role", "reads", "--verb=get,list", "--resource=pods")
	v.run(t, "create", "rolebinding", "reads", "--role=reads", "--serviceaccount=default:default")
	v.shows(t, []string{"auth", "can-i", "list", "pods", "--as=system:serviceaccount:default:default"}, "yes")
	var issuer struct{ Issuer string }
	if err := json.Unmarshal([]byte(v.run(t, "get", "--raw", "/.well-known/openid-configuration")), &issuer); err != nil {
		t.Fatal(err)
	}
	v.run(t, "run", "api", "--image="+kubectlImage, "--restart=Never", "--command", "--", "sh", "-c", "kubectl get pods && "+asksIssuer(issuer.Issuer))
	v.run(t, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/api", "--timeout=3m")
	if out := v.run(t, "logs", "api"); !strings.Contains(out, v.web[0]) || !strings.Contains(out, `"issuer":"`+issuer.Issuer+`"`) {
		t.Errorf("the API from inside:\n%s", out)
	}
	forward(t, v.client, "default", "pod/"+v.web[0], ":8080", v.web[0])
	// A probe that passes without a server would be answered by somebody else's.
	v.apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: dead}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: a, image: `+shellImage+`, command: [sleep, "100000"], readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}}
  - {name: b, image: `+shellImage+`, command: [sleep, "100000"], readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}}
`)
	v.shows(t, []string{"get", "events", "--field-selector=involvedObject.name=dead,reason=Unhealthy", "-o", "jsonpath={.items[*].involvedObject.fieldPath}"}, "{a}", "{b}")
	if ready := v.run(t, "get", "pod", "dead", "-o", "jsonpath={.status.containerStatuses[*].ready}"); ready != "false false" {
		t.Errorf("containers without a server are ready: %s", ready)
	}
}

// chosen has a tenant choose addresses that it cannot have and keys that are not its own.
func chosen(t *testing.T, v, other *vpcTenant) {
	for key, want := range map[string]string{
		"network.vivarium.io/binding=tenant=" + other.name + ",driver=vxlan": "belongs to the platform",
		"ovn.kubernetes.io/logical_switch=" + other.name:                     "would choose the network of a pod",
		"v1.multus-cni.io/default-network=x":                                 "would choose the network of a pod",
	} {
		// What a tenant says comes back to it.
		c := client{name: v.name, kubeconfig: v.kubeconfig}
		c.fails(t, "", []string{"run", "refused", "--image=" + echoImage, "--annotations=" + key}, want)
		c.fails(t, "", []string{"annotate", "pod", v.web[0], key}, want)
	}
	v.fails(t, "", []string{"delete", "subnet", "web"}, "the network is the operator's")
	for name, want := range map[string]string{"10.0.9.9": "is in none of the subnets", v.ips[0]: "the address is taken"} {
		pod := "wants-" + strings.NewReplacer(".", "-", ":", "-").Replace(name)
		v.run(t, "run", pod, "--image="+echoImage, "--annotations=network.vivarium.io/ip="+name)
		v.shows(t, []string{"get", "pod", pod, "-o", "jsonpath={.status.conditions}"}, "InvalidSelection", want)
		v.run(t, "delete", "pod", pod, "--now")
	}
}
