package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clientfeatures "k8s.io/client-go/features"
	clientfeaturestesting "k8s.io/client-go/features/testing"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/gateway/internal/fanout"
	"vivarium.io/vivarium/gateway/internal/selection"
	"vivarium.io/vivarium/gateway/internal/translate"
	"vivarium.io/vivarium/internal/names"
)

// rawWatch opens a watch and gives its frames as they stand on the wire.
func rawWatch(t *testing.T, ctx context.Context, config *rest.Config, path, accept string, query url.Values) (*translate.Frames, io.Closer) {
	t.Helper()
	hc, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	query = maps.Clone(query)
	query.Set("watch", "true")
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+path+"?"+query.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	res, err := hc.Do(r)
	if err != nil {
		if ctx.Err() == nil {
			t.Errorf("watch %s: %v", query.Encode(), err)
		}
		return translate.NewFrames(strings.NewReader("")), io.NopCloser(nil)
	}
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(res.Body)
		t.Errorf("watch %s: %s", query.Encode(), body)
	}
	return translate.NewFrames(res.Body), res.Body
}

// choice is what a watch selects, as a tenant says it and as the control cluster is asked.
type choice struct{ labels, fields, controlFields string }

func (c choice) query(from uint64, fields string) url.Values {
	q := url.Values{"resourceVersion": {strconv.FormatUint(from, 10)}, "allowWatchBookmarks": {"true"}}
	if c.labels != "" {
		q.Set("labelSelector", c.labels)
	}
	if fields != "" {
		q.Set("fieldSelector", fields)
	}
	return q
}

var watchForms = []string{
	"application/json", "application/vnd.kubernetes.protobuf",
	"application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
}

var configMapKind = translate.Kind{Version: "v1", Resource: "configmaps", Kind: "ConfigMap", Namespaced: true}

