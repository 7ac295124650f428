package operator

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/charts"
	"vivarium.io/vivarium/internal/adminclient/admintest"
	"vivarium.io/vivarium/internal/kubetest"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
)

type world struct {
	control, pool *kubetest.Cluster
	poolClient    kubernetes.Interface
	operator      *Operator
	said          *[]string
}

var shared *world

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	if testing.Short() {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "operator-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w := &world{said: new([]string)}
	for _, into := range []**kubetest.Cluster{&w.control, &w.pool} {
		cluster, stop, err := kubetest.Start(ctx, dir, kubetest.WithControllerManager(), kubetest.WithAPIServerFlags("--allow-privileged=true"))
		if err != nil {
			if strings.Contains(err.Error(), kubetest.ErrNoPrograms.Error()) && !kubetest.InCI() {
				fmt.Fprintln(os.Stderr, "integration tests are skipped:", err)
				return m.Run()
			}
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer stop()
		*into = cluster
	}
	admin, err := admintest.Install(ctx, w.control.Config)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	control := kubernetes.NewForConfigOrDie(w.control.Config)
	w.poolClient = kubernetes.NewForConfigOrDie(w.pool.Config)
	if _, err := control.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: names.SystemNamespace}}, metav1.CreateOptions{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	w.operator = &Operator{Admin: admin, AdminConfig: w.control.Config, Control: control}
	shared = w
	return m.Run()
}

func use(t *testing.T) *world {
	t.Helper()
	if shared == nil {
		t.Skip("it needs control planes: the Kubernetes programs are not built, or -short rules them out")
	}
	*shared.said = nil
	shared.operator.Say = func(format string, args ...any) {
		*shared.said = append(*shared.said, fmt.Sprintf(format, args...))
	}
	return shared
}

