// Package syncer carries into each pool what tenants' pods need besides themselves: the ConfigMaps and Secrets that they
// refer to, the gateway's CA, and ServiceAccount tokens that work at the gateway and nowhere else. It also takes away
// what tenants leave behind in pools.
//
// It only reads what pods refer to, writes only objects that it marked itself, and lets nothing flow from a pool to the
// control cluster but events about pods. It must never cache a Secret's content, deliver a token that the control API
// server would accept, or touch an object that is not ours. Everything that it decides on is in the clusters, so it can
// be killed at any moment and run twice.
//
// Start at [Syncer.Run]; internal/kind says what crosses, internal/engine how, internal/demand what is needed where,
// internal/carrier drives one pool, internal/cleanup removes.
package syncer

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/internal/adminclient"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/clock"
	"vivarium.io/vivarium/internal/leader"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/syncer/internal/carrier"
	"vivarium.io/vivarium/syncer/internal/cleanup"
	"vivarium.io/vivarium/syncer/internal/demand"
	"vivarium.io/vivarium/syncer/internal/engine"
	"vivarium.io/vivarium/syncer/internal/kind"
)

const (
	// name is the component's: Lease, user agent and event source.
	name = "syncer"
	// lookEvery is how often ResourcePools are looked at for finalizers; their own events do most of it.
	lookEvery = 5 * time.Second
)

// Syncer is the component. Make one with [New].
type Syncer struct {
	options  Options
	control  kubernetes.Interface
	metadata metadata.Interface
	admin    client.WithWatch
	rootCA   *rootCA
	timing   engine.Timing
	// clock is the control cluster's.
	clock clock.Clock
}

// New reads the files that the options name and makes clients; nothing is dialled before Run.
func New(options *Options) (*Syncer, error) {
	s := &Syncer{options: *options, timing: engine.DefaultTiming()}
	control, err := clientcmd.BuildConfigFromFlags("", options.ControlKubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--control-kubeconfig: %w", err)
	}
	admin, err := clientcmd.BuildConfigFromFlags("", options.AdminKubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--admin-kubeconfig: %w", err)
	}
	// Fairness is the API server's, by the priority level of our user; a limit here would hold up pods.
	control.QPS, admin.QPS = -1, -1
	control.Wrap(s.clock.Wrap)
	control.UserAgent, admin.UserAgent = "vivarium-"+name, "vivarium-"+name
	if s.control, err = kubernetes.NewForConfig(protobuf(control)); err != nil {
		return nil, fmt.Errorf("--control-kubeconfig: %w", err)
	}
	if s.metadata, err = metadata.NewForConfig(control); err != nil {
		return nil, fmt.Errorf("--control-kubeconfig: %w", err)
	}
	if s.admin, err = adminclient.New(admin); err != nil {
		return nil, fmt.Errorf("--admin-kubeconfig: %w", err)
	}
	s.rootCA, err = newRootCA(options.GatewayCAFile)
	return s, err
}

func protobuf(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return config
}

// Run works until ctx is done, or waits to be the replica that works.
func (s *Syncer) Run(ctx context.Context, health *boot.Health) error {
	metrics := carrier.NewMetrics(health.Metrics)
	health.SetReady(func() error { return nil })
	return leader.Run(ctx, leader.Config{Control: s.control, Name: name, Enabled: s.options.LeaderElect}, func(ctx context.Context) error {
		return s.lead(ctx, health, metrics)
	})
}

// work is what goes on while this replica leads.
type work struct {
	*Syncer
	metrics  *carrier.Metrics
	events   record.EventRecorder
	registry *pools.Registry
	demand   *demand.Demand
	kinds    kind.Kinds
	tenants  *cleanup.Tenants
	pools    *cleanup.Pools

	running sync.WaitGroup
	mu      sync.Mutex // guards active
	active  map[*pools.Pool]activePool
}

type activePool struct {
	carrier    *carrier.Carrier
	namespaces *cleanup.Namespaces
}

