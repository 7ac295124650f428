package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
)

// metrics reads what a provider tells about itself.
func (i *instance) metrics(ctx context.Context) (map[string]float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+i.health+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("read the provider's metrics: %w", err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	return scrape(raw), err
}

// sum adds up the series of a metric whose labels hold all of these.
func sum(values map[string]float64, name string, labels ...string) float64 {
	total := 0.0
series:
	for key, value := range values {
		if !strings.HasPrefix(key, name+"{") {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(key, label) {
				continue series
			}
		}
		total += value
	}
	return total
}

// restart kills the provider and starts another one. took is until every pod has been looked at again.
func (w *podsWorld) restart(ctx context.Context, old *instance) (i *instance, took time.Duration, written map[string]float64, err error) {
	list, err := w.control.kube.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, 0, nil, err
	}
	if err := old.Stop(0); err != nil {
		return nil, 0, nil, err
	}
	before, err := w.writes(ctx)
	if err != nil {
		return nil, 0, nil, err
	}
	begin := time.Now()
	if i, err = w.startProvider(ctx, "vk-provider", "--leader-elect=false"); err != nil {
		return nil, 0, nil, err
	}
	limited, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	err = i.Until(limited, func(ctx context.Context) error {
		values, err := i.metrics(ctx)
		if err != nil {
			return err
		}
		if done := sum(values, "vivarium_vk_actions_total", `result="ok"`); int(done) < len(list.Items) {
			return fmt.Errorf("%.0f of %d pods have been looked at", done, len(list.Items))
		}
		return nil
	})
	took = time.Since(begin)
	if err != nil {
		return i, took, nil, err
	}
	// What comes late counts as well.
	select {
	case <-ctx.Done():
		return i, took, nil, context.Cause(ctx)
	case <-time.After(lateWrites):
	}
	after, err := w.writes(ctx)
	written = map[string]float64{}
	for about, value := range after {
		written[about] = value - before[about]
	}
	return i, took, written, err
}

// lateWrites is how long after a restart is looked for writes, and before it until there are none.
const lateWrites = 3 * time.Second

// quiet waits until the provider has nothing left to bring back: that would not be the restart's.
func (w *podsWorld) quiet(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, errors.New("the provider does not stop writing"))
	defer cancel()
	last := -1.0
	for {
		written, err := w.writes(ctx)
		if err != nil {
			return err
		}
		now := written[writesOfPods] + written[writesOfEvents]
		if now == last {
			return nil
		}
		last = now
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(lateWrites):
		}
	}
}

// holds gives what the provider holds on to after its garbage has been collected. Nobody can ask it to, so it is kept
// busy with questions until it has done so a few times: what a start leaves behind goes with the first.
func (i *instance) holds(ctx context.Context) (held, error) {
	const collections = "go_gc_duration_seconds_count"
	start, err := i.metrics(ctx)
	if err != nil {
		return held{}, err
	}
	for {
		now, err := i.metrics(ctx)
		if err != nil {
			return held{}, err
		}
		if now[collections] >= start[collections]+4 {
			resident, err := memory(i.pid(), "VmRSS")
			return held{
				live: now["go_gc_heap_live_bytes"] + now["go_memstats_stack_inuse_bytes"], resident: float64(resident), goroutines: now["go_goroutines"],
			}, err
		}
	}
}

// sight is when things about one pod were first seen.
type sight struct{ bound, created, readyBelow, readyAbove time.Time }

// watcher looks at the pods of lateNamespace where every cluster keeps them. Two API servers pass events on at paces of
// their own, so that by their watches a pod may be ready above before it is below; what is in etcd came in that order.
type watcher struct {
	mu   sync.Mutex // guards the rest
	seen map[string]*sight
	err  error
	// ready is told each pod that is ready on both sides.
	ready chan string
}

func (w *podsWorld) watchLate(ctx context.Context) (*watcher, error) {
	v := &watcher{seen: map[string]*sight{}, ready: make(chan string, 10_000)}
	decoder := scheme.Codecs.UniversalDeserializer()
	for _, c := range w.clusters() {
		stream := c.store.etcd.Watch(clientv3.WithRequireLeader(ctx), "/registry/pods/"+lateNamespace+"/", clientv3.WithPrefix(), clientv3.WithFilterDelete(), clientv3.WithCreatedNotify())
		// The first answer says that the watch has begun.
		if begun := <-stream; begun.Err() != nil || !begun.Created {
			return nil, errors.Join(fmt.Errorf("watch the pods of %s: it does not begin", c.name), begun.Err(), context.Cause(ctx))
		}
		go func() {
			for response := range stream {
				now := time.Now()
				err := response.Err()
				for _, event := range response.Events {
					pod := &corev1.Pod{}
					if _, _, decoding := decoder.Decode(event.Kv.Value, nil, pod); decoding != nil {
						err = errors.Join(err, fmt.Errorf("read %s: %w", event.Kv.Key, decoding))
						continue
					}
					v.see(pod, c == w.control, now)
				}
				if err != nil {
					v.fail(fmt.Errorf("watch the pods of %s: %w", c.name, err))
				}
			}
		}()
	}
	return v, nil
}

