package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestTenantsAreApart lets two tenants use equal names for everything and looks for either in what the other is shown.
func TestTenantsAreApart(t *testing.T) {
	for _, id := range []string{red, blu} {
		c := tenant(id)
		c.run(t, "create", "namespace", "same")
		t.Cleanup(func() { _, _ = c.try(t, "", "delete", "namespace", "same", "--wait=false") })
		c.run(t, "-n", "same", "create", "configmap", "same", "--from-literal=owner="+id)
		c.run(t, "-n", "same", "create", "serviceaccount", "same")
		c.run(t, "create", "clusterrole", "same", "--verb=get", "--resource=pods")
		t.Cleanup(func() { _, _ = c.try(t, "", "delete", "clusterrole", "same") })
		c.run(t, "-n", "same", "create", "deployment", "same", "--image="+echoImage)
	}
	for _, id := range []string{red, blu} {
		c := tenant(id)
		if owner := c.run(t, "-n", "same", "get", "configmap", "same", "-o", "jsonpath={.data.owner}"); owner != id {
			t.Errorf("%s reads the ConfigMap of %s", id, owner)
		}
		// try and run search each output for the other tenant and for control names.
		for _, output := range []string{"wide", "yaml", "json", "name"} {
			for _, resource := range []string{
				"namespaces", "all", "configmaps", "secrets", "serviceaccounts", "events", "clusterroles", "clusterrolebindings",
				"roles", "rolebindings", "nodes", "endpoints", "endpointslices", "leases", "replicasets",
			} {
				c.run(t, "get", resource, "-A", "-o", output, "--show-managed-fields")
			}
		}
		c.run(t, "-n", "same", "describe", "all")
		c.run(t, "describe", "namespace", "same")
		c.run(t, "api-resources")
		c.run(t, "auth", "whoami", "-o", "yaml")
		c.run(t, "events", "-A")
		c.fails(t, "", []string{"get", "namespace", "nosuch"}, `namespaces "nosuch" not found`)
		c.fails(t, "", []string{"-n", "nosuch", "get", "pod", "x"}, `namespaces "nosuch" not found`)
	}
	// The other tenant's names, asked for outright, are names of one's own that do not exist.
	c := tenant(red)
	out, err := client{name: red, kubeconfig: c.kubeconfig}.try(t, "", "-n", blu+"-same", "get", "configmap", "same")
	if err == nil || !strings.Contains(out, `namespaces "`+blu+`-same" not found`) {
		t.Errorf("another tenant's control namespace: %v, %s", err, out)
	}
}

// TestBadInput holds the messages that tenants and operators get for what cannot work.
func TestBadInput(t *testing.T) {
	c := tenant(red)
	t.Run("TenantName", func(t *testing.T) {
		for _, name := range []string{"abc", "ABC123", "abc-12", "toolong1"} {
			if out, err := vivarium(t.Context(), "tenant", "create", name); err == nil || !strings.Contains(out, "6 characters") {
				t.Errorf("tenant create %s: %v\n%s", name, err, out)
			}
		}
	})
	t.Run("TenantNameTakenByThePlatform", func(t *testing.T) {
		operator := control()
		operator.run(t, "create", "namespace", "taken1-system")
		defer operator.run(t, "delete", "namespace", "taken1-system", "--wait=false")
		if out, err := vivarium(t.Context(), "tenant", "create", "taken1"); err == nil || !strings.Contains(out, "taken1-system") {
			t.Errorf("tenant create taken1: %v\n%s", err, out)
		}
	})
	t.Run("HostPath", func(t *testing.T) {
		c.fails(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"bad","namespace":"default"},"spec":{"containers":[{"name":"c","image":"x"}],"volumes":[{"name":"h","hostPath":{"path":"/"}}]}}`,
			[]string{"apply", "-f", "-"}, "hostPath")
	})
	t.Run("HostNetwork", func(t *testing.T) {
		c.fails(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"bad","namespace":"default"},"spec":{"hostNetwork":true,"containers":[{"name":"c","image":"x"}]}}`,
			[]string{"apply", "-f", "-"}, "host namespaces")
	})
	t.Run("HostPathInDeployment", func(t *testing.T) {
		c.apply(t, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"bad","namespace":"default"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"x"}],"volumes":[{"name":"h","hostPath":{"path":"/"}}]}}}}`)
		defer c.run(t, "delete", "deployment", "bad")
		c.shows(t, []string{"events", "-n", "default"}, "FailedCreate", "hostPath")
	})
	t.Run("DaemonSet", func(t *testing.T) {
		c.fails(t, `{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"bad","namespace":"default"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"x"}]}}}}`,
			[]string{"apply", "-f", "-"}, "DaemonSet")
	})
	t.Run("PlatformLabel", func(t *testing.T) {
		c.fails(t, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"bad","namespace":"default","labels":{"vivarium.io/tenant":"`+"zzzzzz"+`"}}}`,
			[]string{"apply", "-f", "-"}, "vivarium.io/tenant")
	})
	t.Run("LongNamespace", func(t *testing.T) {
		c.fails(t, "", []string{"create", "namespace", strings.Repeat("n", 57)}, "56 characters")
	})
	t.Run("ImageThatDoesNotExist", func(t *testing.T) {
		needsContainers(t)
		c.run(t, "run", "noimage", "--image=vivarium.test/nothere:v1", "--restart=Never")
		defer c.run(t, "delete", "pod", "noimage", "--wait=false")
		c.shows(t, []string{"get", "pod", "noimage"}, "ImagePull")
		c.shows(t, []string{"events", "--for=pod/noimage"}, "Failed", "nothere")
	})
	t.Run("PoolKubeconfigs", badPools)
}

