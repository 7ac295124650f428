package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	clientfeatures "k8s.io/client-go/features"
	clientfeaturestesting "k8s.io/client-go/features/testing"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/gateway/internal/fanout"
	"vivarium.io/vivarium/gateway/internal/limits"
	"vivarium.io/vivarium/internal/localcluster"
	"vivarium.io/vivarium/internal/names"
)

// withHub gives the world a hub of a test's own for as long as the test runs. Nothing may watch meanwhile.
func (w *world) withHub(t *testing.T, change func(*fanout.Config)) *fanout.Hub {
	t.Helper()
	c := fanout.Config{Get: w.server.front.control.Stream}
	change(&c)
	hub, err := fanout.New(c)
	if err != nil {
		t.Fatal(err)
	}
	before := w.server.front.fanout
	w.server.front.fanout = hub
	t.Cleanup(func() {
		w.server.front.fanout = before
		hub.Close()
	})
	return hub
}

// TestSharedByInformers runs client-go's informers over all namespaces of two tenants, in every way in which they read:
// namespaces and objects come and go, and at the end each informer knows what there is. All of it comes from one watch per
// kind and form.
func TestSharedByInformers(t *testing.T) {
	w := theWorld(t)
	ids := []string{"fan00a", "fan00b"}
	var kubeconfigs []string
	for _, id := range ids {
		kubeconfigs = append(kubeconfigs, w.tenant(t, id))
	}
	for name, form := range map[string]struct {
		contentType string
		watchList   bool
	}{
		"ProtobufWatchList": {"application/vnd.kubernetes.protobuf", true}, "ProtobufLists": {"application/vnd.kubernetes.protobuf", false},
		"JSONWatchList": {"application/json", true}, "JSONLists": {"application/json", false},
	} {
		t.Run(name, func(t *testing.T) {
			clientfeaturestesting.SetFeatureDuringTest(t, clientfeatures.WatchListClient, form.watchList)
			hub := w.withHub(t, func(*fanout.Config) {})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			type side struct {
				client                       *kubernetes.Clientset
				configMaps, namespaces, meta cache.Store
			}
			var sides []side
			for _, path := range kubeconfigs {
				config := client(t, path)
				config.ContentType = form.contentType
				c := clientset(t, config)
				factory := informers.NewSharedInformerFactory(c, 0)
				configMaps, namespaces := factory.Core().V1().ConfigMaps().Informer(), factory.Core().V1().Namespaces().Informer()
				m, err := metadata.NewForConfig(config)
				if err != nil {
					t.Fatal(err)
				}
				metaFactory := metadatainformer.NewSharedInformerFactory(m, 0)
				metas := metaFactory.ForResource(corev1.SchemeGroupVersion.WithResource("configmaps")).Informer()
				factory.Start(ctx.Done())
				metaFactory.Start(ctx.Done())
				t.Cleanup(factory.Shutdown)
				t.Cleanup(metaFactory.Shutdown)
				if !cache.WaitForCacheSync(ctx.Done(), configMaps.HasSynced, namespaces.HasSynced, metas.HasSynced) {
					t.Fatal("the informers do not sync")
				}
				sides = append(sides, side{c, configMaps.GetStore(), namespaces.GetStore(), metas.GetStore()})
			}
			// The same names in both tenants.
			for i, s := range sides {
				for _, ns := range []string{"stays", "goes"} {
					one := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: strings.ToLower(name) + "-" + ns}}
					if _, err := s.client.CoreV1().Namespaces().Create(ctx, one, metav1.CreateOptions{}); err != nil {
						t.Fatal(err)
					}
					for n := range 5 + i {
						cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("cm", n)}, Data: map[string]string{"of": ids[i]}}
						if _, err := s.client.CoreV1().ConfigMaps(one.Name).Create(ctx, cm, metav1.CreateOptions{}); err != nil {
							t.Fatal(err)
						}
					}
				}
				if err := s.client.CoreV1().ConfigMaps(strings.ToLower(name)+"-stays").Delete(ctx, "cm0", metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
				if err := s.client.CoreV1().Namespaces().Delete(ctx, strings.ToLower(name)+"-goes", metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			for i, s := range sides {
				eventually(t, ids[i]+" lets go of its namespace", func() bool {
					_, err := s.client.CoreV1().Namespaces().Get(ctx, strings.ToLower(name)+"-goes", metav1.GetOptions{})
					return apierrors.IsNotFound(err)
				})
				configMaps, err := s.client.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{})
				if err != nil {
					t.Fatal(err)
				}
				namespaces, err := s.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
				if err != nil {
					t.Fatal(err)
				}
				want, wantNamespaces := map[string]string{}, map[string]string{}
				for _, o := range configMaps.Items {
					want[o.Namespace+"/"+o.Name] = o.ResourceVersion
				}
				for _, o := range namespaces.Items {
					wantNamespaces[o.Name] = o.ResourceVersion
				}
				for what, pair := range map[string]struct {
					store cache.Store
					want  map[string]string
				}{"ConfigMaps": {s.configMaps, want}, "Namespaces": {s.namespaces, wantNamespaces}, "metadata": {s.meta, want}} {
					var diff string
					eventually(t, ids[i]+" knows its "+what, func() bool {
						diff = cmp.Diff(pair.want, known(t, pair.store))
						return diff == ""
					})
				}
			}
			// Three kinds and forms, one feed each, two subscriptions each.
			if got := hub.Stats(); got.Feeds != 3 || got.Subscribers != 6 || got.Missed != 0 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// known gives the resource versions of what an informer knows.
func known(t *testing.T, store cache.Store) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, o := range store.List() {
		one, err := meta.Accessor(o)
		if err != nil {
			t.Fatal(err)
		}
		key := one.GetName()
		if one.GetNamespace() != "" {
			key = one.GetNamespace() + "/" + key
		}
		out[key] = one.GetResourceVersion()
	}
	return out
}

// seen is an event as it is compared.
func seen(kind watch.EventType, o metav1.Object, namespace string) string {
	return fmt.Sprintf("%s %s %s/%s", o.GetResourceVersion(), kind, namespace, o.GetName())
}

// TestSharedOrder holds watches that reconnect at random from what they saw last against the truth, which is a watch of
// the control cluster: several writers in two tenants and beside them, shared watches that break, a memory that is far too
// small. Each tenant must be given exactly what happened to it, in order.
func TestSharedOrder(t *testing.T) {
	w := theWorld(t)
	ids := []string{"ord00a", "ord00b"}
	root := clientset(t, client(t, w.control))
	for _, ns := range []string{"ordinary"} {
		if _, err := root.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	type watcher struct {
		client *kubernetes.Clientset
		id     string
		got    []string
		last   string
		opened int
		// late says that the watch begins when all has been written, which the shared one has forgotten by then.
		late bool
	}
	var watchers []*watcher
	kubeconfigs := map[string]string{}
	for _, id := range ids {
		kubeconfigs[id] = w.tenant(t, id)
	}
	// The tenants' controllers have done what they do.
	time.Sleep(time.Second)
	hub := w.withHub(t, func(c *fanout.Config) { c.MaxEvents, c.Linger = 24, 50*time.Millisecond })
	list, err := root.CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	from := list.ResourceVersion
	for _, id := range ids {
		for _, contentType := range []string{"application/json", "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf"} {
			config := client(t, kubeconfigs[id])
			config.ContentType = contentType
			watchers = append(watchers, &watcher{client: clientset(t, config), id: id, last: from})
		}
		watchers = append(watchers, &watcher{client: clientset(t, client(t, kubeconfigs[id])), id: id, last: from, late: true})
	}
	truth, err := root.CoreV1().ConfigMaps("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: from})
	if err != nil {
		t.Fatal(err)
	}
	defer truth.Stop()

	// Writers write, half of them through the gateway.
	const each = 60
	var writers sync.WaitGroup
	for i := range 5 {
		writers.Go(func() {
			c, ns := root, "ordinary"
			if i < 4 {
				c, ns = clientset(t, client(t, kubeconfigs[ids[i%2]])), "default"
			}
			random := rand.New(rand.NewPCG(1, uint64(i))) //nolint:gosec // a test
			for n := range each {
				cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("w%d-%d", i, random.IntN(8))}, Data: map[string]string{"n": fmt.Sprint(n)}}
				var err error
				if _, err = c.CoreV1().ConfigMaps(ns).Update(t.Context(), cm, metav1.UpdateOptions{}); apierrors.IsNotFound(err) {
					_, err = c.CoreV1().ConfigMaps(ns).Create(t.Context(), cm, metav1.CreateOptions{})
				} else if random.IntN(3) == 0 {
					err = c.CoreV1().ConfigMaps(ns).Delete(t.Context(), cm.Name, metav1.DeleteOptions{})
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing, wrote := context.WithCancel(t.Context())
	var troubles sync.WaitGroup
	troubles.Go(func() {
		for writing.Err() == nil {
			time.Sleep(150 * time.Millisecond)
			hub.Restart()
		}
	})
	end, written := make(chan struct{}), make(chan struct{})
	var group sync.WaitGroup
	for i, one := range watchers {
		random := rand.New(rand.NewPCG(2, uint64(i))) //nolint:gosec // a test
		group.Go(func() {
			if one.late {
				<-written
			}
			for {
				one.opened++
				open, err := one.client.CoreV1().ConfigMaps("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: one.last, AllowWatchBookmarks: true})
				if err != nil {
					t.Error(err)
					return
				}
				stop := time.After(time.Duration(20+random.IntN(300)) * time.Millisecond)
				if one.late {
					stop = nil
				}
			events:
				for {
					select {
					case <-stop:
						break events
					case event, ok := <-open.ResultChan():
						if !ok {
							break events
						}
						o, isObject := event.Object.(*corev1.ConfigMap)
						if !isObject {
							t.Errorf("%s sees %v", one.id, event.Object)
							break events
						}
						if number(o.ResourceVersion) < number(one.last) {
							t.Errorf("%s sees %s behind %s", one.id, o.ResourceVersion, one.last)
						}
						one.last = o.ResourceVersion
						if event.Type == watch.Bookmark {
							continue
						}
						one.got = append(one.got, seen(event.Type, o, o.Namespace))
						if o.Name == "the-end" {
							open.Stop()
							return
						}
					}
				}
				open.Stop()
				select {
				case <-end:
					t.Errorf("%s does not see the end", one.id)
					return
				default:
				}
			}
		})
	}
	writers.Wait()
	wrote()
	troubles.Wait()
	close(written)
	for _, id := range ids {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "the-end"}}
		if _, err := root.CoreV1().ConfigMaps(id+"-default").Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	late := time.AfterFunc(patience, func() { close(end) })
	group.Wait()
	late.Stop()

	want := map[string][]string{}
	ends := 0
	for event := range truth.ResultChan() {
		o := event.Object.(*corev1.ConfigMap)
		id, ns, ok := names.SplitNamespace(names.ControlNamespace(o.Namespace))
		if !ok {
			continue
		}
		want[string(id)] = append(want[string(id)], seen(event.Type, o, string(ns)))
		if o.Name == "the-end" {
			if ends++; ends == len(ids) {
				break
			}
		}
	}
	opened := 0
	for _, one := range watchers {
		opened += one.opened
		if diff := cmp.Diff(want[one.id], one.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", one.id, diff)
		}
	}
	stats := hub.Stats()
	t.Logf("%d events of %s, %d of %s; %d watches; %+v", len(want[ids[0]]), ids[0], len(want[ids[1]]), ids[1], opened, stats)
	if stats.Restarts == 0 {
		t.Errorf("the test was too easy: %+v", stats)
	}
}

func number(rv string) uint64 {
	n, _ := strconv.ParseUint(rv, 10, 64)
	return n
}

// TestSharedRights checks that a part of a shared watch is for those alone who may watch everything, and that the others
// are told so in the control cluster's own words.
func TestSharedRights(t *testing.T) {
	w := theWorld(t)
	kubeconfig := w.tenant(t, "rig00a")
	config := client(t, kubeconfig)
	config.Impersonate.UserName = "eve"
	eve := clientset(t, config)
	for _, o := range []metav1.ListOptions{{}, {ResourceVersion: "1"}, {LabelSelector: "a=b"}, {LabelSelector: "a=b", ResourceVersion: "1"}, {SendInitialEvents: new(true), ResourceVersionMatch: "NotOlderThan", AllowWatchBookmarks: true}} {
		_, err := eve.CoreV1().Secrets("").Watch(t.Context(), o)
		const want = `secrets is forbidden: User "eve" cannot watch resource "secrets" in API group "" at the cluster scope`
		if !apierrors.IsForbidden(err) || err.Error() != want {
			t.Errorf("%+v: %v", o, err)
		}
	}
	// Whoever may watch, and not list, is given what there is all the same.
	w.must(t, kubeconfig, "", "create", "clusterrole", "watcher", "--verb=watch", "--resource=configmaps")
	w.must(t, kubeconfig, "", "create", "clusterrolebinding", "watcher", "--clusterrole=watcher", "--user=eve")
	var open watch.Interface
	eventually(t, "eve may watch", func() bool {
		var err error
		open, err = eve.CoreV1().ConfigMaps("").Watch(t.Context(), metav1.ListOptions{})
		return err == nil
	})
	defer open.Stop()
	if event := <-open.ResultChan(); event.Type != watch.Added {
		t.Errorf("%v", event)
	}
	// And so with a selector.
	selecting, err := eve.CoreV1().ConfigMaps("").Watch(t.Context(), metav1.ListOptions{LabelSelector: "!a"})
	if err != nil {
		t.Fatal(err)
	}
	defer selecting.Stop()
	if event := <-selecting.ResultChan(); event.Type != watch.Added {
		t.Errorf("%v", event)
	}
}

// TestSharedTables watches as kubectl does: Tables, whose first event alone names the columns. What two tenants are given
// is what the watch of one namespace, which goes to the control cluster, is given.
func TestSharedTables(t *testing.T) {
	w := theWorld(t)
	hub := w.withHub(t, func(*fanout.Config) {})
	type side struct {
		client     *kubernetes.Clientset
		everywhere []<-chan metav1.Table
		here       <-chan metav1.Table
	}
	watch := func(c *kubernetes.Clientset, path string) <-chan metav1.Table {
		t.Helper()
		const accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
		var list metav1.Table
		raw, err := c.CoreV1().RESTClient().Get().AbsPath(path).SetHeader("Accept", accept).DoRaw(t.Context())
		if err == nil {
			err = json.Unmarshal(raw, &list)
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := c.CoreV1().RESTClient().Get().AbsPath(path).SetHeader("Accept", accept).
			Param("watch", "true").Param("resourceVersion", list.ResourceVersion).Stream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = body.Close() })
		out := make(chan metav1.Table, 100)
		go func() {
			defer close(out)
			for in := json.NewDecoder(body); ; {
				var event struct{ Object metav1.Table }
				if in.Decode(&event) != nil {
					return
				}
				out <- event.Object
			}
		}()
		return out
	}
	var sides []side
	for _, id := range []string{"tab00a", "tab00b"} {
		c := clientset(t, client(t, w.tenant(t, id)))
		s := side{client: c, here: watch(c, "/api/v1/namespaces/default/configmaps")}
		for range 2 {
			s.everywhere = append(s.everywhere, watch(c, "/api/v1/configmaps"))
		}
		sides = append(sides, s)
	}
	for n := range 3 {
		for _, s := range sides {
			cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("cm", n)}, Data: map[string]string{"a": "b"}}
			if _, err := s.client.CoreV1().ConfigMaps("default").Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, s := range sides {
		for n := range 3 {
			want := <-s.here
			if (len(want.ColumnDefinitions) > 0) != (n == 0) || len(want.Rows) != 1 || want.Rows[0].Cells[0] != fmt.Sprint("cm", n) {
				t.Fatalf("the control cluster itself sends %+v", want)
			}
			for _, all := range s.everywhere {
				if diff := cmp.Diff(want, <-all); diff != "" {
					t.Errorf("tenant %d, event %d (-want +got):\n%s", i, n, diff)
				}
			}
		}
	}
	if got := hub.Stats(); got.Feeds != 1 || got.Subscribers != 4 {
		t.Errorf("%+v", got)
	}
}

// TestControlRestarts kills the control cluster's API server for a few seconds while informers watch: they know
// everything in the end, and a shared watch that cannot go on ends for all.
func TestControlRestarts(t *testing.T) {
	w := theWorld(t)
	kubeconfig := w.tenant(t, "res00a")
	c := clientset(t, client(t, kubeconfig))
	factory := informers.NewSharedInformerFactory(c, 0)
	informer := factory.Core().V1().ConfigMaps().Informer()
	factory.Start(t.Context().Done())
	t.Cleanup(factory.Shutdown)
	if !cache.WaitForCacheSync(t.Context().Done(), informer.HasSynced) {
		t.Fatal("the informer does not sync")
	}
	write := func(name string) {
		t.Helper()
		eventually(t, name+" is written", func() bool {
			_, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
			return err == nil || apierrors.IsAlreadyExists(err)
		})
	}
	sees := func(name string) {
		t.Helper()
		eventually(t, name+" is seen", func() bool {
			_, ok, _ := informer.GetStore().GetByKey("default/" + name)
			return ok
		})
	}
	write("before")
	sees("before")
	w.cluster.KillAPIServer(t)
	time.Sleep(2 * time.Second)
	w.cluster.RestartAPIServer(t)
	write("after")
	kubectl := w.client(t, localcluster.Kubectl, kubeconfig)
	kubectl.do(t, "", command{args: "apply -f testdata/shop/crds", says: []string{"widgets.shop.example.com created"}})
	kubectl.do(t, "", command{args: "wait --for=condition=Established crd/widgets.shop.example.com --timeout=180s", says: []string{"condition met"}})
	// Whoever follows definitions tries again every two seconds.
	eventually(t, "the gateway knows the definition", func() bool {
		out, _ := kubectl.run(t, "", "get", "widgets")
		return strings.Contains(out, "No resources found")
	})
	sees("after")
	// It goes on.
	write("later")
	sees("later")
	eventually(t, "the gateway is ready", func() bool { return w.health.Ready() == nil })
}

// hubControl is a stand-in for a control cluster with one resource, pods, whose shared watch a test writes.
type hubControl struct {
	frames chan string
	// matching is how many pods of the tenant a list that is to tell what matches has.
	matching int
}

func shareable(h *harness) *hubControl {
	c := &hubControl{frames: make(chan string, 4096)}
	h.share = true
	h.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.HasSuffix(r.URL.Path, "/subjectaccessreviews"):
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","metadata":{},"spec":{},"status":{"allowed":true}}`)
		case r.Header.Get("Accept") == metadataListProto:
			w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf")
			list := &metav1.PartialObjectMetadataList{ListMeta: metav1.ListMeta{ResourceVersion: "100"}}
			for i := range c.matching {
				list.Items = append(list.Items, metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
					Name: fmt.Sprintf("web-7d4b9c6f5d-%05d", i), Namespace: "abc123-default", ResourceVersion: "50", Labels: map[string]string{"app": "web"},
				}})
			}
			raw, err := list.Marshal()
			if err != nil {
				panic(err)
			}
			document, err := (&runtime.Unknown{Raw: raw}).Marshal()
			if err != nil {
				panic(err)
			}
			_, _ = w.Write(append([]byte("k8s\x00"), document...))
		case r.URL.Query().Get("watch") != "true":
			_, _ = io.WriteString(w, `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"100"},"items":[]}`)
		default:
			_ = http.NewResponseController(w).Flush()
			for {
				select {
				case frame := <-c.frames:
					_, _ = io.WriteString(w, frame)
					for len(c.frames) > 0 {
						_, _ = io.WriteString(w, <-c.frames)
					}
					_ = http.NewResponseController(w).Flush()
				case <-r.Context().Done():
					return
				}
			}
		}
	})
	return c
}