// writeLabels writes ConfigMaps whose labels come and go.
func writeLabels(t *testing.T, c *kubernetes.Clientset, random *rand.Rand, writer, times int, namespaces []string) {
	for n := range times {
		cm := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("w%d-%d", writer, random.IntN(5)), Labels: map[string]string{}, Annotations: map[string]string{"n": fmt.Sprint(n)}},
			Data:       map[string]string{"n": fmt.Sprint(n), "text": strings.Repeat("x", random.IntN(300))},
		}
		for key, values := range map[string][]string{"on": {"yes", "no"}, "size": {"big", "small"}, "off": {""}} {
			if i := random.IntN(3); i < len(values) {
				cm.Labels[key] = values[i]
			}
		}
		ns := namespaces[random.IntN(len(namespaces))]
		_, err := c.CoreV1().ConfigMaps(ns).Update(t.Context(), cm, metav1.UpdateOptions{})
		if apierrors.IsNotFound(err) {
			_, err = c.CoreV1().ConfigMaps(ns).Create(t.Context(), cm, metav1.CreateOptions{})
		} else if random.IntN(4) == 0 {
			err = c.CoreV1().ConfigMaps(ns).Delete(t.Context(), cm.Name, metav1.DeleteOptions{})
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// selecting is a test's watch that reconnects.
type selecting struct {
	id       string
	kind     translate.Kind
	form     string
	what     choice
	steady   bool
	got      []string
	last     uint64
	opened   int
	finished bool
}

// run watches until it has seen the end.
func (s *selecting) run(t *testing.T, config *rest.Config, random *rand.Rand) {
	whole, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	defer func() {
		if !s.finished {
			t.Errorf("%s %s %s %+v does not see the end", s.id, s.kind.Resource, s.form, s.what)
		}
	}()
	for !s.finished && whole.Err() == nil {
		s.opened++
		ctx, cancel := context.WithCancel(whole)
		if !s.steady {
			time.AfterFunc(time.Duration(200+random.IntN(1500))*time.Millisecond, cancel)
		}
		in, body := rawWatch(t, ctx, config, "/api/v1/"+s.kind.Resource, s.form, s.what.query(s.last, s.what.fields))
		for {
			frame, err := in.Next()
			if err != nil {
				break
			}
			scope, err := translate.ScopeOfFrame(frame)
			if err != nil || scope.Type == "ERROR" {
				t.Errorf("%s %s: %s %v", s.id, s.form, frame, err)
				break
			}
			rv := number(string(scope.ResourceVersion))
			if rv < s.last {
				t.Errorf("%s %s sees %d behind %d", s.id, s.form, rv, s.last)
			}
			s.last = rv
			if scope.Type == "BOOKMARK" {
				continue
			}
			s.got = append(s.got, string(frame))
			if strings.HasSuffix(string(scope.Name), "the-end") {
				s.finished = true
				break
			}
		}
		cancel()
		_ = body.Close()
	}
}

// TestSelectedExactly holds watches with selectors, which are served from the one that tenants share, against watches of the
// control cluster with the same selectors, byte by byte: while labels come and go in two tenants whose objects have the same
// names, shared watches break, a memory that is far too small lets go, and clients reconnect.
func TestSelectedExactly(t *testing.T) {
	w := theWorld(t)
	ids := []string{"sel00a", "sel00b"}
	namespaces := []string{"one", "two", "three", "goes"}
	root := client(t, w.control)
	configs := map[string]*rest.Config{}
	for _, id := range ids {
		configs[id] = client(t, w.tenant(t, id))
		for _, ns := range namespaces {
			if _, err := clientset(t, configs[id]).CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		// So that there is something that matches from the beginning on.
		writeLabels(t, clientset(t, configs[id]), rand.New(rand.NewPCG(1, 1)), 0, 20, namespaces) //nolint:gosec // a test
	}
	hub := w.withHub(t, func(c *fanout.Config) { c.MaxEvents, c.Linger = 32, 50*time.Millisecond })
	// What matches most of what there is outgrows its bound now and then.
	defer func(before *selection.Budget) { w.server.front.matching = before }(w.server.front.matching)
	w.server.front.matching = &selection.Budget{Each: 25 * 65, Tenant: 1 << 20, All: 1 << 20}
	list, err := clientset(t, root).CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	from := number(list.ResourceVersion)
	choices := func(id string) []choice {
		return []choice{
			{labels: "on in (yes),size!=big"}, {labels: "on"},
			{labels: "!off", fields: "metadata.namespace!=three,metadata.name!=w1-1", controlFields: "metadata.namespace!=" + id + "-three,metadata.name!=w1-1"},
		}
	}
	// What a watch begins with is found out in both ways that lists are read in.
	tenant, err := w.server.front.authenticator.Tenant(names.TenantID(ids[0]))
	if err != nil {
		t.Fatal(err)
	}
	w.server.front.sizes.put(sizeKey{about: behindIt, tenant: tenant.UID, resource: "configmaps"}, 1_000_000)
	// A namespace that is gone when the watches begin was there where they begin.
	namespaces = namespaces[:3]
	for _, id := range ids {
		c := clientset(t, configs[id]).CoreV1().Namespaces()
		if err := c.Delete(t.Context(), "goes", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, id+" lets go of its namespace", func() bool {
			_, err := c.Get(t.Context(), "goes", metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
	}
	var watchers []*selecting
	for _, id := range ids {
		for i, form := range watchForms {
			for j, what := range choices(id) {
				watchers = append(watchers, &selecting{id: id, kind: configMapKind, form: form, what: what, last: from, steady: (i+j)%2 == 0})
			}
		}
	}
	var group sync.WaitGroup
	for i, one := range watchers {
		random := rand.New(rand.NewPCG(2, uint64(i))) //nolint:gosec // a test
		group.Go(func() { one.run(t, configs[one.id], random) })
	}
	var writers sync.WaitGroup
	for i := range 4 {
		random := rand.New(rand.NewPCG(3, uint64(i))) //nolint:gosec // a test
		writers.Go(func() { writeLabels(t, clientset(t, configs[ids[i%2]]), random, i/2, 60, namespaces) })
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for over := false; !over; {
		select {
		case <-done:
			over = true
		case <-time.After(250 * time.Millisecond):
			hub.Restart()
		}
	}
	for _, id := range ids {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "the-end", Labels: map[string]string{"on": "yes"}}}
		if _, err := clientset(t, configs[id]).CoreV1().ConfigMaps("one").Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	group.Wait()
	events, opened, kinds := 0, 0, map[string]int{}
	for _, one := range watchers {
		want := selectedTruth(t, w, root, one, from)
		opened += one.opened
		events += len(want)
		for _, frame := range want {
			scope, err := translate.ScopeOfFrame([]byte(frame))
			if err != nil {
				t.Fatal(err)
			}
			kinds[scope.Type]++
		}
		if diff := cmp.Diff(want, one.got); diff != "" {
			t.Errorf("%s %s %+v (-want +got):\n%s", one.id, one.form, one.what, diff)
		}
	}
	t.Logf("%d events, %v; %d watches; %+v", events, kinds, opened, hub.Stats())
	if kinds["ADDED"] == 0 || kinds["MODIFIED"] == 0 || kinds["DELETED"] == 0 {
		t.Errorf("the test was too easy: %v", kinds)
	}
}

// selectedTruth gives what a watch has to see: the control cluster's own one with the same selector.
func selectedTruth(t *testing.T, w *world, root *rest.Config, one *selecting, from uint64) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	in, body := rawWatch(t, ctx, root, "/api/v1/"+one.kind.Resource, one.form, one.what.query(from, one.what.controlFields))
	defer body.Close()
	view := translate.View{Tenant: names.TenantID(one.id), RootCA: w.server.front.rootCA}
	var want []string
	for {
		frame, err := in.Next()
		if err != nil {
			t.Fatal(err)
		}
		scope, err := translate.ScopeOfFrame(frame)
		if err != nil {
			t.Fatal(err)
		}
		if owner := string(scope.Namespace) + string(scope.Name); one.kind.Namespaced && !view.Tenant.Owns(string(scope.Namespace)) || !view.Tenant.Owns(owner) {
			continue
		}
		mine, err := view.FrameToTenant(one.kind, nil, frame)
		if err != nil && !errors.Is(err, translate.ErrForeignItem) {
			t.Fatal(err)
		}
		want = append(want, string(mine))
		if strings.HasSuffix(string(scope.Name), "the-end") {
			return want
		}
	}
}

// longRunning counts the watches of ConfigMaps over all namespaces that the control cluster's API server serves.
func longRunning(t *testing.T, root *kubernetes.Clientset) int {
	t.Helper()
	raw, err := root.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "apiserver_longrunning_requests{") && strings.Contains(line, `resource="configmaps"`) &&
			strings.Contains(line, `scope="cluster"`) && strings.Contains(line, `verb="WATCH"`) {
			n, err := strconv.Atoi(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]))
			if err != nil {
				t.Fatal(err)
			}
			count += n
		}
	}
	return count
}