func (v *watcher) fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.err = errors.Join(v.err, err)
}

func (v *watcher) see(pod *corev1.Pod, above bool, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.of(pod.Name)
	first := func(t *time.Time) bool {
		if !t.IsZero() {
			return false
		}
		*t = now
		return true
	}
	ready := false
	for _, c := range pod.Status.Conditions {
		ready = ready || c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	}
	news := false
	switch {
	case above && ready:
		news = first(&s.readyAbove)
	case !above:
		first(&s.created)
		news = ready && first(&s.readyBelow)
	}
	if news && !s.readyAbove.IsZero() && !s.readyBelow.IsZero() {
		v.ready <- pod.Name
	}
}

// of gives the sight of a pod; called under mu.
func (v *watcher) of(name string) *sight {
	if v.seen[name] == nil {
		v.seen[name] = &sight{}
	}
	return v.seen[name]
}

// latencies of pods.
type latencies struct{ bindToCreate, readyToReady []time.Duration }

// follow binds pods, one each time the clock ticks or, without one, when the one before is ready, and sees them through.
func (w *podsWorld) follow(ctx context.Context, name string, count int, every time.Duration) (latencies, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit+time.Duration(count)*time.Second, errors.New("pods that come one by one take too long"))
	defer cancel()
	v, err := w.watchLate(ctx)
	if err != nil {
		return latencies{}, err
	}
	pods := w.control.kube.CoreV1().Pods(lateNamespace)
	for n := range count {
		if _, err := pods.Create(ctx, benchPod(fmt.Sprintf("%s-%d", name, n)), metav1.CreateOptions{}); err != nil {
			return latencies{}, err
		}
	}
	var clock <-chan time.Time
	if every > 0 {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		clock = ticker.C
	}
	waiting := 0
	await := func() error {
		select {
		case <-v.ready:
			waiting--
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%d pods are not ready: %w", waiting, context.Cause(ctx))
		}
	}
	for n := range count {
		pod := fmt.Sprintf("%s-%d", name, n)
		nodes := w.nodes[n%poolCount]
		binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: pod}, Target: corev1.ObjectReference{Kind: "Node", Name: nodes[n/poolCount%len(nodes)]}}
		sent := time.Now()
		if err := pods.Bind(ctx, binding, metav1.CreateOptions{}); err != nil {
			return latencies{}, err
		}
		v.mu.Lock()
		v.of(pod).bound = sent
		v.mu.Unlock()
		waiting++
		if clock != nil {
			select {
			case <-clock:
			case <-ctx.Done():
			}
			continue
		}
		if err := await(); err != nil {
			return latencies{}, err
		}
	}
	for waiting > 0 {
		if err := await(); err != nil {
			return latencies{}, err
		}
	}
	var l latencies
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.seen {
		l.bindToCreate = append(l.bindToCreate, s.created.Sub(s.bound))
		l.readyToReady = append(l.readyToReady, s.readyAbove.Sub(s.readyBelow))
	}
	return l, v.err
}

// takeover is the time from the end of a leader to the first pod that the one that waited creates.
func (w *podsWorld) takeover(ctx context.Context, round int, grace time.Duration) (time.Duration, error) {
	first, err := w.startProvider(ctx, "leader", "--leader-elect=true")
	if err != nil {
		return 0, err
	}
	defer func() { _ = first.Stop(0) }()
	if err := w.awaitPod(ctx, first, fmt.Sprintf("before-%d", round)); err != nil {
		return 0, err
	}
	second, err := w.startProvider(ctx, "standby", "--leader-elect=true")
	if err != nil {
		return 0, err
	}
	defer func() { _ = second.Stop(time.Second) }()
	if err := second.Until(ctx, func(ctx context.Context) error { return answers(ctx, "http://"+second.health+"/readyz") }); err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := first.Stop(grace); err != nil {
		return 0, err
	}
	err = w.awaitPod(ctx, second, fmt.Sprintf("after-%d", round))
	return time.Since(begin), err
}

// awaitPod binds a pod and waits until it is created below.
func (w *podsWorld) awaitPod(ctx context.Context, i *instance, name string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	pod := benchPod(name)
	pod.Spec.NodeName = w.nodes[0][0]
	if _, err := w.control.kube.CoreV1().Pods(lateNamespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return err
	}
	return i.Until(ctx, func(ctx context.Context) error {
		_, err := w.pools[0].kube.CoreV1().Pods(lateNamespace).Get(ctx, name, metav1.GetOptions{})
		return err
	})
}