// pod sends an event about a pod.
func (c *hubControl) pod(namespace, name string, rv int, more string) {
	c.frames <- fmt.Sprintf(`{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":%q,"namespace":%q,"resourceVersion":"%d","annotations":{"more":%q}}}}`+"\n", name, namespace, rv, more)
}

// frame is what a test reads of one.
type frame struct {
	Type   string
	Object struct {
		Metadata struct{ Name, Namespace, ResourceVersion string }
	}
}

// stream opens a watch over HTTP/2 and decodes it.
func (h *harness) stream(t *testing.T, client *http.Client, uri string) (*json.Decoder, *http.Response) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.server.URL+uri, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(r)
	if err != nil || res.StatusCode != http.StatusOK || res.ProtoMajor != 2 {
		t.Fatalf("%v %v", res, err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return json.NewDecoder(res.Body), res
}

func (h *harness) http2() *http.Client {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: h.tlsConfig(nil, h.client(tenantA, nil)), ForceAttemptHTTP2: true, DisableCompression: true}}
	h.t.Cleanup(client.CloseIdleConnections)
	return client
}

// TestQuietWatch checks that a watch that has nothing to say for longer than a client may take to read stays open: a write
// deadline that is set beforehand resets an HTTP/2 stream also when nothing is being written.
func TestQuietWatch(t *testing.T) {
	defer func(before time.Duration) { writeTimeout = before }(writeTimeout)
	writeTimeout = 200 * time.Millisecond
	h := newHarness(t)
	control := shareable(h)
	client := h.http2()
	var streams []*json.Decoder
	for _, uri := range []string{"/api/v1/pods?watch=true&resourceVersion=100", "/api/v1/pods?watch=true"} {
		in, _ := h.stream(t, client, uri)
		streams = append(streams, in)
	}
	for rv := range 3 {
		time.Sleep(6 * writeTimeout)
		control.pod("abc123-web", "a", 101+rv, "")
		for i, in := range streams {
			var f frame
			if err := in.Decode(&f); err != nil || f.Object.Metadata.Namespace != "web" {
				t.Fatalf("watch %d, event %d: %+v %v", i, rv, f, err)
			}
		}
	}
	if got, _ := h.taken(); len(got) != 1 {
		// The list for the second one.
		t.Errorf("the control cluster was asked %v", got)
	}
}

