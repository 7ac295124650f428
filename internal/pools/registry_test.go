package pools

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	k8stesting "k8s.io/client-go/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlfake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

// fakeAdmin tells reflectors that it does not stream lists, which controller-runtime's fake forgets to, and the test when it
// is watched.
type fakeAdmin struct {
	client.WithWatch
	watched chan struct{}
}

func (a fakeAdmin) Watch(ctx context.Context, list client.ObjectList, options ...client.ListOption) (watch.Interface, error) {
	w, err := a.WithWatch.Watch(ctx, list, options...)
	tell(a.watched)
	return w, err
}

func tell(done chan struct{}) {
	select {
	case done <- struct{}{}:
	default:
	}
}

func (fakeAdmin) IsWatchListSemanticsUnSupported() bool { return true }

// world is a Registry between fakes: kubeconfigs are names of clusters.
type world struct {
	admin    fakeAdmin
	control  *fake.Clientset
	registry *Registry

	mu       sync.Mutex // guards the rest
	clusters map[string]*fake.Clientset
	log      []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	w := &world{
		admin:    fakeAdmin{ctrlfake.NewClientBuilder().WithScheme(scheme).Build(), make(chan struct{}, 1)},
		control:  fakeCluster(t, "control-1"),
		clusters: map[string]*fake.Clientset{},
	}
	secretsWatched := make(chan struct{}, 1)
	w.control.PrependWatchReactor("secrets", func(a k8stesting.Action) (bool, watch.Interface, error) {
		stream, err := w.control.Tracker().Watch(a.GetResource(), a.GetNamespace())
		tell(secretsWatched)
		return true, stream, err
	})
	registry, err := NewRegistry(RegistryConfig{
		Admin: w.admin, Control: w.control, UserAgent: "test",
		ProbeEvery: time.Millisecond, RetryEvery: time.Millisecond, UnreachableAfter: 20 * time.Millisecond,
		Connect: func(kubeconfig []byte) (*rest.Config, kubernetes.Interface, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			cluster := w.clusters[string(kubeconfig)]
			if cluster == nil {
				return nil, nil, fmt.Errorf("kubeconfig %q is refused", kubeconfig)
			}
			return &rest.Config{Host: "https://" + string(kubeconfig)}, cluster, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.registry = registry
	registry.Subscribe(Handler{
		Added: func(ctx context.Context, p *Pool) {
			w.say("added %s at %s, alive %t", p.Name, p.Config.Host, ctx.Err() == nil)
		},
		Removed: func(p *Pool) { w.say("removed %s at %s", p.Name, p.Config.Host) },
		Changed: func(p *Pool) { w.say("changed %s, cordoned %t", p.Name, p.Spec().Cordoned) },
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- registry.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if open := registry.Pools(); len(open) > 0 {
			t.Errorf("pools are open after Run: %v", open)
		}
	})
	// What is made between a list and the watch after it the fakes never tell.
	<-secretsWatched
	<-w.admin.watched
	return w
}

func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

func (w *world) cluster(t *testing.T, name string, uid types.UID, denied ...string) *fake.Clientset {
	t.Helper()
	c := fakeCluster(t, uid, denied...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clusters[name] = c
	return c
}

func (w *world) secret(t *testing.T, name, kubeconfig string) {
	t.Helper()
	secrets := w.control.CoreV1().Secrets(names.SystemNamespace)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: names.SystemNamespace}, Data: map[string][]byte{KubeconfigKey: []byte(kubeconfig)}}
	if _, err := secrets.Update(t.Context(), secret, metav1.UpdateOptions{}); err == nil {
		return
	}
	if _, err := secrets.Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) pool(t *testing.T, name string, uid types.UID, age time.Duration) *v1alpha1.ResourcePool {
	t.Helper()
	p := &v1alpha1.ResourcePool{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("resource-" + name), CreationTimestamp: metav1.NewTime(time.Now().Add(-age).Truncate(time.Second))},
		Spec:       v1alpha1.ResourcePoolSpec{ClusterUID: uid, Credentials: v1alpha1.PoolCredentials{KubeconfigSecret: name}},
	}
	if err := w.admin.Create(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	return p
}

// until waits for the condition; the test's deadline is its only limit.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for !condition() {
		select {
		case <-t.Context().Done():
			t.Fatalf("never happened: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

func (w *world) waitLog(t *testing.T, want ...string) {
	t.Helper()
	until(t, strings.Join(want, "; "), func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.log) >= len(want)
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if diff := cmp.Diff(want, w.log); diff != "" {
		t.Fatalf("what subscribers saw (-want +got):\n%s", diff)
	}
}

func (w *world) waitStatus(t *testing.T, pool string, check func(Status) bool) Status {
	t.Helper()
	var status Status
	until(t, "status of "+pool, func() bool {
		s, ok := w.registry.Status(pool)
		status = s
		return ok && check(s)
	})
	return status
}

func TestRegistryFollowsThePoolAndItsCredentials(t *testing.T) {
	w := newWorld(t)
	w.cluster(t, "east", "uid-east")
	w.cluster(t, "east-rotated", "uid-east")
	resource := w.pool(t, "pool-a", "uid-east", time.Hour)
	if s := w.waitStatus(t, "pool-a", func(s Status) bool { return !s.Reachable.Good() }); s.Reachable.Reason != reasonNoSecret {
		t.Fatalf("without a Secret: %+v", s)
	}
	w.secret(t, "pool-a", "east")
	w.waitLog(t, "added pool-a at https://east, alive true")
	w.waitStatus(t, "pool-a", func(s Status) bool {
		return s.Reachable.Good() && s.Identified.Good() && s.Authorized.Good() && s.Version == "v1.36.3"
	})
	resource.Spec.Cordoned = true
	if err := w.admin.Update(t.Context(), resource); err != nil {
		t.Fatal(err)
	}
	w.waitLog(t, "added pool-a at https://east, alive true", "changed pool-a, cordoned true")
	w.secret(t, "pool-a", "east-rotated")
	w.waitLog(t, "added pool-a at https://east, alive true", "changed pool-a, cordoned true",
		"removed pool-a at https://east", "added pool-a at https://east-rotated, alive true")
	var late []string
	unsubscribe := w.registry.Subscribe(Handler{
		Added:   func(_ context.Context, p *Pool) { late = append(late, p.Name) },
		Removed: func(*Pool) { late = append(late, "told after all") },
	})
	unsubscribe()
	if err := w.admin.Delete(t.Context(), resource); err != nil {
		t.Fatal(err)
	}
	until(t, "pool closed", func() bool { _, ok := w.registry.Pool("pool-a"); return !ok })
	until(t, "status forgotten", func() bool { _, ok := w.registry.Status("pool-a"); return !ok })
	if diff := cmp.Diff([]string{"pool-a"}, late); diff != "" {
		t.Errorf("a late subscriber that left (-want +got):\n%s", diff)
	}
}

func TestRegistryRefusesOtherClusters(t *testing.T) {
	w := newWorld(t)
	w.cluster(t, "east", "uid-east")
	w.cluster(t, "west", "uid-west")
	w.cluster(t, "control", "control-1")
	w.cluster(t, "weak", "uid-weak", "create pods")

	w.secret(t, "wrong", "west")
	w.pool(t, "wrong", "uid-other", time.Hour)
	w.secret(t, "self", "control")
	w.pool(t, "self", "control-1", time.Hour)
	w.secret(t, "first", "east")
	w.pool(t, "first", "uid-east", time.Hour)
	w.secret(t, "second", "east")
	w.pool(t, "second", "uid-east", time.Minute)
	w.secret(t, "broken", "nowhere")
	w.pool(t, "broken", "uid-x", time.Hour)
	w.secret(t, "weak", "weak")
	w.pool(t, "weak", "uid-weak", time.Hour)

	for pool, want := range map[string]struct{ reason, text string }{
		"wrong":  {reasonOtherCluster, "uid-west"},
		"self":   {reasonControlCluster, "control cluster"},
		"second": {reasonDuplicate, `"first"`},
	} {
		s := w.waitStatus(t, pool, func(s Status) bool { return s.Identified.Reason == want.reason })
		if s.Identified.Good() || !strings.Contains(s.Identified.Message, want.text) {
			t.Errorf("%s: %+v", pool, s.Identified)
		}
		if _, ok := w.registry.Pool(pool); ok {
			t.Errorf("%s is open", pool)
		}
	}
	w.waitStatus(t, "broken", func(s Status) bool { return s.Reachable.Reason == reasonBadKubeconfig })
	if s := w.waitStatus(t, "weak", func(s Status) bool { return s.Reachable.Good() }); s.Authorized.Good() || !strings.Contains(s.Authorized.Message, "create pods") {
		t.Errorf("weak: %+v", s.Authorized)
	}
	until(t, "open pools", func() bool { return len(w.registry.Pools()) == 2 })
	until(t, "every pool was checked", w.registry.Settled)
}

func TestRegistryNoticesSilenceAndImpostors(t *testing.T) {
	w := newWorld(t)
	east := w.cluster(t, "east", "uid-east")
	var mu sync.Mutex
	var answer func() (bool, runtime.Object, error)
	east.PrependReactor("get", "namespaces", func(k8stesting.Action) (bool, runtime.Object, error) {
		mu.Lock()
		defer mu.Unlock()
		if answer == nil {
			return false, nil, nil
		}
		return answer()
	})
	set := func(f func() (bool, runtime.Object, error)) {
		mu.Lock()
		defer mu.Unlock()
		answer = f
	}
	w.secret(t, "pool-a", "east")
	w.pool(t, "pool-a", "uid-east", time.Hour)
	w.waitStatus(t, "pool-a", func(s Status) bool { return s.Reachable.Good() })

	set(func() (bool, runtime.Object, error) { return true, nil, errors.New("connection refused") })
	w.waitStatus(t, "pool-a", func(s Status) bool { return !s.Reachable.Good() && s.Identified.Good() })
	if silence, ever := w.registry.Silence("pool-a"); !ever || silence == 0 {
		t.Errorf("silent for %s, %t", silence, ever)
	}
	if _, ok := w.registry.Pool("pool-a"); !ok {
		t.Error("a silent pool was closed: its pods would be taken for gone")
	}
	set(nil)
	w.waitStatus(t, "pool-a", func(s Status) bool { return s.Reachable.Good() })

	set(func() (bool, runtime.Object, error) {
		return true, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "uid-impostor"}}, nil
	})
	w.waitStatus(t, "pool-a", func(s Status) bool { return s.Identified.Reason == reasonOtherCluster })
	if _, ok := w.registry.Pool("pool-a"); ok {
		t.Error("a pool with another cluster behind it is open")
	}
}
