package e2e

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// Images that `vivarium up` puts on every local node.
const (
	echoImage    = "vivarium.test/echo:v1"
	shellImage   = "vivarium.test/shell:v1"
	kubectlImage = "vivarium.test/kubectl:v1"
)

// TestNamespaces is the first thing a tenant types.
func TestNamespaces(t *testing.T) {
	for _, id := range []string{red, blu} {
		got := tenant(id).lines(t, "get", "namespaces", "-o", "jsonpath={.items[*].metadata.name}")
		for _, want := range []string{"default", "kube-node-lease", "kube-public", "kube-system"} {
			if !slices.Contains(got, want) {
				t.Errorf("%s: namespaces %v lack %s", id, got, want)
			}
		}
		for _, ns := range got {
			if strings.Contains(ns, "vivarium") {
				t.Errorf("%s: sees the platform's namespace %s", id, ns)
			}
		}
	}
}

// TestDeployment walks a Deployment through its life with the commands of a first day.
func TestDeployment(t *testing.T) {
	needsContainers(t)
	each(t, func(t *testing.T, c client, ns string) {
		c.run(t, "-n", ns, "create", "deployment", "web", "--image="+echoImage, "--replicas=4")
		c.run(t, "-n", ns, "rollout", "status", "deployment/web", "--timeout=3m")

		wide := c.run(t, "-n", ns, "get", "pods", "-o", "wide")
		for _, name := range poolNames(t) {
			if !strings.Contains(wide, name) {
				t.Errorf("the pods are not spread over all pools, %s has none:\n%s", name, wide)
			}
		}
		// The containers are really there, seen by the pools' own administrators under the names of the control cluster.
		inPools := 0
		for _, name := range poolNames(t) {
			inPools += len(pool(name).lines(t, "-n", c.name+"-"+ns, "get", "pods", "--field-selector=status.phase=Running", "-o", "name"))
		}
		if inPools != 4 {
			t.Errorf("the pools run %d containers of the Deployment, want 4", inPools)
		}

		name := c.lines(t, "-n", ns, "get", "pods", "-o", "jsonpath={.items[0].metadata.name}")[0]
		streams(t, c, ns, name)

		c.run(t, "-n", ns, "scale", "deployment/web", "--replicas=2")
		eventually(t, "scale down", func() error {
			if pods := c.lines(t, "-n", ns, "get", "pods", "-o", "name"); len(pods) != 2 {
				return fmt.Errorf("pods %v", pods)
			}
			return nil
		})
		first := c.run(t, "-n", ns, "get", "rs", "-o", "name")
		c.run(t, "-n", ns, "rollout", "restart", "deployment/web")
		c.run(t, "-n", ns, "rollout", "status", "deployment/web", "--timeout=3m")
		if second := c.run(t, "-n", ns, "get", "rs", "-o", "name"); second == first {
			t.Errorf("rollout restart made no new ReplicaSet:\n%s", second)
		}
		c.run(t, "-n", ns, "rollout", "undo", "deployment/web")
		c.run(t, "-n", ns, "rollout", "status", "deployment/web", "--timeout=3m")
		if history := c.run(t, "-n", ns, "rollout", "history", "deployment/web"); !strings.Contains(history, "3") {
			t.Errorf("rollout undo left no third revision:\n%s", history)
		}
		c.run(t, "-n", ns, "delete", "deployment", "web", "--cascade=foreground")
		eventually(t, "delete", func() error {
			if pods := c.run(t, "-n", ns, "get", "pods", "-o", "name"); pods != "" {
				return fmt.Errorf("pods left: %s", pods)
			}
			return nil
		})
		for _, name := range poolNames(t) {
			if left := pool(name).lines(t, "-n", c.name+"-"+ns, "get", "pods", "-o", "name"); len(left) > 0 {
				t.Errorf("%s still holds %v", name, left)
			}
		}
	})
}

