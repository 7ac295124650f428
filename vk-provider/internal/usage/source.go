package usage

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/vk-provider/internal/capacity"
	"vivarium.io/vivarium/vk-provider/internal/control"
	"vivarium.io/vivarium/vk-provider/internal/provider"
)

const (
	// freshFor is how long a pool's figures are taken as they are: pools measure every 10 to 60 seconds.
	freshFor = 5 * time.Second
	// keptFor is how long they may be told while newer ones are asked for. They carry their own time.
	keptFor = 30 * time.Second
	// patience bounds how long a request waits for a pool, and only for one that has not failed before.
	patience = 3 * time.Second
	// readTimeout bounds the question to a pool.
	readTimeout = 10 * time.Second
)

// Pools gives open pools by name.
type Pools interface {
	Pool(name string) (*pools.Pool, bool)
}

// Source joins what pools measure with the control cluster's pods. It asks a pool only when somebody asks it, once for all
// of our pods, and never twice at a time. Safe for concurrent use.
type Source struct {
	cache *control.Cache
	pools Pools
	now   func() time.Time
	wait  time.Duration
	read  func(ctx context.Context, pool *pools.Pool) ([]v1beta1.PodMetrics, error)

	mu   sync.Mutex // guards what follows, and what is in it
	kept map[string]*state
}

// state is what is known of one pool.
type state struct {
	pool   *pools.Pool
	last   *reading
	asked  time.Time
	failed bool          // the last question got no answer
	asking chan struct{} // closed when the question under way is answered; nil if there is none
}

// reading is one answer of a pool; it does not change.
type reading struct {
	at   time.Time
	pods map[types.UID]*v1beta1.PodMetrics // by the UID of the control pod
	keys []key                             // in order
}

// key is a pod's place in the order of a list over all namespaces: that of the API server's own lists, by which "a-b/x" is
// in front of "a/x".
type key struct {
	path string // "namespace/name"
	uid  types.UID
}

func path(m *v1beta1.PodMetrics) string { return m.Namespace + "/" + m.Name }

// NewSource makes a Source.
func NewSource(cache *control.Cache, open Pools) *Source {
	return &Source{cache: cache, pools: open, now: time.Now, wait: patience, read: ask, kept: map[string]*state{}}
}

// ask reads the figures of our pods from a pool's metrics.k8s.io.
func ask(ctx context.Context, pool *pools.Pool) ([]v1beta1.PodMetrics, error) {
	config := rest.CopyConfig(pool.Config)
	config.ContentType, config.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	client, err := metricsclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of pool %s: %w", pool.Name, err)
	}
	ours := labels.Set{names.LabelControl: string(pool.ControlUID), names.LabelManagedBy: provider.Component}
	list, err := client.PodMetricses("").List(ctx, metav1.ListOptions{LabelSelector: ours.String()})
	if err != nil {
		return nil, fmt.Errorf("read metrics of pool %s: %w", pool.Name, err)
	}
	return list.Items, nil
}

