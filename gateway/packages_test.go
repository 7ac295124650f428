package gateway

import (
	"path/filepath"
	"testing"

	"vivarium.io/vivarium/internal/kubetest"
	"vivarium.io/vivarium/internal/localcluster"
)

// release is a chart's life with any Helm: hooks, release records, a failed upgrade, a rollback.
var release = []command{
	{args: "install shop testdata/shop -n NS --create-namespace --set widget=true --wait --timeout=180s", says: []string{"STATUS: deployed", "shop says hello in NS."}},
	{args: "list -A", says: []string{"shop", "NS", "deployed", "shop-0.1.0"}},
	{args: "status shop -n NS", says: []string{"NAMESPACE: NS", "STATUS: deployed"}},
	{args: "get manifest shop -n NS", says: []string{"deployments: \"yes\"", "kind: ClusterRole"}},
	{args: "get hooks shop -n NS", says: []string{"pre-install"}},
	{args: "upgrade shop testdata/shop -n NS --set message=changed,widget=true --wait --timeout=180s", says: []string{"STATUS: deployed", "REVISION: 2"}},
	{args: "upgrade shop testdata/shop -n NS --set broken=true,widget=true --wait --timeout=180s", says: []string{"Not A Name"}, exit: 1},
	{args: "history shop -n NS", says: []string{"superseded", "deployed", "failed"}},
	{args: "get values shop -n NS --revision=2", says: []string{"message: changed"}},
	{args: "rollback shop 1 -n NS --wait --timeout=180s", says: []string{"Rollback was a success"}},
	{args: "history shop -n NS -o yaml", says: []string{"Rollback to 1"}},
	{args: "upgrade --install shop testdata/shop -n NS --dry-run=server --set message=imagined", says: []string{"imagined"}},
	{args: "template shop testdata/shop -n NS --validate", says: []string{"namespace: NS"}},
	{args: "install shop testdata/shop -n NS", says: []string{"cannot re"}, exit: 1},
}

// after is what kubectl shows of the release behind its commands.
var after = map[string][]command{
	"install": {
		{args: "-n NS get cm shop-settings -o jsonpath={.data}", says: []string{`"message":"hello"`, `"namespace":"NS"`, `"revision":"1"`}},
		{args: "-n NS get cm shop-pre-install shop-post-install -o name", says: []string{"shop-pre-install", "shop-post-install"}},
		{args: "-n NS get cm shop-pre-install-gone", says: []string{"not found"}, exit: 1},
		{args: "-n NS get cm shop-pre-upgrade", says: []string{"not found"}, exit: 1},
		{args: "-n NS get secret sh.helm.release.v1.shop.v1 -o jsonpath={.type}", says: []string{"helm.sh/release.v1"}},
		{args: "-n NS get wg", says: []string{"SIZE", "shop", "3"}},
		{args: "auth can-i list cm -A --as=system:serviceaccount:NS:shop", says: []string{"yes"}},
	},
	"upgrade": {
		{args: "-n NS get cm shop-settings -o jsonpath={.data.message}{.data.revision}{.data.found}", says: []string{"changed2NS"}},
		{args: "-n NS get cm shop-pre-upgrade shop-post-upgrade -o name", says: []string{"shop-pre-upgrade", "shop-post-upgrade"}},
		{args: "-n NS get deployment shop -o jsonpath={.spec.template.metadata.annotations.message}", says: []string{"changed"}},
	},
	"rollback": {
		{args: "-n NS get cm shop-settings -o jsonpath={.data.message}{.data.revision}", says: []string{"hello1"}},
		{args: "-n NS get widget shop -o jsonpath={.metadata.labels}", says: []string{`"app.kubernetes.io/managed-by":"Helm"`}},
		{args: "-n NS get cm shop-post-rollback -o name", says: []string{"shop-post-rollback"}},
		{args: "-n NS get deployment shop -o jsonpath={.spec.template.metadata.annotations.message}", says: []string{"hello"}},
	},
	"uninstall": {
		{args: "-n NS get cm shop-pre-delete -o name", says: []string{"shop-pre-delete"}},
		{args: "-n NS get deploy,svc,sa,widgets shop --ignore-not-found"},
		{args: "get crd", says: []string{"widgets.shop.example.com"}},
		{args: "get clusterrole NS-shop", says: []string{"not found"}, exit: 1},
	},
}

// TestHelm takes a chart with hooks through its life with both majors of Helm, each in both tenants at the same time.
func TestHelm(t *testing.T) {
	w := theWorld(t)
	for _, id := range []string{clientsA, clientsB} {
		tenant := w.tenant(t, id)
		for _, program := range []string{localcluster.Helm, localcluster.Helm3} {
			t.Run(id+" "+program, func(t *testing.T) {
				t.Parallel()
				helm, kubectl, ns := w.client(t, program, tenant), w.client(t, localcluster.Kubectl, tenant), "store-"+program
				check := func(what string) {
					for _, step := range after[what] {
						kubectl.do(t, ns, step)
					}
				}
				for i, step := range release {
					helm.do(t, ns, step)
					switch i {
					case 0:
						check("install")
					case 5:
						check("upgrade")
					case 9:
						check("rollback")
					}
				}
				helm.do(t, ns, command{args: "uninstall shop -n NS --wait --timeout=180s", says: []string{`release "shop" uninstalled`}})
				check("uninstall")
				helm.do(t, ns, command{args: "list -A -q"})
			})
		}
	}
}

// TestKustomize applies what kustomize builds, by itself and inside kubectl, and applies a change of it.
func TestKustomize(t *testing.T) {
	w := theWorld(t)
	overlay := filepath.Join("testdata", "kustomize", "overlay")
	for _, id := range []string{clientsA, clientsB} {
		tenant := w.tenant(t, id)
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			kustomize, kubectl := w.client(t, localcluster.Kustomize, tenant), w.client(t, localcluster.Kubectl, tenant)
			built, exit := kustomize.run(t, "", "build", overlay)
			if exit != 0 {
				t.Fatal(built)
			}
			for _, step := range []command{
				{args: "apply -f -", stdin: built, says: []string{"namespace/staging created", "clusterrole.rbac.authorization.k8s.io/staging-reader created", "deployment.apps/staging-web created"}},
				{args: "-n staging get deployment staging-web -o jsonpath={.spec.template.spec.containers[0].image}{.spec.replicas}", says: []string{"vivarium.test/echo:v21"}},
				{args: "-n staging get cm,secret -o name", says: []string{"configmap/staging-settings-", "secret/staging-token-"}},
				{args: "auth can-i list pods -A --as=system:serviceaccount:staging:staging-robot", says: []string{"yes"}},
				{args: "apply -k " + overlay, says: []string{"namespace/staging unchanged", "deployment.apps/staging-web unchanged"}},
				{args: "diff -k " + overlay},
				{args: "get -k " + overlay + " -o name", says: []string{"namespace/staging", "deployment.apps/staging-web"}},
				{args: "apply --server-side --force-conflicts -k " + overlay, says: []string{"serverside-applied"}},
				{args: "delete -k " + overlay + " --timeout=180s", says: []string{`namespace "staging" deleted`}},
				{args: "get ns staging", says: []string{"not found"}, exit: 1},
			} {
				kubectl.do(t, "", step)
			}
		})
	}
	for _, name := range kubetest.Kubectls[:3] {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w.client(t, name, w.tenant(t, "kcka"+name[len(name)-2:])).do(t, "", command{args: "apply -k " + overlay, says: []string{"deployment.apps/staging-web created"}})
		})
	}
}
