package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/pager"
)

func clientset(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestInformers runs client-go's informers, as controllers do, over all namespaces of two tenants at once. Each sees its
// own objects come, change and go, and nothing else.
func TestInformers(t *testing.T) {
	w := theWorld(t)
	type side struct {
		client *kubernetes.Clientset
		store  cache.Store
	}
	sides := map[string]side{}
	for _, id := range []string{"inf00a", "inf00b"} {
		c := clientset(t, client(t, w.tenant(t, id)))
		factory := informers.NewSharedInformerFactory(c, 0)
		informer := factory.Core().V1().ConfigMaps().Informer()
		factory.Start(t.Context().Done())
		if !cache.WaitForCacheSync(t.Context().Done(), informer.HasSynced) {
			t.Fatal("the informer does not sync")
		}
		sides[id] = side{c, informer.GetStore()}
	}
	mine := func(s cache.Store) []string {
		var out []string
		for _, key := range s.ListKeys() {
			if !strings.HasSuffix(key, "/kube-root-ca.crt") {
				out = append(out, key)
			}
		}
		slices.Sort(out)
		return out
	}
	for id, s := range sides {
		for i := range 3 {
			cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", id, i)}}
			if _, err := s.client.CoreV1().ConfigMaps("default").Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.client.CoreV1().ConfigMaps("default").Delete(t.Context(), id+"-0", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for id, s := range sides {
		want := []string{"default/" + id + "-1", "default/" + id + "-2"}
		eventually(t, id+" sees its own", func() bool { return slices.Equal(mine(s.store), want) })
		// The informer and a consistent list over pages agree.
		var paged []string
		each := pager.New(pager.SimplePageFunc(func(o metav1.ListOptions) (runtime.Object, error) {
			return s.client.CoreV1().ConfigMaps("").List(t.Context(), o)
		}))
		each.PageSize = 1
		if err := each.EachListItem(t.Context(), metav1.ListOptions{}, func(o runtime.Object) error {
			cm := o.(*corev1.ConfigMap)
			if cm.Name != "kube-root-ca.crt" {
				paged = append(paged, cm.Namespace+"/"+cm.Name)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, paged); diff != "" {
			t.Errorf("%s by pages (-want +got):\n%s", id, diff)
		}
	}
}

// TestDiscovery reads a tenant's API in every form that clients use and compares them.
func TestDiscovery(t *testing.T) {
	w := theWorld(t)
	config := client(t, w.tenant(t, "disc0a"))
	aggregated, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	legacy, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	legacy.UseLegacyDiscovery = true
	read := func(c *discovery.DiscoveryClient) map[string]metav1.APIResource {
		t.Helper()
		_, lists, err := c.ServerGroupsAndResources()
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]metav1.APIResource{}
		for _, list := range lists {
			for _, r := range list.APIResources {
				// The aggregated form spells out what the legacy one leaves to the list.
				gv := list.GroupVersion
				if r.Group != "" || r.Version != "" {
					if own := (metav1.GroupVersionKind{Group: r.Group, Version: r.Version}); own.Group+"/"+own.Version != gv && own.Version != gv {
						gv += " as " + own.Group + "/" + own.Version
					}
				}
				r.Group, r.Version, r.StorageVersionHash = "", "", ""
				if strings.Contains(r.Name, "/") {
					r.SingularName = "" // client-go makes one up
				}
				out[gv+" "+r.Name] = r
			}
		}
		return out
	}
	a, l := read(aggregated), read(legacy)
	if diff := cmp.Diff(l, a); diff != "" {
		t.Errorf("legacy (-) and aggregated (+) discovery differ:\n%s", diff)
	}
	for _, name := range []string{"v1 pods", "v1 pods/exec as /v1", "apps/v1 deployments", "v1 nodes"} {
		if _, ok := a[name]; !ok && !strings.Contains(name, " as ") {
			t.Errorf("%s is missing", name)
		}
	}
	for name, r := range a {
		if strings.Contains(name, "vivarium") || strings.Contains(name, "v1alpha") || strings.HasSuffix(name, "bindings") && strings.HasPrefix(name, "v1 ") {
			t.Errorf("%s is there", name)
		}
		if readOnly := strings.HasSuffix(name, " nodes") || strings.HasSuffix(name, " persistentvolumes") || strings.HasSuffix(name, "webhookconfigurations") ||
			strings.HasSuffix(name, " storageclasses"); readOnly && !slices.Equal(r.Verbs, []string{"get", "list", "watch"}) {
			t.Errorf("%s: %v", name, r.Verbs)
		}
	}

	t.Run("OpenAPI", func(t *testing.T) {
		document, err := aggregated.OpenAPISchema()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, d := range document.GetDefinitions().GetAdditionalProperties() {
			names = append(names, d.GetName())
		}
		if !slices.Contains(names, "io.k8s.api.core.v1.Pod") || slices.Contains(names, "io.k8s.api.core.v1.Binding") {
			t.Errorf("%d definitions", len(names))
		}
		paths, err := aggregated.OpenAPIV3().Paths()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := paths["apis/admissionregistration.k8s.io/v1alpha1"]; ok || len(paths) < 10 {
			t.Errorf("%d documents", len(paths))
		}
		for _, contentType := range []string{"application/json", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"} {
			raw, err := paths["api/v1"].Schema(contentType)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(raw, []byte("io.k8s.api.core.v1.Pod")) || bytes.Contains(raw, []byte("/namespaces/{namespace}/bindings")) || bytes.Contains(raw, []byte("/api/v1/watch/")) {
				t.Errorf("%s: %d bytes", contentType, len(raw))
			}
		}
	})
	t.Run("Revalidation", func(t *testing.T) {
		transport, err := rest.TransportFor(config)
		if err != nil {
			t.Fatal(err)
		}
		get := func(etag string) *http.Response {
			r, err := http.NewRequestWithContext(t.Context(), "GET", config.Host+"/apis", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
			r.Header.Set("If-None-Match", etag)
			res, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			return res
		}
		first := get("")
		if again := get(first.Header.Get("Etag")); first.StatusCode != 200 || again.StatusCode != 304 {
			t.Errorf("%d, then %d", first.StatusCode, again.StatusCode)
		}
	})
}

// TestCompression checks that a large list is compressed for who wants it, and is the same.
func TestCompression(t *testing.T) {
	w := theWorld(t)
	config := client(t, w.tenant(t, "gzip0a"))
	c := clientset(t, config)
	for i := range 5 {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("large-%d", i)}, Data: map[string]string{"a": strings.Repeat("x", 100<<10)}}
		if _, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	for coding, want := range map[string]string{"gzip": "gzip", "identity": ""} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", config.Host+"/api/v1/configmaps", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept-Encoding", coding)
		res, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.Header.Get("Content-Encoding") != want || (coding == "gzip") == (len(raw) > 400<<10) {
			t.Errorf("%s: %d bytes as %q, %v", coding, len(raw), res.Header.Get("Content-Encoding"), err)
		}
	}
}

// TestSecondWall sends as the control cluster sees a tenant, past the gateway: the admission policies alone must keep it
// inside.
func TestSecondWall(t *testing.T) {
	w := theWorld(t)
	w.tenant(t, "wall0a")
	w.tenant(t, "wall0b")
	config := rest.CopyConfig(w.cluster.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: "wall0a-admin", Groups: []string{"wall0a-system:masters", "wall0a-system:authenticated"}}
	tenant := clientset(t, config)
	admin := clientset(t, w.cluster.Config)
	namespace := func(name string, labels map[string]string) error {
		_, err := tenant.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{DryRun: []string{"All"}})
		return err
	}
	configMap := func(ns string) error {
		_, err := tenant.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "a-"}}, metav1.CreateOptions{DryRun: []string{"All"}})
		return err
	}
	role := func(meta metav1.ObjectMeta) error {
		_, err := tenant.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: meta}, metav1.CreateOptions{DryRun: []string{"All"}})
		return err
	}
	secret := func(kind corev1.SecretType) error {
		meta := metav1.ObjectMeta{Name: "a", Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"}}
		_, err := admin.CoreV1().Secrets("wall0a-default").Create(t.Context(), &corev1.Secret{ObjectMeta: meta, Type: kind}, metav1.CreateOptions{DryRun: []string{"All"}})
		return err
	}
	pod := func(audience string) error {
		volume := corev1.Volume{Name: "t", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: audience, Path: "t"}},
		}}}}
		_, err := admin.CoreV1().Pods("wall0a-default").Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: corev1.PodSpec{Volumes: []corev1.Volume{volume}, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		}, metav1.CreateOptions{DryRun: []string{"All"}})
		return err
	}
	// as writes into a namespace of the first tenant as somebody that the gateway would not let be.
	as := func(user string, groups ...string) error {
		odd := rest.CopyConfig(w.cluster.Config)
		odd.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
		_, err := clientset(t, odd).CoreV1().ConfigMaps("wall0a-default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "a-"}},
			metav1.CreateOptions{DryRun: []string{"All"}})
		return err
	}
	good := map[string]string{"vivarium.io/tenant": "wall0a", "pod-security.kubernetes.io/enforce": "baseline"}
	// Policies take a moment to come into force.
	eventually(t, "the policies are in force", func() bool { return configMap("wall0b-default") != nil })
	cases := map[string]struct {
		do   func() error
		want bool
	}{
		"Own":     {func() error { return configMap("wall0a-default") }, true},
		"Foreign": {func() error { return configMap("wall0b-default") }, false},
		"OwnUser": {func() error { return as("wall0a-bob", "wall0a-system:masters", "wall0a-system:authenticated") }, true},
		"OwnAccount": {func() error {
			return as("system:serviceaccount:wall0a-default:bot", "wall0a-system:masters", "wall0a-system:authenticated")
		}, true},
		"ForeignUser":  {func() error { return as("wall0b-admin", "wall0a-system:masters", "wall0a-system:authenticated") }, false},
		"UnmarkedUser": {func() error { return as("bob", "wall0a-system:masters", "wall0a-system:authenticated") }, false},
		"ForeignAccount": {func() error {
			return as("system:serviceaccount:wall0b-default:bot", "wall0a-system:masters", "wall0a-system:authenticated")
		}, false},
		"TwoTenants": {func() error {
			return as("wall0a-admin", "wall0a-system:masters", "wall0a-system:authenticated", "wall0b-system:authenticated")
		}, false},
		// Rights there, and the group of another tenant.
		"GroupOfOthers":     {func() error { return as("wall0b-admin", "wall0a-system:masters", "wall0b-system:authenticated") }, false},
		"Platform":          {func() error { return configMap("kube-system") }, false},
		"OwnNamespace":      {func() error { return namespace("wall0a-x", good) }, true},
		"ForeignNamespace":  {func() error { return namespace("wall0b-x", good) }, false},
		"UnmarkedNamespace": {func() error { return namespace("wall0a-x", nil) }, false},
		"MarkedForeign": {func() error {
			return namespace("wall0a-x", map[string]string{"vivarium.io/tenant": "wall0b", "pod-security.kubernetes.io/enforce": "baseline"})
		}, false},
		"PrivilegedPods": {func() error {
			return namespace("wall0a-x", map[string]string{"vivarium.io/tenant": "wall0a", "pod-security.kubernetes.io/enforce": "privileged"})
		}, false},
		"OwnRole":          {func() error { return role(metav1.ObjectMeta{Name: "wall0a-x"}) }, true},
		"OwnGenerated":     {func() error { return role(metav1.ObjectMeta{GenerateName: "wall0a-x"}) }, true},
		"ForeignRole":      {func() error { return role(metav1.ObjectMeta{Name: "wall0b-x"}) }, false},
		"ForeignGenerated": {func() error { return role(metav1.ObjectMeta{GenerateName: "wall0b-x"}) }, false},
		"DeleteForeign": {func() error {
			return tenant.CoreV1().Namespaces().Delete(t.Context(), "wall0b-default", metav1.DeleteOptions{DryRun: []string{"All"}})
		}, false},
		"DeletePlatformRole": {func() error {
			return tenant.RbacV1().ClusterRoles().Delete(t.Context(), "cluster-admin", metav1.DeleteOptions{DryRun: []string{"All"}})
		}, false},
		"TokenSecret":      {func() error { return secret(corev1.SecretTypeServiceAccountToken) }, false},
		"PlainSecret":      {func() error { return secret(corev1.SecretTypeOpaque) }, true},
		"PodForControl":    {func() error { return pod("https://kubernetes.default.svc") }, false},
		"PodForControlToo": {func() error { return pod("https://kubernetes.default.svc.cluster.local/") }, false},
		"PodForOthers":     {func() error { return pod("vault") }, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			err := tc.do()
			if (err == nil) != tc.want || (err != nil && !apierrors.IsForbidden(err)) {
				t.Errorf("%v, allowed should be %v", err, tc.want)
			}
		})
	}
}

