package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// loop is a shell that stays, and goes when told to.
const loop = "trap 'exit 0' TERM; while true; do sleep 0.2; done"

// TestContainers follows the containers of pods: what starts before what, what stays beside, what is put in later and what
// is changed while it runs.
func TestContainers(t *testing.T) {
	needsContainers(t)
	each(t, func(t *testing.T, c client, ns string) {
		c.apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: order, namespace: `+ns+`}
spec:
  restartPolicy: Never
  volumes: [{name: v, emptyDir: {}}]
  initContainers:
  - {name: first, image: `+shellImage+`, command: [sh, -c, "echo first > /v/said"], volumeMounts: [{name: v, mountPath: /v}]}
  - name: beside
    image: `+shellImage+`
    restartPolicy: Always
    command: [sh, -c, "echo beside >> /v/said; touch /v/ready; `+loop+`"]
    startupProbe: {exec: {command: [test, -e, /v/ready]}, periodSeconds: 1}
    volumeMounts: [{name: v, mountPath: /v}]
  containers:
  - {name: main, image: `+shellImage+`, command: [sh, -c, "echo main >> /v/said; cat /v/said; echo over > /dev/termination-log"], volumeMounts: [{name: v, mountPath: /v}]}
`)
		c.apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: changes, namespace: `+ns+`}
spec:
  containers:
  - name: main
    image: `+shellImage+`
    command: [sh, -c, "`+loop+`"]
    resources: {requests: {cpu: 20m, memory: 20Mi}, limits: {cpu: 100m, memory: 64Mi}}
`)
		c.run(t, "-n", ns, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/order", "--timeout=3m")
		if out := c.run(t, "-n", ns, "logs", "order", "-c", "main"); out != "first\nbeside\nmain\n" {
			t.Errorf("the containers ran in the order %q", out)
		}
		if said := c.run(t, "-n", ns, "get", "pod", "order", "-o", "jsonpath={.status.containerStatuses[0].state.terminated.message}"); said != "over\n" {
			t.Errorf("the termination message is %q", said)
		}

		c.run(t, "-n", ns, "wait", "--for=condition=Ready", "pod/changes", "--timeout=3m")
		for _, cpu := range []string{"200m", "50m"} { // up, then down
			c.run(t, "-n", ns, "patch", "pod", "changes", "--subresource=resize", "--type=strategic", "-p", `{"spec":{"containers":[{"name":"main","resources":{"limits":{"cpu":"`+cpu+`"}}}]}}`)
			c.shows(t, []string{"-n", ns, "get", "pod", "changes", "-o", "jsonpath={.status.containerStatuses[0].resources.limits.cpu} {.status.containerStatuses[0].restartCount}"}, cpu+" 0")
		}
		c.run(t, "-n", ns, "set", "image", "pod/changes", "main="+kubectlImage)
		c.shows(t, []string{"-n", ns, "get", "pod", "changes", "-o", "jsonpath={.status.containerStatuses[0].image} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}"}, kubectlImage+" 1 true")
		eventually(t, "the pool has seen the pod's last generation", func() error {
			generation := c.run(t, "-n", ns, "get", "pod", "changes", "-o", "jsonpath={.metadata.generation} {.status.observedGeneration}")
			if have, seen, _ := strings.Cut(generation, " "); have != seen {
				return fmt.Errorf("generation and observedGeneration are %s", generation)
			}
			return nil
		})
	})
}