// TestSelectedInformers runs client-go's informers with a selector, listed and streamed, in two tenants with objects of the
// same names and labels: each knows what matches in its tenant, and the control cluster serves one watch to all of them.
func TestSelectedInformers(t *testing.T) {
	w := theWorld(t)
	ids := []string{"sei00a", "sei00b"}
	var configs []*rest.Config
	for _, id := range ids {
		config := client(t, w.tenant(t, id))
		config.ContentType = "application/vnd.kubernetes.protobuf"
		configs = append(configs, config)
	}
	root := clientset(t, client(t, w.control))
	for name, watchList := range map[string]bool{"WatchList": true, "Lists": false} {
		t.Run(name, func(t *testing.T) {
			clientfeaturestesting.SetFeatureDuringTest(t, clientfeatures.WatchListClient, watchList)
			hub := w.withHub(t, func(*fanout.Config) {})
			before := longRunning(t, root)
			tenant, err := w.server.front.authenticator.Tenant(names.TenantID(ids[0]))
			if err != nil {
				t.Fatal(err)
			}
			var stores []cache.Store
			for _, config := range configs {
				c := clientset(t, config)
				writeLabels(t, c, rand.New(rand.NewPCG(4, 1)), 1, 30, []string{"default"}) //nolint:gosec // a test
				// One of the tenants is in a crowd: what there is for it is read by namespaces.
				w.server.front.sizes.put(sizeKey{about: behindIt, tenant: tenant.UID, resource: "configmaps"}, 1_000_000)
				for _, selector := range []string{"on=yes", "on=yes,size", "on notin (yes)"} {
					factory := informers.NewSharedInformerFactoryWithOptions(c, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = selector }))
					informer := factory.Core().V1().ConfigMaps().Informer()
					factory.Start(t.Context().Done())
					t.Cleanup(factory.Shutdown)
					if !cache.WaitForCacheSync(t.Context().Done(), informer.HasSynced) {
						t.Fatal("the informer does not sync")
					}
					stores = append(stores, informer.GetStore())
				}
			}
			eventually(t, "all watches are open", func() bool { return hub.Stats().Subscribers == len(stores) })
			for i, config := range configs {
				writeLabels(t, clientset(t, config), rand.New(rand.NewPCG(5, uint64(i))), 1, 60, []string{"default"}) //nolint:gosec // a test
			}
			for i, store := range stores {
				selector := []string{"on=yes", "on=yes,size", "on notin (yes)"}[i%3]
				list, err := clientset(t, configs[i/3]).CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{LabelSelector: selector})
				if err != nil {
					t.Fatal(err)
				}
				want := map[string]string{}
				for _, o := range list.Items {
					want[o.Namespace+"/"+o.Name] = o.ResourceVersion
				}
				var diff string
				eventually(t, fmt.Sprintf("informer %d knows what matches %s", i, selector), func() bool {
					diff = cmp.Diff(want, known(t, store))
					return diff == ""
				})
			}
			if got := hub.Stats(); got.Feeds != 1 || got.Subscribers != len(stores) || got.Missed != 0 || got.Formers == 0 {
				t.Errorf("%+v", got)
			}
			// One, and perhaps some of controllers that have just come to watch.
			if got := longRunning(t, root) - before; got >= len(stores) {
				t.Errorf("the control cluster serves %d watches more", got)
			}
		})
	}
}