// TestTenantEnds deletes a tenant: its credentials are refused at once and what it has open is cut.
func TestTenantEnds(t *testing.T) {
	w := theWorld(t)
	kubeconfig := w.tenant(t, "ends0a")
	c := clientset(t, client(t, kubeconfig))
	watch, err := c.CoreV1().ConfigMaps("").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()

	suspend := func(is bool) {
		w.must(t, w.operator, "", "patch", "tenant", "ends0a", "--type=merge", "-p", fmt.Sprintf(`{"spec":{"suspended":%v}}`, is))
	}
	suspend(true)
	drained(t, watch.ResultChan())
	eventually(t, "a suspended tenant is refused", func() bool {
		_, err := c.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
		return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "suspended")
	})
	suspend(false)
	eventually(t, "a resumed tenant is served", func() bool {
		_, err := c.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
		return err == nil
	})
	if watch, err = c.CoreV1().ConfigMaps("").Watch(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	w.must(t, w.operator, "", "delete", "tenant", "ends0a", "--wait=false")
	drained(t, watch.ResultChan())
	eventually(t, "a deleted tenant is refused", func() bool {
		_, err := c.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
		return apierrors.IsUnauthorized(err)
	})
	admin := clientset(t, w.cluster.Config)
	eventually(t, "nothing is left in the control cluster", func() bool {
		_, err := admin.CoreV1().Namespaces().Get(t.Context(), "ends0a-default", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

// drained waits until a watch has ended.
func drained[T any](t *testing.T, events <-chan T) {
	t.Helper()
	over := time.After(soon)
	for {
		select {
		case _, open := <-events:
			if !open {
				return
			}
		case <-over:
			t.Fatal("the watch is still open")
		}
	}
}

// TestServiceAccountToken uses a token as a pod does.
func TestServiceAccountToken(t *testing.T) {
	w := theWorld(t)
	kubeconfig := w.tenant(t, "token0")
	w.must(t, kubeconfig, "", "create", "sa", "robot")
	w.must(t, kubeconfig, "", "create", "rolebinding", "robot", "--clusterrole=view", "--serviceaccount=default:robot")
	w.may(t, kubeconfig, "list", "pods", "--as=system:serviceaccount:default:robot")
	config := client(t, kubeconfig)
	withToken := func(token string) *kubernetes.Clientset {
		anonymous := rest.AnonymousClientConfig(config)
		anonymous.BearerToken = token
		return clientset(t, anonymous)
	}
	robot := withToken(strings.TrimSpace(w.must(t, kubeconfig, "", "create", "token", "robot")))
	if _, err := robot.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("list pods: %v", err)
	}
	_, err := robot.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsForbidden(err) || strings.Contains(err.Error(), "token0") {
		t.Errorf("list secrets: %v", err)
	}
	_, err = robot.CoreV1().Pods("kube-system").List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("list pods elsewhere: %v", err)
	}
	// Whatever the control cluster would accept itself is worth nothing here, and the other way round.
	admin := clientset(t, w.cluster.Config)
	if _, err := withToken("a.b.c").CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("with a made-up token: %v", err)
	}
	atControl := rest.AnonymousClientConfig(w.cluster.Config)
	atControl.BearerToken = strings.TrimSpace(w.must(t, kubeconfig, "", "create", "token", "robot"))
	if _, err := clientset(t, atControl).CoreV1().Pods("token0-default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("at the control cluster: %v", err)
	}
	if err := admin.CoreV1().ServiceAccounts("token0-default").Delete(t.Context(), "robot", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token of a deleted ServiceAccount is refused", func() bool {
		_, err := robot.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
		return apierrors.IsUnauthorized(err)
	})
}

// TestWatchCommand reads what kubectl get -w prints while objects come and go.
func TestWatchCommand(t *testing.T) {
	w := theWorld(t)
	kubeconfig, other := w.tenant(t, "watch0"), w.tenant(t, "watch1")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.kubectl, "--kubeconfig", kubeconfig, "get", "secrets", "-A", "-w", "-o", "json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	for i := range 3 {
		w.must(t, other, "", "create", "secret", "generic", fmt.Sprintf("foreign-%d", i))
		w.must(t, kubeconfig, "", "create", "secret", "generic", fmt.Sprintf("mine-%d", i))
	}
	frames := json.NewDecoder(out)
	for i := range 3 {
		var got corev1.Secret
		if err := frames.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("mine-%d", i); got.Name != want || got.Namespace != "default" {
			t.Errorf("%s/%s, want default/%s", got.Namespace, got.Name, want)
		}
	}
}
