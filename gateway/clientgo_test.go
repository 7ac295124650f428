package gateway

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	applyappsv1 "k8s.io/client-go/applyconfigurations/apps/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	clientfeatures "k8s.io/client-go/features"
	clientfeaturestesting "k8s.io/client-go/features/testing"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	toolswatch "k8s.io/client-go/tools/watch"
	"k8s.io/client-go/util/retry"

	"vivarium.io/vivarium/internal/boot"
)

const protobuf = "application/vnd.kubernetes.protobuf"

// informed are the types that one factory informs about at once: those of every controller, and those of which a tenant
// has none.
var informed = []schema.GroupVersionResource{
	{Version: "v1", Resource: "pods"}, {Version: "v1", Resource: "services"}, {Version: "v1", Resource: "endpoints"},
	{Version: "v1", Resource: "configmaps"}, {Version: "v1", Resource: "secrets"}, {Version: "v1", Resource: "serviceaccounts"},
	{Version: "v1", Resource: "namespaces"}, {Version: "v1", Resource: "nodes"}, {Version: "v1", Resource: "events"},
	{Version: "v1", Resource: "persistentvolumeclaims"}, {Version: "v1", Resource: "persistentvolumes"},
	{Version: "v1", Resource: "limitranges"}, {Version: "v1", Resource: "resourcequotas"},
	{Version: "v1", Resource: "replicationcontrollers"}, {Version: "v1", Resource: "podtemplates"},
	{Group: "apps", Version: "v1", Resource: "deployments"}, {Group: "apps", Version: "v1", Resource: "replicasets"},
	{Group: "apps", Version: "v1", Resource: "statefulsets"}, {Group: "apps", Version: "v1", Resource: "daemonsets"},
	{Group: "apps", Version: "v1", Resource: "controllerrevisions"},
	{Group: "batch", Version: "v1", Resource: "jobs"}, {Group: "batch", Version: "v1", Resource: "cronjobs"},
	{Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"},
	{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"},
	{Group: "networking.k8s.io", Version: "v1", Resource: "ingresses"},
	{Group: "networking.k8s.io", Version: "v1", Resource: "ingressclasses"},
	{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"},
	{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"},
	{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"},
	{Group: "events.k8s.io", Version: "v1", Resource: "events"},
	{Group: "storage.k8s.io", Version: "v1", Resource: "storageclasses"},
	{Group: "scheduling.k8s.io", Version: "v1", Resource: "priorityclasses"},
}

// TestSharedInformers runs one factory with many types in two tenants at once, in both encodings and in both ways of
// getting a first state. Every store must come to hold what a list shows.
func TestSharedInformers(t *testing.T) {
	w := theWorld(t)
	kubeconfigs := map[string]string{"kcfxa0": w.tenant(t, "kcfxa0"), "kcfxb0": w.tenant(t, "kcfxb0")}
	for id, kubeconfig := range kubeconfigs {
		c := clientset(t, client(t, kubeconfig))
		_, err := c.AppsV1().Deployments("default").Create(t.Context(), deployment("app-of-"+id), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "a pod of "+id, func() bool {
			pods, err := c.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
			return err == nil && len(pods.Items) == 1
		})
	}
	for _, encoding := range []string{"application/json", protobuf} {
		for _, streams := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,WatchList=%v", encoding[strings.LastIndexAny(encoding, "/.")+1:], streams), func(t *testing.T) {
				clientfeaturestesting.SetFeatureDuringTest(t, clientfeatures.WatchListClient, streams)
				var done []func()
				for id, kubeconfig := range kubeconfigs {
					done = append(done, startInformers(t, id, kubeconfig, encoding, streams))
				}
				for _, check := range done {
					check()
				}
			})
		}
	}
}

// startInformers starts a tenant's factory and gives the check of what it knows.
func startInformers(t *testing.T, id, kubeconfig, encoding string, streams bool) func() {
	config := client(t, kubeconfig)
	config.ContentType = encoding
	var seen requests
	config.Wrap(seen.wrap)
	c := clientset(t, config)
	ctx, stop := context.WithCancel(t.Context())
	factory := informers.NewSharedInformerFactory(c, 0)
	stores := map[schema.GroupVersionResource]cache.Store{}
	for _, gvr := range informed {
		informer, err := factory.ForResource(gvr)
		if err != nil {
			t.Fatal(err)
		}
		stores[gvr] = informer.Informer().GetStore()
	}
	factory.Start(ctx.Done())
	return func() {
		defer factory.Shutdown()
		defer stop()
		synced, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		for kind, ok := range factory.WaitForCacheSync(synced.Done()) {
			if !ok {
				t.Errorf("%s: %v does not sync", id, kind)
			}
		}
		// Not every list is empty, or this shows nothing.
		name := strings.ToLower(strings.Map(func(r rune) rune {
			if r == '=' || r == ',' || r == '/' {
				return '-'
			}
			return r
		}, t.Name()[strings.LastIndexByte(t.Name(), '/')+1:]))
		if _, err := c.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		dyn, err := metadata.NewForConfig(client(t, kubeconfig))
		if err != nil {
			t.Fatal(err)
		}
		for _, gvr := range informed {
			var want, got []string
			eventually(t, fmt.Sprintf("%s: the store of %s holds what the list shows", id, gvr.Resource), func() bool {
				list, err := dyn.Resource(gvr).List(ctx, metav1.ListOptions{})
				if err != nil {
					t.Fatal(err)
				}
				want = nil
				for _, item := range list.Items {
					want = append(want, item.Namespace+"/"+item.Name+" "+string(item.UID)+" "+item.ResourceVersion)
				}
				got = nil
				for _, o := range stores[gvr].List() {
					m, err := meta.Accessor(o)
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, m.GetNamespace()+"/"+m.GetName()+" "+string(m.GetUID())+" "+m.GetResourceVersion())
				}
				slices.Sort(want)
				slices.Sort(got)
				return slices.Equal(want, got)
			})
			if strings.Contains(strings.Join(got, " "), "kcfx") && !strings.Contains(strings.Join(got, " "), "app-of-"+id) {
				t.Errorf("%s: %s: %q", id, gvr.Resource, got)
			}
		}
		if _, ok, _ := stores[informed[3]].GetByKey("default/" + name); !ok {
			t.Errorf("%s: nothing of %s", id, name)
		}
		listed, streamed := seen.count()
		switch {
		case streams && (listed > 0 || streamed < len(informed)):
			t.Errorf("%s: %d lists and %d streamed ones, want only streamed", id, listed, streamed)
		case !streams && (streamed > 0 || listed < len(informed)):
			t.Errorf("%s: %d lists and %d streamed ones, want only lists", id, listed, streamed)
		}
	}
}

// requests are those that a client made for the first state of something.
type requests struct {
	mu               sync.Mutex
	listed, streamed int
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (s *requests) wrap(next http.RoundTripper) http.RoundTripper {
	return tripper(func(r *http.Request) (*http.Response, error) {
		s.mu.Lock()
		query := r.URL.Query()
		switch {
		case query.Get("sendInitialEvents") == "true":
			s.streamed++
		case r.Method == http.MethodGet && !query.Has("watch"):
			s.listed++
		}
		s.mu.Unlock()
		return next.RoundTrip(r)
	})
}

func (s *requests) count() (listed, streamed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listed, s.streamed
}

// TestDynamicInformers runs the informers of clients that know no types: whole objects, and metadata alone.
func TestDynamicInformers(t *testing.T) {
	w := theWorld(t)
	configs := []*rest.Config{client(t, w.tenant(t, "kcfxc0")), client(t, w.tenant(t, "kcfxd0"))}
	configMaps, deployments := informed[3], informed[15]
	type side struct {
		dynamic *dynamic.DynamicClient
		stores  map[string]cache.Store
	}
	var sides []side
	for _, config := range configs {
		s := side{stores: map[string]cache.Store{}}
		var err error
		if s.dynamic, err = dynamic.NewForConfig(config); err != nil {
			t.Fatal(err)
		}
		meta, err := metadata.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		objects := dynamicinformer.NewFilteredDynamicSharedInformerFactory(s.dynamic, 0, "default", nil)
		all := dynamicinformer.NewDynamicSharedInformerFactory(s.dynamic, 0)
		bare := metadatainformer.NewSharedInformerFactory(meta, 0)
		for _, gvr := range []schema.GroupVersionResource{configMaps, deployments} {
			s.stores["namespace "+gvr.Resource] = objects.ForResource(gvr).Informer().GetStore()
			s.stores["all "+gvr.Resource] = all.ForResource(gvr).Informer().GetStore()
			s.stores["metadata "+gvr.Resource] = bare.ForResource(gvr).Informer().GetStore()
		}
		objects.Start(t.Context().Done())
		all.Start(t.Context().Done())
		bare.Start(t.Context().Done())
		for gvr, ok := range objects.WaitForCacheSync(t.Context().Done()) {
			if !ok {
				t.Errorf("%v does not sync", gvr)
			}
		}
		all.WaitForCacheSync(t.Context().Done())
		bare.WaitForCacheSync(t.Context().Done())
		sides = append(sides, s)
	}
	for i, s := range sides {
		object := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "same"}, "data": map[string]any{"side": fmt.Sprint(i)},
		}}
		if _, err := s.dynamic.Resource(configMaps).Namespace("default").Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		typed := clientset(t, configs[i])
		if _, err := typed.AppsV1().Deployments("default").Create(t.Context(), deployment("same"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range sides {
		for name, store := range s.stores {
			eventually(t, name, func() bool { _, ok, _ := store.GetByKey("default/same"); return ok })
			o, _, _ := store.GetByKey("default/same")
			m, err := meta.Accessor(o)
			if err != nil || m.GetNamespace() != "default" || len(m.GetManagedFields()) == 0 {
				t.Errorf("%s: %v, %v", name, o, err)
			}
			if u, ok := o.(*unstructured.Unstructured); ok && u.GetKind() == "ConfigMap" {
				if got, _, _ := unstructured.NestedString(u.Object, "data", "side"); got != fmt.Sprint(i) {
					t.Errorf("%s shows side %s to %d", name, got, i)
				}
			}
		}
		if err := s.dynamic.Resource(configMaps).Namespace("default").Delete(t.Context(), "same", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"namespace configmaps", "all configmaps", "metadata configmaps"} {
			eventually(t, name+" without it", func() bool { _, ok, _ := s.stores[name].GetByKey("default/same"); return !ok })
		}
	}
}

// TestRESTMapper asks what clients ask before anything else, and again from their caches.
func TestRESTMapper(t *testing.T) {
	w := theWorld(t)
	config := client(t, w.tenant(t, "kcfxe0"))
	var seen requests
	config.Wrap(seen.wrap)
	direct, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	cached := memory.NewMemCacheClient(direct)
	for round := range 2 {
		mapper := restmapper.NewShortcutExpander(restmapper.NewDeferredDiscoveryRESTMapper(cached), cached, nil)
		for asked, want := range map[string]string{
			"po": "/v1, Kind=Pod", "deploy": "apps/v1, Kind=Deployment", "cm": "/v1, Kind=ConfigMap", "hpa": "autoscaling/v2, Kind=HorizontalPodAutoscaler",
			"ns": "/v1, Kind=Namespace", "clusterroles": "rbac.authorization.k8s.io/v1, Kind=ClusterRole",
		} {
			gvk, err := mapper.KindFor(schema.GroupVersionResource{Resource: asked})
			if err != nil || gvk.String() != want {
				t.Errorf("%s is %v, %v", asked, gvk, err)
				continue
			}
			mapping, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
			if err != nil {
				t.Fatal(err)
			}
			cluster := gvk.Kind == "Namespace" || gvk.Kind == "ClusterRole"
			if (mapping.Scope.Name() == meta.RESTScopeNameRoot) != cluster {
				t.Errorf("%s is of scope %s", gvk, mapping.Scope.Name())
			}
		}
		if _, err := mapper.KindFor(schema.GroupVersionResource{Resource: "tenants"}); !meta.IsNoMatchError(err) {
			t.Errorf("tenants: %v", err)
		}
		// What no mapping was found for makes the mapper ask again, and nothing else does.
		if asked, _ := seen.count(); asked > 4*(round+1) {
			t.Errorf("%d requests in round %d", asked, round)
		}
	}
}

// TestTypedApply applies typed configurations, takes what one manager owns out of an object again, and applies that.
func TestTypedApply(t *testing.T) {
	w := theWorld(t)
	for _, id := range []string{"kcfxf0", "kcfxg0"} {
		config := client(t, w.tenant(t, id))
		config.ContentType = protobuf
		c := clientset(t, config)
		ctx := t.Context()
		ns := applycorev1.Namespace("applied").WithLabels(map[string]string{"a": "b"})
		if _, err := c.CoreV1().Namespaces().Apply(ctx, ns, metav1.ApplyOptions{FieldManager: "one"}); err != nil {
			t.Fatal(err)
		}
		app := applyappsv1.Deployment("app", "applied").WithLabels(map[string]string{"by": "one"}).WithSpec(applyappsv1.DeploymentSpec().
			WithReplicas(1).WithSelector(applymetav1.LabelSelector().WithMatchLabels(map[string]string{"a": "b"})).
			WithTemplate(applycorev1.PodTemplateSpec().WithLabels(map[string]string{"a": "b"}).WithSpec(applycorev1.PodSpec().
				WithContainers(applycorev1.Container().WithName("c").WithImage("vivarium.test/echo:v1")))))
		stored, err := c.AppsV1().Deployments("applied").Apply(ctx, app, metav1.ApplyOptions{FieldManager: "one"})
		if err != nil {
			t.Fatal(err)
		}
		mine, err := applyappsv1.ExtractDeployment(stored, "one")
		if err != nil {
			t.Fatal(err)
		}
		if *mine.Name != "app" || *mine.Namespace != "applied" || *mine.Spec.Replicas != 1 || mine.Labels["by"] != "one" || *mine.Spec.Template.Spec.Containers[0].Image != "vivarium.test/echo:v1" {
			t.Errorf("%s: one owns %+v", id, mine)
		}
		if _, err := c.AppsV1().Deployments("applied").Apply(ctx, mine.WithLabels(map[string]string{"more": "x"}), metav1.ApplyOptions{FieldManager: "one"}); err != nil {
			t.Errorf("%s: apply what was extracted: %v", id, err)
		}
		other := applyappsv1.Deployment("app", "applied").WithSpec(applyappsv1.DeploymentSpec().WithReplicas(3))
		if _, err = c.AppsV1().Deployments("applied").Apply(ctx, other, metav1.ApplyOptions{FieldManager: "two"}); err == nil || !strings.Contains(err.Error(), `conflict with "one"`) {
			t.Errorf("%s: another manager's field: %v", id, err)
		}
		if stored, err = c.AppsV1().Deployments("applied").Apply(ctx, other, metav1.ApplyOptions{FieldManager: "two", Force: true}); err != nil || *stored.Spec.Replicas != 3 {
			t.Errorf("%s: by force: %v", id, err)
		}
		if _, err := c.CoreV1().Namespaces().Apply(ctx, applycorev1.Namespace("applied"), metav1.ApplyOptions{FieldManager: "one"}); err != nil {
			t.Fatal(err)
		}
		namespace, err := c.CoreV1().Namespaces().Get(ctx, "applied", metav1.GetOptions{})
		if err != nil || namespace.Labels["a"] != "" || namespace.Labels[corev1.LabelMetadataName] != "applied" {
			t.Errorf("%s: labels no longer applied: %v, %v", id, namespace.Labels, err)
		}
	}
}

// TestRetryOnConflict lets writers of one object run into each other.
func TestRetryOnConflict(t *testing.T) {
	w := theWorld(t)
	config := client(t, w.tenant(t, "kcfxh0"))
	config.ContentType = protobuf
	maps := clientset(t, config).CoreV1().ConfigMaps("default")
	if _, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "counter"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	const writers, rounds = 4, 5
	patient := retry.DefaultBackoff
	patient.Steps = 100
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() {
			for round := range rounds {
				if err := retry.RetryOnConflict(patient, func() error {
					cm, err := maps.Get(t.Context(), "counter", metav1.GetOptions{})
					if err != nil {
						return err
					}
					if cm.Data == nil {
						cm.Data = map[string]string{}
					}
					cm.Data[fmt.Sprintf("%d-%d", i, round)] = "x"
					_, err = maps.Update(t.Context(), cm, metav1.UpdateOptions{})
					return err
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	cm, err := maps.Get(t.Context(), "counter", metav1.GetOptions{})
	if err != nil || len(cm.Data) != writers*rounds {
		t.Errorf("%d of %d writes are left, %v", len(cm.Data), writers*rounds, err)
	}
}

// TestWatchesOutliveTheGateway restarts a gateway under watches, while another one takes writes. Every event arrives
// once, in order, and informers come to the right end.
func TestWatchesOutliveTheGateway(t *testing.T) {
	w := theWorld(t)
	kubeconfig := w.tenant(t, "kcfxi0")
	writer := clientset(t, client(t, kubeconfig))
	listen, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	options, _, err := w.options(t, listen)
	if err != nil {
		t.Fatal(err)
	}
	stop := w.replica(t, options)
	config := client(t, kubeconfig)
	config.Host = "https://" + options.TenantListen
	config.ContentType = protobuf
	reader := clientset(t, config)

	list, err := reader.CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	retrying, err := toolswatch.NewRetryWatcherWithContext(t.Context(), list.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return reader.CoreV1().ConfigMaps("").Watch(ctx, o)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer retrying.Stop()
	factory := informers.NewSharedInformerFactory(reader, 0)
	informer := factory.Core().V1().ConfigMaps().Informer()
	factory.Start(t.Context().Done())
	if !cache.WaitForCacheSync(t.Context().Done(), informer.HasSynced) {
		t.Fatal("the informer does not sync")
	}

	var want []string
	write := func() {
		t.Helper()
		for range 10 {
			name := fmt.Sprintf("event-%02d", len(want))
			if _, err := writer.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			want = append(want, name)
		}
	}
	write()
	stop()
	write()
	stop = w.replica(t, options)
	defer stop()
	write()

	var got []string
	for deadline := time.After(patience); len(got) < len(want); {
		select {
		case event := <-retrying.ResultChan():
			cm, ok := event.Object.(*corev1.ConfigMap)
			if !ok || event.Type != watch.Added {
				t.Fatalf("event %s %v", event.Type, event.Object)
			}
			got = append(got, cm.Name)
		case <-deadline:
			t.Fatalf("after %v nothing more comes", got)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	eventually(t, "the informer knows every object", func() bool {
		for _, name := range want {
			if _, ok, _ := informer.GetStore().GetByKey("default/" + name); !ok {
				return false
			}
		}
		return true
	})
}

// replica runs one more gateway until it is stopped.
func (w *world) replica(t *testing.T, options *Options) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	health := boot.NewHealth()
	server, err := New(ctx, options, health)
	if err != nil {
		t.Fatal(err)
	}
	server.front.observe = w.leaks.watch
	over := make(chan error, 1)
	go func() { over <- server.Run(ctx) }()
	eventually(t, "another gateway is ready", func() bool { return health.Ready() == nil })
	return sync.OnceFunc(func() {
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
}

// deployment is a Deployment of one pod that nothing runs.
func deployment(name string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "vivarium.test/echo:v1"}}},
			},
		},
	}
}