// TestDownward holds that a pod sees itself as its tenant does, and changes of that.
func TestDownward(t *testing.T) {
	needsContainers(t)
	each(t, func(t *testing.T, c client, ns string) {
		c.run(t, "-n", ns, "create", "service", "clusterip", "my-db", "--tcp=5432")
		c.apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: self, namespace: `+ns+`, labels: {tier: front}, annotations: {example.com/note: first}}
spec:
  containers:
  - name: main
    image: `+shellImage+`
    command: [sh, -c, "`+loop+`"]
    resources: {limits: {cpu: 100m, memory: 64Mi}}
    env:
    - {name: UID_, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: HOST, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    volumeMounts: [{name: self, mountPath: /self}]
  volumes:
  - name: self
    downwardAPI:
      items:
      - {path: namespace, fieldRef: {fieldPath: metadata.namespace}}
      - {path: labels, fieldRef: {fieldPath: metadata.labels}}
      - {path: annotations, fieldRef: {fieldPath: metadata.annotations}}
`)
		c.run(t, "-n", ns, "wait", "--for=condition=Ready", "pod/self", "--timeout=3m")
		want := c.run(t, "-n", ns, "get", "pod", "self", "-o", "jsonpath={.metadata.uid} {.spec.nodeName} {.status.hostIP} {.status.podIP} 64") + " " +
			c.run(t, "-n", ns, "get", "service", "my-db", "-o", "jsonpath={.spec.clusterIP}") + " " + ns
		got := c.run(t, "-n", ns, "exec", "self", "--", "sh", "-c", `echo "$UID_ $NODE $HOST $IP $LIMIT $MY_DB_SERVICE_HOST $(cat /self/namespace)"`)
		if strings.TrimSpace(got) != want {
			t.Errorf("the pod sees %q, want %q", got, want)
		}
		c.run(t, "-n", ns, "label", "pod", "self", "tier=back", "--overwrite")
		c.run(t, "-n", ns, "annotate", "pod", "self", "example.com/note=second", "--overwrite")
		c.shows(t, []string{"-n", ns, "exec", "self", "--", "cat", "/self/labels", "/self/annotations"}, `tier="back"`, `example.com/note="second"`)
	})
}

// TestProjectedToken looks into a token that a pod asked for. That it is renewed in time is the syncer's to test: the
// shortest life of a token is ten minutes.
func TestProjectedToken(t *testing.T) {
	needsContainers(t)
	each(t, func(t *testing.T, c client, ns string) {
		c.apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: holder, namespace: `+ns+`}
spec:
  securityContext: {fsGroup: 2000}
  containers:
  - name: main
    image: `+shellImage+`
    command: [sh, -c, "`+loop+`"]
    securityContext: {runAsUser: 1000}
    volumeMounts: [{name: v, mountPath: /v}]
  volumes:
  - {name: v, projected: {sources: [{serviceAccountToken: {path: token, audience: vault, expirationSeconds: 600}}]}}
`)
		c.run(t, "-n", ns, "wait", "--for=condition=Ready", "pod/holder", "--timeout=3m")
		if mode := c.run(t, "-n", ns, "exec", "holder", "--", "stat", "-Lc", "%a %g", "/v/token"); mode != "640 2000\n" {
			t.Errorf("mode and group of the token's file are %q", mode)
		}
		parts := strings.Split(c.run(t, "-n", ns, "exec", "holder", "--", "cat", "/v/token"), ".")
		if len(parts) != 3 {
			t.Fatalf("the token has %d parts", len(parts))
		}
		raw, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil {
			t.Fatal(err)
		}
		var claims struct {
			Subject  string   `json:"sub"`
			Audience []string `json:"aud"`
			Expires  int64    `json:"exp"`
			Issued   int64    `json:"iat"`
		}
		if err := json.Unmarshal(raw, &claims); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(claims.Subject, ns+":default") || fmt.Sprint(claims.Audience) != "[vault]" || claims.Expires-claims.Issued != 600 {
			t.Errorf("claims %+v", claims)
		}
	})
}

// TestReadinessGate opens a pod's gate as a controller of the tenant would, and shuts it again.
func TestReadinessGate(t *testing.T) {
	needsContainers(t)
	each(t, func(t *testing.T, c client, ns string) {
		c.apply(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"gated","namespace":"`+ns+`"},"spec":{"readinessGates":[{"conditionType":"example.com/open"}],"containers":[{"name":"main","image":"`+echoImage+`"}]}}`)
		c.run(t, "-n", ns, "wait", "--for=condition=ContainersReady", "pod/gated", "--timeout=3m")
		ready := []string{"-n", ns, "get", "pod", "gated", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].reason}`}
		gate := func(status string) {
			c.run(t, "-n", ns, "patch", "pod", "gated", "--subresource=status", "--type=strategic", "-p", `{"status":{"conditions":[{"type":"example.com/open","status":"`+status+`"}]}}`)
		}
		c.shows(t, ready, "False ReadinessGatesNotReady")
		gate("True")
		c.shows(t, ready, "True")
		gate("False")
		c.shows(t, ready, "False ReadinessGatesNotReady")
		c.fails(t, "", []string{"-n", ns, "patch", "pod", "gated", "--subresource=status", "--type=strategic", "-p", `{"status":{"podIP":"192.0.2.1"}}`}, "word of the node")
	})
}

