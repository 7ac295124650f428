package pools

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/version"
	fakediscovery "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

// fakeCluster is a cluster that grants every right but the denied ones.
func fakeCluster(t *testing.T, uid types.UID, denied ...string) *fake.Clientset {
	t.Helper()
	client := fake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: uid}})
	client.PrependReactor("create", "selfsubjectaccessreviews", func(action k8stesting.Action) (bool, runtime.Object, error) {
		review := action.(k8stesting.CreateAction).GetObject().(*authorizationv1.SelfSubjectAccessReview).DeepCopy()
		a := review.Spec.ResourceAttributes
		review.Status.Allowed = !slices.Contains(denied, Right{Verb: a.Verb, Group: a.Group, Resource: a.Resource, Subresource: a.Subresource}.String())
		return true, review, nil
	})
	client.Discovery().(*fakediscovery.FakeDiscovery).FakedServerVersion = &version.Info{GitVersion: "v1.36.3"}
	return client
}

func TestParseKubeconfig(t *testing.T) {
	const good = `
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: "https://pool.vivarium.test:6443"}}]
users: [{name: u, user: {token: secret-token}}]
`
	swap := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(good) }
	cases := map[string]struct {
		kubeconfig string
		want       string // part of the error; empty means accepted
	}{
		"Token":             {good, ""},
		"Empty":             {"", "is empty"},
		"NotYAML":           {"{", "not readable"},
		"NoContext":         {swap("current-context: c", ""), "no current-context"},
		"AbsentContext":     {swap("current-context: c", "current-context: d"), `no context "d"`},
		"AbsentUser":        {swap("user: u}", "user: w}"), `no user "w"`},
		"AbsentCluster":     {swap("cluster: k,", "cluster: l,"), `no cluster "l"`},
		"PlainHTTP":         {swap("https:", "http:"), "must be an https URL"},
		"NoServer":          {swap(`"https://pool.vivarium.test:6443"`, `""`), "must be an https URL"},
		"Insecure":          {swap(`:6443"`, `:6443", insecure-skip-tls-verify: true`), "insecure-skip-tls-verify is refused"},
		"CAFile":            {swap(`:6443"`, `:6443", certificate-authority: /etc/ca.crt`), "certificate-authority names a file"},
		"ExecPlugin":        {swap("token: secret-token", "exec: {apiVersion: client.authentication.k8s.io/v1, command: sh, interactiveMode: Never}"), "exec plugins are refused"},
		"AuthProvider":      {swap("token: secret-token", "auth-provider: {name: gcp}"), "auth-provider is refused"},
		"TokenFile":         {swap("token: secret-token", "tokenFile: /etc/shadow"), "tokenFile names a file"},
		"CertificateFile":   {swap("token: secret-token", "client-certificate: a, client-key: b"), "client-certificate names a file"},
		"Password":          {swap("token: secret-token", "username: a, password: b"), "username and password are refused"},
		"Impersonation":     {swap("token: secret-token", "token: t, as: root"), "impersonation is refused"},
		"NoCredential":      {swap("token: secret-token", ""), "neither a token nor"},
		"OtherUserIsBad":    {swap("token: secret-token}}]", "token: secret-token}}, {name: v, user: {tokenFile: /etc/shadow}}]"), ""},
		"TwoThingsAreNamed": {swap("https:", "http:", "token: secret-token", "tokenFile: x"), "tokenFile names a file"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			config, err := ParseKubeconfig([]byte(tc.kubeconfig))
			if tc.want == "" {
				if err != nil || config.Host != "https://pool.vivarium.test:6443" || config.BearerToken != "secret-token" {
					t.Fatalf("got %v, %v", config, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got error %v, want one with %q", err, tc.want)
			}
			if strings.Contains(err.Error(), "secret-token") {
				t.Errorf("the error carries the credential: %v", err)
			}
		})
	}
}

// TestClusterRolesGrantExactlyTheRights keeps the shipped roles and the code that uses them together.
func TestClusterRolesGrantExactlyTheRights(t *testing.T) {
	for driver, files := range map[string][]string{
		"":                     {"clusterrole.yaml"},
		v1alpha1.DriverKubeOVN: {"clusterrole.yaml", v1alpha1.DriverKubeOVN + "/access.yaml"},
		v1alpha1.DriverOVNUDN:  {"clusterrole.yaml", v1alpha1.DriverOVNUDN + "/access.yaml"},
	} {
		var granted, needed []string
		for _, file := range files {
			for _, rule := range rulesIn(t, filepath.Join("..", "..", "charts", "vivarium-pool", "files", file)) {
				for _, group := range rule.APIGroups {
					for _, resource := range rule.Resources {
						for _, verb := range rule.Verbs {
							base, sub, _ := strings.Cut(resource, "/")
							granted = append(granted, Right{Verb: verb, Group: group, Resource: base, Subresource: sub}.String())
						}
					}
				}
			}
		}
		for _, right := range Rights(driver) {
			needed = append(needed, right.String())
		}
		// How the other rights are asked for; everybody has it unless an operator took it away.
		needed = append(needed, Right{Verb: "create", Group: "authorization.k8s.io", Resource: "selfsubjectaccessreviews"}.String())
		slices.Sort(granted)
		slices.Sort(needed)
		if diff := cmp.Diff(needed, granted); diff != "" {
			t.Errorf("ClusterRoles for driver %q against Rights (-needed +granted):\n%s", driver, diff)
		}
	}
}

