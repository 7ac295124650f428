package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/ipam"
)

const (
	// callTimeout bounds one call of a driver.
	callTimeout = 15 * time.Second
	// workersPerPool is how many namespaces of a pool are prepared at once.
	workersPerPool = 4
)

// timing says how often what no event tells is looked at.
// A sweep leaves alone what is younger than settled: the pool says when its objects were made, and its clock may be minutes
// off ours.
type timing struct{ resync, sweep, settled, look, quarantine time.Duration }

func defaultTiming() timing {
	return timing{resync: 10 * time.Minute, sweep: 10 * time.Minute, settled: 10 * time.Minute, look: time.Minute, quarantine: ipam.Quarantine}
}

// liveFn adds the VPCs, subnets and pods that exist to a set.
type liveFn func(ctx context.Context, set *network.LiveSet) error

// worker prepares the namespaces of one pool. A pool that hangs holds up nobody else's.
type worker struct {
	pool       *pools.Pool
	drivers    DriverFn
	conditions *conditions
	metrics    *metrics
	timing     timing
	live       liveFn
	namespaces cache.SharedIndexInformer
	queue      workqueue.TypedRateLimitingInterface[names.ControlNamespace]

	mu sync.Mutex // guards state
	// state holds what came of the last call for each namespace; nil is good.
	state map[names.ControlNamespace]error
}

func newWorker(pool *pools.Pool, drivers DriverFn, conditions *conditions, m *metrics, t timing, live liveFn) *worker {
	return &worker{
		pool: pool, drivers: drivers, conditions: conditions, metrics: m, timing: t, live: live,
		state: map[names.ControlNamespace]error{},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[names.ControlNamespace](100*time.Millisecond, 30*time.Second)),
		namespaces: informers.NewFilteredNamespaceInformer(pool.Client, 0, cache.Indexers{}, func(o *metav1.ListOptions) {
			o.LabelSelector = names.LabelControl + "=" + string(pool.ControlUID) + "," + names.LabelTenant
		}),
	}
}

// poolValue is the pool as drivers see it.
func (w *worker) poolValue() network.Pool {
	return network.Pool{Name: w.pool.Name, ControlUID: w.pool.ControlUID, Client: w.pool.Client, Dynamic: w.pool.Dynamic}
}

func (w *worker) driver() (network.Driver, error) { return w.drivers(w.pool.Spec().Network.Driver) }

// run works until ctx is done.
func (w *worker) run(ctx context.Context) {
	defer w.conditions.forget(w.pool.Name)
	defer w.metrics.namespaces.DeletePartialMatch(map[string]string{"pool": w.pool.Name})
	if err := on(w.namespaces, func(ns *corev1.Namespace) { w.queue.Add(names.ControlNamespace(ns.Name)) }); err != nil {
		boot.Logger(ctx).Error("cannot watch a pool", "pool", w.pool.Name, "error", err)
		return
	}
	var group sync.WaitGroup
	group.Go(func() { w.namespaces.RunWithContext(ctx) })
	if cache.WaitForCacheSync(ctx.Done(), w.namespaces.HasSynced) {
		for range workersPerPool {
			group.Go(func() {
				for w.next(ctx) {
				}
			})
		}
		group.Go(func() { w.watch(ctx) })
		group.Go(func() { w.tick(ctx) })
		w.report()
	}
	<-ctx.Done()
	w.queue.ShutDown()
	group.Wait()
}

// resync looks at every namespace again. It does not block.
func (w *worker) resync() {
	for _, key := range w.namespaces.GetStore().ListKeys() {
		w.queue.Add(names.ControlNamespace(key))
	}
	w.report()
}

// watch lets a driver that can notice changes of its objects report them.
func (w *worker) watch(ctx context.Context) {
	driver, err := w.driver()
	if err != nil {
		return
	}
	watcher, ok := driver.(network.Watcher)
	if !ok {
		return
	}
	if err := watcher.WatchNamespaces(ctx, w.poolValue(), func(ns names.ControlNamespace) { w.queue.Add(ns) }); err != nil {
		boot.Logger(ctx).Error("cannot watch what the network driver made", "pool", w.pool.Name, "driver", driver.Name(), "error", err)
	}
}

func (w *worker) tick(ctx context.Context) {
	resync, sweep := time.NewTicker(w.timing.resync), time.NewTicker(w.timing.sweep)
	defer resync.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-resync.C:
			w.resync()
		case <-sweep.C:
			w.sweep(ctx)
		}
	}
}

