package gateway

import (
	"strings"
	"testing"
)

// TestKubectl walks through a tenant's day with a real kubectl, next to another tenant with objects of the same names.
// Whatever kubectl prints must be in the tenant's own words.
func TestKubectl(t *testing.T) {
	w := theWorld(t)
	a, b := w.tenant(t, "kq7zxa"), w.tenant(t, "kq7zxb")
	const canary = "c4n4ry-of-b"
	w.must(t, b, "", "create", "ns", "web")
	w.must(t, b, "", "create", "ns", canary)
	w.must(t, b, "", "-n", "web", "create", "configmap", "settings", "--from-literal=secret="+canary)
	w.must(t, b, "", "create", "clusterrole", canary, "--verb=get", "--resource=pods")

	steps := []struct {
		args  string
		stdin string
		// says must all be in the output, in order; never must not.
		says  []string
		fails bool
	}{
		{args: "get ns", says: []string{"default", "kube-node-lease", "kube-public", "kube-system"}},
		{args: "version", says: []string{"Server Version"}},
		{args: "api-resources", says: []string{"configmaps", "pods", "deployments", "clusterroles"}},
		{args: "create ns web", says: []string{"namespace/web created"}},
		{args: "get ns web -o yaml", says: []string{"kubernetes.io/metadata.name: web", "name: web"}},
		{args: "get ns --show-labels", says: []string{"kubernetes.io/metadata.name=web"}},
		{args: "-n web create configmap settings --from-literal=a=b", says: []string{"created"}},
		{args: "get cm -A", says: []string{"web ", "settings"}},
		{args: "get cm -A --field-selector metadata.name=settings", says: []string{"web ", "settings"}},
		{args: "get cm -A --field-selector metadata.namespace=web -o name", says: []string{"configmap/kube-root-ca.crt", "configmap/settings"}},
		{args: "get cm -A --chunk-size=1 -o name", says: []string{"configmap/settings"}},
		{args: "-n web get cm settings -o yaml --show-managed-fields", says: []string{"namespace: web"}},
		{args: "-n web get cm kube-root-ca.crt -o yaml", says: []string{"BEGIN CERTIFICATE"}},
		{args: "-n web label cm settings x=y", says: []string{"labeled"}},
		{args: "-n web patch cm settings -p {\"data\":{\"c\":\"d\"}}", says: []string{"patched"}},
		{args: "-n web patch cm settings --type=json -p [{\"op\":\"test\",\"path\":\"/metadata/namespace\",\"value\":\"web\"}]", says: []string{"patched"}},
		{args: "-n web create deployment hello --image=vivarium.test/echo:v1 --replicas=2", says: []string{"created"}},
		{args: "-n web scale deployment hello --replicas=3", says: []string{"scaled"}},
		{args: "-n web wait --for=jsonpath={.status.replicas}=3 deployment/hello --timeout=180s", says: []string{"condition met"}},
		{args: "-n web get pods -o wide", says: []string{"NODE", "hello-", "Pending"}},
		{args: "-n web describe deployment hello", says: []string{"Namespace:", "web", "ScalingReplicaSet"}},
		{args: "-n web get events", says: []string{"ScalingReplicaSet", "deployment/hello"}},
		{args: "get events -A", says: []string{"web ", "deployment/hello"}},
		{args: "-n web rollout restart deployment hello", says: []string{"restarted"}},
		{args: "-n web rollout history deployment hello", says: []string{"REVISION"}},
		{args: "-n web set image deployment/hello echo=vivarium.test/echo:v2", says: []string{"image updated"}},
		{args: "get all -A", says: []string{"pod/hello-", "service/kubernetes", "deployment.apps/hello", "replicaset.apps/hello-"}},
		{args: "-n web create job once --image=vivarium.test/echo:v1", says: []string{"created"}},
		{args: "-n web create cronjob often --image=vivarium.test/echo:v1 --schedule=* * * * *", says: []string{"created"}},
		{args: "-n web create secret generic s --from-literal=k=v", says: []string{"created"}},
		{args: "-n web create service clusterip hello --tcp=80:80", says: []string{"created"}},
		{args: "-n web create ingress hello --rule=a.test/=hello:80 --class=nginx", says: []string{"created"}},
		{args: "-n web get ingress -o wide", says: []string{"nginx"}},
		{args: "-n web create quota q --hard=pods=10", says: []string{"created"}},
		{args: "-n web create poddisruptionbudget p --selector=app=hello --min-available=1", says: []string{"created"}},
		{args: "-n web autoscale deployment hello --max=5", says: []string{"autoscaled"}},
		{args: "-n web create sa robot", says: []string{"created"}},
		{args: "-n web create role reader --verb=get,list --resource=pods", says: []string{"created"}},
		{args: "-n web create rolebinding reader --role=reader --serviceaccount=web:robot", says: []string{"created"}},
		{args: "-n web get rolebinding -o wide", says: []string{"Role/reader", "web/robot"}},
		{args: "create clusterrole watcher --verb=get,list --resource=pods", says: []string{"created"}},
		{args: "create clusterrolebinding watchers --clusterrole=watcher --user=bob --group=dev", says: []string{"created"}},
		{args: "get clusterrolebinding -o wide", says: []string{"ClusterRole/cluster-admin", "system:masters", "ClusterRole/watcher", "bob", "dev"}},
		{args: "get clusterroles", says: []string{"admin", "cluster-admin", "edit", "view", "watcher"}},
		{args: "auth whoami", says: []string{"admin", "system:masters", "system:authenticated"}},
		{args: "auth can-i * * -A", says: []string{"yes"}},
		{args: "auth can-i --list", says: []string{"*.*"}},
		{args: "auth can-i list pods -n web --as=system:serviceaccount:web:robot", says: []string{"yes"}},
		{args: "auth can-i list pods -n default --as=system:serviceaccount:web:robot", says: []string{"no"}, fails: true},
		{args: "get pods -A --as=bob", says: []string{"hello-"}},
		{args: "get pods -A --as=carol --as-group=dev", says: []string{"hello-"}},
		{args: "get pods -A --as=carol", says: []string{`User "carol" cannot list resource "pods"`}, fails: true},
		{args: "get ns --as=bob", says: []string{`User "bob" cannot list resource "namespaces"`}, fails: true},
		{args: "-n web create token robot --duration=600s", says: []string{"ey"}},
		{args: "explain deployment.spec.strategy", says: []string{"RollingUpdate"}},
		{args: "explain configmap --output=plaintext-openapiv2", says: []string{"ConfigMap"}},
		{args: "apply -f -", stdin: "{apiVersion: v1, kind: ConfigMap, metadata: {name: applied, namespace: web}, data: {a: b}}", says: []string{"created"}},
		{args: "apply -f -", stdin: "{apiVersion: v1, kind: ConfigMap, metadata: {name: applied, namespace: web}, data: {a: c}}", says: []string{"configured"}},
		{args: "apply --server-side --force-conflicts -f -", stdin: "{apiVersion: v1, kind: ConfigMap, metadata: {name: applied, namespace: web}, data: {a: d}}", says: []string{"serverside-applied"}},
		{args: "apply --server-side -f -", stdin: "{apiVersion: v1, kind: ConfigMap, metadata: {name: fresh, namespace: web}, data: {a: b}}", says: []string{"serverside-applied"}},
		{args: "create --dry-run=server -f -", stdin: "{apiVersion: v1, kind: ConfigMap, metadata: {name: dry, namespace: web}}", says: []string{"server dry run"}},
		{args: "create -f -", stdin: "{apiVersion: v1, kind: ConfigMap, metadata: {name: strict, namespace: web}, dta: {}}", says: []string{"unknown field"}, fails: true},
		{args: "create -f -", stdin: "{apiVersion: v1, kind: Namespace, metadata: {generateName: gen-}}", says: []string{"namespace/gen-"}},
		{args: "create -f -", stdin: "{apiVersion: v1, kind: ConfigMap, metadata: {generateName: gen-, namespace: web}}", says: []string{"configmap/gen-"}},
		{args: "diff -f -", stdin: "{apiVersion: v1, kind: ConfigMap, metadata: {name: fresh, namespace: web}, data: {a: b}}"},
		{args: "get nodes", says: []string{"No resources found"}},
		{args: "get storageclasses,ingressclasses,priorityclasses", says: []string{"No resources found"}},
		{args: "get daemonsets -A", says: []string{"No resources found"}},
		{args: "get endpoints,endpointslices", says: []string{"kubernetes"}},
		{args: "get lease -A", says: []string{"No resources found"}},
		{args: "cluster-info", says: []string{"is running at"}},
		{args: "get --raw /readyz", says: []string{"ok"}},
		{args: "get --raw /readyz?verbose", says: []string{"[+]gateway ok", "[+]etcd ok", "readyz check passed"}},
		{args: "get --raw /livez?verbose", says: []string{"[+]gateway ok", "livez check passed"}},
		{args: "get --raw /apis/apps/v1/namespaces/web/deployments/hello", says: []string{`"namespace":"web"`}},
		{args: "-n web get all", says: []string{"pod/hello-", "service/hello", "deployment.apps/hello", "job.batch/once"}},
		{args: "get cs", says: []string{"No resources found"}},
		{args: "get csr", says: []string{"No resources found"}},

		{args: "get cm missing", says: []string{`configmaps "missing" not found`}, fails: true},
		{args: "-n missing create cm a", says: []string{`namespaces "missing" not found`}, fails: true},
		{args: "-n web create cm settings", says: []string{`configmaps "settings" already exists`}, fails: true},
		{args: "create ns web", says: []string{`namespaces "web" already exists`}, fails: true},
		{args: "get ns kq7zxb-web", says: []string{`namespaces "kq7zxb-web" not found`}, fails: true},
		{args: "get ns " + canary, says: []string{"not found"}, fails: true},
		{args: "delete ns kube-system", says: []string{"this namespace may not be deleted"}, fails: true},
		{args: "get crd", says: []string{"No resources found"}},
		{args: "get crd x", says: []string{`"x" not found`}, fails: true},
		{args: "get crd -o json", says: []string{`"items": []`}},
		{args: "create -f -", stdin: `{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: foos.example.com}, spec: {group: example.com, scope: Namespaced, names: {plural: foos, kind: Foo},
			versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]}}`, says: []string{"customresourcedefinition.apiextensions.k8s.io/foos.example.com created"}},
		{args: "delete crd foos.example.com --timeout=180s", says: []string{"deleted"}},
		{args: "get tenants", says: []string{"doesn't have a resource type"}, fails: true},
		{args: "create ns " + strings.Repeat("a", 57), says: []string{"must be no more than 56 characters"}, fails: true},
		{args: "create -f -", stdin: "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: d, namespace: web}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}",
			says: []string{"use a Deployment"}, fails: true},
		{args: "create -f -", stdin: "{apiVersion: v1, kind: Pod, metadata: {name: h, namespace: web}, spec: {hostNetwork: true, containers: [{name: c, image: i}]}}",
			says: []string{"violates PodSecurity"}, fails: true},
		{args: "-n web create token robot --audience=https://kubernetes.default.svc", says: []string{"audience"}, fails: true},
		{args: "-n web delete deployment,job,cronjob,hpa,ingress --all", says: []string{"deleted"}},
		{args: "-n web delete cm --all", says: []string{"deleted"}},
		{args: "delete clusterrole watcher", says: []string{"deleted"}},
		{args: "delete ns web --timeout=180s", says: []string{"deleted"}},
	}
	for _, step := range steps {
		t.Run(strings.Map(wordy, step.args), func(t *testing.T) {
			// A schedule is one word.
			args := strings.Fields(strings.ReplaceAll(step.args, "* * * * *", "\x00"))
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "\x00", "* * * * *")
			}
			out, err := w.run(a, step.stdin, args...)
			if !step.fails && aboutRights(args) {
				eventually(t, step.args, func() bool {
					if err != nil {
						out, err = w.run(a, step.stdin, args...)
					}
					return err == nil
				})
			}
			if (err != nil) != step.fails {
				t.Errorf("kubectl %s: %v\n%s", step.args, err, out)
			}
			rest := out
			for _, want := range step.says {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Fatalf("kubectl %s does not say %q:\n%s", step.args, want, out)
				}
				rest = after
			}
			for _, foreign := range []string{"kq7zxa", "kq7zxb", canary, "vivarium"} {
				if strings.Contains(strings.NewReplacer("vivarium.test", "", step.args, "").Replace(out), foreign) && !strings.Contains(step.args, foreign) {
					t.Errorf("kubectl %s shows %q:\n%s", step.args, foreign, out)
				}
			}
		})
	}
	if out := w.must(t, b, "", "-n", "web", "get", "cm", "settings", "-o", "jsonpath={.data.secret}"); out != canary {
		t.Errorf("the other tenant's ConfigMap now says %q", out)
	}
}

func wordy(r rune) rune {
	if r == '/' || r > '~' {
		return '_'
	}
	return r
}
