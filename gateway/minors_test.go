package gateway

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vivarium.io/vivarium/internal/kubetest"
)

// The tenants that real clients work in, at the same time and under the same names.
const (
	clientsA = "kc7qxa"
	clientsB = "kc7qxb"
)

// command is one call of a client program and what must come of it.
type command struct {
	args  string // separated by spaces
	stdin string
	// says must all be in the output, in this order.
	says []string
	// exit is the code that the program must end with.
	exit int
}

// day is what a tenant may ask of any kubectl. NS is the namespace's name.
var day = []command{
	{args: "version", says: []string{"Server Version: v1."}},
	{args: "api-resources --sort-by=name", says: []string{"configmaps", "deployments", "pods"}},
	{args: "api-versions", says: []string{"apps/v1", "v1"}},
	{args: "explain deployment.spec.strategy.rollingUpdate", says: []string{"maxSurge"}},
	{args: "explain pod.spec --recursive", says: []string{"containers", "ephemeralContainers"}},
	{args: "auth whoami", says: []string{"admin", "system:masters"}},
	{args: "create ns NS", says: []string{"namespace/NS created"}},
	{args: "wait --for=jsonpath={.status.phase}=Active ns/NS --timeout=180s", says: []string{"condition met"}},
	{args: "describe ns NS", says: []string{"Name:", "NS", "Active"}},

	// Objects in every way that kubectl writes them.
	{args: "-n NS create configmap made --from-literal=a=b", says: []string{"configmap/made created"}},
	{args: "-n NS create -f - --save-config", stdin: "{apiVersion: v1, kind: Secret, metadata: {name: saved}, stringData: {k: v}}", says: []string{"secret/saved created"}},
	{args: "apply -f -", stdin: application, says: []string{"configmap/settings created", "service/app created", "deployment.apps/app created"}},
	{args: "apply -f -", stdin: application, says: []string{"configmap/settings unchanged", "service/app unchanged", "deployment.apps/app unchanged"}},
	{args: "diff -f -", stdin: application},
	{args: "diff -f -", stdin: changed, says: []string{"-  color: red", "+  color: blue"}, exit: 1},
	{args: "diff --server-side --field-manager=other --force-conflicts -f -", stdin: changed, says: []string{"color: blue"}, exit: 1},
	{args: "apply -f -", stdin: changed, says: []string{"configmap/settings configured", "service/app unchanged", "deployment.apps/app unchanged"}},
	{args: "apply view-last-applied -n NS cm/settings", says: []string{"color: blue"}},
	{args: "apply --server-side --field-manager=two -f -", stdin: application, says: []string{"conflict", `"kubectl-client-side-apply"`, ".data.color"}, exit: 1},
	{args: "apply --server-side --force-conflicts -f -", stdin: application, says: []string{"serverside-applied", "serverside-applied", "serverside-applied"}},
	{args: "-n NS get cm settings -o yaml --show-managed-fields", says: []string{"color: red", "manager: kubectl", "operation: Apply", "namespace: NS"}},
	{args: "apply --dry-run=server -f -", stdin: changed, says: []string{"(server dry run)"}},
	{args: "-n NS apply -l app=app --prune --prune-allowlist=core/v1/ConfigMap -f -", stdin: "{apiVersion: v1, kind: Service, metadata: {name: app, namespace: NS, labels: {app: app}}, spec: {selector: {app: app}, ports: [{port: 80}]}}", says: []string{"service/app", "configmap/settings pruned"}},
	{args: "replace -f -", stdin: "{apiVersion: v1, kind: ConfigMap, metadata: {name: made, namespace: NS}, data: {a: c}}", says: []string{"configmap/made replaced"}},
	{args: "replace --force -f -", stdin: "{apiVersion: v1, kind: ConfigMap, metadata: {name: made, namespace: NS}, data: {a: d}}", says: []string{"configmap/made replaced"}},
	{args: "-n NS edit cm made", says: []string{"configmap/made edited"}},
	{args: "-n NS get cm made -o jsonpath={.data.a}", says: []string{"dited"}},
	{args: "-n NS patch cm made -p {\"data\":{\"s\":\"strategic\"}}", says: []string{"patched"}},
	{args: "-n NS patch cm made --type=merge -p {\"data\":{\"m\":\"merge\",\"s\":null}}", says: []string{"patched"}},
	{args: "-n NS patch cm made --type=json -p [{\"op\":\"test\",\"path\":\"/metadata/namespace\",\"value\":\"NS\"},{\"op\":\"add\",\"path\":\"/data/j\",\"value\":\"json\"}]", says: []string{"patched"}},
	{args: "-n NS patch deployment app -p {\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"app\",\"env\":[{\"name\":\"X\",\"value\":\"y\"}]}]}}}}", says: []string{"patched"}},
	{args: "-n NS get cm made -o go-template={{.data.m}}{{.data.j}}{{.data.s}}", says: []string{"mergejson<no value>"}},
	{args: "-n NS label cm made tier=one", says: []string{"labeled"}},
	{args: "-n NS label cm --all --overwrite tier=two", says: []string{"labeled"}},
	{args: "label ns NS tier=one", says: []string{"namespace/NS labeled"}},
	{args: "-n NS annotate cm made note=hello", says: []string{"annotated"}},
	{args: "-n NS set env deployment/app COLOR=red", says: []string{"env updated"}},
	{args: "-n NS set image deployment/app app=vivarium.test/echo:v2", says: []string{"image updated"}},
	{args: "-n NS set serviceaccount deployment/app default", says: []string{"serviceaccount updated"}},
	{args: "-n NS expose deployment app --name=exposed --port=80", says: []string{"service/exposed exposed"}},
	{args: "-n NS run lone --image=vivarium.test/echo:v1", says: []string{"pod/lone created"}},
	{args: "auth reconcile -f -", stdin: "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: reader, namespace: NS}, rules: [{apiGroups: [''], resources: [pods], verbs: [get, list]}]}", says: []string{"role.rbac.authorization.k8s.io/reader reconciled"}},
	{args: "-n NS create rolebinding reader --role=reader --serviceaccount=NS:default", says: []string{"created"}},
	{args: "auth can-i list pods -n NS --as=system:serviceaccount:NS:default", says: []string{"yes"}},
	{args: "auth can-i create pods -n NS --as=system:serviceaccount:NS:default", says: []string{"no"}, exit: 1},
	{args: "auth can-i --list -n NS", says: []string{"*.*"}},

	// A Deployment's life; nothing runs, for the cluster has no nodes.
	{args: "-n NS scale deployment/app --replicas=3 --current-replicas=2", says: []string{"scaled"}},
	{args: "-n NS wait --for=jsonpath={.status.replicas} deployment/app --timeout=180s", says: []string{"condition met"}},
	{args: "-n NS get deployment app --subresource=scale -o jsonpath={.spec.replicas}", says: []string{"3"}},
	{args: "-n NS rollout pause deployment/app", says: []string{"paused"}},
	{args: "-n NS rollout resume deployment/app", says: []string{"resumed"}},
	{args: "-n NS rollout restart deployment/app", says: []string{"restarted"}},
	{args: "-n NS rollout history deployment/app", says: []string{"REVISION", "2"}},
	{args: "-n NS rollout undo deployment/app", says: []string{"rolled back"}},
	{args: "-n NS scale deployment/app --replicas=0", says: []string{"scaled"}},
	{args: "-n NS rollout status deployment/app --timeout=180s", says: []string{"successfully rolled out"}},
	{args: "-n NS wait --for=condition=Available deployment/app --timeout=180s", says: []string{"condition met"}},
	{args: "-n NS describe deployment app", says: []string{"Namespace:", "NS", "ScalingReplicaSet"}},
	{args: "-n NS describe pod lone", says: []string{"Namespace:", "NS", "vivarium.test/echo:v1"}},
	{args: "-n NS events --for=deployment/app", says: []string{"ScalingReplicaSet", "Deployment/app"}},
	{args: "events -A --types=Normal", says: []string{"NS", "ScalingReplicaSet"}},

	// Reading.
	{args: "get cm,svc,deploy -A", says: []string{"configmap/made", "service/app", "deployment.apps/app"}},
	{args: "get cm -A --chunk-size=2 -o name", says: []string{"configmap/made"}},
	{args: "-n NS get pods -o wide", says: []string{"NOMINATED NODE", "lone"}},
	{args: "get pods -A -o custom-columns=WHERE:.metadata.namespace,WHAT:.metadata.name,OWNER:.metadata.ownerReferences[0].name", says: []string{"WHERE", "NS", "lone", "<none>"}},
	{args: "-n NS get all -l app=app --show-labels", says: []string{"service/app", "deployment.apps/app", "app=app"}},
	{args: "get ns -l kubernetes.io/metadata.name=NS -o name", says: []string{"namespace/NS"}},
	{args: "get cm -A --field-selector=metadata.name=made,metadata.namespace=NS -o yaml", says: []string{"name: made", "namespace: NS", "kind: List"}},
	{args: "get cm -A --field-selector=metadata.name=made --sort-by=.metadata.creationTimestamp", says: []string{"NS", "made"}},
	{args: "-n NS get cm made missing", says: []string{"made", `configmaps "missing" not found`}, exit: 1},
	{args: "get --raw /api/v1/namespaces/NS/configmaps/made", says: []string{`"namespace":"NS"`}},
	{args: "cluster-info dump --namespaces=NS -o yaml", says: []string{"kind: DeploymentList", "name: lone"}},
	{args: "-n NS top pods", says: []string{"Metrics API not available"}, exit: 1},
	{args: "top nodes", says: []string{"Metrics API not available"}, exit: 1},

	// A kind of one's own.
	{args: "apply -f -", stdin: gadgets, says: []string{"customresourcedefinition.apiextensions.k8s.io/gadgets.NS.example.com created"}},
	{args: "wait --for=condition=Established crd/gadgets.NS.example.com --timeout=180s", says: []string{"condition met"}},
	{args: "api-resources --api-group=NS.example.com", says: []string{"gadgets", "gd", "NS.example.com/v1", "true", "Gadget"}},
	{args: "explain gadgets.spec --api-version=NS.example.com/v1", says: []string{"NS.example.com", "Gadget", "how large it is"}},
	{args: "apply -f -", stdin: gadget, says: []string{"gadget.NS.example.com/one created"}},
	{args: "apply -f -", stdin: gadget, says: []string{"unchanged"}},
	{args: "diff -f -", stdin: gadget},
	{args: "-n NS get gadgets.NS.example.com", says: []string{"NAME", "SIZE", "one", "3"}},
	{args: "-n NS patch gadgets.NS.example.com one --type=merge -p {\"spec\":{\"size\":4}}", says: []string{"patched"}},
	{args: "-n NS wait --for=jsonpath={.spec.size}=4 gadgets.NS.example.com/one --timeout=180s", says: []string{"condition met"}},
	{args: "apply --server-side --force-conflicts -f -", stdin: gadget, says: []string{"serverside-applied"}},
	{args: "-n NS scale gadgets.NS.example.com one --replicas=5", says: []string{"scaled"}},
	{args: "-n NS get gadgets.NS.example.com one -o yaml --show-managed-fields", says: []string{"apiVersion: NS.example.com/v1", "manager: kubectl", "namespace: NS", "size: 5"}},
	{args: "create -f -", stdin: strings.ReplaceAll(gadget, "size: 3", "size: many"), says: []string{"spec.size"}, exit: 1},
	{args: "describe gadgets.NS.example.com -A", says: []string{"one", "NS"}},
	{args: "-n NS delete gadgets.NS.example.com --all --timeout=180s", says: []string{"deleted"}},
	{args: "delete crd gadgets.NS.example.com --timeout=180s", says: []string{"deleted"}},

	// Taking it down.
	{args: "-n NS delete pod lone --now", says: []string{`pod "lone"`, "deleted"}},
	{args: "-n NS delete deployment app --cascade=orphan", says: []string{"deleted"}},
	{args: "-n NS delete rs --all --cascade=foreground --timeout=180s", says: []string{"deleted"}},
	{args: "-n NS wait --for=delete pod,rs --all --timeout=180s"},
	{args: "delete -f - --ignore-not-found", stdin: application, says: []string{`service "app"`, "deleted"}},
	{args: "delete ns NS --timeout=180s", says: []string{`namespace "NS" deleted`}},
	{args: "get ns NS", says: []string{`namespaces "NS" not found`}, exit: 1},
}

