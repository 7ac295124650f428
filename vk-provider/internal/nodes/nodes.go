// Package nodes writes virtual Nodes: it creates, labels, fills and retires them as package capacity plans, keeps them
// Ready for as long as their pool is reachable, renews their Leases, and reports on each ResourcePool.
//
// It must never delete a Node that has pods, declare a pool dead on one failed call, or declare all of them dead at once:
// then it is our own connection that is gone, and a mass eviction would be our doing. Start at [Controller].
package nodes

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/vk-provider/internal/bounce"
	"vivarium.io/vivarium/vk-provider/internal/control"
	"vivarium.io/vivarium/vk-provider/internal/poolcache"
)

// Component is the field manager of what is written here.
const Component = "vk-provider"

// Registry is what the controller asks about pools.
type Registry interface {
	Resource(name string) (*v1alpha1.ResourcePool, bool)
	Resources() []*v1alpha1.ResourcePool
	Status(name string) (pools.Status, bool)
	HasSynced() bool
	Silence(name string) (time.Duration, bool)
}

// Config is what a [Controller] is made of. Everything without a default is required.
type Config struct {
	Control  kubernetes.Interface
	Cache    *control.Cache
	Registry Registry
	// Admin writes the status and finalizers of ResourcePools.
	Admin client.Client
	// Recorder writes events about Nodes.
	Recorder record.EventRecorder
	Metrics  *Metrics
	// Books say what pools must not promise for a while.
	Books *bounce.Books
	// Chosen gives the tenants that a choice chooses.
	Chosen func(choice *v1alpha1.TenantChoice) []string
	// Address and Port are where the control cluster's API server finds the kubelet API of every virtual Node.
	Address netip.Addr
	Port    int32
	// Orphans says why orphans of a pool are kept, and empty when none is. Default: none ever is.
	Orphans func(pool string) (reason, message string)

	// ResyncEvery is how often each pool is looked at without a reason. Default 10 s.
	ResyncEvery time.Duration
	// RetireAfter is how long a Node must have been unneeded and empty before it is deleted. Default 5 min.
	RetireAfter time.Duration
	// FreezeFor is how long the Nodes stay as they are when all pools fall silent at once. After that their pods are held.
	// Default 10 min.
	FreezeFor time.Duration
	// LeaseEvery is how often a Lease is renewed. Default 10 s.
	LeaseEvery time.Duration
}

// Controller keeps the virtual Nodes of every pool. Make one for each term of leadership.
type Controller struct {
	config Config
	queue  workqueue.TypedRateLimitingInterface[string]
	leases *leases

	mu     sync.Mutex // guards the rest
	caches map[string]*poolcache.Cache
	// unneeded is since when a Node has not been in its pool's plan.
	unneeded map[string]time.Time
	// published is what admission was last told of each pool's tenants.
	published map[string]published
	// revised is when each pool's revision was last written down.
	revised map[string]time.Time
	// silentSince is since when no pool answers; zero while one does.
	silentSince time.Time
}

// New makes a Controller.
func New(config Config) (*Controller, error) {
	for _, required := range []struct {
		name    string
		missing bool
	}{
		{"Control", config.Control == nil},
		{"Cache", config.Cache == nil},
		{"Registry", config.Registry == nil},
		{"Admin", config.Admin == nil},
		{"Recorder", config.Recorder == nil},
		{"Metrics", config.Metrics == nil},
		{"Books", config.Books == nil},
		{"Chosen", config.Chosen == nil},
		{"Address", !config.Address.IsValid()},
		{"Port", config.Port == 0},
	} {
		if required.missing {
			return nil, errors.New("nodes: " + required.name + " is required")
		}
	}
	for _, d := range []struct {
		field    *time.Duration
		standard time.Duration
	}{
		{&config.ResyncEvery, 10 * time.Second},
		{&config.RetireAfter, 5 * time.Minute},
		{&config.FreezeFor, 10 * time.Minute},
		{&config.LeaseEvery, 10 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.standard
		}
	}
	return &Controller{
		config: config,
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, 30*time.Second)),
		leases:   newLeases(config),
		caches:   map[string]*poolcache.Cache{},
		unneeded: map[string]time.Time{}, published: map[string]published{}, revised: map[string]time.Time{},
	}, nil
}

