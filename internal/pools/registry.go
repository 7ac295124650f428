package pools

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/adminclient"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
)

// RegistryConfig is what a [Registry] is made of.
type RegistryConfig struct {
	// Admin reads ResourcePools. Required.
	Admin client.WithWatch
	// Control reads the Secrets with kubeconfigs and the control cluster's identity. Required.
	Control kubernetes.Interface
	// UserAgent names the component to the pools. Required.
	UserAgent string

	// ProbeEvery is how often an open pool is asked for its identity. Default 5 s.
	ProbeEvery time.Duration
	// UnreachableAfter is how long a pool may be silent before it counts as unreachable. Default 20 s.
	UnreachableAfter time.Duration
	// RetryEvery is how often a pool that could not be opened is tried again. Default 5 s.
	RetryEvery time.Duration
	// Connect makes a client from a kubeconfig's contents; tests replace it. Default: a real client.
	Connect func(kubeconfig []byte) (*rest.Config, kubernetes.Interface, error)
}

// Handler is told about Pools, one call at a time. Its functions must not block for long and must not call Subscribe
// or unsubscribe; any may be nil.
type Handler struct {
	// Added is called with a pool that can be worked with. ctx ends when the pool must not be used any more, and then
	// Removed is called with the same Pool.
	Added func(ctx context.Context, pool *Pool)
	// Changed is called when the ResourcePool of an open pool has changed; see [Pool.Spec].
	Changed func(pool *Pool)
	// Removed is called after ctx has ended: the pool is gone, or is about to be added anew with other credentials.
	Removed func(pool *Pool)
	// Checked is called with the name of a pool whose [Status] has changed.
	Checked func(name string)
}

// Registry keeps one [Pool] for each ResourcePool whose credentials lead to the cluster they should. Make one with
// [NewRegistry], subscribe, then Run it. It is safe for concurrent use.
type Registry struct {
	config    RegistryConfig
	resources cache.SharedIndexInformer
	secrets   cache.SharedIndexInformer

	// telling is held while handlers are called, so that they hear of one thing after another, and guards handlers. It is
	// taken before mu.
	telling  sync.Mutex
	handlers []*Handler

	mu      sync.Mutex // guards the rest, and what keepers publish
	keepers map[string]*keeper
	control types.UID

	running sync.WaitGroup
}

// NewRegistry makes a Registry; nothing is dialled before Run.
func NewRegistry(config RegistryConfig) (*Registry, error) {
	switch {
	case config.Admin == nil:
		return nil, errors.New("pools: Admin is required")
	case config.Control == nil:
		return nil, errors.New("pools: Control is required")
	case config.UserAgent == "":
		return nil, errors.New("pools: UserAgent is required")
	}
	setDefault(&config.ProbeEvery, 5*time.Second)
	setDefault(&config.UnreachableAfter, 20*time.Second)
	setDefault(&config.RetryEvery, 5*time.Second)
	if config.Connect == nil {
		config.Connect = connector(config.UserAgent)
	}
	r := &Registry{config: config, keepers: map[string]*keeper{}}
	r.resources = cache.NewSharedIndexInformer(adminclient.ListWatch[v1alpha1.ResourcePoolList](config.Admin), &v1alpha1.ResourcePool{}, 0, cache.Indexers{})
	r.secrets = cache.NewSharedIndexInformer(
		cache.ToListWatcherWithWatchListSemantics(credentials(config.Control), config.Control),
		&corev1.Secret{}, 0, cache.Indexers{})
	return r, nil
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

func connector(userAgent string) func([]byte) (*rest.Config, kubernetes.Interface, error) {
	return func(kubeconfig []byte) (*rest.Config, kubernetes.Interface, error) {
		config, err := ParseKubeconfig(kubeconfig)
		if err != nil {
			return nil, nil, err
		}
		config.UserAgent = userAgent
		// Core objects only, so protobuf; the rest.Config that is handed out stays neutral for streams.
		typed := rest.CopyConfig(config)
		typed.ContentType = runtime.ContentTypeProtobuf
		typed.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
		client, err := kubernetes.NewForConfig(typed)
		return config, client, err
	}
}

// credentials lists the platform's own Secrets, all of them: a field selector on their type would hide one that the
// operator made with another type, and the pool would be reported as having none.
func credentials(control kubernetes.Interface) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return control.CoreV1().Secrets(names.SystemNamespace).List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return control.CoreV1().Secrets(names.SystemNamespace).Watch(ctx, options)
		},
	}
}

// Subscribe adds a handler and tells it about every pool that is open now. The handler stays until unsubscribe is called,
// which waits for a call that is under way and makes none itself.
func (r *Registry) Subscribe(h Handler) (unsubscribe func()) {
	r.telling.Lock()
	defer r.telling.Unlock()
	entry := &h
	r.handlers = append(r.handlers, entry)
	if h.Added != nil {
		for _, o := range r.opened() {
			h.Added(o.ctx, o.pool)
		}
	}
	return func() {
		r.telling.Lock()
		defer r.telling.Unlock()
		r.handlers = slices.DeleteFunc(r.handlers, func(other *Handler) bool { return other == entry })
	}
}

// tell calls every handler.
func (r *Registry) tell(call func(*Handler)) {
	r.telling.Lock()
	defer r.telling.Unlock()
	for _, h := range r.handlers {
		call(h)
	}
}

func (r *Registry) opened() []*opened {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*opened
	for _, k := range r.keepers {
		if k.open != nil {
			list = append(list, k.open)
		}
	}
	return list
}

