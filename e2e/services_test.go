package e2e

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// served is what every tenant of TestServices has: a Service whose pods are in both pools, one without a cluster address for
// pods with names, one that stands for another, and who asks.
var served = workload("web", 2, `readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1, timeoutSeconds: 30}`) + `---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: dgram, port: 80, targetPort: 8080, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec:
  clusterIP: None
  selector: {app: db}
  ports: [{name: http, port: 8080}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: ` + echoImage + `, readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1, timeoutSeconds: 30}}]
` + onePod("asks", "pool-a", "", `command: [sleep, "100000"]`) + onePod("asks-too", "pool-b", "", `command: [sleep, "100000"]`)

// TestServices has two tenants with the same addresses and the same names find their own Services, by name and by address.
func TestServices(t *testing.T) {
	needsContainers(t)
	if able := admin().run(t, "get", "resourcepools", "-o", "jsonpath={.items[*].status.network.capabilities}"); !strings.Contains(able, "Services") {
		t.Skipf("the system was started with network drivers that know no Services: %s", able)
	}
	const first, second = "svc7n7", "svo7n8"
	one, two := newVPCTenant(t, first, second), newVPCTenant(t, second, first)
	both := []*vpcTenant{one, two}
	all(both, func(v *vpcTenant) {
		v.apply(t, served)
		v.run(t, "rollout", "status", "deployment/web", "--timeout=3m")
		v.run(t, "rollout", "status", "statefulset/db", "--timeout=3m")
		v.run(t, "wait", "--for=condition=Ready", "pod/asks", "pod/asks-too", "--timeout=3m")
		v.web = v.lines(t, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}")
		v.shell = []string{"asks", "asks-too"}
	})
	if t.Failed() {
		t.FailNow()
	}
	two.run(t, "create", "namespace", "theirs")
	two.run(t, "-n", "theirs", "create", "service", "clusterip", "secret", "--tcp=80:8080")
	t.Run("Found", func(t *testing.T) {
		for _, v := range both {
			v.found(t)
		}
	})
	t.Run("Names", func(t *testing.T) { serviceNames(t, one, two) })
	t.Run("API", func(t *testing.T) { apiByName(t, one) })
	t.Run("Policy", func(t *testing.T) { policyThroughService(t, one) })
	t.Run("AgentsKilled", func(t *testing.T) { agentsKilled(t, one) })
	t.Run("ComeAndGo", func(t *testing.T) { backendsComeAndGo(t, one, two) })
}

// found has a tenant's pods find the web by name and by address, until every one of its pods, in either pool, has answered
// each of them; nobody else's ever does.
func (v *vpcTenant) found(t *testing.T) {
	t.Helper()
	targets := []string{"tcp/web:80", "udp/web:80", "tcp/web.default:80", "tcp/web.default.svc.cluster.local:80", "tcp/alias:80"}
	for _, ip := range v.lines(t, "get", "service", "web", "-o", "jsonpath={.spec.clusterIPs[*]}") {
		if !strings.Contains(ip, ":") {
			targets = append(targets, "tcp/"+ip+":80", "udp/"+ip+":80")
		}
	}
	for _, shell := range v.shell {
		heard := map[string]map[string]bool{}
		eventually(t, v.name+": "+shell+" finds the web", func() error {
			out, err := v.try(t, "", append([]string{"exec", shell, "--", "/echo", "-ask", "-patience=30s"}, slices.Repeat(targets, 8)...)...)
			if err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			for line := range strings.Lines(out) {
				target, name, _ := strings.Cut(strings.TrimSpace(line), " ")
				switch {
				case name == "-":
					return fmt.Errorf("nobody answers at %s", target)
				case !slices.Contains(v.web, name):
					t.Fatalf("%s: %s asked %s, and %s answered", v.name, shell, target, name)
				case heard[target] == nil:
					heard[target] = map[string]bool{}
				}
				heard[target][name] = true
			}
			for _, target := range targets {
				if len(heard[target]) != len(v.web) {
					return fmt.Errorf("of %v, %v answered at %s", v.web, heard[target], target)
				}
			}
			return nil
		})
	}
}