// rulesIn gives the rules of the one ClusterRole in a file.
func rulesIn(t *testing.T, file string) []rbacv1.PolicyRule {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for document := range strings.SplitSeq(string(raw), "\n---\n") {
		var role rbacv1.ClusterRole
		if err := yaml.Unmarshal([]byte(document), &role); err != nil {
			t.Fatal(err)
		}
		if role.Kind == "ClusterRole" {
			return role.Rules
		}
	}
	t.Fatalf("%s has no ClusterRole", file)
	return nil
}

func TestPreflight(t *testing.T) {
	client := fakeCluster(t, "uid-a", "create pods/exec", "get pods/exec", "watch nodes")
	client.Discovery().(*fakediscovery.FakeDiscovery).FakedServerVersion = &version.Info{GitVersion: "v1.29.4"}
	got, err := preflight(t.Context(), client, "https://pool", "")
	if err != nil {
		t.Fatal(err)
	}
	want := Report{
		ClusterUID: "uid-a", Version: "v1.29.4",
		Missing:  []string{"create, get pods/exec", "watch nodes"},
		Problems: []string{"the pool runs Kubernetes v1.29.4; v1.30.0 or newer is needed"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

// TestWhatAPoolCanDoWithout: such a right is told, and the pool is used.
func TestWhatAPoolCanDoWithout(t *testing.T) {
	report, err := preflight(t.Context(), fakeCluster(t, "uid-a", "list pods.metrics.k8s.io"), "https://pool", "")
	if err != nil {
		t.Fatal(err)
	}
	if found := authorization(report); !found.Good() || !strings.Contains(found.Message, "list pods.metrics.k8s.io") || !strings.Contains(found.Message, "no figures") {
		t.Errorf("%+v", found)
	}
}

func TestEnsureNamespace(t *testing.T) {
	resource := &v1alpha1.ResourcePool{ObjectMeta: metav1.ObjectMeta{Name: "pool-a"}}
	deleted := metav1.Now()
	ours := map[string]string{names.LabelTenant: "abc123", names.LabelControl: "control-1", names.LabelManagedBy: "vivarium"}
	cases := map[string]struct {
		namespace names.ControlNamespace
		there     *corev1.Namespace
		want      error
	}{
		"Absent":      {"abc123-web", nil, nil},
		"Ours":        {"abc123-web", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "abc123-web", Labels: ours}}, nil},
		"NotATenants": {"kube-system", nil, names.ErrForeign},
		"Unlabelled":  {"abc123-web", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "abc123-web"}}, ErrNotOurs},
		"OtherControl": {"abc123-web", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "abc123-web", Labels: map[string]string{
			names.LabelTenant: "abc123", names.LabelControl: "control-2", names.LabelManagedBy: "vivarium",
		}}}, ErrNotOurs},
		"Terminating": {"abc123-web", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "abc123-web", Labels: ours, DeletionTimestamp: &deleted, Finalizers: []string{"x"}}}, ErrTerminating},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			client := fakeCluster(t, "uid-a")
			if tc.there != nil {
				client = fake.NewClientset(tc.there)
			}
			pool := NewPool(resource, "control-1", nil, client)
			for range 2 { // idempotent
				if err := EnsureNamespace(t.Context(), pool, tc.namespace); !errors.Is(err, tc.want) {
					t.Fatalf("got %v, want %v", err, tc.want)
				}
			}
			if tc.want != nil {
				return
			}
			got, err := client.CoreV1().Namespaces().Get(t.Context(), string(tc.namespace), metav1.GetOptions{})
			if err != nil || !OwnsNamespace(pool, got) {
				t.Errorf("namespace afterwards: %v, %v", got, err)
			}
		})
	}
}

// TestEnsureNamespaceForDriver: what a network plugin believes from a namespace's creation alone is there from then.
func TestEnsureNamespaceForDriver(t *testing.T) {
	for _, driver := range v1alpha1.Drivers() {
		pool := NewPool(&v1alpha1.ResourcePool{Spec: v1alpha1.ResourcePoolSpec{Network: v1alpha1.PoolNetwork{Driver: driver}}}, "control-1", nil, fakeCluster(t, "uid-a"))
		if err := EnsureNamespace(t.Context(), pool, "abc123-web"); err != nil {
			t.Fatal(err)
		}
		got, err := pool.Client.CoreV1().Namespaces().Get(t.Context(), "abc123-web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, has := got.Labels["k8s.ovn.org/primary-user-defined-network"]; has != (driver == v1alpha1.DriverOVNUDN) {
			t.Errorf("driver %s: labels %v", driver, got.Labels)
		}
	}
}

func TestOwns(t *testing.T) {
	pool := NewPool(&v1alpha1.ResourcePool{ObjectMeta: metav1.ObjectMeta{Name: "pool-a"}}, "control-1", nil, nil)
	object := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: pool.Labels("vk-provider", "abc123", "pod-uid")}}
	if !pool.Owns("vk-provider", object) {
		t.Error("does not own what it labelled")
	}
	if pool.Owns("syncer", object) {
		t.Error("owns another component's object")
	}
	other := NewPool(&v1alpha1.ResourcePool{}, "control-2", nil, nil)
	if other.Owns("vk-provider", object) {
		t.Error("owns another control cluster's object")
	}
	if unknown := NewPool(&v1alpha1.ResourcePool{}, "", nil, nil); unknown.Owns("vk-provider", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{names.LabelManagedBy: "vk-provider"}}}) {
		t.Error("an unknown control cluster owns something")
	}
}