func manifests(t *testing.T) Manifests {
	t.Helper()
	read := func(file string) []byte {
		raw, err := charts.FS.ReadFile("vivarium-pool/files/" + file)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	return Manifests{Role: read("clusterrole.yaml"), Access: read("access.yaml"), Policy: read("policy.yaml")}
}

func (w *world) kubeconfig(t *testing.T, cluster *kubetest.Cluster, user string, groups ...string) []byte {
	t.Helper()
	raw, err := ReadKubeconfig(cluster.Kubeconfig(t, user, groups...))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// inventory lists everything that a registration may leave, in both clusters.
func (w *world) inventory(t *testing.T) []string {
	t.Helper()
	var all []string
	add := func(what string, object metav1.Object) { all = append(all, what+" "+object.GetName()) }
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pool := &v1alpha1.ResourcePoolList{}
	must(w.operator.Admin.List(ctx, pool))
	for i := range pool.Items {
		add("resourcepool", &pool.Items[i])
	}
	secrets, err := w.operator.Control.CoreV1().Secrets(names.SystemNamespace).List(ctx, metav1.ListOptions{})
	must(err)
	for i := range secrets.Items {
		add("control secret", &secrets.Items[i])
	}
	namespaces, err := w.poolClient.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	must(err)
	for i := range namespaces.Items {
		if namespaces.Items[i].DeletionTimestamp == nil {
			add("pool namespace", &namespaces.Items[i])
		}
	}
	roles, err := w.poolClient.RbacV1().ClusterRoles().List(ctx, metav1.ListOptions{})
	must(err)
	for i := range roles.Items {
		if strings.HasPrefix(roles.Items[i].Name, "vivarium") {
			add("pool clusterrole", &roles.Items[i])
		}
	}
	bindings, err := w.poolClient.RbacV1().ClusterRoleBindings().List(ctx, metav1.ListOptions{})
	must(err)
	for i := range bindings.Items {
		if strings.HasPrefix(bindings.Items[i].Name, "vivarium") {
			add("pool clusterrolebinding", &bindings.Items[i])
		}
	}
	policies, err := w.poolClient.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(ctx, metav1.ListOptions{})
	must(err)
	for i := range policies.Items {
		add("pool policy", &policies.Items[i])
	}
	slices.Sort(all)
	return all
}

// settle waits until the pool has forgotten an earlier registration: deleting a namespace takes a while.
func (w *world) settle(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		_, err := w.poolClient.CoreV1().Namespaces().Get(t.Context(), names.SystemNamespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the pool's vivarium-system does not go")
		}
	}
}

// ready plays vk-provider: it finds every new pool ready.
func (w *world) ready(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			list := &v1alpha1.ResourcePoolList{}
			if err := w.operator.Admin.List(ctx, list); err == nil {
				for i := range list.Items {
					pool := &list.Items[i]
					if meta.SetStatusCondition(&pool.Status.Conditions, metav1.Condition{Type: v1alpha1.PoolReady, Status: metav1.ConditionTrue, Reason: "Checked"}) {
						_ = w.operator.Admin.Status().Update(ctx, pool)
					}
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// TestRegisterRefuses: every wrong kubeconfig gets its own clear message and leaves nothing.
func TestRegisterRefuses(t *testing.T) {
	w := use(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	admin := w.kubeconfig(t, w.pool, "pool-admin", "system:masters")
	at := func(server string) []byte {
		return withServer(t, admin, server)
	}
	_, err = w.poolClient.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "test-reader"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "reader"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.operator.Admin.Create(t.Context(), &v1alpha1.ResourcePool{ObjectMeta: metav1.ObjectMeta{Name: "taken"}, Spec: v1alpha1.ResourcePoolSpec{ClusterUID: "elsewhere"}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = w.operator.Admin.Delete(context.Background(), &v1alpha1.ResourcePool{ObjectMeta: metav1.ObjectMeta{Name: "taken"}})
	})
	before := w.inventory(t)
	cases := map[string]struct {
		kubeconfig []byte
		name       string
		want       []string
	}{
		"NothingListens":    {at("https://" + closed.Addr().String()), "p", []string{"nothing listens at", closed.Addr().String()}},
		"DoesNotAnswer":     {at("https://" + silent.Addr().String()), "p", []string{"does not answer within 10s"}},
		"UnknownName":       {at("https://no-such-host.invalid:6443"), "p", []string{`"no-such-host.invalid"`, "cannot be resolved"}},
		"OtherCertificate":  {at(w.control.Config.Host), "p", []string{"certificate"}},
		"BadToken":          {token(t, admin, "nonsense"), "p", []string{"does not accept the credentials"}},
		"LacksRights":       {w.kubeconfig(t, w.pool, "reader"), "p", []string{"lack", "create", "pods", "clusterroles", "--print-role"}},
		"BadName":           {admin, "Bad_Name", []string{`"Bad_Name" cannot be a pool's name`}},
		"NameTaken":         {admin, "taken", []string{"there is a pool taken already"}},
		"TheControlCluster": {w.kubeconfig(t, w.control, "control-admin", "system:masters"), "p", []string{"the control cluster itself"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			err := w.operator.Register(t.Context(), Registration{Name: tc.name, Kubeconfig: tc.kubeconfig, Manifests: manifests(t), Wait: time.Second})
			if err == nil {
				t.Fatal("was registered")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
			if after := w.inventory(t); !slices.Equal(before, after) {
				t.Errorf("left something: before %v, after %v", before, after)
			}
		})
	}
}

func withServer(t *testing.T, kubeconfig []byte, server string) []byte {
	t.Helper()
	config, err := clientcmd.Load(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, cluster := range config.Clusters {
		cluster.Server = server
	}
	raw, err := clientcmd.Write(*config)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func token(t *testing.T, kubeconfig []byte, token string) []byte {
	t.Helper()
	raw, err := withToken(kubeconfig, "x", token)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestRegisterRollsBack: a pool that nobody finds ready is not left registered, and nothing is left in it.
func TestRegisterRollsBack(t *testing.T) {
	w := use(t)
	w.settle(t)
	before := w.inventory(t)
	err := w.operator.Register(t.Context(), Registration{Name: "pool-x", Kubeconfig: w.kubeconfig(t, w.pool, "pool-admin", "system:masters"), Manifests: manifests(t), Wait: time.Second})
	if err == nil || !strings.Contains(err.Error(), "does the vk-provider run?") {
		t.Errorf("got %v", err)
	}
	if after := w.inventory(t); !slices.Equal(before, after) {
		t.Errorf("left something: before %v, after %v", before, after)
	}
	// The pool is still deleting what was taken back; the next attempt waits for that.
	w.ready(t)
	if err := w.operator.Register(t.Context(), Registration{Name: "pool-x", Kubeconfig: w.kubeconfig(t, w.pool, "pool-admin", "system:masters"), Manifests: manifests(t), Wait: 3 * time.Minute}); err != nil {
		t.Errorf("at once again: %v", err)
	}
	if err := w.operator.RemovePool(t.Context(), "pool-x", true, false, 3*time.Minute); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := Uninstall(t.Context(), w.kubeconfig(t, w.pool, "pool-admin", "system:masters"), manifests(t))
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// testRefresh: rights that an older release has not set up come with a refresh, and only in the cluster that the pool is.
func testRefresh(t *testing.T, w *world, admin []byte) {
	t.Helper()
	roles := kubernetes.NewForConfigOrDie(w.pool.Config).RbacV1().ClusterRoles()
	role, err := roles.Get(t.Context(), "vivarium-pool", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := len(role.Rules)
	role.Rules = role.Rules[1:]
	if _, err := roles.Update(t.Context(), role, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := w.operator.Refresh(t.Context(), "pool-x", admin, manifests(t)); err != nil {
		t.Error(err)
	}
	if role, err = roles.Get(t.Context(), "vivarium-pool", metav1.GetOptions{}); err != nil || len(role.Rules) != want {
		t.Errorf("after a refresh the role has %d rules of %d: %v", len(role.Rules), want, err)
	}
	other := w.kubeconfig(t, w.control, "control-admin", "system:masters")
	if err := w.operator.Refresh(t.Context(), "pool-x", other, manifests(t)); err == nil || !strings.Contains(err.Error(), "is another cluster") {
		t.Errorf("with another cluster's kubeconfig: %v", err)
	}
}

// testRemoveCounts: a pool with pods is not removed, whatever its status says, and those that have ended do not count.
func testRemoveCounts(t *testing.T, w *world) {
	t.Helper()
	core := w.operator.Control.CoreV1()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "pool-x-counted", Labels: map[string]string{names.LabelPool: "pool-x"}}}
	if _, err := core.Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	no, none := false, int64(0)
	for _, name := range []string{"lives", "ended"} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
			NodeName: node.Name, AutomountServiceAccountToken: &no, Containers: []corev1.Container{{Name: "c", Image: "vivarium.test/echo:v1"}},
		}}
		if _, err := core.Pods(names.SystemNamespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := core.Pods(names.SystemNamespace).Patch(t.Context(), "ended", types.MergePatchType, []byte(`{"status":{"phase":"Succeeded"}}`), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	if err := w.operator.RemovePool(t.Context(), "pool-x", false, false, time.Minute); err == nil || !strings.Contains(err.Error(), "has 1 pods of tenants") {
		t.Errorf("removed with a pod in it: %v", err)
	}
	for _, name := range []string{"lives", "ended"} {
		if err := core.Pods(names.SystemNamespace).Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: &none}); err != nil {
			t.Error(err)
		}
	}
	if err := core.Nodes().Delete(t.Context(), node.Name, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

// TestRegister follows a registration to its end: least privilege, the second wall, a second name for the same cluster,
// and removal.
func TestRegister(t *testing.T) {
	w := use(t)
	w.settle(t)
	w.ready(t)
	before := w.inventory(t)
	admin := w.kubeconfig(t, w.pool, "pool-admin", "system:masters")
	register := func(name string) error {
		return w.operator.Register(t.Context(), Registration{Name: name, Kubeconfig: admin, Manifests: manifests(t), Wait: 3 * time.Minute,
			Spec: v1alpha1.ResourcePoolSpec{Location: v1alpha1.PoolLocation{Region: "eu"}}})
	}
	if err := register("pool-x"); err != nil {
		t.Fatal(err)
	}
	if err := register("pool-y"); err == nil || !strings.Contains(err.Error(), "registered already, as pool pool-x") {
		t.Errorf("the same cluster twice: %v", err)
	}
	pool, err := w.operator.Pool(t.Context(), "pool-x")
	if err != nil {
		t.Fatal(err)
	}
	if pool.Spec.Location.Region != "eu" || pool.Spec.ClusterUID == "" {
		t.Errorf("spec %+v", pool.Spec)
	}
	secret, err := w.operator.Control.CoreV1().Secrets(names.SystemNamespace).Get(t.Context(), pool.Spec.Credentials.KubeconfigSecret, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(secret.Data[pools.KubeconfigKey]), "client-key-data") {
		t.Error("the administrator's credentials were stored")
	}
	config, err := pools.ParseKubeconfig(secret.Data[pools.KubeconfigKey])
	if err != nil {
		t.Fatal(err)
	}
	report, err := pools.Preflight(t.Context(), config, "")
	if err != nil || len(report.Missing)+len(report.Problems) > 0 {
		t.Errorf("the stored credentials: %+v, %v", report, err)
	}
	testWall(t, w, kubernetes.NewForConfigOrDie(config))
	testRefresh(t, w, admin)
	testRemoveCounts(t, w)

	if err := w.operator.RemovePool(t.Context(), "pool-x", true, false, 3*time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := Uninstall(t.Context(), admin, manifests(t)); err == nil || !strings.Contains(err.Error(), "tenants' namespaces") {
		t.Errorf("uninstalled under a tenant's namespace: %v", err)
	}
	for _, ns := range []string{"abc123-web"} {
		if err := w.poolClient.CoreV1().Namespaces().Delete(t.Context(), ns, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := Uninstall(t.Context(), admin, manifests(t))
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if after := w.inventory(t); !slices.Equal(before, after) {
		t.Errorf("removal left something: before %v, after %v", before, after)
	}
}

// testWall tries with the platform's own credential what the pool's admission policies forbid.
func testWall(t *testing.T, w *world, platform kubernetes.Interface) {
	t.Helper()
	ctx := t.Context()
	marked := map[string]string{names.LabelTenant: "abc123", names.LabelControl: "c", names.LabelManagedBy: "vivarium"}
	namespace := func(name string, labels map[string]string) error {
		_, err := platform.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
		return err
	}
	// The policies are in force a moment after they are made.
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if err := namespace("default-probe", nil); apierrors.IsForbidden(err) {
			break
		}
		_ = w.poolClient.CoreV1().Namespaces().Delete(ctx, "default-probe", metav1.DeleteOptions{})
		if time.Now().After(deadline) {
			t.Fatal("the policies are not in force")
		}
	}
	if err := namespace("abc123-web", marked); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err := w.poolClient.CoreV1().ServiceAccounts("abc123-web").Get(ctx, "default", metav1.GetOptions{}); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no ServiceAccount in abc123-web")
		}
	}
	no, yes := false, true
	pod := func(change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Name: "p", Namespace: "abc123-web",
				Annotations: map[string]string{"network.vivarium.io/binding": "tenant=abc123,driver=flat"},
			},
			Spec: corev1.PodSpec{
				AutomountServiceAccountToken:  &no,
				TerminationGracePeriodSeconds: new(int64),
				Containers:                    []corev1.Container{{Name: "c", Image: "vivarium.test/shell:v1"}},
			},
		}
		if change != nil {
			change(p)
		}
		return p
	}
	create := func(client kubernetes.Interface, p *corev1.Pod) error {
		_, err := client.CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
		return err
	}
	// Each policy begins to count by itself.
	try := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	for what, probe := range map[string]func() error{
		"pods": func() error {
			_, err := platform.CoreV1().Pods("abc123-web").Create(ctx, pod(func(p *corev1.Pod) { p.Spec.HostNetwork = true }), try)
			return err
		},
		"bindings": func() error {
			_, err := platform.CoreV1().Pods("abc123-web").Create(ctx, pod(func(p *corev1.Pod) { p.Annotations = nil }), try)
			return err
		},
		"secrets": func() error {
			_, err := platform.CoreV1().Secrets("kube-system").Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}}, try)
			return err
		},
	} {
		for deadline := time.Now().Add(3 * time.Minute); !apierrors.IsForbidden(probe()); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the policy of %s is not in force", what)
			}
		}
	}
	refused := map[string]struct {
		err  error
		want string
	}{
		"NamespaceUnmarked":    {namespace("abc123-x", nil), "marked as a tenant's"},
		"NamespaceOtherPrefix": {namespace("zzz999-x", marked), "marked as a tenant's"},
		"NamespaceDelete":      {platform.CoreV1().Namespaces().Delete(ctx, "kube-node-lease", metav1.DeleteOptions{}), "marked as a tenant's"},
		"SecretElsewhere":      {createSecret(ctx, platform, "kube-system"), "in tenants' namespaces only"},
		"PodElsewhere":         {create(platform, pod(func(p *corev1.Pod) { p.Namespace = "default" })), "in tenants' namespaces only"},
		"NoBinding":            {create(platform, pod(func(p *corev1.Pod) { p.Annotations = nil })), "network.vivarium.io/binding"},
		"EmptyBinding":         {create(platform, pod(func(p *corev1.Pod) { p.Annotations["network.vivarium.io/binding"] = "" })), "network.vivarium.io/binding"},
		"OtherTenantsBinding":  {create(platform, pod(func(p *corev1.Pod) { p.Annotations["network.vivarium.io/binding"] = "tenant=zzz999,driver=flat" })), "network.vivarium.io/binding"},
		"NoBindingByOthers":    {create(w.poolClient, pod(func(p *corev1.Pod) { p.Annotations = nil })), "network.vivarium.io/binding"},
		"HostNetwork":          {create(platform, pod(func(p *corev1.Pod) { p.Spec.HostNetwork = true })), "node's namespaces"},
		"HostPID":              {create(platform, pod(func(p *corev1.Pod) { p.Spec.HostPID = true })), "node's namespaces"},
		"HostPath": {create(platform, pod(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
		})), "node's files"},
		"HostPort": {create(platform, pod(func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80}}
		})), "node's ports"},
		"Privileged": {create(platform, pod(func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: &yes} })), "privileged"},
		"PrivilegedInit": {create(platform, pod(func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "x", SecurityContext: &corev1.SecurityContext{Privileged: &yes}}}
		})), "privileged"},
		"AutomountedToken": {create(platform, pod(func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = &yes })), "identity in the pool"},
		"ProjectedToken": {create(platform, pod(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "t"}}}}}}}
		})), "identity in the pool"},
		"SystemPriority": {create(platform, pod(func(p *corev1.Pod) { p.Spec.PriorityClassName = "system-node-critical" })), "priority"},
	}
	for name, tc := range refused {
		if !apierrors.IsForbidden(tc.err) || !strings.Contains(tc.err.Error(), tc.want) {
			t.Errorf("%s: got %v, want Forbidden with %q", name, tc.err, tc.want)
		}
	}
	if err := create(platform, pod(nil)); err != nil {
		t.Fatalf("an ordinary pod: %v", err)
	}
	live, err := platform.CoreV1().Pods("abc123-web").Get(ctx, "p", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	live.Labels = map[string]string{"a": "b"}
	if _, err := platform.CoreV1().Pods("abc123-web").Update(ctx, live, metav1.UpdateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a pod was replaced, which the platform never does: %v", err)
	}
	live, err = platform.CoreV1().Pods("abc123-web").Patch(ctx, "p", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatalf("an ordinary change: %v", err)
	}
	for _, binding := range []string{"", "tenant=abc123,driver=other"} {
		changed := live.DeepCopy()
		changed.Annotations["network.vivarium.io/binding"] = binding
		if _, err := w.poolClient.CoreV1().Pods("abc123-web").Update(ctx, changed, metav1.UpdateOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("the binding was changed to %q: %v", binding, err)
		}
	}
	if err := createSecret(ctx, platform, "abc123-web"); err != nil {
		t.Errorf("a Secret in a tenant's namespace: %v", err)
	}
	// Nobody else is hindered elsewhere.
	if err := create(w.poolClient, pod(func(p *corev1.Pod) { p.Namespace, p.Annotations, p.Spec.HostNetwork = "kube-system", nil, true })); err != nil && !strings.Contains(err.Error(), "serviceaccount") {
		t.Errorf("the pool's own pod: %v", err)
	}
	for _, ns := range []string{"abc123-web", "kube-system"} {
		_ = w.poolClient.CoreV1().Pods(ns).Delete(ctx, "p", metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
	}
}

func createSecret(ctx context.Context, client kubernetes.Interface, namespace string) error {
	_, err := client.CoreV1().Secrets(namespace).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}}, metav1.CreateOptions{})
	return err
}

