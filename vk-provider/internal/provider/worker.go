package provider

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/vk-provider/internal/control"
	"vivarium.io/vivarium/vk-provider/internal/podspec"
	"vivarium.io/vivarium/vk-provider/internal/poolcache"
)

const (
	// callTimeout bounds one call to either cluster.
	callTimeout = 10 * time.Second
	// healthEvery is how often a worker looks whether its pool has come back.
	healthEvery = time.Second
	// referencesWait is how long a pod waits for what it names, certainWait for what is made for it.
	referencesWait = 2 * time.Second
	certainWait    = 10 * time.Second
	// proofLasts is how long an observed deletion is remembered; longer than any cache lags.
	proofLasts = 10 * time.Minute
)

// worker works on the pods of one pool.
type worker struct {
	config Config
	cache  *poolcache.Cache
	queue  queue
	orphan *collector
	// missed is set when a pod was let go because the pool did not answer.
	missed atomic.Bool

	mu sync.Mutex // guards the rest
	// above and below remember deletions that were seen: of control pods, and of pool pods by their control pod's UID.
	above, below map[types.UID]time.Time
	// arrivals is when pods that are not created yet were first seen.
	arrivals map[types.UID]time.Time
	// waiting has, for each reference that is on its way, the pods that wait for it.
	waiting map[string]map[item]bool
	// written is the status that was last written for a pod, until the cache shows something newer.
	written map[types.UID]writtenStatus
	// bounced is why pods were given back whose end may not be written yet.
	bounced map[types.UID]podspec.Bounce
}

type writtenStatus struct{ base, digest string }

func newWorker(config Config, cache *poolcache.Cache) *worker {
	w := &worker{
		config: config, cache: cache, queue: newQueue(),
		above: map[types.UID]time.Time{}, below: map[types.UID]time.Time{},
		arrivals: map[types.UID]time.Time{}, waiting: map[string]map[item]bool{}, written: map[types.UID]writtenStatus{}, bounced: map[types.UID]podspec.Bounce{},
	}
	w.orphan = newCollector(w)
	return w
}

func (w *worker) pool() string { return w.cache.Pool.Name }

// run works until ctx is done.
func (w *worker) run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	defer w.queue.ShutDown()
	if !w.cache.Wait(ctx) {
		return
	}
	w.recall()
	w.enqueueAll()
	for range w.config.Workers {
		running.Go(func() {
			for w.next(ctx) {
			}
		})
	}
	running.Go(func() { w.orphan.run(ctx) })
	running.Go(func() { w.reflectEvents(ctx) })
	w.watchHealth(ctx)
}

// watchHealth puts everything in the queue when the pool comes back: what came in between was let go.
func (w *worker) watchHealth(ctx context.Context) {
	ticker := time.NewTicker(healthEvery)
	defer ticker.Stop()
	was := true
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		is := w.healthy()
		if is && !was {
			boot.Logger(ctx).Info("pool is back", "pool", w.pool())
		}
		was = is
		// The pool may have been away for less than a tick.
		if is && w.missed.Swap(false) {
			w.enqueueAll()
		}
		w.config.Metrics.depth.WithLabelValues(w.pool()).Set(float64(w.queue.Len()))
		w.expire()
	}
}

// healthy reports whether what we know of the pool is current. While it is not, nothing is done about its pods.
func (w *worker) healthy() bool {
	status, ok := w.config.Registry.Status(w.pool())
	return ok && status.Reachable.Good() && status.Identified.Good() && w.cache.Fresh()
}

// restored reports whether the pool has been restored from a backup, so that what it does not know may be running.
func (w *worker) restored() bool {
	status, ok := w.config.Registry.Status(w.pool())
	return !ok || status.Restored.Good()
}

