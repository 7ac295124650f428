package usage

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/vk-provider/internal/control"
	"vivarium.io/vivarium/vk-provider/internal/provider"
)

// world is a Source between a control cluster's pods and pools whose answers the test gives.
type world struct {
	*Source

	mu    sync.Mutex // guards what follows
	clock time.Time
	open  map[string]*pools.Pool
	says  map[string]func(ctx context.Context) ([]v1beta1.PodMetrics, error)
	asked map[string]int
}

func (w *world) Pool(name string) (*pools.Pool, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	pool, ok := w.open[name]
	return pool, ok
}

func newPool(name string) *pools.Pool {
	return pools.NewPool(&v1alpha1.ResourcePool{ObjectMeta: metav1.ObjectMeta{Name: name}}, "control-1", nil, nil)
}

// newWorld has the pods "namespace/name" on the virtual Nodes pool-a-0 and pool-b-0 of the pools a and b.
func newWorld(t *testing.T, onA, onB []string) *world {
	t.Helper()
	var objects []runtime.Object
	for _, pool := range []string{"a", "b"} {
		objects = append(objects, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "pool-" + pool + "-0", Labels: map[string]string{names.LabelPool: pool}}})
	}
	for node, pods := range map[string][]string{"pool-a-0": onA, "pool-b-0": onB} {
		for _, at := range pods {
			objects = append(objects, controlPod(at, node))
		}
	}
	cache, err := control.New(fake.NewClientset(objects...))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go cache.Run(ctx)
	if !cache.Wait(ctx) {
		t.Fatal("the cache did not sync")
	}
	w := &world{
		clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		open:  map[string]*pools.Pool{"a": newPool("a"), "b": newPool("b")},
		says:  map[string]func(context.Context) ([]v1beta1.PodMetrics, error){},
		asked: map[string]int{},
	}
	w.Source = NewSource(cache, w)
	w.Source.now = func() time.Time {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.clock
	}
	w.Source.read = func(ctx context.Context, pool *pools.Pool) ([]v1beta1.PodMetrics, error) {
		w.mu.Lock()
		w.asked[pool.Name]++
		say := w.says[pool.Name]
		w.mu.Unlock()
		if say == nil {
			return nil, nil
		}
		return say(ctx)
	}
	return w
}

func split(at string) (namespace, name string) {
	for i := range at {
		if at[i] == '/' {
			return at[:i], at[i+1:]
		}
	}
	return "", at
}

func controlPod(at, node string) *corev1.Pod {
	namespace, name := split(at)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid " + at), Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			NodeName: node, InitContainers: []corev1.Container{{Name: "sidecar"}}, Containers: []corev1.Container{{Name: "main"}},
		},
	}
}

// measured is what a pool says of our pod, with a container of its own in it.
func measured(at string, milliCPU int64) v1beta1.PodMetrics {
	namespace, name := split(at)
	container := func(name string, cpu int64) v1beta1.ContainerMetrics {
		return v1beta1.ContainerMetrics{Name: name, Usage: corev1.ResourceList{
			corev1.ResourceCPU: *resource.NewMilliQuantity(cpu, resource.DecimalSI), corev1.ResourceMemory: *resource.NewQuantity(1<<20, resource.BinarySI),
		}}
	}
	return v1beta1.PodMetrics{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: newPool("x").Labels(provider.Component, "t", types.UID("uid "+at))},
		Timestamp:  metav1.NewTime(time.Date(2025, 12, 31, 23, 59, 50, 0, time.UTC)), Window: metav1.Duration{Duration: 10 * time.Second},
		Containers: []v1beta1.ContainerMetrics{container("main", milliCPU), container("sidecar", 1), container("injected", 1000)},
	}
}

func (w *world) say(pool string, pods ...v1beta1.PodMetrics) {
	w.answer(pool, func(context.Context) ([]v1beta1.PodMetrics, error) { return pods, nil })
}

