package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestFilters has a tenant filter its own pods, in both pools: by NetworkPolicies, and by security groups of the operator.
func TestFilters(t *testing.T) {
	needsContainers(t)
	if drivers := admin().run(t, "get", "resourcepools", "-o", "jsonpath={.items[*].spec.network.driver}"); !strings.Contains(drivers, "vxlan") {
		t.Skipf("the system was started with other network drivers: %s", drivers)
	}
	const id = "flt7n5"
	v := newVPCTenant(t, id, "oth7n6")
	for name, container := range map[string]string{
		"served": `{name: c, image: ` + echoImage + `, ports: [{name: http, containerPort: 8080}], readinessProbe: {httpGet: {port: http}, periodSeconds: 1}, livenessProbe: {tcpSocket: {port: http}, periodSeconds: 1, timeoutSeconds: 5}}`,
		"friend": `{name: c, image: ` + shellImage + `, command: [sleep, "100000"]}`,
		"other":  `{name: c, image: ` + shellImage + `, command: [sleep, "100000"]}`,
	} {
		v.apply(t, fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: 2
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: %[1]s}}}
      containers:
      - %[2]s
`, name, container))
	}
	v.run(t, "run", "bounded", "--image="+shellImage, "--annotations=network.vivarium.io/bandwidth=1M", "--command", "--", "sleep", "100000")
	for _, name := range []string{"served", "friend", "other"} {
		v.run(t, "rollout", "status", "deployment/"+name, "--timeout=3m")
	}
	list := func(app, path string) []string {
		return v.lines(t, "get", "pods", "-l", "app="+app, "-o", "jsonpath={.items[*]"+path+"}")
	}
	pods := map[string][]string{"friend": list("friend", ".metadata.name"), "other": list("other", ".metadata.name")}
	// reach waits until an app's pods can connect to all of the servers' addresses, or to none: rules come a moment after
	// they were written.
	reach := func(app string, want int) {
		t.Helper()
		ips := list("served", ".status.podIPs[*].ip")
		if want > 0 {
			want = len(ips)
		}
		for _, pod := range pods[app] {
			eventually(t, fmt.Sprintf("%s reaches %d of %v", pod, want, ips), func() error {
				script := ""
				for _, ip := range ips {
					script += fmt.Sprintf("(nc -w 2 %s 8080 </dev/null >/dev/null 2>&1 && echo open) & ", ip)
				}
				out, err := v.try(t, "", "exec", pod, "--", "sh", "-c", script+"wait; echo done")
				if got := strings.Count(out, "open"); err != nil || !strings.Contains(out, "done") || got != want {
					return fmt.Errorf("it reaches %d: %v", got, err)
				}
				return nil
			})
		}
	}
	reach("friend", 1)
	reach("other", 1)

	t.Run("Policies", func(t *testing.T) {
		v.apply(t, `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: served}
spec:
  podSelector: {matchLabels: {app: served}}
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}], ports: [{port: http}]}]
`)
		reach("other", 0)
		reach("friend", 1)
		// A pod that comes under a policy is held to it, and its kubelet's probes pass.
		v.run(t, "rollout", "restart", "deployment/served")
		v.run(t, "rollout", "status", "deployment/served", "--timeout=3m")
		eventually(t, "the old pods' end", func() error {
			if names := list("served", ".metadata.name"); len(names) != 2 {
				return fmt.Errorf("there are %v", names)
			}
			return nil
		})
		reach("other", 0)
		reach("friend", 1)
		v.run(t, "label", "pod", pods["other"][0], pods["other"][1], "app-", "ally=yes")
		v.run(t, "patch", "networkpolicy", "served", "--type=json", `-p=[{"op":"replace","path":"/spec/ingress/0/from","value":[{"namespaceSelector":{},"podSelector":{"matchLabels":{"ally":"yes"}}}]}]`)
		reach("other", 1)
		reach("friend", 0)
		v.run(t, "delete", "networkpolicy", "served")
		reach("friend", 1)
	})
	t.Run("Groups", func(t *testing.T) {
		admin().run(t, "patch", "vpc", id+"-main", "--type=merge", `-p={"spec":{"securityGroups":[
			{"name":"served","ingress":[{"groups":["friends"],"protocol":"TCP","ports":["8080"]}]},{"name":"friends","egress":[{"groups":["served"]}]}]}}`)
		v.run(t, "annotate", "pod", "-l", "app=served", "network.vivarium.io/security-groups=served")
		reach("friend", 0)
		v.run(t, "annotate", "pod", pods["friend"][0], pods["friend"][1], "network.vivarium.io/security-groups=friends")
		reach("friend", 1)
		reach("other", 0)
	})
	t.Run("Bandwidth", func(t *testing.T) {
		v.run(t, "wait", "--for=condition=Ready", "pod/bounded", "--timeout=3m")
	})
	v.run(t, "wait", "--for=condition=Ready", "pod", "-l", "app=served", "--timeout=3m")
	if restarts := list("served", ".status.containerStatuses[*].restartCount"); slices.ContainsFunc(restarts, func(n string) bool { return n != "0" }) {
		t.Errorf("servers were restarted %v times: filters kept their probes out", restarts)
	}
}