// TestRegisterAsGiven: credentials that suffice but may set nothing up are stored as they are.
func TestRegisterAsGiven(t *testing.T) {
	w := use(t)
	w.settle(t)
	w.ready(t)
	role, err := decode(manifests(t).Role)
	if err != nil {
		t.Fatal(err)
	}
	install, err := newInstaller(w.pool.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := install.apply(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = install.undo(context.Background()) }()
	_, err = w.poolClient.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "test-vivarium-pool"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "vivarium-pool"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "prepared"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	given := w.kubeconfig(t, w.pool, "prepared")
	if err := w.operator.Register(t.Context(), Registration{Name: "pool-z", Kubeconfig: given, Manifests: manifests(t), Wait: 3 * time.Minute}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.operator.RemovePool(context.Background(), "pool-z", true, true, 3*time.Minute) }()
	secret, err := w.operator.Control.CoreV1().Secrets(names.SystemNamespace).Get(t.Context(), "pool-pool-z", metav1.GetOptions{})
	if err != nil || string(secret.Data[pools.KubeconfigKey]) != string(given) {
		t.Errorf("stored something else: %v", err)
	}
	if !slices.ContainsFunc(*w.said, func(s string) bool { return strings.Contains(s, "no admission policy") }) {
		t.Errorf("said %q", *w.said)
	}
}

// TestTenants covers what needs no gateway: the errors, and that a list shows no credentials.
func TestTenants(t *testing.T) {
	w := use(t)
	if err := w.operator.CreateTenant(t.Context(), "Nope!", v1alpha1.TenantSpec{}); err == nil || !strings.Contains(err.Error(), "six") && !strings.Contains(err.Error(), "6 characters") {
		t.Errorf("a bad ID: %v", err)
	}
	if err := w.operator.CreateTenant(t.Context(), "cli001", v1alpha1.TenantSpec{Weight: 5}); err != nil {
		t.Fatal(err)
	}
	if err := w.operator.CreateTenant(t.Context(), "cli001", v1alpha1.TenantSpec{}); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("twice: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := w.operator.AwaitTenant(short, "cli001"); err == nil || !strings.Contains(err.Error(), "not ready yet") {
		t.Errorf("nobody makes it ready: %v", err)
	}
	tenant, err := w.operator.Tenant(t.Context(), "cli001")
	if err != nil {
		t.Fatal(err)
	}
	tenant.Annotations = map[string]string{v1alpha1.AnnotationKubeconfig: "c2VjcmV0"}
	if err := w.operator.Admin.Update(t.Context(), tenant); err != nil {
		t.Fatal(err)
	}
	if raw, err := w.operator.TenantKubeconfig(t.Context(), "cli001"); err != nil || string(raw) != "secret" {
		t.Errorf("kubeconfig %q, %v", raw, err)
	}
	list, err := w.operator.Tenants(t.Context())
	if err != nil || len(list.Items) != 1 || list.Items[0].Annotations[v1alpha1.AnnotationKubeconfig] != "" {
		t.Errorf("the list holds credentials: %+v, %v", list, err)
	}
	if err := w.operator.ChangeTenant(t.Context(), "cli001", func(s *v1alpha1.TenantSpec) { s.Suspended = true }); err != nil {
		t.Error(err)
	}
	if tenant, err := w.operator.Tenant(t.Context(), "cli001"); err != nil || !tenant.Spec.Suspended {
		t.Errorf("not suspended: %v", err)
	}
	if table, err := w.operator.Table(t.Context(), "tenants", ""); err != nil || len(table.Rows) != 1 {
		t.Errorf("table %+v, %v", table, err)
	}
	if err := w.operator.DeleteTenant(t.Context(), "cli001"); err != nil {
		t.Error(err)
	}
	if err := w.operator.AwaitTenantGone(t.Context(), "cli001"); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"delete":  w.operator.DeleteTenant(t.Context(), "cli001"),
		"suspend": w.operator.ChangeTenant(t.Context(), "cli001", func(*v1alpha1.TenantSpec) {}),
	} {
		if err == nil || !strings.Contains(err.Error(), "there is no tenant cli001") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestOpenSaysWhatToDo(t *testing.T) {
	_, err := OpenAdmin(filepath.Join(t.TempDir(), "admin.kubeconfig"))
	if err == nil || !strings.Contains(err.Error(), "vivarium up") || !strings.Contains(err.Error(), "--admin-kubeconfig") {
		t.Errorf("got %v", err)
	}
}