// badPools registers pools that cannot work: each is refused for its own reason, and nothing is left of it.
func badPools(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good, err := os.ReadFile(filepath.Join(suite.runDir, "pools", "pool-a.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := func(cluster, user string) string {
		return "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n" +
			"clusters: [{name: c, cluster: {" + cluster + "}}]\nusers: [{name: u, user: {" + user + "}}]\n"
	}
	cases := map[string]struct{ file, want string }{
		"absent":     {filepath.Join(dir, "nothere"), "no such file"},
		"garbage":    {write("garbage", "hello"), "kubeconfig"},
		"exec":       {write("exec", kubeconfig(`server: "https://127.0.0.1:1"`, `exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/true, interactiveMode: Never}`)), "exec"},
		"unreach":    {write("unreach", kubeconfig(`server: "https://127.0.0.1:1"`, `token: abc`)), "nothing listens"},
		"registered": {write("registered", string(good)), "pool-a"},
	}
	secrets := func() string { return control().run(t, "-n", "vivarium-system", "get", "secrets", "-o", "name") }
	before := secrets()
	for name, tc := range cases {
		out, err := vivarium(t.Context(), "pool", "register", "bad-"+name, "--kubeconfig", tc.file)
		if err == nil || !strings.Contains(out, tc.want) {
			t.Errorf("pool register of %s: %v, want a message with %q:\n%s", name, err, tc.want, out)
		}
		if pools := admin().run(t, "get", "resourcepools", "-o", "name"); strings.Contains(pools, "bad-") {
			t.Errorf("%s left a ResourcePool: %s", name, pools)
		}
	}
	if after := secrets(); after != before {
		t.Errorf("refused pools left Secrets:\n%s\nbefore:\n%s", after, before)
	}
}

// TestThrottle makes a tenant exceed its limit: it is told to slow down, and the other tenant is not.
func TestThrottle(t *testing.T) {
	operator := admin()
	operator.run(t, "patch", "tenant", blu, "--type=merge", "-p", `{"spec":{"limits":{"requestsPerSecond":1,"burst":1}}}`)
	defer operator.run(t, "patch", "tenant", blu, "--type=merge", "-p", `{"spec":{"limits":{"requestsPerSecond":200,"burst":400}}}`)
	eventually(t, "429 for the tenant over its limit", func() error {
		// Several requests of one process: they come faster than the allowance does, however slow the machine is.
		out, _ := tenant(blu).try(t, "", "-n", "default", "get", "configmaps,secrets,serviceaccounts,services,endpoints", "-v=8")
		if !strings.Contains(out, "429 Too Many Requests") {
			return fmt.Errorf("%s", out[max(0, len(out)-500):])
		}
		return nil
	})
	tenant(red).run(t, "get", "pods", "-A")
}

// process is a line of `vivarium status -o json`.
type process struct {
	Name    string `json:"name"`
	PID     int    `json:"pid"`
	Running bool   `json:"running"`
}

func processes(t *testing.T) map[string]process {
	t.Helper()
	out, err := vivarium(t.Context(), "status", "-o", "json")
	if err != nil {
		t.Fatalf("status: %v\n%s", err, out)
	}
	var status struct {
		Processes []process `json:"processes"`
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		t.Fatalf("status: %v\n%s", err, out)
	}
	all := map[string]process{}
	for _, p := range status.Processes {
		all[p.Name] = p
	}
	return all
}

// pods gives name to UID of one side's view of a namespace.
func (c client) pods(t *testing.T, ns, key string) map[string]string {
	t.Helper()
	out := c.run(t, "-n", ns, "get", "pods", "-l", "app=burst", "-o", `go-template={{range .items}}{{.metadata.name}}={{`+key+`}} {{end}}`)
	all := map[string]string{}
	for _, pair := range strings.Fields(out) {
		name, uid, _ := strings.Cut(pair, "=")
		if _, doubled := all[name]; doubled {
			t.Errorf("%s: pod %s twice", c.name, name)
		}
		all[name] = uid
	}
	return all
}

// TestKill9 kills each of our processes in the middle of a burst of pods and starts it again: every pod of the tenant
// runs once, and the pools hold exactly those.
func TestKill9(t *testing.T) {
	c := tenant(red)
	c.run(t, "create", "namespace", "kill")
	defer func() { _, _ = c.try(t, "", "delete", "namespace", "kill", "--wait=false") }()
	c.run(t, "-n", "kill", "create", "deployment", "burst", "--image="+echoImage, "--replicas=0")
	replicas := 0
	for _, victim := range []string{"vk-provider", "syncer", "network", "gateway"} {
		replicas += 4
		c.run(t, "-n", "kill", "scale", "deployment/burst", fmt.Sprintf("--replicas=%d", replicas))
		p, ok := processes(t)[victim]
		if !ok || !p.Running {
			t.Fatalf("%s is not running: %+v", victim, p)
		}
		if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if out, err := up(t.Context()); err != nil {
			t.Fatalf("up after kill -9 of %s: %v\n%s", victim, err, out)
		}
		if again := processes(t)[victim]; !again.Running || again.PID == p.PID {
			t.Errorf("%s was not started again: %+v", victim, again)
		}
		c.run(t, "-n", "kill", "rollout", "status", "deployment/burst", "--timeout=3m")
		comparePods(t, c, "kill", replicas)
	}
	// A deletion that is cut in the middle is finished, not forgotten.
	c.run(t, "-n", "kill", "scale", "deployment/burst", "--replicas=2")
	if err := syscall.Kill(processes(t)["vk-provider"].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if out, err := up(t.Context()); err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	eventually(t, "scale down across a kill", func() error {
		if n := len(c.pods(t, "kill", ".metadata.uid")); n != 2 {
			return fmt.Errorf("%d pods", n)
		}
		return nil
	})
	comparePods(t, c, "kill", 2)
}

// comparePods holds the control UIDs of a tenant's pods against the UIDs that the pools' pods say they stand for.
func comparePods(t *testing.T, c client, ns string, want int) {
	t.Helper()
	above := c.pods(t, ns, ".metadata.uid")
	if len(above) != want {
		t.Errorf("the tenant has %d pods, want %d", len(above), want)
	}
	eventually(t, "the pools hold exactly the tenant's pods", func() error {
		below := map[string]string{}
		for name, uid := range poolPods(t, c.name+"-"+ns) {
			if _, doubled := below[name]; doubled {
				return fmt.Errorf("pod %s runs in two pools", name)
			}
			below[name] = uid
		}
		if !maps.Equal(above, below) {
			return fmt.Errorf("tenant: %v\npools:  %v", above, below)
		}
		return nil
	})
}

// poolPods yields every pod of a control namespace in every pool: its name and the control UID it stands for.
func poolPods(t *testing.T, controlNamespace string) func(func(string, string) bool) {
	t.Helper()
	return func(yield func(string, string) bool) {
		for _, name := range poolNames(t) {
			for pod, uid := range pool(name).pods(t, controlNamespace, `index .metadata.labels "vivarium.io/control-uid"`) {
				if !yield(pod, uid) {
					return
				}
			}
		}
	}
}

// poolNames are the pools that this machine has now.
func poolNames(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(suite.runDir, "pools", "*.kubeconfig"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no pools: %v", err)
	}
	for i, file := range files {
		files[i] = strings.TrimSuffix(filepath.Base(file), ".kubeconfig")
	}
	return files
}

// TestThirdPool registers one more cluster while the system runs, and places pods there.
func TestThirdPool(t *testing.T) {
	if out, err := vivarium(t.Context(), "local-pool", "pool-c"); err != nil {
		t.Fatalf("local-pool: %v\n%s", err, out)
	}
	kubeconfig := filepath.Join(suite.runDir, "pools", "pool-c.kubeconfig")
	if out, err := vivarium(t.Context(), "pool", "register", "pool-c", "--kubeconfig", kubeconfig, "--network="+suite.network); err != nil {
		t.Fatalf("pool register: %v\n%s", err, out)
	}
	each(t, func(t *testing.T, c client, ns string) {
		c.run(t, "-n", ns, "create", "deployment", "web", "--image="+echoImage, "--replicas=6")
		c.run(t, "-n", ns, "rollout", "status", "deployment/web", "--timeout=3m")
		wide := c.run(t, "-n", ns, "get", "pods", "-o", "wide")
		if !strings.Contains(wide, "pool-c") {
			t.Errorf("no pod in the new pool:\n%s", wide)
		}
	})
}

// TestTenantDeletion removes a tenant: its credentials stop at once, and nothing of it is left anywhere.
func TestTenantDeletion(t *testing.T) {
	const id = "gone7q"
	if out, err := vivarium(t.Context(), "tenant", "create", id); err != nil {
		t.Fatalf("tenant create: %v\n%s", err, out)
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if out, err := vivarium(t.Context(), "tenant", "kubeconfig", id, "--output", kubeconfig); err != nil {
		t.Fatalf("tenant kubeconfig: %v\n%s", err, out)
	}
	c := client{name: id, kubeconfig: kubeconfig}
	c.run(t, "create", "namespace", "own")
	c.run(t, "create", "clusterrole", "own", "--verb=get", "--resource=pods")
	c.run(t, "-n", "own", "create", "deployment", "web", "--image="+echoImage, "--replicas=2")
	c.run(t, "-n", "own", "rollout", "status", "deployment/web", "--timeout=3m")

	uid := admin().run(t, "get", "tenant", id, "-o", "jsonpath={.metadata.uid}")
	if out, err := vivarium(t.Context(), "tenant", "delete", id, "--wait=false"); err != nil {
		t.Fatalf("tenant delete: %v\n%s", err, out)
	}
	eventually(t, "the credentials are refused", func() error {
		out, err := c.try(t, "", "get", "pods")
		if err == nil || !strings.Contains(out, "Unauthorized") && !strings.Contains(out, "logged in") {
			return fmt.Errorf("%v, %s", err, out)
		}
		return nil
	})
	eventually(t, "the Tenant is gone", func() error {
		if out, err := admin().try(t, "", "get", "tenant", id); err == nil || !strings.Contains(out, "not found") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	for _, kind := range []string{"namespaces", "clusterroles", "clusterrolebindings", "flowschemas", "prioritylevelconfigurations"} {
		if left := control().run(t, "get", kind, "-o", "name"); strings.Contains(left, id) {
			t.Errorf("control still has %s of the tenant:\n%s", kind, left)
		}
	}
	for _, name := range poolNames(t) {
		if left := pool(name).run(t, "get", "namespaces,pods", "-A", "-o", "name"); strings.Contains(left, id) {
			t.Errorf("%s still has:\n%s", name, left)
		}
	}
	// The name is free again, and the old credentials stay worthless.
	if out, err := vivarium(t.Context(), "tenant", "create", id); err != nil {
		t.Fatalf("tenant create again: %v\n%s", err, out)
	}
	defer func() { _, _ = vivarium(t.Context(), "tenant", "delete", id) }()
	if again := admin().run(t, "get", "tenant", id, "-o", "jsonpath={.metadata.uid}"); again == uid {
		t.Error("the new Tenant has the old UID")
	}
	if out, err := c.try(t, "", "get", "pods"); err == nil {
		t.Errorf("the old kubeconfig works for the new Tenant:\n%s", out)
	}
}

// TestAdminAPIIsNotForTenants tries a tenant's credential at the operator's listener, and the operator's at the tenant's.
func TestAdminAPIIsNotForTenants(t *testing.T) {
	server := admin().run(t, "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
	out, err := tenant(red).try(t, "", "--server", strings.TrimSpace(server), "get", "tenants")
	if err == nil {
		t.Errorf("a tenant reads the admin API:\n%s", out)
	}
	if out, err := tenant(red).try(t, "", "get", "--raw", "/apis/vivarium.io/v1alpha1/tenants"); err == nil {
		t.Errorf("the tenant listener serves the admin API:\n%s", out)
	}
	if out := tenant(red).run(t, "api-resources"); slices.ContainsFunc(strings.Fields(out), func(s string) bool { return s == "tenants" }) {
		t.Errorf("a tenant is offered tenants:\n%s", out)
	}
}