// TestJobRules holds that a Job's rules see what happened below: an exit code of its own, and a pod that its pool took away.
func TestJobRules(t *testing.T) {
	needsContainers(t)
	each(t, func(t *testing.T, c client, ns string) {
		job := func(name, command, rule string) {
			c.apply(t, `{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"`+name+`","namespace":"`+ns+`"},"spec":{"backoffLimit":0,"podFailurePolicy":{"rules":[`+rule+`]},"template":{"spec":{"restartPolicy":"Never","terminationGracePeriodSeconds":1,"containers":[{"name":"main","image":"`+shellImage+`","command":["sh","-c","`+command+`"]}]}}}}`)
		}
		job("ends", "exit 42", `{"action":"FailJob","onExitCodes":{"operator":"In","values":[42]}}`)
		job("taken", "sleep 1000", `{"action":"Ignore","onPodConditions":[{"type":"DisruptionTarget"}]}`)
		c.shows(t, []string{"-n", ns, "get", "job", "ends", "-o", `jsonpath={.status.conditions[?(@.type=="Failed")].reason}`}, "PodFailurePolicy")

		pods := []string{"-n", ns, "get", "pods", "-l", "job-name=taken", "--field-selector=status.phase=Running", "-o", "name"}
		first := strings.TrimSpace(c.shows(t, pods, "pod/"))
		for _, name := range poolNames(t) {
			_, _ = pool(name).try(t, "", "-n", c.name+"-"+ns, "delete", first, "--ignore-not-found")
		}
		eventually(t, "another pod in the place of the one that was taken", func() error {
			if now := strings.TrimSpace(c.run(t, pods...)); now == "" || now == first {
				return fmt.Errorf("running: %q", now)
			}
			return nil
		})
		if conditions := c.run(t, "-n", ns, "get", "job", "taken", "-o", "jsonpath={.status.conditions[*].type}"); strings.Contains(conditions, "Failed") {
			t.Errorf("the Job has failed: %s", conditions)
		}
	})
}

