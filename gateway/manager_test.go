package gateway

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// TestManager runs an operator as tenants write them, two replicas of it in each of two tenants at once: in one tenant by
// the token of a ServiceAccount with a cache of everything, in the other by a certificate with a cache of one namespace.
func TestManager(t *testing.T) {
	w := theWorld(t)
	log.SetLogger(logr.Discard())
	for id, account := range map[string]bool{"kcmxa0": true, "kcmxb0": false} {
		admin := client(t, w.tenant(t, id))
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			c := clientset(t, admin)
			as, options := rest.CopyConfig(admin), cache.Options{DefaultNamespaces: map[string]cache.Config{"operators": {}}}
			if _, err := c.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "operators"}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			if account {
				as, options = operatorAccount(t, c, admin), cache.Options{}
			}
			operate(t, c, as, options)
		})
	}
}

// operatorAccount makes a ServiceAccount with the rights of the operator and gives the configuration of its token.
func operatorAccount(t *testing.T, c *kubernetes.Clientset, admin *rest.Config) *rest.Config {
	t.Helper()
	ctx := t.Context()
	_, err := c.CoreV1().ServiceAccounts("operators").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "mirror"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	read, write := []string{"get", "list", "watch"}, []string{"get", "list", "watch", "create", "update", "patch"}
	_, err = c.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "mirror"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: read},
		{APIGroups: []string{""}, Resources: []string{"configmaps/finalizers"}, Verbs: []string{"update"}},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: write},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: write},
		{APIGroups: []string{"", "events.k8s.io"}, Resources: []string{"events"}, Verbs: write},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "mirror"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "mirror"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "operators", Name: "mirror"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	token, err := clientset(t, admin).CoreV1().ServiceAccounts("operators").CreateToken(ctx, "mirror", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	as := rest.AnonymousClientConfig(admin)
	as.BearerToken, as.QPS = token.Status.Token, -1
	account := clientset(t, as)
	eventually(t, "the operator may read", func() bool {
		_, err := account.CoreV1().Secrets("operators").List(ctx, metav1.ListOptions{})
		return err == nil
	})
	return as
}

