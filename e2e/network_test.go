package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// vpcTenant is a tenant with a VPC of its own in the system under test. Both have the same prefixes.
type vpcTenant struct {
	client
	// web serves, shell asks; both by pod name.
	web, shell []string
	// ips are the addresses of web, both families.
	ips []string
}

// TestVPC runs two tenants whose networks have the same addresses, in both pools: each reaches every pod of its own and
// nothing else that is not for it.
func TestVPC(t *testing.T) {
	needsContainers(t)
	if drivers := admin().run(t, "get", "resourcepools", "-o", "jsonpath={.items[*].spec.network.driver}"); !strings.Contains(drivers, "vxlan") {
		t.Skipf("the system was started with other network drivers: %s", drivers)
	}
	const first, second = "red7n3", "blu7n4"
	one, two := newVPCTenant(t, first, second), newVPCTenant(t, second, first)
	for _, v := range []*vpcTenant{one, two} {
		v.start(t)
	}
	t.Run("SameAddresses", func(t *testing.T) {
		if !slices.ContainsFunc(one.ips, func(ip string) bool { return slices.Contains(two.ips, ip) }) {
			t.Errorf("no address of %v is one of %v: the test shows nothing", one.ips, two.ips)
		}
		for _, v := range []*vpcTenant{one, two} {
			if pools := slices.Compact(slices.Sorted(slices.Values(v.lines(t, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}")))); len(pools) < 2 {
				t.Errorf("the pods of %s are all in %v: the test shows nothing between pools", v.name, pools)
			}
		}
	})
	t.Run("OwnPodsAnswer", func(t *testing.T) {
		for _, v := range []*vpcTenant{one, two} {
			v.meet(t)
		}
	})
	t.Run("NobodyElse", func(t *testing.T) { nobodyElse(t, one, two) })
	t.Run("Inside", func(t *testing.T) { inside(t, one) })
	t.Run("Chosen", func(t *testing.T) { chosen(t, one, two) })
	t.Run("AgentsKilled", func(t *testing.T) {
		for _, pid := range agents(t) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Errorf("kill an agent: %v", err)
			}
		}
		// What runs does not need them, and what is made waits for their successors.
		one.meet(t)
		one.run(t, "run", "late", "--image="+shellImage, "--", "sleep", "100000")
		one.run(t, "wait", "--for=condition=Ready", "pod/late", "--timeout=3m")
		one.run(t, "delete", "pod", "late", "--now")
		two.meet(t)
	})
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

// agents gives the processes of the node agents of the pools, told by the addresses of their nodes.
func agents(t *testing.T) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	nodes := 0
	for _, name := range poolNames(t) {
		for _, ip := range nodeAddresses(t, name) {
			nodes++
			for _, file := range files {
				line, err := os.ReadFile(file)
				if err != nil || !strings.HasPrefix(string(line), "/vivarium/vpc-agent\x00") || !strings.Contains(string(line), "--tunnel-address="+ip+"\x00") {
					continue
				}
				if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
					pids = append(pids, pid)
				}
			}
		}
	}
	if len(pids) != nodes {
		t.Fatalf("%d nodes have %d agents", nodes, len(pids))
	}
	return pids
}

func nodeAddresses(t *testing.T, name string) []string {
	t.Helper()
	return pool(name).lines(t, "get", "nodes", "-o", `jsonpath={.items[*].status.addresses[?(@.type=="InternalIP")].address}`)
}

// newVPCTenant makes a tenant with a VPC; whatever it is shown is searched for the other.
func newVPCTenant(t *testing.T, id, other string) *vpcTenant {
	t.Helper()
	out, err := vivarium(t.Context(), "tenant", "create", id, "--vpc-cidr=10.0.0.0/16,fd00:7::/48", "--subnet=web=10.0.1.0/24,fd00:7:0:1::/64", "--timeout=5m")
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

// start runs the tenant's pods: a server with probes of two kinds, and shells to ask from.
func (v *vpcTenant) start(t *testing.T) {
	t.Helper()
	v.apply(t, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: web
        image: `+echoImage+`
        readinessProbe: {httpGet: {port: 8080, path: /ready}, periodSeconds: 1}
        livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shell}
spec:
  replicas: 2
  selector: {matchLabels: {app: shell}}
  template:
    metadata: {labels: {app: shell}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: shell}}}
      containers:
      - {name: shell, image: `+shellImage+`, command: [sleep, "100000"], readinessProbe: {exec: {command: ["true"]}}}