// debounce joins the many changes of a pool that come together.
const debounce = 500 * time.Millisecond

// workers bounds how many pools are looked at together.
const workers = 4

// Run keeps Nodes until ctx is done. The control cache must have synced.
func (c *Controller) Run(ctx context.Context) error {
	if err := c.config.Cache.OnNodes(ctx, nil, func(node *corev1.Node) {
		if pool, ok := pools.NodePool(node); ok {
			c.queue.AddAfter(pool, debounce)
		}
	}); err != nil {
		return err
	}
	var running sync.WaitGroup
	defer running.Wait()
	defer c.queue.ShutDown()
	running.Go(func() { c.leases.run(ctx) })
	for range workers {
		running.Go(func() {
			for c.next(ctx) {
			}
		})
	}
	ticker := time.NewTicker(c.config.ResyncEvery)
	defer ticker.Stop()
	for {
		c.judgeSilence(ctx)
		for _, resource := range c.config.Registry.Resources() {
			c.queue.Add(resource.Name)
		}
		for _, node := range c.config.Cache.Nodes() {
			if pool, ok := pools.NodePool(node); ok {
				c.queue.Add(pool)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Enqueue has a pool looked at.
func (c *Controller) Enqueue(pool string) { c.queue.Add(pool) }

// TenantsChanged has those pools looked at that choose among tenants.
func (c *Controller) TenantsChanged() {
	for _, resource := range c.config.Registry.Resources() {
		if resource.Spec.Tenants != nil {
			c.queue.AddAfter(resource.Name, debounce)
		}
	}
}

// Attach gives the controller a pool's cache, until ctx is done. The caller runs the cache, and must attach before that.
func (c *Controller) Attach(ctx context.Context, cache *poolcache.Cache) error {
	name := cache.Pool.Name
	changed := func() { c.queue.AddAfter(name, debounce) }
	if err := cache.Watch(poolcache.Handler{Pod: func(*corev1.Pod) {}, Gone: func(*corev1.Pod, bool) {}, Capacity: changed}); err != nil {
		return err
	}
	c.mu.Lock()
	c.caches[name] = cache
	c.mu.Unlock()
	context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.caches[name] == cache {
			delete(c.caches, name)
		}
		c.queue.Add(name)
	})
	return nil
}

func (c *Controller) cache(pool string) *poolcache.Cache {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.caches[pool]
}

func (c *Controller) next(ctx context.Context) bool {
	pool, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(pool)
	if err := c.reconcile(ctx, pool); err != nil {
		// Nodes have several writers; whoever comes second looks again.
		if ctx.Err() == nil && !apierrors.IsConflict(err) {
			boot.Logger(ctx).Info("virtual nodes failed, will be tried again", "pool", pool, "error", err)
		}
		c.queue.AddRateLimited(pool)
		return true
	}
	c.queue.Forget(pool)
	return true
}

// suspicious is how long a pool may be silent before it counts as silent beside another that is: well above the time
// between two probes, and below the time after which a pool is unreachable.
const suspicious = 10 * time.Second

// judgeSilence notes whether every pool is silent.
func (c *Controller) judgeSilence(ctx context.Context) {
	known, silent := 0, 0
	for _, resource := range c.config.Registry.Resources() {
		if _, ok := c.config.Registry.Status(resource.Name); !ok {
			continue
		}
		known++
		if !c.answers(resource.Name) {
			silent++
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known < 2 || silent < known {
		c.silentSince = time.Time{}
		return
	}
	if c.silentSince.IsZero() {
		c.silentSince = time.Now()
		boot.Logger(ctx).Error("no pool answers: it is taken for our own connection, and their Nodes stay as they are for a while", "pools", known, "for", c.config.FreezeFor)
	}
}

// frozen reports whether the silence of all pools at once is to be ignored.
func (c *Controller) frozen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.silentSince.IsZero() && time.Since(c.silentSince) < c.config.FreezeFor
}