// TestSlowReader checks that a client that does not read is cut off, and that no other waits for it.
func TestSlowReader(t *testing.T) {
	defer func(before time.Duration) { writeTimeout = before }(writeTimeout)
	writeTimeout = 2 * time.Second
	h := newHarness(t)
	control := shareable(h)
	_, slow := h.stream(t, h.http2(), "/api/v1/pods?watch=true&resourceVersion=100")
	quick, _ := h.stream(t, h.http2(), "/api/v1/pods?watch=true&resourceVersion=100")
	const events = 3000
	text := strings.Repeat("x", 4<<10)
	// No faster than the quick one reads, or a busy machine makes it a slow one too.
	ahead := make(chan struct{}, 100)
	go func() {
		for i := range events {
			select {
			case ahead <- struct{}{}:
			case <-t.Context().Done():
				return
			}
			control.pod("abc123-web", fmt.Sprint("p", i), 101+i, text)
		}
	}()
	for i := range events {
		var f frame
		if err := quick.Decode(&f); err != nil || f.Object.Metadata.Name != fmt.Sprint("p", i) {
			t.Fatalf("event %d: %+v %v", i, f, err)
		}
		<-ahead
	}
	eventually(t, "the slow one is cut off", func() bool { return h.front.fanout.Stats().Subscribers == 1 })
	n, err := io.Copy(io.Discard, slow.Body)
	if err == nil && n > events*(4<<10) {
		t.Errorf("%d bytes", n)
	}
	if stats := h.front.fanout.Stats(); stats.Feeds != 1 {
		t.Errorf("%+v", stats)
	}
}