// Pool gives the open pool of that name.
func (r *Registry) Pool(name string) (*Pool, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k := r.keepers[name]; k != nil && k.open != nil {
		return k.open.pool, true
	}
	return nil, false
}

// Pools gives every open pool.
func (r *Registry) Pools() []*Pool {
	var list []*Pool
	for _, o := range r.opened() {
		list = append(list, o.pool)
	}
	return list
}

// Resource gives the latest ResourcePool of that name, open or not. The caller must not change it.
func (r *Registry) Resource(name string) (*v1alpha1.ResourcePool, bool) {
	object, ok, err := r.resources.GetStore().GetByKey(name)
	if err != nil || !ok {
		return nil, false
	}
	resource, ok := object.(*v1alpha1.ResourcePool)
	return resource, ok
}

// Resources gives every ResourcePool, open or not. The caller must not change them.
func (r *Registry) Resources() []*v1alpha1.ResourcePool {
	var list []*v1alpha1.ResourcePool
	for _, object := range r.resources.GetStore().List() {
		if resource, ok := object.(*v1alpha1.ResourcePool); ok {
			list = append(list, resource)
		}
	}
	return list
}

// Status tells what is known about the ResourcePool of that name; false before its first check.
func (r *Registry) Status(name string) (Status, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.keepers[name]
	if k == nil || !k.checked {
		return Status{}, false
	}
	return k.status, true
}

// Silence is how long the pool has not answered; false when it never has. A pool counts as unreachable only after a
// while, and by this one can tell before that whether it is alone in its silence.
func (r *Registry) Silence(name string) (time.Duration, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.keepers[name]
	if k == nil || k.lastAnswer.IsZero() {
		return 0, false
	}
	return time.Since(k.lastAnswer), true
}

// ControlUID is the identity of the control cluster; empty before the Registry has synced.
func (r *Registry) ControlUID() types.UID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.control
}

// HasSynced reports whether the ResourcePools that exist are known. It does not wait for the pools themselves.
func (r *Registry) HasSynced() bool {
	return r.resources.HasSynced() && r.secrets.HasSynced() && r.ControlUID() != ""
}

// Settled reports whether every known ResourcePool has been checked at least once.
func (r *Registry) Settled() bool {
	if !r.HasSynced() {
		return false
	}
	for _, resource := range r.Resources() {
		if _, ok := r.Status(resource.Name); !ok {
			return false
		}
	}
	return true
}

// Run watches until ctx is done, then closes every pool and waits for the handlers to be told.
func (r *Registry) Run(ctx context.Context) error {
	control, err := r.identifyControl(ctx)
	if err != nil {
		return nil //nolint:nilerr // only a cancelled ctx ends the attempts
	}
	r.mu.Lock()
	r.control = control
	r.mu.Unlock()

	notify := func(object any) {
		if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = tombstone.Obj
		}
		switch o := object.(type) {
		case *v1alpha1.ResourcePool:
			r.keep(ctx, o.Name)
		case *corev1.Secret:
			for _, resource := range r.Resources() {
				if resource.Spec.Credentials.KubeconfigSecret == o.Name {
					r.keep(ctx, resource.Name)
				}
			}
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: notify, UpdateFunc: func(_, object any) { notify(object) }, DeleteFunc: notify}
	var informers sync.WaitGroup
	// Secrets first: a pool whose Secret is merely not listed yet would be reported as broken.
	informers.Go(func() { r.secrets.RunWithContext(ctx) })
	if !cache.WaitForCacheSync(ctx.Done(), r.secrets.HasSynced) {
		informers.Wait()
		return nil
	}
	for _, informer := range []cache.SharedIndexInformer{r.secrets, r.resources} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watch ResourcePools: %w", err)
		}
	}
	informers.Go(func() { r.resources.RunWithContext(ctx) })
	informers.Wait()
	r.running.Wait()
	return nil
}

// identifyControl asks until the control cluster answers.
func (r *Registry) identifyControl(ctx context.Context) (types.UID, error) {
	for {
		attempt, cancel := context.WithTimeout(ctx, callTimeout)
		uid, err := clusterUID(attempt, r.config.Control)
		cancel()
		if err == nil {
			return uid, nil
		}
		boot.Logger(ctx).Info("control cluster does not tell its identity yet", "error", err)
		if !sleep(ctx, r.config.RetryEvery) {
			return "", ctx.Err()
		}
	}
}

// keep makes sure that a keeper looks after the ResourcePool, and wakes it.
func (r *Registry) keep(ctx context.Context, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	k := r.keepers[name]
	if k == nil {
		if _, ok := r.Resource(name); !ok {
			return
		}
		k = &keeper{registry: r, name: name, wake: make(chan struct{}, 1)}
		r.keepers[name] = k
		r.running.Go(func() { k.run(ctx) })
	}
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// elder gives another ResourcePool that claims the same cluster and was there first.
func (r *Registry) elder(resource *v1alpha1.ResourcePool) (string, bool) {
	for _, other := range r.Resources() {
		if other.UID == resource.UID || other.Spec.ClusterUID != resource.Spec.ClusterUID {
			continue
		}
		if other.CreationTimestamp.Before(&resource.CreationTimestamp) ||
			other.CreationTimestamp.Equal(&resource.CreationTimestamp) && other.Name < resource.Name {
			return other.Name, true
		}
	}
	return "", false
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// fingerprint identifies credentials without keeping them.
func fingerprint(kubeconfig []byte) [sha256.Size]byte { return sha256.Sum256(kubeconfig) }