// operate runs two managers and follows one ConfigMap's life.
func operate(t *testing.T, c *kubernetes.Clientset, as *rest.Config, options cache.Options) {
	t.Helper()
	one, two := startManager(t, "one", as, options), startManager(t, "two", as, options)
	leader, follower := one, two
	select {
	case <-one.Elected():
	case <-two.Elected():
		leader, follower = two, one
	case <-time.After(patience):
		t.Fatal("nobody leads")
	}
	ctx := t.Context()
	maps, secrets := c.CoreV1().ConfigMaps("operators"), c.CoreV1().Secrets("operators")
	create := func(name, value string) {
		t.Helper()
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"mirror": "me"}}, Data: map[string]string{"k": value}}
		if _, err := maps.Create(ctx, cm, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	mirrored := func(name, value, by string) func() bool {
		return func() bool {
			s, err := secrets.Get(ctx, name, metav1.GetOptions{})
			return err == nil && string(s.Data["k"]) == value && s.Labels["by"] == by
		}
	}
	create("first", "a")
	eventually(t, "the leader makes the Secret", mirrored("first", "a", leader.name))
	secret, err := secrets.Get(ctx, "first", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if o := metav1.GetControllerOf(secret); o == nil || o.Kind != "ConfigMap" || o.Name != "first" || o.APIVersion != "v1" {
		t.Errorf("the Secret's owners are %v", secret.OwnerReferences)
	}
	if follower.reconciled() {
		t.Error("who does not lead has worked")
	}
	secret.Data["k"] = []byte("tampered with")
	if _, err := secrets.Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the leader repairs the Secret", mirrored("first", "a", leader.name))
	if _, err := maps.Patch(ctx, "first", "application/merge-patch+json", []byte(`{"data":{"k":"b"}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the leader follows the ConfigMap", mirrored("first", "b", leader.name))
	eventually(t, "its event is there", func() bool {
		list, err := c.EventsV1().Events("operators").List(ctx, metav1.ListOptions{FieldSelector: "reason=Mirrored,regarding.name=first"})
		return err == nil && len(list.Items) > 0 && list.Items[0].Regarding.Namespace == "operators"
	})
	leader.stop()
	select {
	case <-follower.Elected():
	case <-time.After(patience):
		t.Fatal("nobody takes over")
	}
	create("second", "c")
	eventually(t, "the other one makes a Secret", mirrored("second", "c", follower.name))
	if err := maps.Delete(ctx, "first", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a Secret goes with its ConfigMap", func() bool {
		_, err := secrets.Get(ctx, "first", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	for _, m := range []*aManager{leader, follower} {
		if m.jsonLists() {
			t.Errorf("manager %s got built-in types in JSON", m.name)
		}
	}
}

// aManager is one replica of the operator.
type aManager struct {
	manager.Manager
	name   string
	events events.EventRecorder
	stop   func()

	mu     sync.Mutex
	worked bool
	json   bool
}

func startManager(t *testing.T, name string, as *rest.Config, options cache.Options) *aManager {
	t.Helper()
	m := &aManager{name: name}
	as = rest.CopyConfig(as)
	as.Wrap(m.look)
	lease, renew, retry, anyName := 60*time.Second, 40*time.Second, 500*time.Millisecond, true
	var err error
	m.Manager, err = ctrl.NewManager(as, manager.Options{
		Scheme: scheme.Scheme, Cache: options, Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: &anyName},
		LeaderElection: true, LeaderElectionID: "mirror.example.com", LeaderElectionNamespace: "operators", LeaderElectionReleaseOnCancel: true,
		LeaseDuration: &lease, RenewDeadline: &renew, RetryPeriod: &retry,
	})
	if err != nil {
		t.Fatal(err)
	}
	m.events = m.GetEventRecorder("mirror")
	if err := ctrl.NewControllerManagedBy(m).For(&corev1.ConfigMap{}).Owns(&corev1.Secret{}).Complete(m); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- m.Start(ctx) }()
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-over; err != nil {
			t.Errorf("manager %s: %v", name, err)
		}
	})
	t.Cleanup(m.stop)
	return m
}

// Reconcile keeps a Secret with the content of a ConfigMap.
func (m *aManager) Reconcile(ctx context.Context, r ctrl.Request) (ctrl.Result, error) {
	var from corev1.ConfigMap
	if err := m.GetClient().Get(ctx, r.NamespacedName, &from); err != nil || from.Labels["mirror"] == "" || from.DeletionTimestamp != nil {
		return ctrl.Result{}, crclient.IgnoreNotFound(err)
	}
	m.mu.Lock()
	m.worked = true
	m.mu.Unlock()
	to := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: from.Namespace, Name: from.Name}}
	done, err := controllerutil.CreateOrUpdate(ctx, m.GetClient(), to, func() error {
		to.Labels = map[string]string{"by": m.name}
		to.Data = map[string][]byte{"k": []byte(from.Data["k"])}
		return controllerutil.SetControllerReference(&from, to, m.GetScheme())
	})
	if err == nil && done != controllerutil.OperationResultNone {
		m.events.Eventf(&from, to, corev1.EventTypeNormal, "Mirrored", "Mirror", "Secret %s: %s", to.Name, done)
	}
	return ctrl.Result{}, err
}

func (m *aManager) reconciled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.worked
}

// look notes what encoding the manager gets.
func (m *aManager) look(next http.RoundTripper) http.RoundTripper {
	return tripper(func(r *http.Request) (*http.Response, error) {
		res, err := next.RoundTrip(r)
		if err == nil && strings.HasSuffix(r.URL.Path, "/configmaps") && !strings.HasPrefix(res.Header.Get("Content-Type"), protobuf) {
			m.mu.Lock()
			m.json = true
			m.mu.Unlock()
		}
		return res, err
	})
}

func (m *aManager) jsonLists() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.json
}
