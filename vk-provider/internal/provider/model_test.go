package provider

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/clock"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/network"
	networkfake "vivarium.io/vivarium/network/fake"
	"vivarium.io/vivarium/vk-provider/internal/bounce"
	"vivarium.io/vivarium/vk-provider/internal/control"
	"vivarium.io/vivarium/vk-provider/internal/podspec"
	"vivarium.io/vivarium/vk-provider/internal/poolcache"
	"vivarium.io/vivarium/vk-provider/internal/vpcs"
)

// TestModel has pods come and go in made-up time, while writes get lost, arrive late or conflict, watches break and forget,
// pools remove pods of their own accord, and the provider is replaced or has a second one beside it. When the trouble is over
// both sides have to agree, whatever was missed, and after that nobody may have anything left to do. MODEL_SEEDS says how many
// courses things take.
func TestModel(t *testing.T) {
	// They keep errors apart by time, and the time that they were made at is not the model's.
	handlers := utilruntime.ErrorHandlers
	utilruntime.ErrorHandlers = nil
	t.Cleanup(func() { utilruntime.ErrorHandlers = handlers })
	seeds := 8
	if text := os.Getenv("MODEL_SEEDS"); text != "" {
		var err error
		if seeds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newModel(t, uint64(seed)).run() }) //nolint:gosec // small
		})
	}
}

const modelNamespace = "abc123-web"

type model struct {
	*testing.T
	random  *rand.Rand
	control *modelCluster
	pools   map[string]*modelCluster
	// ended has the control pods whose pool pod was taken away by its pool.
	ended map[types.UID]bool
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		T: t, random: rand.New(rand.NewPCG(seed, 1)), //nolint:gosec // to be repeated
		control: newModelCluster(seed), ended: map[types.UID]bool{},
		pools: map[string]*modelCluster{"pool-a": newModelCluster(seed + 100), "pool-b": newModelCluster(seed + 200)},
	}
	make := func(_ any, err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	core := m.control.Interface.CoreV1()
	make(core.Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "control"}}, metav1.CreateOptions{}))
	make(core.Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: modelNamespace, Labels: map[string]string{names.LabelTenant: "abc123"}}}, metav1.CreateOptions{}))
	for name := range m.pools {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name + "-0", Labels: map[string]string{names.LabelPool: name}}}
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		make(core.Nodes().Create(t.Context(), node, metav1.CreateOptions{}))
	}
	return m
}

// modelRegistry knows pools that are well.
type modelRegistry struct{}

func (modelRegistry) Status(string) (pools.Status, bool) {
	good := pools.Finding{Status: metav1.ConditionTrue}
	return pools.Status{Reachable: good, Identified: good, Authorized: good}, true
}
func (modelRegistry) ControlUID() types.UID                          { return "control" }
func (modelRegistry) Resource(string) (*v1alpha1.ResourcePool, bool) { return nil, false }

// start runs one instance of the provider until it is stopped.
func (m *model) start() (stop func()) {
	ctx, cancel := context.WithCancel(logr.NewContextWithSlogLogger(m.Context(), slog.New(slog.DiscardHandler)))
	var running sync.WaitGroup
	known, err := control.New(m.control)
	if err != nil {
		m.Fatal(err)
	}
	running.Go(func() { known.Run(ctx) })
	driver := networkfake.New()
	p, err := New(Config{
		Control: m.control, Cache: known, Clock: &clock.Clock{}, Registry: modelRegistry{}, Recorder: &record.FakeRecorder{},
		Metrics: NewMetrics(prometheus.NewRegistry()), Gateway: podspec.Gateway{Host: "gateway", Port: "443"},
		Books: bounce.NewBooks(time.Now), Welcome: func(*v1alpha1.TenantChoice, names.TenantID) bool { return true },
		Networks: vpcs.New(nil, func(names.TenantID) (v1alpha1.NetworkMode, bool) { return v1alpha1.NetworkFlat, true }),
		Binder:   func(string) (network.Binder, error) { return driver, nil },
	})
	if err != nil {
		m.Fatal(err)
	}
	running.Go(func() {
		if !known.Wait(ctx) {
			return
		}
		for name, cluster := range m.pools {
			resource := &v1alpha1.ResourcePool{ObjectMeta: metav1.ObjectMeta{Name: name}}
			cache, err := poolcache.New(pools.NewPool(resource, "control", nil, kubernetes.Interface(cluster)), Component)
			if err == nil {
				err = p.Attach(ctx, cache)
			}
			if err != nil {
				m.Error(err)
				return
			}
			running.Go(func() { cache.Run(ctx) })
		}
		if err := p.Run(ctx); err != nil {
			m.Error(err)
		}
	})
	return func() { cancel(); running.Wait() }
}