`)
	for _, name := range []string{"web", "shell"} {
		v.run(t, "rollout", "status", "deployment/"+name, "--timeout=3m")
	}
	v.web = v.lines(t, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}")
	v.shell = v.lines(t, "get", "pods", "-l", "app=shell", "-o", "jsonpath={.items[*].metadata.name}")
	v.ips = v.lines(t, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.podIPs[*].ip}")
	if len(v.ips) != 8 {
		t.Fatalf("%s sees addresses %v, want two for each of four pods", v.name, v.ips)
	}
	for _, ip := range v.ips {
		addr, err := netip.ParseAddr(ip)
		if err != nil || !netip.MustParsePrefix("10.0.1.0/24").Contains(addr) && !netip.MustParsePrefix("fd00:7:0:1::/64").Contains(addr) {
			t.Errorf("%s sees the address %s, which is in no subnet of it", v.name, ip)
		}
	}
}

// ask has a shell speak HTTP to an address, and gives the name of the pod that answers; empty if none does.
func (v *vpcTenant) ask(t *testing.T, shell, ip string, port int) string {
	t.Helper()
	out, err := v.try(t, "", "exec", shell, "--", "sh", "-c", fmt.Sprintf(`printf 'GET /who HTTP/1.0\r\n\r\n' | nc -w 3 %s %d 2>/dev/null || true`, ip, port))
	if err != nil {
		t.Fatalf("ask from %s: %v\n%s", shell, err, out)
	}
	_, rest, _ := strings.Cut(out, "hostname: ")
	name, _, _ := strings.Cut(rest, "\n")
	return name
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

// meet has every shell ask every server: it is the tenant's own that answers.
func (v *vpcTenant) meet(t *testing.T) {
	t.Helper()
	for _, shell := range v.shell {
		for _, ip := range v.ips {
			eventually(t, fmt.Sprintf("%s: %s asks %s", v.name, shell, ip), func() error {
				switch name := v.ask(t, shell, ip, 8080); {
				case name == "":
					return errors.New("nobody answers")
				case !slices.Contains(v.web, name):
					t.Fatalf("%s: %s asked %s, and %s answered", v.name, shell, ip, name)
				}
				return nil
			})
		}
	}
}

// nobodyElse has shells of one reach for what is not theirs. Each of these is seen to be there by somebody who may.
func nobodyElse(t *testing.T, one, two *vpcTenant) {
	two.run(t, "run", "alone", "--image="+echoImage, "--annotations=network.vivarium.io/ip=10.0.1.200")
	two.run(t, "wait", "--for=condition=Ready", "pod/alone", "--timeout=3m")
	if name := two.ask(t, two.shell[0], "10.0.1.200", 8080); name != "alone" {
		t.Errorf("%q answers its own tenant at 10.0.1.200", name)
	}
	targets := []target{{"10.0.1.200", 8080}, {"169.254.169.254", 80}, {"169.254.100.1", 10250}}
	for _, name := range poolNames(t) {
		// The addresses by which a node knows its pods, and the node's own.
		for _, ip := range pool(name).lines(t, "-n", two.name+"-default", "get", "pods", "-o", "jsonpath={.items[*].status.podIP}") {
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
	if len(targets) < 8 {
		t.Fatalf("only %v to try", targets)
	}
	// The one that it may reach shows that the others could have been.
	targets = append(targets, target{"198.19.255.1", 443})
	for _, shell := range one.shell {
		if open := one.reached(t, shell, targets); !slices.Equal(open, []string{"198.19.255.1:443"}) {
			t.Errorf("of %v, %s reaches %v; want its API alone", targets, shell, open)
		}
	}
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
	v.run(t, "run", "api", "--image="+kubectlImage, "--restart=Never", "--command", "--", "kubectl", "get", "pods")
	v.run(t, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/api", "--timeout=3m")
	if out := v.run(t, "logs", "api"); !strings.Contains(out, v.web[0]) {
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