func (w *worker) expire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range []map[types.UID]time.Time{w.above, w.below, w.arrivals} {
		for uid, at := range m {
			if time.Since(at) > proofLasts {
				delete(m, uid)
			}
		}
	}
	// Nobody waits for longer than a moment; whoever is left waits for what never came.
	for key, items := range w.waiting {
		for i := range items {
			if since, ok := w.arrivals[i.uid]; !ok || time.Since(since) > 2*certainWait {
				delete(items, i)
			}
		}
		if len(items) == 0 {
			delete(w.waiting, key)
		}
	}
}

// enqueueAll puts every pod that either side has in the queue.
func (w *worker) enqueueAll() {
	for _, node := range w.config.Cache.NodesOfPool(w.pool()) {
		for _, pod := range w.config.Cache.PodsOnNode(node.Name) {
			w.queue.Add(itemFor(pod.Namespace, pod.UID))
		}
	}
	for _, pod := range w.cache.Ours() {
		w.queue.Add(itemFor(pod.Namespace, controlUID(pod)))
	}
}

func controlUID(poolPod *corev1.Pod) types.UID {
	return types.UID(poolPod.Labels[names.LabelControlUID])
}

// arrived is told that a control pod of this pool has appeared or changed.
func (w *worker) arrived(pod *corev1.Pod) {
	w.mu.Lock()
	if _, known := w.arrivals[pod.UID]; !known && pod.Status.StartTime == nil {
		w.arrivals[pod.UID] = time.Now()
	}
	w.mu.Unlock()
	w.queue.Add(itemFor(pod.Namespace, pod.UID))
}

// controlGone is told that a control pod is gone. The pool pod may not even have arrived in the cache yet, so every pool
// remembers.
func (w *worker) controlGone(pod *corev1.Pod, seen bool) {
	w.mu.Lock()
	if seen {
		w.above[pod.UID] = time.Now()
	}
	delete(w.arrivals, pod.UID)
	delete(w.written, pod.UID)
	delete(w.bounced, pod.UID)
	w.mu.Unlock()
	w.book().Settled(pod.UID)
	if _, has := w.cache.Find(pod.UID); has {
		w.queue.Add(itemFor(pod.Namespace, pod.UID))
	}
}

// podChanged is told that a pool pod has appeared or changed.
func (w *worker) podChanged(pod *corev1.Pod) {
	w.cache.Pool.Saw(pod.ResourceVersion)
	w.queue.Add(itemFor(pod.Namespace, controlUID(pod)))
}

// podGone is told that a pool pod is gone.
func (w *worker) podGone(pod *corev1.Pod, seen bool) {
	uid := controlUID(pod)
	if seen {
		w.mu.Lock()
		w.below[uid] = time.Now()
		w.mu.Unlock()
	}
	w.queue.Add(itemFor(pod.Namespace, uid))
	// A pod of the same name may have waited for this one to go.
	if next, ok := w.config.Cache.Pod(pod.Namespace, pod.Name); ok && next.UID != uid {
		w.queue.Add(itemFor(next.Namespace, next.UID))
	}
}