// TestSelectedFields holds watches with the field selectors that the gateway evaluates against those of the control cluster,
// byte by byte: for each field of each kind objects come to have values, and lose them.
func TestSelectedFields(t *testing.T) {
	w := theWorld(t)
	const id = "sef00a"
	config := client(t, w.tenant(t, id))
	c, root := clientset(t, config), clientset(t, client(t, w.control))
	hub := w.withHub(t, func(*fanout.Config) {})
	list, err := root.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	from := number(list.ResourceVersion)
	kinds := map[string]translate.Kind{
		"pods":       {Version: "v1", Resource: "pods", Kind: "Pod", Namespaced: true},
		"secrets":    {Version: "v1", Resource: "secrets", Kind: "Secret", Namespaced: true},
		"events":     {Version: "v1", Resource: "events", Kind: "Event", Namespaced: true},
		"namespaces": {Version: "v1", Resource: "namespaces", Kind: "Namespace"},
	}
	// Of each field a value that objects come to have; the last object has another one, and none where it may.
	values := map[string]map[string]string{
		"pods":       {"spec.restartPolicy": "Never", "spec.serviceAccountName": "other", "status.phase": "Running"},
		"secrets":    {"type": "vivarium.test/one"},
		"events":     {"type": "Warning", "reason": "Because"},
		"namespaces": {"status.phase": "Terminating"},
	}
	var watchers []*selecting
	for resource, kind := range kinds {
		for _, form := range watchForms[:2] {
			told := translate.FieldsInFrames("", resource, form)
			if len(told) != len(values[resource]) {
				t.Errorf("%s: %d fields, %d values", resource, len(told), len(values[resource]))
			}
			for _, field := range told {
				value, ok := values[resource][field.Name]
				if !ok {
					t.Errorf("%s: no value for %s", resource, field.Name)
				}
				for _, selector := range []string{field.Name + "!=" + value, field.Name + "=" + value} {
					watchers = append(watchers, &selecting{
						id: id, kind: kind, form: form, steady: true, last: from, what: choice{fields: selector, controlFields: selector},
					})
				}
			}
		}
	}
	var group sync.WaitGroup
	for _, one := range watchers {
		group.Go(func() { one.run(t, config, nil) })
	}
	eventually(t, "all watches are shared", func() bool { return hub.Stats().Subscribers == len(watchers) })

	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	create := metav1.CreateOptions{}
	// pod writes a pod that says all of the values, or none.
	pod := func(name string, all bool) {
		t.Helper()
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "vivarium.test/none"}}}}
		if all {
			p.Spec.RestartPolicy, p.Spec.ServiceAccountName = corev1.RestartPolicyNever, "other"
		}
		must(c.CoreV1().Pods("default").Create(t.Context(), p, create))
	}
	phase := func(name string, is corev1.PodPhase) {
		t.Helper()
		must(root.CoreV1().Pods(id+"-default").Patch(t.Context(), name, types.MergePatchType, fmt.Appendf(nil, `{"status":{"phase":%q}}`, is), metav1.PatchOptions{}, "status"))
	}
	must(c.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, create))
	eventually(t, "there is a default ServiceAccount", func() bool {
		_, err := c.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil
	})
	for name, all := range map[string]bool{"a": true, "b": false} {
		pod(name, all)
		phase(name, corev1.PodRunning)
		phase(name, corev1.PodSucceeded)
	}
	phase("b", corev1.PodRunning)
	must(nil, c.CoreV1().Pods("default").Delete(t.Context(), "b", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}))
	secret := func(name, is string) {
		t.Helper()
		must(c.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretType(is), StringData: map[string]string{"type": "vivarium.test/one"},
		}, create))
	}
	secret("a", "vivarium.test/one")
	secret("b", "")
	must(nil, c.CoreV1().Secrets("default").Delete(t.Context(), "a", metav1.DeleteOptions{}))
	event := func(name, is, reason string) {
		t.Helper()
		must(c.CoreV1().Events("default").Create(t.Context(), &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Name: name}, InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "a"}, Type: is, Reason: reason,
		}, create))
	}
	event("a", "Warning", "Because")
	for _, patch := range []string{`{"type":"Normal"}`, `{"reason":null}`, `{"type":"Warning","reason":"Because"}`, `{"type":null,"reason":""}`} {
		must(c.CoreV1().Events("default").Patch(t.Context(), "a", types.MergePatchType, []byte(patch), metav1.PatchOptions{}))
	}
	must(c.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, create))
	must(nil, c.CoreV1().Namespaces().Delete(t.Context(), "a", metav1.DeleteOptions{}))
	eventually(t, "the namespace is gone", func() bool {
		_, err := c.CoreV1().Namespaces().Get(t.Context(), "a", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	// The end of each: one that every watch sees, at one time or another.
	pod("the-end", true)
	phase("the-end", corev1.PodRunning)
	pod("other-the-end", false)
	secret("the-end", "vivarium.test/one")
	secret("other-the-end", "")
	event("the-end", "Warning", "Because")
	event("other-the-end", "Normal", "Otherwise")
	must(c.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "the-end"}}, create))
	must(nil, c.CoreV1().Namespaces().Delete(t.Context(), "the-end", metav1.DeleteOptions{}))
	group.Wait()
	for _, one := range watchers {
		want := selectedTruth(t, w, client(t, w.control), one, from)
		if diff := cmp.Diff(want, one.got); diff != "" {
			t.Errorf("%s %s %+v (-want +got):\n%s", one.kind.Resource, one.form, one.what, diff)
		}
	}
	t.Logf("%d watches, %+v", len(watchers), hub.Stats())
}