// live plays a pool's scheduler and kubelet. Every so often the pool takes a pod away.
func (m *model) live(ctx context.Context, c *modelCluster) {
	for ctx.Err() == nil {
		c.pause(time.Second)
		c.during(func() {
			for _, pod := range c.pods {
				switch {
				case c.random.IntN(2) == 0:
				case c.trouble && c.random.IntN(150) == 0:
					m.during(func() { m.ended[controlUID(pod)] = true })
					_ = c.remove(pod.Namespace, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(c.random.IntN(2) * 5))})
				case pod.DeletionTimestamp != nil && !ended(pod):
					c.change(pod, func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodSucceeded })
				case pod.DeletionTimestamp != nil:
					_ = c.remove(pod.Namespace, pod.Name, metav1.DeleteOptions{})
				case pod.Spec.NodeName == "":
					c.change(pod, func(pod *corev1.Pod) { pod.Spec.NodeName = "node" })
				case pod.Status.Phase == corev1.PodPending:
					c.change(pod, func(pod *corev1.Pod) {
						pod.Status.Phase, pod.Status.StartTime = corev1.PodRunning, ptr.To(metav1.Now())
						pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
					})
				}
			}
		})
	}
}

// during guards what the model itself knows, by the control cluster's lock.
func (m *model) during(f func()) { m.control.during(f) }

// act does something that users do.
func (m *model) act() {
	name := fmt.Sprintf("p%d", m.random.IntN(24))
	pool := []string{"pool-a", "pool-b"}[m.random.IntN(2)]
	made := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: modelNamespace, Name: name},
		Spec: corev1.PodSpec{
			NodeName: pool + "-0", AutomountServiceAccountToken: ptr.To(false),
			Containers: []corev1.Container{{Name: "c", Image: "vivarium.test/echo:v1"}},
		},
	}
	m.during(func() {
		switch m.random.IntN(8) {
		case 0, 1:
			_ = m.control.remove(modelNamespace, name, metav1.DeleteOptions{})
		case 2:
			_ = m.control.remove(modelNamespace, name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
		case 3:
			_ = m.control.remove(modelNamespace, name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
			_, _ = m.control.make(made)
		default:
			_, _ = m.control.make(made)
		}
	})
}

func (m *model) setTrouble(trouble bool) {
	for _, c := range m.all() {
		c.during(func() { c.trouble = trouble })
	}
}

func (m *model) all() []*modelCluster {
	return []*modelCluster{m.control, m.pools["pool-a"], m.pools["pool-b"]}
}

func (m *model) run() {
	playing, stopPlaying := context.WithCancel(m.Context())
	var players sync.WaitGroup
	for _, c := range m.pools {
		players.Go(func() { m.live(playing, c) })
	}
	stops := []func(){m.start()}
	m.setTrouble(true)
	for range 150 {
		time.Sleep(time.Duration(m.random.IntN(int(time.Second))))
		m.act()
		switch m.random.IntN(15) {
		case 0: // killed, and another one instead
			stops[0]()
			stops[0] = m.start()
		case 1: // two at once, for a while
			if stops = append(stops, m.start()); len(stops) > 2 {
				stops[0]()
				stops = stops[1:]
			}
		case 2, 3:
			c := m.all()[m.random.IntN(3)]
			c.breakFor(func() {
				for range m.random.IntN(25) {
					time.Sleep(time.Duration(m.random.IntN(int(3 * time.Second))))
					m.act()
				}
			}, m.random.IntN(2) == 0)
		}
	}
	m.setTrouble(false)
	// The longest that anything waits for, a few times over: orphans need two proofs, and some obstacles five minutes.
	time.Sleep(time.Hour)
	m.agree()
	calls := m.calls()
	time.Sleep(time.Hour)
	if more := m.calls() - calls; more > 0 {
		m.Errorf("%d calls in an hour in which nothing happened", more)
	}
	for _, stop := range stops {
		stop()
	}
	stopPlaying()
	players.Wait()
}

func (m *model) calls() (calls int) {
	for _, c := range m.all() {
		c.during(func() { calls += c.calls })
	}
	return calls
}

// agree compares both sides by UID.
func (m *model) agree() {
	below := map[types.UID]string{}
	for name, c := range m.pools {
		c.during(func() {
			for _, pod := range c.pods {
				if other := below[controlUID(pod)]; other != "" {
					m.Errorf("DOUBLED: control pod %s runs in %s and in %s", controlUID(pod), other, name)
				}
				below[controlUID(pod)] = name
			}
		})
	}
	m.during(func() {
		ready := 0
		for _, pod := range m.control.pods {
			pool, there := below[pod.UID]
			delete(below, pod.UID)
			is := fmt.Sprintf("control pod %s, UID %s, %s %s, for %s, is in %q", pod.Name, pod.UID, pod.Status.Phase, pod.Status.Reason, pod.Spec.NodeName, pool)
			switch {
			case pod.DeletionTimestamp != nil:
				m.Errorf("STUCK: %s, deleted %s", is, pod.DeletionTimestamp)
			case ended(pod):
				if !m.ended[pod.UID] {
					m.Errorf("ENDED: %s, and its pool has not taken it away", is)
				}
			case !there:
				m.Errorf("LOST: %s", is)
			case !strings.HasPrefix(pod.Spec.NodeName, pool):
				m.Errorf("MISPLACED: %s", is)
			case len(pod.Status.Conditions) == 0 || pod.Status.Conditions[0].Status != corev1.ConditionTrue:
				m.Errorf("NOT READY: %s, %v", is, pod.Status.Conditions)
			default:
				ready++
			}
		}
		if ready == 0 {
			m.Error("no pod is left to compare")
		}
	})
	for uid, pool := range below {
		m.Errorf("ORPHANED: control pod %s in %s", uid, pool)
	}
}
