package provider

import (
	"context"
	"errors"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/clock"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/vk-provider/internal/bounce"
	"vivarium.io/vivarium/vk-provider/internal/control"
	"vivarium.io/vivarium/vk-provider/internal/podspec"
	"vivarium.io/vivarium/vk-provider/internal/poolcache"
	"vivarium.io/vivarium/vk-provider/internal/vpcs"
)

// Component is the provider's name on what it makes in pools.
const Component = "vk-provider"

// Config is what a [Provider] is made of. Everything without a default is required.
type Config struct {
	Control kubernetes.Interface
	Cache   *control.Cache
	// Clock is the control cluster's.
	Clock    *clock.Clock
	Registry Registry
	// Recorder writes events about control pods.
	Recorder record.EventRecorder
	Metrics  *Metrics
	// Gateway is where pods find their tenant's API.
	Gateway podspec.Gateway
	// Books keep what is known of pods that their pools have no place for.
	Books *bounce.Books
	// Welcome reports whether a tenant's pods may come to a pool that has this choice of tenants.
	Welcome func(choice *v1alpha1.TenantChoice, tenant names.TenantID) bool
	// Networks says what network a pod has.
	Networks *vpcs.Cache
	// Binder gives the pure half of a pool's network driver.
	Binder func(driver string) (network.Binder, error)

	// Workers is how many pods of one pool are worked on at once. Default 32.
	Workers int
	// OrphanGrace is the time between the two proofs that a pool pod is an orphan. Default 30 s.
	OrphanGrace time.Duration
	// OnKept is told the name of a pool for which [Provider.Kept] has changed; nil for nobody.
	OnKept func(pool string)
	// OrphanEvery is how often orphans are looked for. Default 5 min.
	OrphanEvery time.Duration
}

// Registry is what the provider asks about pools.
type Registry interface {
	Status(pool string) (pools.Status, bool)
	ControlUID() types.UID
	Resource(pool string) (*v1alpha1.ResourcePool, bool)
}

// Provider works on the pods of every attached pool. Make one for each term of leadership.
type Provider struct {
	config Config

	mu      sync.Mutex // guards workers
	workers map[string]*worker
	running sync.WaitGroup
}

// New makes a Provider.
func New(config Config) (*Provider, error) {
	for _, required := range []struct {
		name    string
		missing bool
	}{
		{"Control", config.Control == nil},
		{"Cache", config.Cache == nil},
		{"Clock", config.Clock == nil},
		{"Registry", config.Registry == nil},
		{"Recorder", config.Recorder == nil},
		{"Metrics", config.Metrics == nil},
		{"Binder", config.Binder == nil},
		{"Networks", config.Networks == nil},
		{"Books", config.Books == nil},
		{"Welcome", config.Welcome == nil},
		{"Gateway", config.Gateway.Host == "" || config.Gateway.Port == ""},
	} {
		if required.missing {
			return nil, errors.New("provider: " + required.name + " is required")
		}
	}
	if config.Workers == 0 {
		config.Workers = 32
	}
	if config.OrphanGrace == 0 {
		config.OrphanGrace = 30 * time.Second
	}
	if config.OrphanEvery == 0 {
		config.OrphanEvery = 5 * time.Minute
	}
	return &Provider{config: config, workers: map[string]*worker{}}, nil
}

// Run follows the control cluster's pods until ctx is done, then waits for every worker. The control cache must have
// synced.
func (p *Provider) Run(ctx context.Context) error {
	cache := p.config.Cache
	err := errors.Join(
		cache.OnPods(ctx, control.PodHandler{Changed: p.podChanged, Deleted: p.podDeleted}),
		// A pod may arrive before the Node that it is bound to, or before its namespace.
		cache.OnNodes(ctx, control.MattersToPods, func(node *corev1.Node) {
			for _, pod := range cache.PodsOnNode(node.Name) {
				p.podChanged(pod)
			}
		}),
		cache.OnNamespaces(ctx, func(namespace string) {
			for _, pod := range cache.PodsInNamespace(namespace) {
				p.podChanged(pod)
			}
		}),
		// Or before its place in its tenant's VPC.
		p.config.Networks.OnPlaces(ctx, func(uid types.UID) {
			if pod, ok := cache.PodByUID(uid); ok {
				p.podChanged(pod)
			}
		}),
	)
	if err != nil {
		return err
	}
	<-ctx.Done()
	p.running.Wait()
	return nil
}

// Attach starts working on a pool, until ctx is done. The caller runs the cache, and must attach before that.
func (p *Provider) Attach(ctx context.Context, cache *poolcache.Cache) error {
	w := newWorker(p.config, cache)
	if err := cache.Watch(poolcache.Handler{Pod: w.podChanged, Gone: w.podGone, Reference: w.referenceArrived, Capacity: func() {}}); err != nil {
		return err
	}
	p.mu.Lock()
	p.workers[cache.Pool.Name] = w
	p.mu.Unlock()
	p.running.Go(func() {
		w.run(ctx)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.workers[cache.Pool.Name] == w {
			delete(p.workers, cache.Pool.Name)
		}
	})
	return nil
}

// Kept tells whether a pool's orphans are kept, and why.
func (p *Provider) Kept(pool string) Kept {
	p.mu.Lock()
	w := p.workers[pool]
	p.mu.Unlock()
	if w == nil {
		return Kept{}
	}
	w.orphan.mu.Lock()
	defer w.orphan.mu.Unlock()
	return w.orphan.kept
}

func (p *Provider) each(f func(*worker)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		f(w)
	}
}

// podChanged hands a control pod to the pool that its node stands for, and to any pool that already has it: the node may
// be gone.
func (p *Provider) podChanged(pod *corev1.Pod) {
	pool := ""
	if node, ok := p.config.Cache.Node(pod.Spec.NodeName); ok {
		pool, _ = pools.NodePool(node)
	}
	p.each(func(w *worker) {
		if _, has := w.cache.Find(pod.UID); has || w.cache.Pool.Name == pool {
			w.arrived(pod)
		}
	})
}

func (p *Provider) podDeleted(pod *corev1.Pod, seen bool) {
	p.each(func(w *worker) { w.controlGone(pod, seen) })
}

// itemFor gives the queue's item for a pod, on either side.
func itemFor(namespace string, uid types.UID) item {
	tenant, _, _ := names.SplitNamespace(names.ControlNamespace(namespace))
	return item{tenant, uid}
}