func (w *world) answer(pool string, say func(context.Context) ([]v1beta1.PodMetrics, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.says[pool] = say
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = w.clock.Add(d)
}

func (w *world) questions(pool string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[pool]
}

// settled waits until no pool is being asked.
func (w *world) settled() {
	for {
		w.Source.mu.Lock()
		var asking chan struct{}
		for _, st := range w.Source.kept {
			if st.asking != nil {
				asking = st.asking
			}
		}
		w.Source.mu.Unlock()
		if asking == nil {
			return
		}
		<-asking
	}
}

func cpu(list corev1.ResourceList) int64 { return list.Cpu().MilliValue() }

func paths(found []v1beta1.PodMetrics) []string {
	out := []string{}
	for i := range found {
		out = append(out, path(&found[i]))
	}
	return out
}

func all(*corev1.Pod) bool { return true }

// TestOnlyOurs leaves out whatever is not proven to be the control pod's.
func TestOnlyOurs(t *testing.T) {
	w := newWorld(t, []string{"t1-web/ours", "t1-web/replaced", "t1-web/renamed", "t1-web/quiet"}, []string{"t1-web/elsewhere"})
	replaced, renamed, elsewhere := measured("t1-web/replaced", 1), measured("t1-web/renamed", 1), measured("t1-web/elsewhere", 1)
	replaced.Labels[names.LabelControlUID] = "that of a former namesake"
	renamed.Name = "other"
	foreign, otherControl := measured("t1-web/quiet", 1), measured("t1-web/quiet", 1)
	foreign.Labels[names.LabelManagedBy] = "somebody"
	otherControl.Labels[names.LabelControl] = "control-2"
	w.say("a", measured("t1-web/ours", 250), replaced, renamed, elsewhere, foreign, otherControl, measured("t1-web/deleted", 1))

	for _, found := range [][]v1beta1.PodMetrics{w.InNamespace(t.Context(), "t1-web", all), w.From(t.Context(), "", 0, all)} {
		if diff := cmp.Diff([]string{"t1-web/ours"}, paths(found)); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
		got := found[0]
		if len(got.Containers) != 2 || cpu(got.Containers[0].Usage) != 250 || got.Labels["app"] != "ours" || got.Labels[names.LabelControlUID] != "" {
			t.Errorf("figures %+v", got)
		}
		if !got.Timestamp.Equal(ptr(measured("t1-web/ours", 0).Timestamp)) || got.Window.Duration != 10*time.Second {
			t.Errorf("taken at %s over %s: not the pool's own word", got.Timestamp, got.Window.Duration)
		}
	}
	if _, ok := w.Pod(t.Context(), "t1-web", "replaced"); ok {
		t.Error("figures of a former namesake are told")
	}
	nodes := w.Nodes(t.Context(), func(*corev1.Node) bool { return true })
	if len(nodes) != 2 || cpu(nodes[0].Usage) != 251 || cpu(nodes[1].Usage) != 0 {
		t.Errorf("nodes use %+v, want the sum of the pods on each", nodes)
	}
}

func ptr[T any](v T) *T { return &v }

// TestPoolsThatDoNotAnswer are missing, hold nobody up, and do not become what they were.
func TestPoolsThatDoNotAnswer(t *testing.T) {
	w := newWorld(t, []string{"t1-web/a"}, []string{"t1-web/b"})
	w.Source.wait = time.Hour
	w.say("a", measured("t1-web/a", 1))
	w.answer("b", func(context.Context) ([]v1beta1.PodMetrics, error) { return nil, errors.New("connection refused") })
	want := func(when string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, paths(w.InNamespace(t.Context(), "t1-web", all))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	want("b refuses", "t1-web/a")
	if nodes := w.Nodes(t.Context(), func(*corev1.Node) bool { return true }); len(nodes) != 1 || nodes[0].Name != "pool-a-0" {
		t.Errorf("nodes %+v: that of a silent pool is missing, not idle", nodes)
	}

	// Asked again, it hangs: nobody waits for one that has failed.
	hang, hanging := make(chan struct{}), make(chan struct{})
	w.answer("b", func(context.Context) ([]v1beta1.PodMetrics, error) {
		close(hanging)
		<-hang
		return nil, errors.New("late")
	})
	w.pass(freshFor)
	want("b hangs", "t1-web/a")
	<-hanging
	close(hang)
	w.settled()

	// What it said is told for a while after it falls silent, and then no more.
	w.say("b", measured("t1-web/b", 1))
	w.pass(freshFor)
	w.InNamespace(t.Context(), "t1-web", all)
	w.settled()
	want("b is back", "t1-web/a", "t1-web/b")
	w.answer("b", func(context.Context) ([]v1beta1.PodMetrics, error) { return nil, errors.New("gone") })
	w.pass(keptFor)
	w.InNamespace(t.Context(), "t1-web", all)
	w.settled()
	want("b fell silent", "t1-web/a", "t1-web/b")
	w.pass(time.Second)
	want("b has been silent for long", "t1-web/a")

	// A pool that is replaced by another cluster or other credentials starts anew.
	w.say("b", measured("t1-web/b", 1))
	w.mu.Lock()
	w.open["b"] = newPool("b")
	w.mu.Unlock()
	want("b is opened anew", "t1-web/a", "t1-web/b")
	w.mu.Lock()
	delete(w.open, "b")
	w.mu.Unlock()
	want("b is closed", "t1-web/a")
	if _, kept := w.Source.kept["b"]; kept {
		t.Error("a pool that is gone is kept")
	}
}

// TestOnePerPool asks a pool once for however many ask at a time.
func TestOnePerPool(t *testing.T) {
	w := newWorld(t, []string{"t1-web/a"}, nil)
	proceed := make(chan struct{})
	w.answer("a", func(context.Context) ([]v1beta1.PodMetrics, error) {
		<-proceed
		return []v1beta1.PodMetrics{measured("t1-web/a", 1)}, nil
	})
	var asking sync.WaitGroup
	for range 50 {
		asking.Go(func() {
			if found := w.InNamespace(t.Context(), "t1-web", all); len(found) != 1 {
				t.Errorf("found %v", paths(found))
			}
		})
	}
	close(proceed)
	asking.Wait()
	w.InNamespace(t.Context(), "t1-web", all)
	if n := w.questions("a"); n != 1 {
		t.Errorf("the pool was asked %d times", n)
	}
	if n := w.questions("b"); n != 0 {
		t.Error("a pool without pods of the namespace was asked")
	}
	// A caller that has given up does not take the others' answer away.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.pass(keptFor + time.Second)
	w.InNamespace(ctx, "t1-web", all)
	if found := w.InNamespace(t.Context(), "t1-web", all); len(found) != 1 {
		t.Errorf("found %v", paths(found))
	}
}

// TestPages walks a list over all namespaces in pages of every size, from the beginning and from a tenant's first key.
func TestPages(t *testing.T) {
	onA, onB := []string{"t1-a/x", "t1-web/p1", "t1-web/p3", "t2-web/q"}, []string{"t1-a-b/x", "t1-web/p2", "t3-web/r"}
	w := newWorld(t, onA, onB)
	var a, b []v1beta1.PodMetrics
	for _, at := range onA {
		a = append(a, measured(at, 1))
	}
	for _, at := range onB {
		b = append(b, measured(at, 1))
	}
	w.say("a", a...)
	w.say("b", b...)
	// The API server's order: by bytes, so that "a-b/" is in front of "a/".
	want := []string{"t1-a-b/x", "t1-a/x", "t1-web/p1", "t1-web/p2", "t1-web/p3", "t2-web/q", "t3-web/r"}
	store := pods{w.Source}
	walk := func(ctx context.Context, o internalversion.ListOptions) []string {
		t.Helper()
		var got []string
		for {
			object, err := store.List(ctx, &o)
			if err != nil {
				t.Fatal(err)
			}
			list := object.(*v1beta1.PodMetricsList)
			if o.Limit > 0 && len(list.Items) > int(o.Limit) {
				t.Fatalf("%d items on a page of %d", len(list.Items), o.Limit)
			}
			got = append(got, paths(list.Items)...)
			if o.Continue = list.Continue; o.Continue == "" {
				return got
			}
		}
	}
	start := base64.RawURLEncoding.EncodeToString([]byte(`{"v":"meta.k8s.io/v1","rv":-1,"start":"t2-"}`))
	for limit := range int64(9) {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			if diff := cmp.Diff(want, walk(t.Context(), internalversion.ListOptions{Limit: limit})); diff != "" {
				t.Errorf("everything (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(want[5:], walk(t.Context(), internalversion.ListOptions{Limit: limit, Continue: start})); diff != "" {
				t.Errorf("from t2- (-want +got):\n%s", diff)
			}
			inside := request.WithNamespace(t.Context(), "t1-web")
			if diff := cmp.Diff(want[2:5], walk(inside, internalversion.ListOptions{Limit: limit})); diff != "" {
				t.Errorf("inside (-want +got):\n%s", diff)
			}
			not := labels.SelectorFromSet(labels.Set{"app": "x"})
			if diff := cmp.Diff(want[:2], walk(t.Context(), internalversion.ListOptions{Limit: limit, LabelSelector: not})); diff != "" {
				t.Errorf("by label (-want +got):\n%s", diff)
			}
			named := fields.ParseSelectorOrDie("metadata.name=r,metadata.namespace=t3-web")
			if diff := cmp.Diff(want[6:], walk(t.Context(), internalversion.ListOptions{Limit: limit, FieldSelector: named})); diff != "" {
				t.Errorf("by field (-want +got):\n%s", diff)
			}
		})
	}
	for name, o := range map[string]internalversion.ListOptions{
		"Token": {Limit: 1, Continue: "x"}, "Field": {FieldSelector: fields.ParseSelectorOrDie("spec.nodeName=n")},
	} {
		if _, err := store.List(t.Context(), &o); !apierrors.IsBadRequest(err) {
			t.Errorf("%s: %v, want a bad request", name, err)
		}
	}
}

func TestTables(t *testing.T) {
	w := newWorld(t, []string{"t1-web/a"}, nil)
	w.say("a", measured("t1-web/a", 250))
	for name, store := range map[string]interface {
		List(context.Context, *internalversion.ListOptions) (runtime.Object, error)
		ConvertToTable(context.Context, runtime.Object, runtime.Object) (*metav1.Table, error)
	}{"a": pods{w.Source}, "pool-a-0": nodes{w.Source}} {
		list, err := store.List(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		table, err := store.ConvertToTable(t.Context(), list, &metav1.TableOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(table.ColumnDefinitions) != 4 || len(table.Rows) == 0 || !slices.Equal(table.Rows[0].Cells, []any{name, "251m", "2Mi", "10s"}) {
			t.Errorf("%s: %+v", name, table.Rows)
		}
	}
}
