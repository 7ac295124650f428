// Package carrier works for one pool: it watches our objects there, queues what has to be looked at, and lets the engine
// act. Each pool has a carrier with a queue, workers and watches of its own, so a pool that hangs holds up nobody else's
// pods.
//
// It must never conclude from a cache that has not synced: nothing is removed before both worlds are known. Start at
// [Carrier.Run].
package carrier

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/clock"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/syncer/internal/engine"
	"vivarium.io/vivarium/syncer/internal/kind"
)

const (
	// workers is how many keys of a pool are worked on at once.
	workers = 8
	// callTimeout bounds the work on one key: reading in control and writing in the pool.
	callTimeout = 15 * time.Second
	// resyncEvery is how often every key is looked at again. Events do the work; this is for what no event tells.
	resyncEvery = 2 * time.Minute
	// Retries go on for as long as the key is needed.
	retryFirst, retryLast = 50 * time.Millisecond, 30 * time.Second
	// tellEvery is how often an unchanged complaint is repeated on a pod, and tellPods on how many of those that share it.
	tellEvery = 5 * time.Minute
	tellPods  = 5
)

// Demand is what a carrier asks about the control cluster; package demand answers it.
type Demand interface {
	Pods(pool string, key kind.Key) []*corev1.Pod
	Keys(pool string) []kind.Key
	Source(key kind.Key) (kind.Source, bool)
	HasSynced() bool
}

// Config is what a [Carrier] is made of; every field is required.
type Config struct {
	Pool   *pools.Pool
	Demand Demand
	// Clock is the control cluster's.
	Clock   *clock.Clock
	Kinds   kind.Kinds
	Events  record.EventRecorder
	Metrics *Metrics
	Timing  engine.Timing
}

// Carrier works for one pool. Make one with [New].
type Carrier struct {
	config     Config
	engine     *engine.Engine
	queue      workqueue.TypedRateLimitingInterface[kind.Key]
	memories   memories
	configMaps cache.SharedIndexInformer
	secrets    cache.SharedIndexInformer
	namespaces cache.SharedIndexInformer
	making     singleflight.Group
	now        func() time.Time
}

// New makes a Carrier; nothing is dialled before Run.
func New(config Config) *Carrier {
	c := &Carrier{config: config, now: time.Now}
	c.engine = &engine.Engine{Pool: config.Pool, Kinds: config.Kinds, EnsureNamespace: c.ensureNamespace}
	c.queue = workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[kind.Key](retryFirst, retryLast),
		workqueue.TypedRateLimitingQueueConfig[kind.Key]{
			DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[kind.Key]{
				Queue: workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[kind.Key]{Queue: newFair()}),
			}),
		})
	c.configMaps = copyInformer(config.Pool, config.Kinds[kind.ConfigMap].Resource, configMapsOf(config.Pool), &corev1.ConfigMap{})
	c.secrets = copyInformer(config.Pool, config.Kinds[kind.Secret].Resource, secretsOf(config.Pool), &corev1.Secret{})
	c.namespaces = NamespaceInformer(config.Pool)
	return c
}

// Changed queues a key unless nothing in this pool can have to do with it. It does not block.
func (c *Carrier) Changed(key kind.Key) {
	if !c.memories.has(key) && c.cached(key) == nil && len(c.config.Demand.Pods(c.config.Pool.Name, key)) == 0 {
		return
	}
	c.enqueue(key)
}

// NamespaceChanged queues what exists in a control namespace by the namespace alone: the root CA. It does not block.
func (c *Carrier) NamespaceChanged(namespace names.ControlNamespace) {
	c.Changed(kind.Key{Kind: kind.ConfigMap, Namespace: namespace, Name: names.RootCAConfigMap})
}

func (c *Carrier) enqueue(key kind.Key) {
	c.memories.with(key, func(m *memory) {
		if m.queued.IsZero() {
			m.queued = c.now()
		}
	})
	c.queue.Add(key)
}

// Resync queues everything.
func (c *Carrier) Resync() {
	for _, key := range c.config.Demand.Keys(c.config.Pool.Name) {
		c.queue.Add(key)
	}
	for _, informer := range []cache.SharedIndexInformer{c.configMaps, c.secrets} {
		for _, object := range informer.GetStore().List() {
			if key, ok := c.keyOf(informer, object); ok {
				c.queue.Add(key)
			}
		}
	}
}

// Namespaces is the carrier's view of our namespaces in the pool.
func (c *Carrier) Namespaces() cache.SharedIndexInformer { return c.namespaces }

// HasSynced reports whether our objects in the pool are known.
func (c *Carrier) HasSynced() bool {
	return c.configMaps.HasSynced() && c.secrets.HasSynced() && c.namespaces.HasSynced()
}

// Run works until ctx is done.
func (c *Carrier) Run(ctx context.Context) error {
	defer c.config.Metrics.forgetPool(c.config.Pool.Name)
	for _, informer := range []cache.SharedIndexInformer{c.configMaps, c.secrets} {
		if err := c.follow(informer); err != nil {
			return err
		}
	}
	var group sync.WaitGroup
	for _, informer := range []cache.SharedIndexInformer{c.configMaps, c.secrets, c.namespaces} {
		group.Go(func() { informer.RunWithContext(ctx) })
	}
	if cache.WaitForCacheSync(ctx.Done(), c.HasSynced, c.config.Demand.HasSynced) {
		c.Resync()
		for range workers {
			group.Go(func() {
				for c.next(ctx) {
				}
			})
		}
		group.Go(func() { c.tick(ctx) })
	}
	<-ctx.Done()
	c.queue.ShutDown()
	group.Wait()
	return nil
}