// knows asks for names until all is known as it is to be.
func (v *vpcTenant) knows(t *testing.T, want map[string]string) {
	t.Helper()
	var targets []string
	for target := range want {
		targets = append(targets, target)
	}
	for _, shell := range v.shell {
		eventually(t, v.name+": "+shell+" asks for names", func() error {
			out, err := v.try(t, "", append([]string{"exec", shell, "--", "/echo", "-lookup", "-patience=30s"}, targets...)...)
			if err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			for line := range strings.Lines(out) {
				target, got, _ := strings.Cut(strings.TrimSpace(line), " ")
				if got != want[target] {
					return fmt.Errorf("%s is %q, want %q", target, got, want[target])
				}
			}
			return nil
		})
	}
}

// serviceNames asks for everything that has a name, and for what must not have one.
func serviceNames(t *testing.T, v, other *vpcTenant) {
	ips := func(args ...string) string {
		list := v.lines(t, append([]string{"get"}, args...)...)
		slices.Sort(list)
		return strings.Join(list, ",")
	}
	const in = ".default.svc.cluster.local"
	web := v.run(t, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	want := map[string]string{
		"host/web":                   ips("service", "web", "-o", "jsonpath={.spec.clusterIPs[*]}"),
		"host/db":                    ips("endpointslices", "-l", "kubernetes.io/service-name=db", "-o", "jsonpath={.items[*].endpoints[*].addresses[0]}"),
		"cname/alias" + in + ".":     "web" + in + ".",
		"addr/" + web:                "web" + in + ".",
		"srv/_http._tcp.web" + in:    "web" + in + ".:80",
		"srv/_dgram._udp.web" + in:   "web" + in + ".:80",
		"srv/_http._tcp.db" + in:     "db-0.db" + in + ".:8080,db-1.db" + in + ".:8080",
		"srv/_nothing._tcp.web" + in: "-",
		// What is not there is known not to be; nobody is asked for it outside.
		"host/nothing" + in + ".":                            "-",
		"host/db-7.db" + in + ".":                            "-",
		"host/nothing.cluster.local.":                        "-",
		"host/secret.theirs.svc.cluster.local.":              "-",
		"host/metrics-server.kube-system.svc.cluster.local.": "-",
	}
	for _, pod := range []string{"db-0", "db-1"} {
		want["host/"+pod+".db"] = ips("endpointslices", "-l", "kubernetes.io/service-name=db", "-o", `jsonpath={.items[*].endpoints[?(@.hostname=="`+pod+`")].addresses[0]}`)
		if name := strings.TrimSpace(v.run(t, "exec", pod, "--", "hostname", "-f")); name != pod+".db"+in {
			t.Errorf("%s calls itself %s", pod, name)
		}
	}
	for target, value := range want {
		if value == "" {
			t.Errorf("there is nothing to compare %s with", target)
		}
	}
	v.knows(t, want)
	other.knows(t, map[string]string{
		"host/secret.theirs":     other.run(t, "-n", "theirs", "get", "service", "secret", "-o", "jsonpath={.spec.clusterIP}"),
		"host/secret" + in + ".": "-",
	})
	// Names as the control cluster and the pools have them. What a tenant says comes back to it.
	outspoken := &vpcTenant{client: client{name: v.name, kubeconfig: v.kubeconfig}, shell: v.shell}
	never := map[string]string{"host/web." + other.name + ".svc.cluster.local.": "-"}
	for _, id := range []string{v.name, other.name} {
		never["host/web."+id+"-default.svc.cluster.local."] = "-"
	}
	outspoken.knows(t, never)
	for _, shell := range v.shell {
		targets := []string{"tcp/db-0.db:8080", "tcp/db-1.db.default.svc.cluster.local:8080"}
		names := v.ask(t, shell, append([]string{"-patience=30s"}, targets...)...)
		if names[targets[0]] != "db-0" || names[targets[1]] != "db-1" {
			t.Errorf("%s asked pods by name and got %v", shell, names)
		}
	}
}

// apiByName has a pod ask its tenant's API by the name that every cluster has for it, with what a pod is given.
func apiByName(t *testing.T, v *vpcTenant) {
	v.run(t, "create", "role", "reads", "--verb=get,list", "--resource=pods")
	v.run(t, "create", "rolebinding", "reads", "--role=reads", "--serviceaccount=default:default")
	v.shows(t, []string{"auth", "can-i", "list", "pods", "--as=system:serviceaccount:default:default"}, "yes")
	const given = "/var/run/secrets/kubernetes.io/serviceaccount"
	v.run(t, "run", "api", "--image="+kubectlImage, "--restart=Never", "--command", "--", "sh", "-c",
		"kubectl --server=https://kubernetes.default.svc --certificate-authority="+given+"/ca.crt --token=$(cat "+given+"/token) get pods")
	v.run(t, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/api", "--timeout=3m")
	if out := v.run(t, "logs", "api"); !strings.Contains(out, v.web[0]) {
		t.Errorf("the API by name:\n%s", out)
	}
}

// policyThroughService: a policy names pods, and holds for who comes to them through a Service.
func policyThroughService(t *testing.T, v *vpcTenant) {
	v.run(t, "label", "pod", "asks-too", "may=ask")
	v.apply(t, `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {may: ask}}}], ports: [{port: 8080}]}]
`)
	eventually(t, "one is kept out, the other is not", func() error {
		kept := v.ask(t, "asks", "-patience=2s", "tcp/web:80", "udp/web:80")
		let := v.ask(t, "asks-too", "-patience=30s", "tcp/web:80")
		if kept["tcp/web:80"] != "" || kept["udp/web:80"] != "" || let["tcp/web:80"] == "" {
			return fmt.Errorf("the one who may not hears %v, the other %v", kept, let)
		}
		return nil
	})
	v.run(t, "delete", "networkpolicy", "web")
	v.found(t)
}

// agentsKilled: what is led stays so without agents, and is kept up by their successors.
func agentsKilled(t *testing.T, v *vpcTenant) {
	ip := v.run(t, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	v.apply(t, onePod("keeps", "pool-a", "", `args: ["-keep", "tcp/`+ip+`:80", "udp/`+ip+`:80"]`))
	v.keeps(t, "keeps")
	nodes := localNodes(t)
	for _, n := range nodes {
		n.signal(t, "vpc-agent", syscall.SIGSTOP)
	}
	v.keeps(t, "keeps")
	for _, shell := range v.shell {
		if name := v.ask(t, shell, "-patience=30s", "tcp/"+ip+":80")["tcp/"+ip+":80"]; !slices.Contains(v.web, name) {
			t.Errorf("while agents stand still, %q answers %s", name, shell)
		}
	}
	for _, n := range nodes {
		n.signal(t, "vpc-agent", syscall.SIGKILL)
	}
	// Only who works answers for names and sees a Service that is new.
	v.run(t, "expose", "deployment", "web", "--name=later", "--port=80", "--target-port=8080")
	for _, shell := range v.shell {
		eventually(t, shell+" finds what came later", func() error {
			if name := v.ask(t, shell, "-patience=10s", "tcp/later:80")["tcp/later:80"]; !slices.Contains(v.web, name) {
				return fmt.Errorf("%q answers", name)
			}
			return nil
		})
	}
	v.found(t)
	v.keeps(t, "keeps")
	v.run(t, "delete", "pod", "keeps", "--now")
}

// backendsComeAndGo: a Service without pods answers as a closed port does, and with others as they do. The other tenant's goes
// on as it is.
func backendsComeAndGo(t *testing.T, v, other *vpcTenant) {
	v.run(t, "scale", "deployment/web", "--replicas=0")
	for _, shell := range v.shell {
		eventually(t, shell+" finds nobody", func() error {
			if names := v.ask(t, shell, "-patience=5s", "tcp/web:80"); names["tcp/web:80"] != "" {
				return fmt.Errorf("%v", names)
			}
			return nil
		})
	}
	other.found(t)
	v.run(t, "scale", "deployment/web", "--replicas=4")
	v.run(t, "rollout", "status", "deployment/web", "--timeout=3m")
	v.web = v.lines(t, "get", "pods", "-l", "app=web", "--field-selector=status.phase=Running", "-o", "jsonpath={.items[*].metadata.name}")
	v.found(t)
	v.run(t, "delete", "service", "web")
	v.knows(t, map[string]string{"host/web.default.svc.cluster.local.": "-", "host/alias.default.svc.cluster.local.": "-"})
	other.found(t)
}