// labelled sends an event about a pod with a label.
func (c *hubControl) labelled(kind, name, app string, rv int) {
	c.frames <- fmt.Sprintf(`{"type":%q,"object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":%q,"namespace":"abc123-web","resourceVersion":"%d","labels":{"app":%q}}}}`+"\n", kind, name, rv, app)
}

// TestSelectedOutgrows checks that a watch that matches more than it may remember goes on as one of the control cluster, and
// that nobody misses anything.
func TestSelectedOutgrows(t *testing.T) {
	h := newHarness(t)
	control := shareable(h)
	h.front.matching = &selection.Budget{Each: 200, Tenant: 1 << 20, All: 1 << 20}
	all := h.answer
	own := make(chan string, 10)
	h.answerWith(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Impersonate-User") == "" || r.URL.Query().Get("watch") == "" {
			all(w, r)
			return
		}
		own <- r.URL.Query().Get("resourceVersion") + " " + r.URL.Query().Get("labelSelector")
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"type":"MODIFIED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p1","namespace":"abc123-web","resourceVersion":"105"}}}`+"\n")
		_, _ = io.WriteString(w, `{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"106"}}}`+"\n")
		_, _ = io.WriteString(w, `{"type":"DELETED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p1","namespace":"abc123-web","resourceVersion":"107"}}}`+"\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	client := h.http2()
	plain, _ := h.stream(t, client, "/api/v1/pods?watch=true&resourceVersion=100")
	in, res := h.stream(t, client, "/api/v1/pods?watch=true&resourceVersion=100&labelSelector=app%3Dweb")
	read := func(in *json.Decoder) string {
		t.Helper()
		var f frame
		if err := in.Decode(&f); err != nil {
			t.Fatal(err)
		}
		return strings.Join([]string{f.Type, f.Object.Metadata.Name, f.Object.Metadata.ResourceVersion}, " ")
	}
	control.labelled("MODIFIED", "p1", "web", 101)
	control.labelled("ADDED", "p2", "web", 102)
	control.labelled("ADDED", "other", "db", 103)
	control.labelled("ADDED", "p3", "web", 104)
	control.labelled("ADDED", "p4", "web", 104)
	for _, want := range []string{"ADDED p1 101", "ADDED p2 102", "ADDED p3 104", "ADDED p4 104"} {
		if got := read(in); got != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
	control.labelled("MODIFIED", "p1", "web", 105)
	for _, want := range []string{"MODIFIED p1 105", "DELETED p1 107"} {
		if got := read(in); got != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
	if asked := <-own; asked != "104 app=web" {
		t.Errorf("its own watch: %q", asked)
	}
	if got := h.front.fanout.Stats().Subscribers; got != 1 {
		t.Errorf("%d subscribers", got)
	}
	for range 6 {
		read(plain)
	}
	_ = res.Body.Close()
}
