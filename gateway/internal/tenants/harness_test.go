package tenants_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/gateway/internal/admin"
	"vivarium.io/vivarium/gateway/internal/tenants"
	"vivarium.io/vivarium/internal/kubetest"
	"vivarium.io/vivarium/internal/localcluster"
	"vivarium.io/vivarium/internal/names"
)

// shared is the control cluster of this package's tests; each test uses tenants of its own.
var shared struct {
	cluster *kubetest.Cluster
	err     error
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tenants-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	cluster, stop, err := kubetest.Start(context.Background(), dir, kubetest.WithControllerManager())
	shared.cluster, shared.err = cluster, err
	if err == nil {
		defer stop()
	}
	return m.Run()
}

const gatewayUser = "vivarium-gateway"

// world is a gateway's admin side on the shared control cluster, with the rights that the real one has there.
type world struct {
	t         *testing.T
	control   kubernetes.Interface
	admin     client.WithWatch
	server    *admin.Server
	directory *tenants.Directory
	config    tenants.Config
	// adminConfig is good for any number of replicas.
	adminConfig admin.Config
	metrics     *prometheus.Registry
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if errors.Is(shared.err, kubetest.ErrNoPrograms) && !kubetest.InCI() {
		t.Skip(shared.err)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	control, err := kubernetes.NewForConfig(shared.cluster.Config)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, control: control, metrics: prometheus.NewRegistry()}
	w.allowGateway()
	w.eventually("the control cluster has put its roles together", func() error {
		for _, name := range []string{"admin", "edit", "view"} {
			role, err := control.RbacV1().ClusterRoles().Get(t.Context(), name, metav1.GetOptions{})
			if err == nil && len(role.Rules) == 0 {
				err = fmt.Errorf("clusterrole %s has no rules", name)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})

	identity := shared.cluster.ConfigFor(t, gatewayUser)
	scanner, err := tenants.NewScanner(identity)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ca, err := localcluster.OpenCA(filepath.Join(dir, "ca"), "ca")
	if err != nil {
		t.Fatal(err)
	}
	serving, err := ca.Issue(localcluster.Request{Name: "serving", User: "gateway", Hosts: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	etcd := shared.cluster.Etcd
	w.adminConfig = admin.Config{
		Listen: "127.0.0.1:0", CertFile: serving.Cert, KeyFile: serving.Key, ClientCAFile: ca.Cert, Scanner: scanner,
		Etcd: admin.Etcd{
			Servers: []string{etcd.Endpoint}, CAFile: etcd.CAFile, CertFile: etcd.Client.Cert, KeyFile: etcd.Client.Key,
			Prefix: "/" + t.Name(),
		},
	}
	w.server, err = admin.New(t.Context(), w.adminConfig)
	if err != nil {
		t.Fatal(err)
	}
	w.inBackground(w.server.Run)
	w.eventually("the admin API is ready", func() error { return w.server.Ready(t.Context()) })

	authority, err := tenants.LoadAuthority(ca.Cert, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(ca.Cert)
	if err != nil {
		t.Fatal(err)
	}
	w.config = tenants.Config{
		Loopback: w.server.LoopbackConfig(), Control: identity, Scanner: scanner, Authority: authority,
		ServerURL: "https://gateway.vivarium.test:6443", ServingCA: pem, PodAddress: netip.MustParseAddrPort("10.11.12.13:6443"),
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	w.admin, err = client.NewWithWatch(w.server.LoopbackConfig(), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	w.directory, err = tenants.NewDirectory(w.server.LoopbackConfig())
	if err != nil {
		t.Fatal(err)
	}
	w.inBackground(w.directory.Run)
	return w
}

// startController runs one replica and gives what stops it before the test ends.
func (w *world) startController(change ...func(*tenants.Config)) (stop func()) {
	w.t.Helper()
	config := w.config
	for _, c := range change {
		c(&config)
	}
	controller, err := tenants.NewController(config)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.inBackground(controller.Run)
}

func (w *world) inBackground(run func(context.Context) error) (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

// allowGateway gives the gateway the rights of testdata/control-role.yaml and no others.
func (w *world) allowGateway() {
	w.t.Helper()
	raw, err := os.ReadFile("testdata/control-role.yaml")
	if err != nil {
		w.t.Fatal(err)
	}
	var role rbacv1.ClusterRole
	if err := yaml.UnmarshalStrict(raw, &role); err != nil {
		w.t.Fatal(err)
	}
	ctx := w.t.Context()
	_, _ = w.control.RbacV1().ClusterRoles().Create(ctx, &role, metav1.CreateOptions{})
	_, _ = w.control.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: gatewayUser}},
	}, metav1.CreateOptions{})
}

// eventually waits until check gives nil.
func (w *world) eventually(what string, check func() error) {
	w.t.Helper()
	var err error
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	w.t.Fatalf("%s: %v", what, err)
}

func (w *world) create(name string, change ...func(*v1alpha1.Tenant)) *v1alpha1.Tenant {
	w.t.Helper()
	x := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, c := range change {
		c(x)
	}
	w.eventually("create tenant "+name, func() error { return w.admin.Create(w.t.Context(), x) })
	return x
}

func (w *world) get(name string) *v1alpha1.Tenant {
	w.t.Helper()
	var x v1alpha1.Tenant
	if err := w.admin.Get(w.t.Context(), client.ObjectKey{Name: name}, &x); err != nil {
		w.t.Fatal(err)
	}
	return &x
}

// await waits for a tenant's phase and gives the tenant.
func (w *world) await(name string, phase v1alpha1.TenantPhase) *v1alpha1.Tenant {
	w.t.Helper()
	var x *v1alpha1.Tenant
	w.eventually("tenant "+name+" is "+string(phase), func() error {
		x = w.get(name)
		if x.Status.Phase != phase {
			return fmt.Errorf("phase %q, conditions %+v", x.Status.Phase, x.Status.Conditions)
		}
		return nil
	})
	return x
}

func (w *world) change(name string, change func(*v1alpha1.Tenant)) {
	w.t.Helper()
	w.eventually("change tenant "+name, func() error {
		x := w.get(name)
		change(x)
		return w.admin.Update(w.t.Context(), x)
	})
}

func (w *world) delete(name string) {
	w.t.Helper()
	if err := w.admin.Delete(w.t.Context(), w.get(name)); err != nil {
		w.t.Fatal(err)
	}
}

// awaitReleased waits until the controller has let go of a deleted tenant.
func (w *world) awaitReleased(name string) {
	w.t.Helper()
	w.eventually("tenant "+name+" is released", func() error {
		x := w.get(name)
		if slices.Contains(x.Finalizers, v1alpha1.FinalizerControl) {
			return fmt.Errorf("%+v", x.Status)
		}
		return nil
	})
}

// find gives what the control cluster has of a tenant.
func (w *world) find(id names.TenantID) []string {
	w.t.Helper()
	found, err := w.config.Scanner.Find(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

func (w *world) namespace(name string, labels map[string]string) {
	w.t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	if _, err := w.control.CoreV1().Namespaces().Create(w.t.Context(), ns, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// versions gives the resource versions of what is made for a tenant. Namespaces are left out: others write their status.
func (w *world) versions(id string) map[string]string {
	w.t.Helper()
	versions := map[string]string{}
	add := func(kind string, o metav1.Object, err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
		versions[kind+" "+o.GetName()] = o.GetResourceVersion()
	}
	ctx, get := w.t.Context(), metav1.GetOptions{}
	for _, name := range []string{"cluster-admin", "admin", "edit", "view", "system:auth-delegator", "system:service-account-issuer-discovery"} {
		o, err := w.control.RbacV1().ClusterRoles().Get(ctx, id+"-"+name, get)
		add("clusterrole", o, err)
	}
	binding, err := w.control.RbacV1().ClusterRoleBindings().Get(ctx, id+"-cluster-admin", get)
	add("clusterrolebinding", binding, err)
	service, err := w.control.CoreV1().Services(id+"-default").Get(ctx, "kubernetes", get)
	add("service", service, err)
	slice, err := w.control.DiscoveryV1().EndpointSlices(id+"-default").Get(ctx, "kubernetes", get)
	add("endpointslice", slice, err)
	endpoints, err := w.control.CoreV1().Endpoints(id+"-default").Get(ctx, "kubernetes", get) //nolint:staticcheck // what is made is looked at
	add("endpoints", endpoints, err)
	schema, err := w.control.FlowcontrolV1().FlowSchemas().Get(ctx, id+"-tenant-requests", get)
	add("flowschema", &metav1.ObjectMeta{Name: schema.Name, ResourceVersion: fmt.Sprint(schema.Generation)}, err)
	level, err := w.control.FlowcontrolV1().PriorityLevelConfigurations().Get(ctx, id+"-tenant-requests", get)
	add("prioritylevelconfiguration", &metav1.ObjectMeta{Name: level.Name, ResourceVersion: fmt.Sprint(level.Generation)}, err)
	return versions
}

// quiet waits until a controller that was just started has looked at everything: a tenant that is created now is made
// after what was there before.
func (w *world) quiet() {
	w.t.Helper()
	name := fmt.Sprintf("q%05d", time.Now().UnixMilli()%100000)
	w.create(name)
	w.await(name, v1alpha1.TenantActive)
	time.Sleep(time.Second)
}

// kubeconfig reads a tenant's kubeconfig from the annotation.
func (w *world) kubeconfig(x *v1alpha1.Tenant) (*rest.Config, *x509.Certificate) {
	w.t.Helper()
	config, cert, err := readKubeconfig(x)
	if err != nil {
		w.t.Fatalf("kubeconfig of tenant %s: %v", x.Name, err)
	}
	return config, cert
}

func readKubeconfig(x *v1alpha1.Tenant) (*rest.Config, *x509.Certificate, error) {
	raw, err := base64.StdEncoding.DecodeString(x.Annotations[v1alpha1.AnnotationKubeconfig])
	if err != nil {
		return nil, nil, err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(raw)
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(config.CertData)
	if block == nil {
		return nil, nil, errors.New("no certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	return config, cert, err
}

// metric gives the value of a gauge, zero when there is none.
func (w *world) metric(name, label, value string) float64 {
	w.t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && m.GetLabel()[0].GetName() == label && m.GetLabel()[0].GetValue() == value {
				return m.GetGauge().GetValue()
			}
		}
	}
	return 0
}
