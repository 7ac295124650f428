package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// busyPods are a pod that uses as much CPU as it may, and one that waits.
const busyPods = `
apiVersion: v1
kind: Pod
metadata: {name: busy}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: loop, image: ` + shellImage + `, command: [sh, -c, "while :; do :; done"], resources: {limits: {cpu: 100m, memory: 32Mi}}}
  - {name: wait, image: ` + shellImage + `, command: [sleep, infinity], resources: {limits: {cpu: 100m, memory: 32Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: idle}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: wait, image: ` + shellImage + `, command: [sleep, infinity], resources: {limits: {cpu: 100m, memory: 32Mi}}}
`

// milliCPU reads a row of kubectl top: what the cell behind those before it says of the CPU.
func milliCPU(out string, cells ...string) (int, bool) {
	match := regexp.MustCompile(`(?m)^\s*` + strings.Join(cells, `\s+`) + `\s+(\d+)m\s`).FindStringSubmatch(out)
	if match == nil {
		return 0, false
	}
	n, err := strconv.Atoi(match[1])
	return n, err == nil
}

// TestTop shows what pods and nodes use, to whoever may see it. That no tenant is shown another's is checked on all output.
func TestTop(t *testing.T) {
	needsContainers(t)
	each(t, func(t *testing.T, c client, ns string) {
		c.apply(t, strings.ReplaceAll(busyPods, "metadata: {", "metadata: {namespace: "+ns+", "))
		eventually(t, "the busy pod uses what it may, the idle one nothing", func() error {
			out, err := c.try(t, "", "-n", ns, "top", "pods", "--containers")
			if err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			busy, ok1 := milliCPU(out, "busy", "loop")
			beside, ok2 := milliCPU(out, "busy", "wait")
			idle, ok3 := milliCPU(out, "idle", "wait")
			// A machine that has no time gives a pod less than its limit, none gives it much more.
			if !ok1 || !ok2 || !ok3 || busy < 10 || busy > 150 || beside > 5 || idle > 5 {
				return fmt.Errorf("%dm, %dm and %dm in\n%s", busy, beside, idle, out)
			}
			return nil
		})
		everywhere := c.shows(t, []string{"top", "pods", "-A"}, ns)
		for _, line := range strings.Split(strings.TrimSpace(everywhere), "\n")[1:] {
			if at := strings.Fields(line); !slices.Contains(c.lines(t, "get", "namespaces", "-o", "jsonpath={.items[*].metadata.name}"), at[0]) {
				t.Errorf("a pod of a namespace that is not there: %s", line)
			}
		}
		table := c.shows(t, []string{"get", "podmetrics.v1beta1.metrics.k8s.io", "-n", ns}, "NAME", "CPU", "MEMORY", "busy", "idle")
		if strings.Count(strings.TrimSpace(table), "\n") != 2 {
			t.Errorf("more than two pods:\n%s", table)
		}
		onNodes := 0
		nodes := c.shows(t, []string{"top", "nodes"}, c.lines(t, "get", "nodes", "-o", "jsonpath={.items[*].metadata.name}")...)
		for _, name := range c.lines(t, "get", "nodes", "-o", "jsonpath={.items[*].metadata.name}") {
			used, _ := milliCPU(nodes, name)
			onNodes += used
		}
		if onNodes < 10 {
			t.Errorf("the nodes use %dm together, and a pod on them is busy:\n%s", onNodes, nodes)
		}

		// Who may view may see, and nobody else.
		c.run(t, "-n", ns, "create", "rolebinding", "viewers", "--clusterrole=view", "--user=vera")
		c.shows(t, []string{"-n", ns, "top", "pods", "--as=vera"}, "busy")
		c.fails(t, "", []string{"-n", ns, "top", "pods", "--as=otto"}, `User "otto" cannot list resource "pods" in API group "metrics.k8s.io"`)
		c.fails(t, "", []string{"top", "nodes", "--as=vera"}, "cannot list resource")
		c.fails(t, "", []string{"-n", ns, "delete", "podmetrics.v1beta1.metrics.k8s.io", "busy"}, "measured by the platform")

		c.run(t, "-n", ns, "delete", "pod", "busy", "--wait")
		eventually(t, "the pod that is gone uses nothing", func() error {
			if out, err := c.try(t, "", "-n", ns, "top", "pod", "busy"); err == nil || !strings.Contains(out, `"busy" not found`) {
				return fmt.Errorf("%v: %s", err, out)
			}
			return nil
		})
	})
}

// scaled is a Deployment whose pods are busy until they are told not to be, and what scales it.
const scaled = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: work, namespace: autoscaling}
spec:
  selector: {matchLabels: {app: work}}
  template:
    metadata: {labels: {app: work}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: work
        image: ` + shellImage + `
        command: [sh, -c, "while :; do if [ -e /tmp/idle ]; then sleep 1; fi; done"]
        resources: {requests: {cpu: 50m}, limits: {cpu: 100m}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: work, namespace: autoscaling}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: work}
  minReplicas: 1
  maxReplicas: 3
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
`

// TestAutoscaling scales a Deployment up under load and down again, across a kill -9 of everything that measures, while its
// namesake in another tenant, which idles, stays as it is.
func TestAutoscaling(t *testing.T) {
	needsContainers(t)
	busy, still := tenant(red), tenant(blu)
	for _, c := range []client{busy, still} {
		c.run(t, "create", "namespace", "autoscaling")
		defer func() { _, _ = c.try(t, "", "delete", "namespace", "autoscaling", "--wait=false") }()
	}
	busy.apply(t, scaled)
	still.apply(t, strings.Replace(scaled, "sh, -c,", "sleep, infinity,", 1))
	replicas := func(c client) int {
		n, _ := strconv.Atoi(c.run(t, "-n", "autoscaling", "get", "deployment", "work", "-o", "jsonpath={.spec.replicas}"))
		return n
	}
	until := func(want int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d replicas", want), func() error {
			if n := replicas(busy); n != want {
				return fmt.Errorf("%d replicas\n%s", n, busy.run(t, "-n", "autoscaling", "describe", "hpa", "work"))
			}
			return nil
		})
	}
	until(3)
	if n := replicas(still); n != 1 {
		t.Errorf("the idle namesake has %d replicas", n)
	}

	for name, p := range processes(t) {
		if name == "vk-provider" || strings.HasSuffix(name, "-metrics-server") {
			if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	if out, err := up(t.Context()); err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	if n := replicas(busy); n != 3 {
		t.Errorf("%d replicas while nobody measures", n)
	}
	busy.run(t, "-n", "autoscaling", "rollout", "status", "deployment/work", "--timeout=3m")
	for _, pod := range busy.lines(t, "-n", "autoscaling", "get", "pods", "-o", "name") {
		busy.run(t, "-n", "autoscaling", "exec", pod, "--", "touch", "/tmp/idle")
	}
	until(1)
	if n := replicas(still); n != 1 {
		t.Errorf("the idle namesake has %d replicas", n)
	}
	busy.shows(t, []string{"-n", "autoscaling", "get", "hpa", "work", "-o", "yaml"}, "kind: Deployment", "currentMetrics", "averageUtilization")
}
