package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"vivarium.io/vivarium/internal/kubetest"
	"vivarium.io/vivarium/internal/localcluster"
)

// transports are the two ways in which kubectl reaches into a container: its default, and what it did before.
var transports = map[string][]string{
	"WebSocket": {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true", "KUBECTL_PORT_FORWARD_WEBSOCKETS=true"},
	"SPDY":      {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false", "KUBECTL_PORT_FORWARD_WEBSOCKETS=false"},
}

// with gives the same user another program and environment.
func (c client) with(program string, env ...string) client {
	c.program, c.env = program, env
	return c
}

// TestStreams reaches into containers with the kubectls of four minors over both of their protocols.
func TestStreams(t *testing.T) {
	needsContainers(t)
	each(t, func(t *testing.T, c client, ns string) {
		c.run(t, "-n", ns, "run", "web", "--image="+echoImage)
		// Its stdin outlives whoever attaches to it.
		c.apply(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"cat","namespace":"`+ns+`"},"spec":{"containers":[{"name":"cat","image":"`+shellImage+`","stdin":true,"command":["cat"]}]}}`)
		c.run(t, "-n", ns, "wait", "--for=condition=Ready", "pod/web", "pod/cat", "--timeout=3m")
		for _, name := range kubetest.Kubectls {
			for protocol, env := range transports {
				if protocol == "SPDY" && name != kubetest.Kubectls[0] && name != localcluster.Kubectl {
					continue // the same code in the minors between
				}
				t.Run(name+" "+protocol, func(t *testing.T) {
					c := c.with(kubetest.Client(t, name), env...)
					out, err := c.try(t, "typed\n", "-n", ns, "exec", "-i", "web", "--", "sh", "-c", "cat; echo err >&2; exit 7")
					var exit *exec.ExitError
					if !asExit(err, &exit) || exit.ExitCode() != 7 || !strings.Contains(out, "typed\n") || !strings.Contains(out, "err\n") {
						t.Errorf("exec: %v, %q; want exit code 7, what was typed and both streams", err, out)
					}
					copies(t, c, ns)
					forward(t, c, ns, "pod/web", ":8080", "web")
					types(t, c, strings.ReplaceAll(name+protocol, ".", "-"), "-n", ns, "attach", "-i", "cat")
				})
			}
		}
	})
}

// copies copies a directory into a container and a file out again.
func copies(t *testing.T, c client, ns string) {
	t.Helper()
	from, to := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(from, "dir", "deeper"), 0o755); err != nil {
		t.Fatal(err)
	}
	content := strings.Repeat(c.name+" ", 50_000)
	if err := os.WriteFile(filepath.Join(from, "dir", "deeper", "file"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	c.run(t, "-n", ns, "exec", "web", "--", "rm", "-rf", "/tmp/dir")
	c.run(t, "-n", ns, "cp", filepath.Join(from, "dir"), "web:/tmp/dir")
	c.run(t, "cp", ns+"/web:/tmp/dir/deeper/file", filepath.Join(to, "file"))
	if got, err := os.ReadFile(filepath.Join(to, "file")); err != nil || string(got) != content {
		t.Errorf("%d bytes came back of %d, %v", len(got), len(content), err)
	}
}

// forward asks a pod something through a port-forward to it, or to what leads to it.
func forward(t *testing.T, c client, ns, target, port, pod string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := c.command(ctx, "-n", ns, "port-forward", target, port)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var says lockedBuffer
	cmd.Stderr = &says
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("port-forward: %v\n%s", err, says.String())
	}
	for i := range 3 {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line)+"/"+fmt.Sprint(i), nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Close = true // each over a stream of its own
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatalf("through the port-forward: %v\n%s", err, says.String())
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if !strings.Contains(string(body), pod) {
			t.Errorf("the answer through the port-forward is not the pod's:\n%s", body)
		}
	}
}

// types types a word until it is said again. A container runtime may cut the output when the input ends, so it stays open.
func types(t *testing.T, c client, word string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := c.command(ctx, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	eventually(t, strings.Join(args, " "), func() error {
		if _, err := io.WriteString(in, word+"\n"); err != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
		if !strings.Contains(out.String(), word) {
			return fmt.Errorf("says %q", out.String())
		}
		return nil
	})
}

// TestDebug looks into pods as people do: with a container put beside the others, with a changed copy, and not at all
// where that would be a node's affair.
func TestDebug(t *testing.T) {
	needsContainers(t)
	each(t, func(t *testing.T, c client, ns string) {
		c.run(t, "-n", ns, "run", "web", "--image="+echoImage)
		c.run(t, "-n", ns, "wait", "--for=condition=Ready", "pod/web", "--timeout=3m")
		for _, name := range []string{kubetest.Kubectls[0], localcluster.Kubectl} {
			c := c.with(kubetest.Client(t, name))
			beside := "beside-" + strings.ReplaceAll(name, ".", "-")
			types(t, c, "hello", "-n", ns, "debug", "web", "-i", "-c", beside, "--profile=baseline", "--image="+shellImage, "--", "sh", "-c", "hostname; cat")
			c.shows(t, []string{"-n", ns, "logs", "web", "-c", beside}, "web\n", "hello\n")
			c.shows(t, []string{"-n", ns, "describe", "pod", "web"}, "Ephemeral Containers:", beside)
		}
		// What kubectl adds by itself since 1.36, no tenant may have.
		c.fails(t, "", []string{"-n", ns, "debug", "web", "--image=" + shellImage, "--", "true"}, "violates PodSecurity", "SYS_PTRACE")
		c.run(t, "-n", ns, "debug", "web", "--profile=baseline", "--copy-to=copy", "--container=web", "--image="+shellImage, "--", "sh", "-c", "echo copied; sleep 1000")
		c.shows(t, []string{"-n", ns, "logs", "copy"}, "copied")
		c.fails(t, "", []string{"-n", ns, "debug", "web", "--profile=baseline", "--copy-to=same", "--same-node", "--set-image=*=" + echoImage}, "pods are placed by the scheduler")
		c.run(t, "-n", ns, "debug", "web", "--profile=baseline", "--copy-to=same", "--set-image=*="+echoImage, "--share-processes")
		c.run(t, "-n", ns, "wait", "--for=condition=Ready", "pod/same", "--timeout=3m")
		node := c.lines(t, "get", "nodes", "-o", "name")[0]
		c.fails(t, "", []string{"-n", ns, "debug", node, "--image=" + shellImage, "--profile=sysadmin", "--", "true"}, "pods are placed by the scheduler")
	})
}

// TestShortLived runs pods that end with their command, and reads what was said about them.
func TestShortLived(t *testing.T) {
	needsContainers(t)
	each(t, func(t *testing.T, c client, ns string) {
		for _, name := range []string{kubetest.Kubectls[0], localcluster.Kubectl} {
			c := c.with(kubetest.Client(t, name))
			pod := "short-" + strings.ReplaceAll(name, ".", "-")
			out, err := c.try(t, "first\nsecond\n", "-n", ns, "run", pod, "--image="+shellImage, "--restart=Never", "-i", "--rm", "-q", "--", "sh", "-c", "sleep 2; wc -l")
			if err != nil || !strings.Contains(out, "2") {
				t.Errorf("%s run -i --rm: %v\n%s", name, err, out)
			}
			c.fails(t, "", []string{"-n", ns, "get", "pod", pod}, `pods "`+pod+`" not found`)
			c.shows(t, []string{"-n", ns, "events", "--for=pod/" + pod}, "Started", "Pod/"+pod)
			c.shows(t, []string{"-n", ns, "get", "events", "--field-selector=involvedObject.name=" + pod}, "Started", "pod/"+pod)
		}
		if out := terminal(t, c, "-n", ns, "run", "tty", "--image="+shellImage, "--restart=Never", "-it", "--rm", "--", "sh", "-c", "sleep 2; test -t 0 && echo is-a-terminal"); !strings.Contains(out, "is-a-terminal") {
			t.Errorf("run -it --rm: %q", out)
		}
	})
}

// TestHelmHooks installs a chart whose hooks run containers, and runs its tests: one tenant with Helm 4, one with Helm 3.
func TestHelmHooks(t *testing.T) {
	needsContainers(t)
	each(t, func(t *testing.T, c client, ns string) {
		chart := filepath.Join(root(), "gateway", "testdata", "shop")
		helm := c.with(kubetest.Client(t, map[string]string{red: localcluster.Helm, blu: localcluster.Helm3}[c.name]))
		migrated := func(to string) {
			t.Helper()
			if out := c.run(t, "-n", ns, "logs", "job/shop-migrate"); !strings.Contains(out, "migrated to "+to) {
				t.Errorf("the hook's log: %q", out)
			}
		}
		helm.run(t, "-n", ns, "install", "shop", chart, "--set=jobs=true,replicas=1", "--wait", "--timeout=3m")
		migrated("hello")
		forward(t, c, ns, "service/shop", ":80", "shop")
		helm.run(t, "-n", ns, "upgrade", "shop", chart, "--set=jobs=true,replicas=2,message=more", "--wait", "--timeout=3m")
		migrated("more")
		if out := helm.run(t, "-n", ns, "test", "shop", "--logs", "--timeout=3m"); !strings.Contains(out, "tested") {
			t.Errorf("helm test: %s", out)
		}
		helm.run(t, "-n", ns, "rollback", "shop", "1", "--wait", "--timeout=3m")
		eventually(t, "one replica after the rollback", func() error {
			if got := c.run(t, "-n", ns, "get", "deployment", "shop", "-o", "jsonpath={.status.readyReplicas} {.status.replicas}"); got != "1 1" {
				return fmt.Errorf("%q", got)
			}
			return nil
		})
		helm.run(t, "-n", ns, "uninstall", "shop", "--wait", "--timeout=3m")
	})
}