// streams tries everything that holds a connection to a running pod.
func streams(t *testing.T, c client, ns, pod string) {
	t.Helper()
	if got := c.run(t, "-n", ns, "exec", pod, "--", "/echo", "-version"); !strings.Contains(got, "echo") {
		t.Errorf("exec: %q", got)
	}

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	forward := c.command(ctx, "-n", ns, "port-forward", "pod/"+pod, ":8080")
	out, err := forward.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := forward.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = forward.Process.Kill()
		_ = forward.Wait()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("port-forward: %v", err)
	}
	address := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line)
	marker := "marker-" + c.name[:3]
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/"+marker, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatalf("through the port-forward: %v", err)
	}
	body, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if !strings.Contains(string(body), pod) {
		t.Errorf("the answer through the port-forward is not the pod's:\n%s", body)
	}

	// logs -f shows what was written before and what comes after it began.
	follow := c.command(ctx, "-n", ns, "logs", "-f", pod)
	logs, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = follow.Process.Kill()
		_ = follow.Wait()
	}()
	found := make(chan string, 2)
	go func() {
		scanner := bufio.NewScanner(logs)
		for scanner.Scan() {
			for _, want := range []string{"/" + marker, "/after-" + marker} {
				if strings.Contains(scanner.Text(), want) {
					found <- want
				}
			}
		}
		close(found)
	}()
	wait := func(want string) {
		t.Helper()
		select {
		case got, ok := <-found:
			if !ok || got != want {
				t.Fatalf("logs -f gave %q, want the line of %s", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("logs -f never showed %s", want)
		}
	}
	wait("/" + marker)
	request.URL.Path = "/after-" + marker
	if response, err = http.DefaultClient.Do(request); err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	wait("/after-" + marker)
}

// TestExec holds the details of exec and attach that scripts and people rely on.
func TestExec(t *testing.T) {
	needsContainers(t)
	each(t, func(t *testing.T, c client, ns string) {
		c.run(t, "-n", ns, "run", "sh", "--image="+shellImage, "--restart=Never", "--", "sh", "-c", "trap exit TERM; while true; do sleep 1; done")
		c.run(t, "-n", ns, "wait", "--for=condition=Ready", "pod/sh", "--timeout=3m")

		out, err := c.try(t, "", "-n", ns, "exec", "sh", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
		var exit *exec.ExitError
		if !asExit(err, &exit) || exit.ExitCode() != 7 || !strings.Contains(out, "out") || !strings.Contains(out, "err") {
			t.Errorf("exec: %v, %q; want exit code 7 and both streams", err, out)
		}
		if out, err := c.try(t, "one\ntwo\n", "-n", ns, "exec", "-i", "sh", "--", "wc", "-l"); err != nil || strings.TrimSpace(out) != "2" {
			t.Errorf("exec -i with stdin that ends: %v, %q", err, out)
		}
		if out := terminal(t, c, "-n", ns, "exec", "-it", "sh", "--", "sh", "-c", "test -t 0 && test -t 1 && echo is-a-terminal"); !strings.Contains(out, "is-a-terminal") {
			t.Errorf("exec -it: %q", out)
		}
		if host := strings.TrimSpace(c.run(t, "-n", ns, "exec", "sh", "--", "hostname")); host != "sh" {
			t.Errorf("hostname is %q, want the pod's name", host)
		}
		c.fails(t, "", []string{"-n", ns, "exec", "nothere", "--", "true"}, `pods "nothere" not found`)
		if out, err := c.try(t, "hello\n", "-n", ns, "run", "attached", "--image="+shellImage, "--restart=Never", "-i", "--rm", "--", "cat"); err != nil || !strings.Contains(out, "hello") {
			t.Errorf("run -i, which attaches: %v, %q", err, out)
		}
		c.run(t, "-n", ns, "cp", "../go.mod", ns+"/sh:/tmp/go.mod")
		if out := c.run(t, "-n", ns, "exec", "sh", "--", "head", "-1", "/tmp/go.mod"); !strings.Contains(out, "module") {
			t.Errorf("cp: %q", out)
		}
	})
}

// TestWatch sees a pod come and go on an open watch.
func TestWatch(t *testing.T) {
	each(t, func(t *testing.T, c client, ns string) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for name, args := range map[string][]string{
			"Namespace":     {"-n", ns, "get", "configmaps", "-o", "name", "--watch-only"},
			"AllNamespaces": {"get", "configmaps", "-A", "-o", "wide", "--watch-only"},
		} {
			watch := c.command(ctx, args...)
			var seen lockedBuffer
			watch.Stdout, watch.Stderr = &seen, &seen
			if err := watch.Start(); err != nil {
				t.Fatal(err)
			}
			object := "seen-" + strings.ToLower(name)
			eventually(t, name, func() error {
				c.run(t, "-n", ns, "create", "configmap", object)
				c.run(t, "-n", ns, "delete", "configmap", object)
				if !strings.Contains(seen.String(), object) {
					return fmt.Errorf("the watch shows nothing of it: %q", seen.String())
				}
				return nil
			})
			_ = watch.Process.Kill()
			_ = watch.Wait()
			c.inspect(t, seen.String(), args)
		}
	})
}

// TestJobs runs a Job to its end and sees a CronJob fire.
func TestJobs(t *testing.T) {
	needsContainers(t)
	each(t, func(t *testing.T, c client, ns string) {
		c.run(t, "-n", ns, "create", "cronjob", "tick", "--image="+shellImage, "--schedule=* * * * *", "--", "sh", "-c", "echo tick")
		c.run(t, "-n", ns, "create", "job", "once", "--image="+shellImage, "--", "sh", "-c", "echo done-once")
		c.run(t, "-n", ns, "wait", "--for=condition=Complete", "job/once", "--timeout=3m")
		if out := c.run(t, "-n", ns, "logs", "job/once"); !strings.Contains(out, "done-once") {
			t.Errorf("logs of the finished Job: %q", out)
		}
		c.apply(t, `{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"fails","namespace":"`+ns+`"},"spec":{"backoffLimit":0,"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"`+shellImage+`","command":["sh","-c","exit 3"]}]}}}}`)
		c.run(t, "-n", ns, "wait", "--for=condition=Failed", "job/fails", "--timeout=3m")
		if code := c.run(t, "-n", ns, "get", "pods", "-l", "job-name=fails", "-o", "jsonpath={.items[0].status.containerStatuses[0].state.terminated.exitCode}"); code != "3" {
			t.Errorf("the failed Job's exit code is %q, want 3", code)
		}
		c.shows(t, []string{"-n", ns, "get", "jobs", "-o", `jsonpath={.items[?(@.metadata.ownerReferences[0].name=="tick")].status.succeeded}`}, "1")
	})
}

// TestStatefulSet checks that members keep their identity when they are replaced.
func TestStatefulSet(t *testing.T) {
	needsContainers(t)
	each(t, func(t *testing.T, c client, ns string) {
		c.apply(t, `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: `+ns+`}
spec:
  serviceName: db
  replicas: 3
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers:
      - {name: db, image: `+echoImage+`}
`)
		c.run(t, "-n", ns, "rollout", "status", "statefulset/db", "--timeout=3m")
		before := c.lines(t, "-n", ns, "get", "pods", "-l", "app=db", "-o", "jsonpath={.items[*].metadata.name}")
		slices.Sort(before)
		if !slices.Equal(before, []string{"db-0", "db-1", "db-2"}) {
			t.Fatalf("members are %v", before)
		}
		uid := c.run(t, "-n", ns, "get", "pod", "db-1", "-o", "jsonpath={.metadata.uid}")
		c.run(t, "-n", ns, "delete", "pod", "db-1")
		eventually(t, "db-1 comes back", func() error {
			out, err := c.try(t, "", "-n", ns, "get", "pod", "db-1", "-o", `jsonpath={.metadata.uid} {.status.conditions[?(@.type=="Ready")].status}`)
			if err != nil {
				return err
			}
			if strings.HasPrefix(out, uid) || !strings.HasSuffix(out, " True") {
				return fmt.Errorf("still %q", out)
			}
			return nil
		})
		uids := []string{"-n", ns, "get", "pods", "-l", "app=db", "--sort-by=.metadata.name", "-o", "jsonpath={.items[*].metadata.uid}"}
		old := c.lines(t, uids...)
		c.run(t, "-n", ns, "rollout", "restart", "statefulset/db")
		c.run(t, "-n", ns, "rollout", "status", "statefulset/db", "--timeout=3m")
		for i, now := range c.lines(t, uids...) {
			if now == old[i] {
				t.Errorf("db-%d was not replaced", i)
			}
		}
	})
}

// TestConfiguration brings a ConfigMap and a Secret into a pod as variables and files, and follows an update of the
// mounted one.
func TestConfiguration(t *testing.T) {
	needsContainers(t)
	each(t, func(t *testing.T, c client, ns string) {
		c.run(t, "-n", ns, "create", "configmap", "app", "--from-literal=greeting=hello-"+c.name[:3], "--from-literal=file.txt=first")
		c.run(t, "-n", ns, "create", "secret", "generic", "app", "--from-literal=password=s3cret-"+c.name[:3])
		c.apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: app, namespace: `+ns+`, labels: {tier: front}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: `+shellImage+`
    command: [sh, -c, "while true; do sleep 1; done"]
    env:
    - {name: GREETING, valueFrom: {configMapKeyRef: {name: app, key: greeting}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: app, key: password}}}
    - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
    - {name: TIER, valueFrom: {fieldRef: {fieldPath: "metadata.labels['tier']"}}}
    - {name: ACCOUNT, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
    envFrom:
    - {prefix: ALL_, configMapRef: {name: app}}
    volumeMounts:
    - {name: config, mountPath: /config}
    - {name: secret, mountPath: /secret}
  volumes:
  - {name: config, configMap: {name: app}}
  - {name: secret, secret: {secretName: app}}
`)
		c.run(t, "-n", ns, "wait", "--for=condition=Ready", "pod/app", "--timeout=3m")
		got := c.run(t, "-n", ns, "exec", "app", "--", "sh", "-c", `echo "$GREETING $PASSWORD $NAMESPACE $TIER $ACCOUNT $ALL_greeting $(cat /config/file.txt) $(cat /secret/password)"`)
		want := fmt.Sprintf("hello-%[1]s s3cret-%[1]s %[2]s front default hello-%[1]s first s3cret-%[1]s", c.name[:3], ns)
		if strings.TrimSpace(got) != want {
			t.Errorf("the pod sees %q, want %q", got, want)
		}
		c.run(t, "-n", ns, "patch", "configmap", "app", "--type=merge", "-p", `{"data":{"file.txt":"second"}}`)
		c.shows(t, []string{"-n", ns, "exec", "app", "--", "cat", "/config/file.txt"}, "second")
	})
}

// TestInPodAPI lists pods from inside a pod by its ServiceAccount, through the gateway, in the tenant's names.
func TestInPodAPI(t *testing.T) {
	needsContainers(t)
	each(t, func(t *testing.T, c client, ns string) {
		c.run(t, "-n", ns, "create", "role", "reader", "--verb=get,list", "--resource=pods")
		c.run(t, "-n", ns, "create", "rolebinding", "reader", "--role=reader", "--serviceaccount="+ns+":default")
		c.run(t, "-n", ns, "run", "inside", "--image="+kubectlImage, "--restart=Never", "--command", "--", "sh", "-c", "while true; do sleep 1; done")
		c.run(t, "-n", ns, "wait", "--for=condition=Ready", "pod/inside", "--timeout=3m")
		c.shows(t, []string{"-n", ns, "exec", "inside", "--", "kubectl", "get", "pods", "-o", "wide"}, "inside", "Running")
		if whoami := c.run(t, "-n", ns, "exec", "inside", "--", "kubectl", "auth", "whoami"); !strings.Contains(whoami, "system:serviceaccount:"+ns+":default") {
			t.Errorf("whoami inside the pod:\n%s", whoami)
		}
		if file := c.run(t, "-n", ns, "exec", "inside", "--", "cat", mounted+"/namespace"); file != ns {
			t.Errorf("the namespace file holds %q", file)
		}
		c.fails(t, "", []string{"-n", ns, "exec", "inside", "--", "kubectl", "get", "secrets"}, "forbidden")
		// Who made its token says so where the token says.
		var claims struct{ Iss string }
		if parts := strings.Split(c.run(t, "-n", ns, "exec", "inside", "--", "cat", mounted+"/token"), "."); len(parts) == 3 {
			raw, err := base64.RawURLEncoding.DecodeString(parts[1])
			if err := errors.Join(err, json.Unmarshal(raw, &claims)); err != nil {
				t.Fatal(err)
			}
		}
		c.shows(t, []string{"-n", ns, "exec", "inside", "--", "sh", "-c", asksIssuer(claims.Iss)}, `"issuer":"`+claims.Iss+`"`)
	})
}

// mounted is where a pod has its token and its tenant's authority.
const mounted = "/var/run/secrets/kubernetes.io/serviceaccount"

// asksIssuer has a pod ask the issuer of its token, trusting its tenant's authority, what it says of itself.
func asksIssuer(issuer string) string {
	return fmt.Sprintf(`kubectl --server=%s --certificate-authority=%s/ca.crt --token="$(cat %[2]s/token)" get --raw /.well-known/openid-configuration`, issuer, mounted)
}

// terminal runs kubectl with a pseudo-terminal of its own, as a person's shell would.
func terminal(t *testing.T, c client, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	kubectl := c.command(ctx, args...)
	quoted := make([]string, len(kubectl.Args))
	for i, a := range kubectl.Args {
		quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	script := exec.CommandContext(ctx, "script", "-qec", strings.Join(quoted, " "), "/dev/null")
	script.Env = kubectl.Env
	out, err := script.CombinedOutput()
	if err != nil {
		t.Errorf("%s in a terminal: %v\n%s", strings.Join(args, " "), err, out)
	}
	c.inspect(t, string(out), args)
	return string(out)
}