// wait puts a pod off until its references have arrived, for a moment: the syncer brings them while we look. A pod that
// is there first runs as well, but its kubelet complains and tries again only after a while. It returns nil when the pod
// has waited long enough; what is missing then is the kubelet's to say.
func (w *worker) wait(pod *corev1.Pod, missing []string, certain bool) error {
	longest := referencesWait
	if certain {
		longest = certainWait
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	since, known := w.arrivals[pod.UID]
	if !known {
		since = time.Now()
		w.arrivals[pod.UID] = since
	}
	left := longest - time.Since(since)
	if left <= 0 {
		return nil
	}
	for _, key := range missing {
		if w.waiting[key] == nil {
			w.waiting[key] = map[item]bool{}
		}
		w.waiting[key][itemFor(pod.Namespace, pod.UID)] = true
	}
	return &laterError{after: left}
}

// referenceArrived is told that a reference has arrived in the pool.
func (w *worker) referenceArrived(key string) {
	w.mu.Lock()
	items := w.waiting[key]
	delete(w.waiting, key)
	w.mu.Unlock()
	for i := range items {
		w.queue.Add(i)
	}
}

func (w *worker) seenGone(m map[types.UID]time.Time, uid types.UID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := m[uid]
	return ok
}

// next works on one pod; false when the queue has ended.
func (w *worker) next(ctx context.Context) bool {
	i, shutdown := w.queue.Get()
	if shutdown {
		return false
	}
	defer w.queue.Done(i)
	err := w.visit(ctx, i)
	var later *laterError
	switch {
	case err == nil:
		w.queue.Forget(i)
	case ctx.Err() != nil:
	case errors.As(err, &later):
		w.queue.again(i, later.after)
		if later.cause != nil {
			boot.Logger(ctx).Debug("pod has to wait", "pool", w.pool(), "tenant", i.tenant, "uid", i.uid, "error", later.cause)
		}
	default:
		w.queue.AddRateLimited(i)
		boot.Logger(ctx).Info("pod failed, will be tried again", "pool", w.pool(), "tenant", i.tenant, "uid", i.uid, "attempts", w.queue.NumRequeues(i), "error", err)
	}
	return true
}

// visit decides about one pod and acts.
func (w *worker) visit(ctx context.Context, i item) error {
	s := w.look(i.uid)
	if !w.healthy() {
		w.missed.Store(true) // watchHealth brings it back
		return w.silent(ctx, s)
	}
	what := decide(s)
	err := w.act(ctx, i, s, what)
	if what != forget && what != rest {
		w.config.Metrics.actions.WithLabelValues(w.pool(), what.String(), result(err)).Inc()
	}
	return err
}

// silent deals with a pod while its pool does not answer. Whether that is to be believed is said by its Node.
func (w *worker) silent(ctx context.Context, s state) error {
	if s.control == nil || s.bound != here || s.control.DeletionTimestamp != nil {
		return nil
	}
	node, ok := w.config.Cache.Node(s.control.Spec.NodeName)
	if !ok || !control.Silent(node) {
		return nil
	}
	return w.writeStatus(ctx, s.control, podspec.SilentToControl(s.control, w.now()))
}

func (w *worker) look(uid types.UID) state {
	s := state{controlGone: w.seenGone(w.above, uid), poolGone: w.seenGone(w.below, uid)}
	if pod, ok := w.config.Cache.PodByUID(uid); ok {
		s.control, s.bound = pod, w.binding(pod)
		if pool, ok := w.cache.PodFor(uid, pod.Namespace, pod.Name); ok {
			s.pool = pool
		}
		return s
	}
	if pool, ok := w.cache.Find(uid); ok {
		s.pool = pool
	}
	return s
}

func (w *worker) binding(pod *corev1.Pod) binding {
	node, ok := w.config.Cache.Node(pod.Spec.NodeName)
	if !ok {
		return nowhere
	}
	if pool, _ := pools.NodePool(node); pool != w.pool() {
		return elsewhere
	}
	return here
}

func (w *worker) act(ctx context.Context, i item, s state, what action) error {
	switch what {
	case create:
		return w.create(ctx, s.control)
	case converge:
		if err := w.converge(ctx, s); err != nil {
			return err
		}
		return w.bounce(ctx, s)
	case report:
		return w.report(ctx, s, false)
	case stop:
		if s.bound != elsewhere {
			if err := w.report(ctx, s, false); err != nil {
				return err
			}
		}
		return w.stop(ctx, s.pool, stopGrace(s))
	case finish:
		return w.finish(ctx, s.control)
	case lose:
		return w.lose(ctx, s.control)
	case suspect:
		w.orphan.suspect(i.uid)
		return nil
	case forget:
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.arrivals, i.uid)
		delete(w.written, i.uid)
		return nil
	default:
		return nil
	}
}