// of gives a pool's figures, nil when there are none that may be told.
func (s *Source) of(ctx context.Context, name string) *reading {
	pool, open := s.pools.Pool(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !open {
		delete(s.kept, name)
		return nil
	}
	st := s.kept[name]
	if st == nil || st.pool != pool {
		// Other credentials, or another cluster: what the former said does not count.
		st = &state{pool: pool}
		s.kept[name] = st
	}
	if st.asking == nil && s.now().Sub(st.asked) >= freshFor {
		st.asking, st.asked = make(chan struct{}), s.now()
		go s.ask(context.WithoutCancel(ctx), st, st.asking)
	}
	if s.usable(st) == nil && st.asking != nil && !st.failed {
		wait := st.asking
		s.mu.Unlock()
		timer := time.NewTimer(s.wait)
		select {
		case <-wait:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		s.mu.Lock()
	}
	return s.usable(st)
}

func (s *Source) usable(st *state) *reading {
	if st.last == nil || s.now().Sub(st.last.at) > keptFor {
		return nil
	}
	return st.last
}

// ask puts the question to a pool and keeps the answer.
func (s *Source) ask(ctx context.Context, st *state, asking chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	pods, err := s.read(ctx, st.pool)
	var r *reading
	if err == nil {
		r = s.reading(st.pool, pods)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && !st.failed {
		boot.Logger(ctx).Info("A pool does not tell what its pods use", "pool", st.pool.Name, "error", err)
	}
	if st.failed = err != nil; err == nil {
		st.last = r
	}
	st.asking = nil
	close(asking)
}

// reading indexes a pool's answer. What is not ours, although it was not asked for, is left out.
func (s *Source) reading(pool *pools.Pool, pods []v1beta1.PodMetrics) *reading {
	r := &reading{at: s.now(), pods: make(map[types.UID]*v1beta1.PodMetrics, len(pods))}
	for i := range pods {
		pod := &pods[i]
		uid := types.UID(pod.Labels[names.LabelControlUID])
		if uid == "" || !pool.Owns(provider.Component, pod) {
			continue
		}
		r.pods[uid] = pod
		r.keys = append(r.keys, key{path(pod), uid})
	}
	slices.SortFunc(r.keys, func(a, b key) int { return cmp.Compare(a.path, b.path) })
	return r
}

// readings asks several pools at once.
func (s *Source) readings(ctx context.Context, poolNames []string) map[string]*reading {
	found := make([]*reading, len(poolNames))
	var asking sync.WaitGroup
	for i, name := range poolNames {
		asking.Go(func() { found[i] = s.of(ctx, name) })
	}
	asking.Wait()
	out := map[string]*reading{}
	for i, name := range poolNames {
		if found[i] != nil {
			out[name] = found[i]
		}
	}
	return out
}

// poolOf names the pool that a pod is bound to.
func (s *Source) poolOf(pod *corev1.Pod) (string, bool) {
	node, ok := s.cache.Node(pod.Spec.NodeName)
	if !ok {
		return "", false
	}
	return pools.NodePool(node)
}

// allPools names every pool with a virtual Node.
func (s *Source) allPools() []string {
	set := map[string]bool{}
	for _, node := range s.cache.Nodes() {
		if name, ok := pools.NodePool(node); ok {
			set[name] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// Pod gives the figures of a pod.
func (s *Source) Pod(ctx context.Context, namespace, name string) (v1beta1.PodMetrics, bool) {
	pod, ok := s.cache.Pod(namespace, name)
	if !ok {
		return v1beta1.PodMetrics{}, false
	}
	pool, ok := s.poolOf(pod)
	if !ok {
		return v1beta1.PodMetrics{}, false
	}
	return figures(pod, s.of(ctx, pool))
}

// InNamespace gives the figures of a namespace's pods that keep is true for, in order.
func (s *Source) InNamespace(ctx context.Context, namespace string, keep func(*corev1.Pod) bool) []v1beta1.PodMetrics {
	byPool := map[string][]*corev1.Pod{}
	for _, pod := range s.cache.PodsInNamespace(namespace) {
		if pool, ok := s.poolOf(pod); ok && keep(pod) {
			byPool[pool] = append(byPool[pool], pod)
		}
	}
	readings := s.readings(ctx, slices.Sorted(maps.Keys(byPool)))
	var out []v1beta1.PodMetrics
	for pool, pods := range byPool {
		for _, pod := range pods {
			if m, ok := figures(pod, readings[pool]); ok {
				out = append(out, m)
			}
		}
	}
	slices.SortFunc(out, func(a, b v1beta1.PodMetrics) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// From gives the figures of pods of all namespaces that keep is true for, in order: those whose "namespace/name" is start or
// comes behind it, and no more than limit of them if it is above 0. It costs as much as what it gives, and what keep
// refuses on the way.
func (s *Source) From(ctx context.Context, start string, limit int, keep func(*corev1.Pod) bool) []v1beta1.PodMetrics {
	var out []v1beta1.PodMetrics
	for pool, r := range s.readings(ctx, s.allPools()) {
		first, _ := slices.BinarySearchFunc(r.keys, start, func(k key, start string) int { return cmp.Compare(k.path, start) })
		count := 0
		for _, k := range r.keys[first:] {
			pod, ok := s.cache.PodByUID(k.uid)
			if !ok {
				continue
			}
			if on, ok := s.poolOf(pod); !ok || on != pool || !keep(pod) {
				continue
			}
			m, ok := figures(pod, r)
			if !ok {
				continue
			}
			out = append(out, m)
			if count++; limit > 0 && count == limit {
				break
			}
		}
	}
	slices.SortFunc(out, func(a, b v1beta1.PodMetrics) int { return cmp.Compare(path(&a), path(&b)) })
	if limit > 0 && len(out) > limit {
		out = out[:limit]
	}
	return out
}

// figures are what a pool measured of a control pod, under the pod's own name and labels.
func figures(pod *corev1.Pod, r *reading) (v1beta1.PodMetrics, bool) {
	if r == nil {
		return v1beta1.PodMetrics{}, false
	}
	below, ok := r.pods[pod.UID]
	if !ok || below.Namespace != pod.Namespace || below.Name != pod.Name {
		return v1beta1.PodMetrics{}, false
	}
	own := map[string]bool{}
	for _, c := range pod.Spec.InitContainers {
		own[c.Name] = true
	}
	for _, c := range pod.Spec.Containers {
		own[c.Name] = true
	}
	for _, c := range pod.Spec.EphemeralContainers {
		own[c.Name] = true
	}
	out := v1beta1.PodMetrics{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, Labels: pod.Labels, CreationTimestamp: below.CreationTimestamp},
		Timestamp:  below.Timestamp, Window: below.Window,
		Containers: []v1beta1.ContainerMetrics{},
	}
	for _, c := range below.Containers {
		// What a pool adds to pods is the pool's.
		if own[c.Name] {
			out.Containers = append(out.Containers, c)
		}
	}
	return out, len(out.Containers) > 0
}

// Node gives the figures of a virtual Node.
func (s *Source) Node(ctx context.Context, node *corev1.Node) (v1beta1.NodeMetrics, bool) {
	pool, ok := pools.NodePool(node)
	if !ok {
		return v1beta1.NodeMetrics{}, false
	}
	return s.sum(node, s.of(ctx, pool))
}

// Nodes gives the figures of every virtual Node that keep is true for, in order.
func (s *Source) Nodes(ctx context.Context, keep func(*corev1.Node) bool) []v1beta1.NodeMetrics {
	readings := s.readings(ctx, s.allPools())
	var out []v1beta1.NodeMetrics
	for _, node := range s.cache.Nodes() {
		pool, ok := pools.NodePool(node)
		if !ok || !keep(node) {
			continue
		}
		if m, ok := s.sum(node, readings[pool]); ok {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b v1beta1.NodeMetrics) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// sum adds up the pods of a virtual Node. Its capacity is what the pool has left for them, so this is what is used of it.
// The time is that of the oldest figure.
func (s *Source) sum(node *corev1.Node, r *reading) (v1beta1.NodeMetrics, bool) {
	if r == nil {
		return v1beta1.NodeMetrics{}, false
	}
	out := v1beta1.NodeMetrics{
		ObjectMeta: metav1.ObjectMeta{Name: node.Name, Labels: node.Labels, CreationTimestamp: metav1.NewTime(r.at)},
		Timestamp:  metav1.NewTime(r.at),
		Usage:      corev1.ResourceList{corev1.ResourceCPU: {}, corev1.ResourceMemory: {}},
	}
	for _, pod := range s.cache.PodsOnNode(node.Name) {
		m, ok := figures(pod, r)
		if !ok {
			continue
		}
		if m.Timestamp.Before(&out.Timestamp) {
			out.Timestamp = m.Timestamp
		}
		out.Window.Duration = max(out.Window.Duration, m.Window.Duration)
		for _, c := range m.Containers {
			capacity.Add(out.Usage, c.Usage)
		}
	}
	return out, true
}
