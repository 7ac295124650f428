package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/node/api"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/internal/names"
)

// startKubelet registers a node of the platform and serves its kubelet API with virtual-kubelet's own handlers: the
// protocols on the wire are real, the containers are not.
func startKubelet(t *testing.T, w *world, node string) {
	t.Helper()
	handler := api.PodHandler(api.PodHandlerConfig{
		RunInContainer: func(_ context.Context, namespace, pod, container string, cmd []string, attach api.AttachIO) error {
			_, _ = fmt.Fprintf(attach.Stdout(), "%s/%s/%s runs %s\n", namespace, pod, container, strings.Join(cmd, " "))
			if stdin := attach.Stdin(); stdin != nil {
				_, _ = io.Copy(attach.Stdout(), stdin)
			}
			return nil
		},
		AttachToContainer: func(_ context.Context, _, pod, _ string, attach api.AttachIO) error {
			_, _ = fmt.Fprintf(attach.Stdout(), "attached to %s\n", pod)
			return nil
		},
		PortForward: func(_ context.Context, namespace, pod string, port int32, stream io.ReadWriteCloser) error {
			switch port {
			case 8080:
				return serveInPod(pod, stream)
			case 8081:
				return fmt.Errorf("connect to 10.1.2.3 of %s: connection refused", namespace)
			}
			line, err := bufio.NewReader(stream).ReadString('\n')
			if err == nil {
				_, err = fmt.Fprintf(stream, "port %d got %s", port, line)
			}
			return err
		},
		GetContainerLogs: func(_ context.Context, _, pod, container string, opts api.ContainerLogOpts) (io.ReadCloser, error) {
			r, lines := io.Pipe()
			go func() {
				_, _ = fmt.Fprintf(lines, "log of %s/%s, tail %d\n", pod, container, opts.Tail)
				if opts.Follow {
					time.Sleep(200 * time.Millisecond)
					_, _ = io.WriteString(lines, "another line\n")
				}
				_ = lines.Close()
			}()
			return r, nil
		},
		StreamIdleTimeout: time.Minute, StreamCreationTimeout: time.Minute,
	}, false)
	server := httptest.NewUnstartedServer(handler)
	pair := w.cluster.ServingPair(t, "127.0.0.1")
	certificate, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.StartTLS()
	t.Cleanup(server.Close)
	_, portText, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseInt(portText, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	object := createNode(t, w, node, map[string]string{names.LabelPool: "pool-a"})
	nodes := clientset(t, w.cluster.Config).CoreV1().Nodes()
	// A controller writes to a new node, too.
	patch := fmt.Sprintf(`{"status":{"addresses":[{"type":"InternalIP","address":"127.0.0.1"}],"daemonEndpoints":{"kubeletEndpoint":{"Port":%d}}}}`, port)
	if _, err := nodes.Patch(t.Context(), object.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
}

// createNode makes a Node that goes with the test: the cluster is shared.
func createNode(t *testing.T, w *world, name string, labels map[string]string) *corev1.Node {
	t.Helper()
	nodes := clientset(t, w.cluster.Config).CoreV1().Nodes()
	node, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := nodes.Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	return node
}

// TestContainers runs kubectl exec, attach, port-forward and logs over every protocol that they speak.
func TestContainers(t *testing.T) {
	w := theWorld(t)
	kubeconfig, other := w.tenant(t, "exec0a"), w.tenant(t, "exec0b")
	startKubelet(t, w, "pool-a-0")
	createNode(t, w, "operators-node", nil)
	eventually(t, "the default ServiceAccount", func() bool {
		_, err := w.run(kubeconfig, "", "get", "sa", "default")
		return err == nil
	})
	w.must(t, kubeconfig, "", "run", "p", "--image=vivarium.test/echo:v1")
	admin := clientset(t, w.cluster.Config)
	if err := admin.CoreV1().Pods("exec0a-default").Bind(t.Context(), &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: "p"}, Target: corev1.ObjectReference{Kind: "Node", Name: "pool-a-0"},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// attach and port-forward want a pod that runs.
	if _, err := admin.CoreV1().Pods("exec0a-default").Patch(t.Context(), "p", types.MergePatchType, []byte(`{"status":{"phase":"Running","containerStatuses":[{"name":"p","ready":true,"restartCount":0,"image":"i","imageID":"i","state":{"running":{}}}],"conditions":[{"type":"Ready","status":"True"}]}}`), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}

	t.Run("Nodes", func(t *testing.T) {
		if out := w.must(t, kubeconfig, "", "get", "nodes", "-o", "name"); out != "node/pool-a-0\n" {
			t.Errorf("nodes are %s", out)
		}
		for _, output := range []string{"yaml", "wide", "name"} {
			if out := w.must(t, kubeconfig, "", "get", "node", "pool-a-0", "-o", output); !strings.Contains(out, "pool-a-0") || strings.Contains(out, "vivarium.io") {
				t.Errorf("the node is %s", out)
			}
		}
		w.must(t, kubeconfig, "", "describe", "node", "pool-a-0")
		if out := w.fails(t, kubeconfig, "", "get", "node", "operators-node"); !strings.Contains(out, `nodes "operators-node" not found`) {
			t.Error(out)
		}
		w.must(t, kubeconfig, "", "create", "clusterrole", "get-nodes", "--verb=get", "--resource=nodes")
		w.must(t, kubeconfig, "", "create", "clusterrole", "list-nodes", "--verb=list", "--resource=nodes")
		w.must(t, kubeconfig, "", "create", "clusterrolebinding", "getter", "--clusterrole=get-nodes", "--user=getter")
		w.must(t, kubeconfig, "", "create", "clusterrolebinding", "lister", "--clusterrole=list-nodes", "--user=lister")
		w.may(t, kubeconfig, "get", "nodes", "--as=getter")
		w.may(t, kubeconfig, "list", "nodes", "--as=lister")
		if out := w.must(t, kubeconfig, "", "get", "node", "pool-a-0", "-o", "name", "--as=getter"); out != "node/pool-a-0\n" {
			t.Errorf("who may get a node gets %s", out)
		}
		for _, name := range []string{"pool-a-0", "operators-node"} {
			if out := w.fails(t, kubeconfig, "", "get", "node", name, "--as=lister"); !strings.Contains(out, `User "lister" cannot get resource "nodes" in API group ""`) {
				t.Errorf("who may list nodes gets %s", out)
			}
		}
		if out := w.fails(t, kubeconfig, "", "get", "nodes", "--as=getter"); !strings.Contains(out, `User "getter" cannot list resource "nodes" in API group ""`) {
			t.Errorf("who may get nodes lists %s", out)
		}
		for _, name := range []string{"pool-a-0", "operators-node", "none"} {
			out := w.fails(t, kubeconfig, "", "create", "token", "default", "--bound-object-kind=Node", "--bound-object-name="+name)
			if !strings.Contains(out, "a token can be bound to a Pod or a Secret") {
				t.Errorf("a token for node %s: %s", name, out)
			}
		}
		for _, name := range []string{"operators-node", "none"} {
			out := w.fails(t, w.control, "", "-n", "exec0a-default", "create", "token", "default", "--audience=x", "--bound-object-kind=Node", "--bound-object-name="+name)
			if !strings.Contains(out, "a token must not be bound to a node") {
				t.Errorf("in control, a token for node %s: %s", name, out)
			}
		}
		w.must(t, kubeconfig, "", "create", "token", "default", "--bound-object-kind=Pod", "--bound-object-name=p")
		if out := w.fails(t, kubeconfig, "", "label", "node", "pool-a-0", "a=b"); !strings.Contains(out, "nodes are the platform's") {
			t.Error(out)
		}
	})
	for name, environment := range map[string]string{"WebSocket": "true", "SPDY": "false"} {
		kubectl := func(stdin string, args ...string) (string, error) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, w.kubectl, append([]string{"--kubeconfig", kubeconfig}, args...)...)
			cmd.Env = append(os.Environ(), "KUBECTL_REMOTE_COMMAND_WEBSOCKETS="+environment, "KUBECTL_PORT_FORWARD_WEBSOCKETS="+environment)
			cmd.Stdin = strings.NewReader(stdin)
			out, err := cmd.CombinedOutput()
			return string(out), err
		}
		t.Run(name, func(t *testing.T) {
			if out, err := kubectl("", "exec", "p", "--", "ls", "-l"); err != nil || out != "exec0a-default/p/p runs ls -l\n" {
				t.Errorf("exec: %q %v", out, err)
			}
			if out, err := kubectl("typed\n", "exec", "-i", "p", "--", "cat"); err != nil || out != "exec0a-default/p/p runs cat\ntyped\n" {
				t.Errorf("exec -i: %q %v", out, err)
			}
			if out, err := kubectl("", "attach", "p"); err != nil || !strings.Contains(out, "attached to p\n") {
				t.Errorf("attach: %q %v", out, err)
			}
			if out, err := kubectl("", "exec", "missing", "--", "ls"); err == nil || !strings.Contains(out, `pods "missing" not found`) {
				t.Errorf("exec into a missing pod: %q %v", out, err)
			}
			if out, err := kubectl("", "--as=bob", "exec", "p", "--", "ls"); err == nil || strings.Contains(out, "exec0a") || !strings.Contains(out, `"bob" cannot`) {
				t.Errorf("exec without the right: %q %v", out, err)
			}
			portForward(t, w, kubeconfig, environment)
		})
	}
	t.Run("GetIsNotEnough", func(t *testing.T) {
		// A WebSocket starts with a GET; what it does takes the right to create, whoever has the right to get.
		w.must(t, kubeconfig, "", "create", "role", "look", "--verb=get", "--resource=pods,pods/exec,pods/attach,pods/portforward")
		w.must(t, kubeconfig, "", "create", "rolebinding", "look", "--role=look", "--user=carol")
		w.may(t, kubeconfig, "get", "pods", "--as=carol")
		if out := w.fails(t, kubeconfig, "", "--as=carol", "exec", "p", "--", "ls"); !strings.Contains(out, `User "carol" cannot create resource "pods/exec"`) {
			t.Error(out)
		}
		w.must(t, kubeconfig, "", "--as=carol", "get", "pod", "p")
	})
	t.Run("Logs", func(t *testing.T) {
		if out := w.must(t, kubeconfig, "", "logs", "p", "--tail=5"); out != "log of p/p, tail 5\n" {
			t.Errorf("logs: %q", out)
		}
		if out := w.must(t, kubeconfig, "", "logs", "p", "-f"); !strings.HasSuffix(out, "another line\n") {
			t.Errorf("logs -f: %q", out)
		}
		if out := w.fails(t, kubeconfig, "", "logs", "p", "-c", "nosuch"); !strings.Contains(out, "nosuch") || strings.Contains(out, "exec0a") {
			t.Errorf("logs of a missing container: %q", out)
		}
	})
	t.Run("OtherTenant", func(t *testing.T) {
		for _, args := range [][]string{{"exec", "p", "--", "ls"}, {"logs", "p"}, {"attach", "p"}, {"-n", "exec0a-default", "exec", "p", "--", "ls"}, {"-n", "exec0a-default", "logs", "p"}} {
			if out := w.fails(t, other, "", args...); !strings.Contains(out, "not found") {
				t.Errorf("%v: %s", args, out)
			}
		}
	})
	t.Run("Eviction", func(t *testing.T) {
		out := w.must(t, kubeconfig, `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p","namespace":"default"}}`,
			"create", "--raw", "/api/v1/namespaces/default/pods/p/eviction?dryRun=All", "-f", "-")
		if strings.Contains(out, "exec0a") {
			t.Error(out)
		}
	})
}

func portForward(t *testing.T, w *world, kubeconfig, webSockets string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.kubectl, "--kubeconfig", kubeconfig, "port-forward", "--address=127.0.0.1", "pod/p", ":80")
	cmd.Env = append(os.Environ(), "KUBECTL_PORT_FORWARD_WEBSOCKETS="+webSockets)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("port-forward says %q, %v", line, err)
	}
	address, _, _ := strings.Cut(strings.TrimPrefix(line, "Forwarding from "), " ")
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(soon)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := bufio.NewReader(conn).ReadString('\n'); err != nil || answer != "port 80 got hello\n" {
		t.Errorf("port-forward: %q %v", answer, err)
	}
}