// tick resyncs and measures.
func (c *Carrier) tick(ctx context.Context) {
	resync, measure := time.NewTicker(resyncEvery), time.NewTicker(5*time.Second)
	defer resync.Stop()
	defer measure.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-resync.C:
			c.Resync()
		case <-measure.C:
			c.config.Metrics.queue.WithLabelValues(c.config.Pool.Name).Set(float64(c.queue.Len()))
			c.config.Metrics.objects.WithLabelValues(c.config.Pool.Name, "ConfigMap").Set(float64(len(c.configMaps.GetStore().ListKeys())))
			c.config.Metrics.objects.WithLabelValues(c.config.Pool.Name, "Secret").Set(float64(len(c.secrets.GetStore().ListKeys())))
		}
	}
}

func (c *Carrier) next(ctx context.Context) bool {
	key, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(key)
	if ctx.Err() != nil {
		return false
	}
	attempt, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	again, err := c.work(attempt, key)
	switch {
	case err != nil:
		c.complain(ctx, key, err)
		c.queue.AddRateLimited(key)
	case again > 0:
		c.queue.Forget(key)
		c.queue.AddAfter(key, again)
	default:
		c.queue.Forget(key)
	}
	return true
}

// work looks at one key once and returns when to look again.
func (c *Carrier) work(ctx context.Context, key kind.Key) (time.Duration, error) {
	pool := c.config.Pool.Name
	referring := c.config.Demand.Pods(pool, key)
	source, exists := c.config.Demand.Source(key)
	now := c.now()
	var (
		state  engine.State
		queued time.Time
	)
	c.memories.with(key, func(m *memory) {
		m.unreferencedSince = since(len(referring) == 0, m.unreferencedSince, now)
		m.goneSince = since(!exists || m.refused == source.Version, m.goneSince, now)
		queued, m.queued = m.queued, time.Time{}
		state = engine.State{
			Now: now, Control: c.config.Clock.Now(), Timing: c.config.Timing, Referenced: len(referring) > 0, Exists: exists, Source: source,
			Copy:              engine.Newer(c.cached(key), m.last),
			UnreferencedSince: m.unreferencedSince, GoneSince: m.goneSince,
			Refused: m.refused, Written: m.written,
		}
	})
	decision := engine.Decide(state)
	switch decision.Act {
	case engine.Write:
		return 0, c.write(ctx, key, referring[0], state, queued)
	case engine.Delete:
		err := c.engine.Delete(ctx, key, state.Copy)
		c.count(key, "delete", err)
		if err == nil {
			c.memories.forget(key)
		}
		return 0, err
	case engine.Nothing:
		if state.Copy == nil && (!state.Exists || !state.Referenced) {
			c.memories.forget(key)
		}
	}
	return decision.After, nil
}

func (c *Carrier) write(ctx context.Context, key kind.Key, pod *corev1.Pod, state engine.State, queued time.Time) error {
	written, err := c.engine.Write(ctx, key, pod, state.Copy)
	var refused *kind.RefusedError
	switch {
	case errors.Is(err, kind.ErrGone):
		// Its end is an event that is on its way.
		return nil
	case errors.As(err, &refused) && refused.Cause == nil && !refused.Partial:
		c.memories.with(key, func(m *memory) { m.refused = state.Source.Version })
		c.count(key, "write", err)
		c.complain(ctx, key, err)
		if state.Copy != nil {
			c.queue.AddAfter(key, 0)
		}
		return nil
	case errors.As(err, &refused) && refused.Partial:
		c.complain(ctx, key, err)
		err = nil
	}
	c.count(key, "write", err)
	if err != nil {
		return err
	}
	c.memories.with(key, func(m *memory) {
		m.last, m.written, m.refused = written, c.now(), ""
	})
	if !queued.IsZero() {
		c.config.Metrics.delivery.WithLabelValues(c.config.Pool.Name, string(key.Kind)).Observe(c.now().Sub(queued).Seconds())
	}
	// The write's own event comes back and sets the timer of what has to be refreshed.
	boot.Logger(ctx).Log(ctx, verbose, "written", "pool", c.config.Pool.Name, "resource", string(key.Kind), "controlNamespace", string(key.Namespace), "name", key.Name)
	return nil
}

// ensureNamespace makes sure of a pool namespace, from memory where it is known to be ours.
func (c *Carrier) ensureNamespace(ctx context.Context, namespace names.ControlNamespace) error {
	if object, ok, err := c.namespaces.GetStore().GetByKey(string(namespace)); err == nil && ok {
		if known, ok := object.(*corev1.Namespace); ok && known.DeletionTimestamp == nil && pools.OwnsNamespace(c.config.Pool, known) {
			return nil
		}
	}
	// The first pod in a namespace needs several things at once.
	_, err, _ := c.making.Do(string(namespace), func() (any, error) {
		return nil, pools.EnsureNamespace(ctx, c.config.Pool, namespace)
	})
	if err != nil {
		return fmt.Errorf("make namespace %s: %w", namespace, err)
	}
	return nil
}