// TestEnds ends pods: with the time and the hook that they asked for, and by force.
func TestEnds(t *testing.T) {
	needsContainers(t)
	each(t, func(t *testing.T, c client, ns string) {
		for _, name := range []string{"graceful", "forced"} {
			c.apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: `+name+`, namespace: `+ns+`}
spec:
  terminationGracePeriodSeconds: 20
  containers:
  - name: main
    image: `+shellImage+`
    command: [sh, -c, "trap 'echo told; exit 0' TERM; echo up; while true; do sleep 0.2; done"]
    lifecycle: {preStop: {exec: {command: [sh, -c, "echo hook > /proc/1/fd/1; sleep 1"]}}}
`)
		}
		c.run(t, "-n", ns, "wait", "--for=condition=Ready", "pod/graceful", "pod/forced", "--timeout=3m")
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		var said lockedBuffer
		follow := c.command(ctx, "-n", ns, "logs", "-f", "graceful")
		follow.Stdout, follow.Stderr = &said, &said
		if err := follow.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the log is followed", func() error {
			if !strings.Contains(said.String(), "up") {
				return fmt.Errorf("it says %q", said.String())
			}
			return nil
		})
		c.run(t, "-n", ns, "delete", "pod", "graceful")
		if err := follow.Wait(); err != nil || said.String() != "up\nhook\ntold\n" {
			t.Errorf("the last words of the pod were %q, %v", said.String(), err)
		}

		c.run(t, "-n", ns, "delete", "pod", "forced", "--force", "--grace-period=0")
		c.fails(t, "", []string{"-n", ns, "get", "pod", "forced"}, "not found")
		eventually(t, "the pools are empty", func() error {
			for _, name := range poolNames(t) {
				if left := pool(name).lines(t, "-n", c.name+"-"+ns, "get", "pods", "-o", "name"); len(left) > 0 {
					return fmt.Errorf("%s holds %v", name, left)
				}
			}
			return nil
		})
	})
}

// TestLogs reads logs with the options that kubectl has.
func TestLogs(t *testing.T) {
	needsContainers(t)
	each(t, func(t *testing.T, c client, ns string) {
		c.apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: talks, namespace: `+ns+`}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - name: main
    image: `+shellImage+`
    command: [sh, -c, "test -e /v/again || { touch /v/again; echo once; exit 1; }; echo one; echo two; `+loop+`"]
    volumeMounts: [{name: v, mountPath: /v}]
  - {name: other, image: `+shellImage+`, command: [sh, -c, "echo besides; `+loop+`"]}
`)
		logs := func(args ...string) string {
			return c.run(t, append([]string{"-n", ns, "logs", "talks"}, args...)...)
		}
		c.shows(t, []string{"-n", ns, "logs", "talks", "-c", "main"}, "one\ntwo\n")
		for want, args := range map[string][]string{
			"once\n": {"-c", "main", "--previous"},
			"two\n":  {"-c", "main", "--tail=1"},
			"":       {"-c", "main", "--tail=0"},
			"one":    {"-c", "main", "--limit-bytes=3"},
		} {
			if got := logs(args...); got != want {
				t.Errorf("logs %v: %q, want %q", args, got, want)
			}
		}
		if got := logs("--all-containers", "--prefix"); !strings.Contains(got, "[pod/talks/other] besides\n") || !strings.Contains(got, "[pod/talks/main] two\n") {
			t.Errorf("logs of all containers: %q", got)
		}
		if got := logs("-c", "main", "--timestamps", "--since=1h"); !regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT\S+ one$`).MatchString(got) {
			t.Errorf("logs with times: %q", got)
		}
		// The size of a terminal is the user's own; it comes after the terminal does.
		kubectl := c.command(t.Context(), "-n", ns, "exec", "-it", "talks", "-c", "main", "--", "sh", "-c", "for i in $(seq 100); do stty size | grep 77 && break; sleep 0.2; done")
		script := exec.CommandContext(t.Context(), "script", "-qec", "stty rows 33 cols 77; sleep 0.2; '"+strings.Join(kubectl.Args, "' '")+"'", "/dev/null")
		script.Env = kubectl.Env
		if out, err := script.CombinedOutput(); err != nil || !strings.Contains(string(out), "33 77") {
			t.Errorf("the size of the terminal is %q, %v", out, err)
		}
	})
}

// TestLargeForward carries 100 MB through a port-forward.
func TestLargeForward(t *testing.T) {
	needsContainers(t)
	each(t, func(t *testing.T, c client, ns string) {
		c.run(t, "-n", ns, "run", "large", "--image="+shellImage, "--restart=Never", "--", "sh", "-c",
			"mkdir /tmp/www && dd if=/dev/urandom of=/tmp/www/large bs=1M count=100 2>/dev/null && touch /tmp/there && httpd -f -p 8080 -h /tmp/www")
		c.shows(t, []string{"-n", ns, "exec", "large", "--", "sh", "-c", "test -e /tmp/there && nc 127.0.0.1 8080 < /dev/null && echo serves"}, "serves")
		want, _, _ := strings.Cut(c.run(t, "-n", ns, "exec", "large", "--", "sha256sum", "/tmp/www/large"), " ")
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := c.command(ctx, "-n", ns, "port-forward", "pod/large", ":8080")
		var says lockedBuffer
		cmd.Stdout, cmd.Stderr = &says, &says
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}()
		var address string
		eventually(t, "port-forward", func() error {
			if address = regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(says.String()); address == "" {
				return fmt.Errorf("says %q", says.String())
			}
			return nil
		})
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/large", nil)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatalf("through the port-forward: %v\n%s", err, says.String())
		}
		defer response.Body.Close()
		sum := sha256.New()
		n, err := io.Copy(sum, response.Body)
		if err != nil || fmt.Sprintf("%x", sum.Sum(nil)) != want {
			t.Errorf("%d bytes came, %v, and they are not those that were sent\n%s", n, err, says.String())
		}
		t.Logf("%d MB in %v", n>>20, time.Since(began).Round(time.Millisecond))
	})
}