// TestSharedForms checks which watches are shared, and which go to the control cluster as the tenant's user.
func TestSharedForms(t *testing.T) {
	const list = "list"
	for query, want := range map[string]string{
		"watch=true&resourceVersion=100": "",
		"watch=1&resourceVersion=100&allowWatchBookmarks=true&timeoutSeconds=100&timeout=100s": "",
		"watch=true":                   list,
		"watch=true&resourceVersion=0": list,
		"watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true": list,
		"watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=100":      list,
		// In the future, perhaps.
		"watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=900": "watch",
		"watch=true&resourceVersion=99":                                        "watch",
		"watch=true&resourceVersion=100&labelSelector=a%3Db":                   list,
		"watch=true&labelSelector=a%3Db":                                       list,
		"watch=true&resourceVersion=100&fieldSelector=metadata.namespace!%3Da": list,
		// Found by an index of the control cluster.
		"watch=true&resourceVersion=100&fieldSelector=metadata.namespace%3Da": "watch",
		"watch=true&fieldSelector=spec.nodeName%3Da":                          "watch",
		"watch=true&sendInitialEvents=true":                                   "watch",
		"watch=true&resourceVersionMatch=Exact&resourceVersion=100":           "watch",
		"watch=true&resourceVersion=100&limit=5":                              "watch",
	} {
		t.Run(query, func(t *testing.T) {
			h := newHarness(t)
			shareable(h)
			client := h.http2()
			if strings.Contains(query, "=99") {
				// Somebody else watches from 100 on.
				h.stream(t, client, "/api/v1/pods?watch=true&resourceVersion=100")
			}
			h.stream(t, client, "/api/v1/pods?"+query)
			got, _ := h.taken()
			got = slices.DeleteFunc(got, func(one *recorded) bool {
				// Where there is a selector a list asks besides how many objects of others there are.
				return strings.HasSuffix(one.URI, "&limit=1")
			})
			asked := ""
			for _, one := range got {
				asked = list
				if strings.Contains(one.URI, "watch=true") || strings.Contains(one.URI, "watch=1") {
					asked = "watch"
				}
			}
			if asked != want || len(got) > 1 {
				t.Errorf("the control cluster was asked %v as the user, want %q", got, want)
			}
		})
	}
	t.Run("Gone", func(t *testing.T) {
		// What is too old the control cluster says, and then the shared watch is not waited for.
		h := newHarness(t)
		shareable(h)
		all := h.answer
		h.answerWith(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Impersonate-User") != "" {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: 99 (100)","reason":"Expired","code":410}}`+"\n")
				return
			}
			all(w, r)
		})
		client := h.http2()
		h.stream(t, client, "/api/v1/pods?watch=true&resourceVersion=100")
		_, res := h.stream(t, client, "/api/v1/pods?watch=true&resourceVersion=99")
		body, err := io.ReadAll(res.Body)
		if err != nil || !strings.Contains(string(body), `{"type":"ERROR"`) || !strings.Contains(string(body), `too old resource version: 99 (100)`) {
			t.Errorf("%s %v", body, err)
		}
	})
	t.Run("CatchesUp", func(t *testing.T) {
		// Whoever comes from too far back is given what it missed by a watch of its own, and then joins.
		h := newHarness(t)
		control := shareable(h)
		all := h.answer
		own := make(chan string, 10)
		h.answerWith(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Impersonate-User") == "" {
				all(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			for {
				_ = http.NewResponseController(w).Flush()
				select {
				case f := <-own:
					_, _ = io.WriteString(w, f)
				case <-r.Context().Done():
					own <- "over"
					return
				}
			}
		})
		client := h.http2()
		h.stream(t, client, "/api/v1/pods?watch=true&resourceVersion=100")
		in, _ := h.stream(t, client, "/api/v1/pods?watch=true&resourceVersion=90&allowWatchBookmarks=true")
		event := func(ns string, rv int) string {
			return fmt.Sprintf(`{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","namespace":%q,"resourceVersion":"%d"}}}`+"\n", ns, rv)
		}
		own <- event("abc123-x", 95)
		own <- event("zzz999-x", 96)
		own <- event("abc123-x", 97)
		own <- event("abc123-x", 101)
		control.pod("abc123-x", "p", 101, "")
		// From here on it comes from the feed alone.
		own <- event("zzz999-x", 102)
		control.pod("zzz999-x", "p", 102, "")
		control.pod("abc123-x", "p", 103, "")
		var got []string
		for range 4 {
			var f frame
			if err := in.Decode(&f); err != nil {
				t.Fatal(err)
			}
			got = append(got, f.Object.Metadata.ResourceVersion)
		}
		if diff := cmp.Diff([]string{"95", "97", "101", "103"}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for over := ""; over != "over"; {
			select {
			case over = <-own:
			case <-time.After(soon):
				t.Fatal("its own watch is still open")
			}
		}
	})
	t.Run("Cut", func(t *testing.T) {
		// Whose tenant may no longer act is cut off; others stay.
		h := newHarness(t)
		control := shareable(h)
		_, res := h.stream(t, h.http2(), "/api/v1/pods?watch=true&resourceVersion=100")
		other := &http.Client{Transport: &http.Transport{TLSClientConfig: h.tlsConfig(nil, h.client(tenantB, nil)), ForceAttemptHTTP2: true}}
		t.Cleanup(other.CloseIdleConnections)
		in, _ := h.stream(t, other, "/api/v1/pods?watch=true&resourceVersion=100")
		h.tenants.remove(tenantA)
		h.front.tenantChanged(tenantA)
		if body, err := io.ReadAll(res.Body); err != nil || len(body) > 0 {
			t.Errorf("%q %v", body, err)
		}
		control.pod("zzz999-web", "a", 101, "")
		var f frame
		if err := in.Decode(&f); err != nil || f.Object.Metadata.Namespace != "web" {
			t.Errorf("%+v %v", f, err)
		}
		eventually(t, "nothing is left of it", func() bool {
			return h.front.fanout.Stats().Subscribers == 1 && h.front.limiter.UnderWay(limits.Watch) == 1
		})
	})
	t.Run("Timeout", func(t *testing.T) {
		h := newHarness(t)
		shareable(h)
		_, res := h.stream(t, h.http2(), "/api/v1/pods?watch=true&resourceVersion=100&timeoutSeconds=1")
		if body, err := io.ReadAll(res.Body); err != nil || len(body) > 0 {
			t.Errorf("%q %v", body, err)
		}
		eventually(t, "nothing is left of it", func() bool {
			return h.front.fanout.Stats().Subscribers == 0 && h.front.limiter.UnderWay(limits.Watch) == 0
		})
	})
	t.Run("Namespaced", func(t *testing.T) {
		h := newHarness(t)
		shareable(h)
		h.stream(t, h.http2(), "/api/v1/namespaces/web/pods?watch=true&resourceVersion=100")
		if got, own := h.taken(); len(got) != 1 || len(own) != 0 {
			t.Errorf("%v %v", got, own)
		}
	})
	t.Run("Refused", func(t *testing.T) {
		// Without the right to watch itself the gateway watches as the user.
		h := newHarness(t)
		shareable(h)
		all := h.answer
		h.answerWith(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Impersonate-User") == "" && r.Method == http.MethodGet {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			all(w, r)
		})
		h.stream(t, h.http2(), "/api/v1/pods?watch=true&resourceVersion=100")
		if got, _ := h.taken(); len(got) != 1 || !strings.Contains(got[0].URI, "watch=true") {
			t.Errorf("%v", got)
		}
	})
	t.Run("Initial", func(t *testing.T) {
		h := newHarness(t)
		control := shareable(h)
		all := h.answer
		h.answerWith(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Impersonate-User") != "" {
				w.Header().Set("Content-Type", "application/json")
				pod := `{"metadata":{"name":"%s","namespace":"%s","resourceVersion":"%d"},"spec":{"containers":[]}}`
				items := []string{fmt.Sprintf(pod, "a", "abc123-x", 7), fmt.Sprintf(pod, "b", "abc123-y", 5), fmt.Sprintf(pod, "c", "zzz999-x", 6)}
				_, _ = fmt.Fprintf(w, `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"102","continue":"more"},"items":[%s]}`, strings.Join(items, ","))
				return
			}
			all(w, r)
		})
		in, res := h.stream(t, h.http2(), "/api/v1/pods?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true")
		for _, rv := range []int{101, 102, 103} {
			control.pod("abc123-web", "new", rv, "")
		}
		var got []string
		for range 4 {
			var f frame
			if err := in.Decode(&f); err != nil {
				t.Fatal(err)
			}
			m := f.Object.Metadata
			got = append(got, strings.Join([]string{f.Type, m.Namespace, m.Name, m.ResourceVersion}, " "))
		}
		if diff := cmp.Diff([]string{"ADDED x a 7", "ADDED y b 5", "BOOKMARK   102", "ADDED web new 103"}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%v", res.Header)
		}
	})
}