// lead works until ctx is done. A second term starts from nothing, as a restart would.
func (s *Syncer) lead(ctx context.Context, health *boot.Health, metrics *carrier.Metrics) error {
	w := &work{Syncer: s, metrics: metrics, active: map[*pools.Pool]activePool{}}
	var err error
	if w.registry, err = pools.NewRegistry(pools.RegistryConfig{Admin: s.admin, Control: s.control, UserAgent: "vivarium-" + name}); err != nil {
		return err
	}
	if w.demand, err = demand.New(demand.Config{
		Control: s.control, Metadata: s.metadata, Audience: s.options.TokenAudience, RootCA: s.rootCA.Text,
	}); err != nil {
		return err
	}
	w.kinds = kind.All(s.control, s.rootCA.Text, kind.TokenConfig{Audience: s.options.TokenAudience, Now: s.clock.Now})
	w.tenants = cleanup.NewTenants(cleanup.TenantsConfig{Admin: s.admin, Control: s.control, Known: w.demand, Registry: w.registry})
	w.pools = cleanup.NewPools(s.admin, w.registry)
	if err := w.demand.OnNamespace(w.controlNamespaceChanged); err != nil {
		return err
	}

	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: s.control.CoreV1().Events("")})
	w.events = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: name})

	health.SetReady(func() error {
		if !w.demand.HasSynced() || !w.registry.HasSynced() {
			return fmt.Errorf("control cluster: not known yet")
		}
		if !w.tenants.HasSynced() {
			return fmt.Errorf("tenants: not known yet")
		}
		return nil
	})
	defer health.SetReady(func() error { return nil })

	defer w.registry.Subscribe(pools.Handler{
		Added:   w.poolAdded,
		Changed: func(pool *pools.Pool) { w.pools.Look(pool.Name) },
		Checked: w.pools.Look,
	})()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return w.registry.Run(ctx) })
	group.Go(func() error { return w.demand.Run(ctx) })
	group.Go(func() error { return w.tenants.Run(ctx) })
	group.Go(func() error { return w.pools.Run(ctx) })
	group.Go(func() error { s.rootCA.follow(ctx, w.resync); return nil })
	group.Go(func() error { w.lookAtPools(ctx); return nil })
	err = group.Wait()
	w.running.Wait()
	return err
}

// poolAdded works for a pool until ctx is done.
func (w *work) poolAdded(ctx context.Context, pool *pools.Pool) {
	w.pools.Look(pool.Name)
	c := carrier.New(carrier.Config{Pool: pool, Demand: w.demand, Clock: &w.clock, Kinds: w.kinds, Events: w.events, Metrics: w.metrics, Timing: w.timing})
	n := cleanup.NewNamespaces(cleanup.NamespacesConfig{
		Pool: pool, Control: w.control, Informer: c.Namespaces(),
		Exists:      func(ns names.ControlNamespace) bool { _, ok := w.demand.Namespace(ns); return ok },
		Terminating: w.tenants.Terminating,
		Gone:        w.tenants.Look,
		Synced:      func() bool { return w.demand.HasSynced() && w.tenants.HasSynced() },
	})
	w.mu.Lock()
	w.active[pool] = activePool{c, n}
	w.mu.Unlock()
	unsubscribe := w.demand.Subscribe(demand.Subscriber{Pool: pool.Name, Changed: c.Changed})
	w.running.Go(func() {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return c.Run(ctx) })
		group.Go(func() error { return n.Run(ctx) })
		if err := group.Wait(); err != nil {
			boot.Logger(ctx).Error("work for a pool ended", "pool", pool.Name, "error", err)
		}
		unsubscribe()
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.active, pool)
	})
}

func (w *work) each(do func(activePool)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.active {
		do(a)
	}
}

func (w *work) resync() { w.each(func(a activePool) { a.carrier.Resync() }) }

func (w *work) controlNamespaceChanged(namespace names.ControlNamespace) {
	w.each(func(a activePool) {
		a.namespaces.Look(namespace)
		a.carrier.NamespaceChanged(namespace)
	})
	if tenant, _, ok := names.SplitNamespace(namespace); ok {
		w.tenants.Look(tenant)
	}
}

func (w *work) lookAtPools(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		for _, resource := range w.registry.Resources() {
			w.pools.Look(resource.Name)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