const application = `
{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: NS, labels: {app: app}}, data: {color: red}}
---
{apiVersion: v1, kind: Service, metadata: {name: app, namespace: NS, labels: {app: app}}, spec: {selector: {app: app}, ports: [{port: 80}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, namespace: NS, labels: {app: app}}
spec:
  replicas: 2
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      containers: [{name: app, image: "vivarium.test/echo:v1", envFrom: [{configMapRef: {name: settings}}]}]
`

const gadgets = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.NS.example.com}
spec:
  group: NS.example.com
  scope: Namespaced
  names: {plural: gadgets, singular: gadget, kind: Gadget, shortNames: [gd]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer, description: how large it is}}}
          status: {type: object, properties: {size: {type: integer}}}
`

const gadget = "{apiVersion: NS.example.com/v1, kind: Gadget, metadata: {name: one, namespace: NS}, spec: {size: 3}}"

var changed = strings.ReplaceAll(application, "color: red", "color: blue")

// TestKubectls lets the kubectls of four minors do a tenant's day's work, two by two at the same time, in two tenants and
// under the same names.
func TestKubectls(t *testing.T) {
	w := theWorld(t)
	tenants := []string{w.tenant(t, clientsA), w.tenant(t, clientsB)}
	for i, name := range kubetest.Kubectls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := w.client(t, name, tenants[i%2])
			ns := "day" + string(rune('0'+i/2))
			for _, step := range day {
				c.do(t, ns, step)
			}
			c.watches(t)
		})
	}
}

// aClient is a program that works in a tenant.
type aClient struct {
	name, program, kubeconfig, home string
}

// client prepares a program for a tenant, with caches and settings of its own.
func (w *world) client(t *testing.T, program, kubeconfig string) aClient {
	t.Helper()
	c := aClient{name: program, program: kubetest.Client(t, program), home: t.TempDir()}
	raw, err := os.ReadFile(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	c.kubeconfig = filepath.Join(c.home, "kubeconfig")
	if err := os.WriteFile(c.kubeconfig, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c aClient) command(ctx context.Context, stdin string, args ...string) (*exec.Cmd, *lockedBuffer) {
	out := &lockedBuffer{}
	cmd := exec.CommandContext(ctx, c.program, args...)
	cmd.Env = append(os.Environ(), "HOME="+c.home, "KUBECONFIG="+c.kubeconfig, "EDITOR=sed -i s/^..a:.d$/&ited/")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), out, out
	return cmd, out
}

// run runs the program and looks for what a tenant must not see in all that it says.
func (c aClient) run(t *testing.T, stdin string, args ...string) (out string, exit int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience+time.Minute)
	defer cancel()
	cmd, buffer := c.command(ctx, stdin, args...)
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	c.inspect(t, buffer.String(), args)
	return buffer.String(), cmd.ProcessState.ExitCode()
}

func (c aClient) inspect(t *testing.T, out string, args []string) {
	t.Helper()
	for _, foreign := range []string{clientsA, clientsB, "vivarium.io", "vivarium-"} {
		if i := strings.Index(out, foreign); i >= 0 {
			t.Errorf("%s shows %q: ...%s...", strings.Join(args, " "), foreign, out[max(0, i-100):min(len(out), i+100)])
		}
	}
}

// do makes one call, in a namespace.
func (c aClient) do(t *testing.T, ns string, step command) {
	t.Helper()
	in := func(s string) string { return strings.ReplaceAll(s, "NS", ns) }
	args := strings.Fields(in(step.args))
	out, exit := c.run(t, in(step.stdin), args...)
	if step.exit == 0 && aboutRights(args) {
		eventually(t, step.args, func() bool {
			if exit != 0 {
				out, exit = c.run(t, in(step.stdin), args...)
			}
			return exit == 0
		})
	}
	if exit != step.exit {
		t.Errorf("%s: exit code %d, want %d\n%s", step.args, exit, step.exit, out)
	}
	rest := out
	for _, want := range step.says {
		_, after, found := strings.Cut(rest, in(want))
		if !found {
			t.Errorf("%s does not say %q:\n%s", step.args, in(want), out)
			return
		}
		rest = after
	}
}

// watches sees an object come and go on open watches of one namespace and of all.
func (c aClient) watches(t *testing.T) {
	t.Helper()
	// Another minor may be doing the same in this namespace.
	name := "seen-by-" + c.name
	for _, args := range [][]string{
		{"get", "cm", "-w", "-o", "name"},
		{"get", "cm", "-A", "-w", "--output-watch-events", "-o", "yaml"},
		{"get", "cm", "-A", "--watch-only", "-o", "wide"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cmd, out := c.command(ctx, "", args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, strings.Join(args, " ")+" shows "+name, func() bool {
			c.run(t, "", "create", "cm", name)
			c.run(t, "", "delete", "cm", name)
			return strings.Count(out.String(), name) >= 2
		})
		cancel()
		_ = cmd.Wait()
		c.inspect(t, out.String(), args)
	}
}

// lockedBuffer is written by a program and read by a test at the same time.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