// sweep lets the driver remove what belongs to nothing of ours.
func (w *worker) sweep(ctx context.Context) {
	driver, err := w.driver()
	if err != nil {
		return
	}
	// Objects tell the second that they were made in: what is made from here on must not look older than the set.
	live := network.LiveSet{AsOf: time.Now().Add(-w.timing.settled).Truncate(time.Second), Namespaces: map[names.ControlNamespace]names.TenantID{}}
	attempt, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	// Asked live: a cache that lags would make a new namespace's fence an orphan.
	list, err := w.pool.Client.CoreV1().Namespaces().List(attempt, metav1.ListOptions{LabelSelector: names.LabelTenant})
	if err == nil {
		for i := range list.Items {
			if pools.OwnsNamespace(w.pool, &list.Items[i]) {
				live.Namespaces[names.ControlNamespace(list.Items[i].Name)] = names.TenantID(list.Items[i].Labels[names.LabelTenant])
			}
		}
		if driver.Capabilities().VPC {
			err = w.live(attempt, &live)
		}
	}
	if err == nil {
		err = driver.Sweep(attempt, w.poolValue(), live)
	}
	if err != nil && ctx.Err() == nil {
		w.metrics.failures.WithLabelValues(w.pool.Name, string(network.ReasonFor(err))).Inc()
		boot.Logger(ctx).Info("sweep is tried again later", "pool", w.pool.Name, "error", err)
	}
}

func (w *worker) next(ctx context.Context) bool {
	namespace, shutdown := w.queue.Get()
	if shutdown {
		return false
	}
	defer w.queue.Done(namespace)
	if ctx.Err() != nil {
		return false
	}
	attempt, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := w.prepare(attempt, namespace)
	if err == nil {
		w.queue.Forget(namespace)
	} else if ctx.Err() == nil {
		w.metrics.failures.WithLabelValues(w.pool.Name, string(network.ReasonFor(err))).Inc()
		boot.Logger(ctx).Info("namespace is not prepared", "pool", w.pool.Name, "controlNamespace", string(namespace), "error", err)
		w.queue.AddRateLimited(namespace)
	}
	w.report()
	return true
}

// prepare brings one namespace up to date.
func (w *worker) prepare(ctx context.Context, name names.ControlNamespace) error {
	object, ok, err := w.namespaces.GetStore().GetByKey(string(name))
	namespace, isNamespace := object.(*corev1.Namespace)
	if err != nil || !ok || !isNamespace || namespace.DeletionTimestamp != nil || !pools.OwnsNamespace(w.pool, namespace) {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.state, name)
		return nil
	}
	driver, err := w.driver()
	if err == nil {
		err = driver.EnsureNamespace(ctx, w.poolValue(), network.Namespace{Name: name, Tenant: names.TenantID(namespace.Labels[names.LabelTenant])})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state[name] = err
	return err
}

// report publishes what is known of the pool.
func (w *worker) report() {
	w.mu.Lock()
	bad := map[string]int{}
	var first []string
	good := 0
	for namespace, err := range w.state {
		if err == nil {
			good++
			continue
		}
		bad[string(network.ReasonFor(err))]++
		first = append(first, string(namespace))
	}
	w.mu.Unlock()
	w.metrics.namespaces.WithLabelValues(w.pool.Name, "true").Set(float64(good))
	w.metrics.namespaces.WithLabelValues(w.pool.Name, "false").Set(float64(len(first)))
	driver, err := w.driver()
	if err != nil {
		w.conditions.set(w.pool.Name, finding{metav1.ConditionFalse, reasonNoDriver, err.Error()})
		return
	}
	w.conditions.set(w.pool.Name, judge(driver, bad, first))
}

// judge says what the driver's results amount to. The text holds no count of what is well: it would change with every
// namespace.
func judge(driver network.Driver, bad map[string]int, namespaces []string) finding {
	if len(namespaces) > 0 {
		var reasons []string
		for reason := range bad {
			reasons = append(reasons, reason)
		}
		slices.Sort(reasons)
		slices.Sort(namespaces)
		return finding{metav1.ConditionFalse, reasonNotPrepared, fmt.Sprintf("driver %s has not prepared %s (%s)",
			driver.Name(), few(namespaces), strings.Join(reasons, ", "))}
	}
	if !driver.Capabilities().Enforced {
		return finding{metav1.ConditionUnknown, reasonEnforcementUnknown, fmt.Sprintf(
			"driver %s has set up what keeps tenants apart; whether this pool's network plugin enforces it cannot be asked", driver.Name())}
	}
	return finding{metav1.ConditionTrue, reasonEnforced, fmt.Sprintf("driver %s keeps tenants apart", driver.Name())}
}

// few names some of many.
func few(list []string) string {
	const most = 3
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}
