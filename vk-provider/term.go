package vkprovider

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/vk-provider/internal/bounce"
	"vivarium.io/vivarium/vk-provider/internal/nodes"
	"vivarium.io/vivarium/vk-provider/internal/poolcache"
	"vivarium.io/vivarium/vk-provider/internal/provider"
)

// term is the work of the replica that leads. Each turn starts from nothing but the clusters.
type term struct {
	provider *Provider
	pods     *provider.Metrics
	nodes    *nodes.Metrics
}

// lead writes until ctx is done, and has stopped everything when it returns.
func (t *term) lead(ctx context.Context) error {
	p := t.provider
	if !p.cache.Wait(ctx) || !cache.WaitForCacheSync(ctx.Done(), p.registry.HasSynced, p.tenants.HasSynced, p.networks.HasSynced) {
		return nil
	}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: p.control.CoreV1().Events("")})
	recorder := broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: userAgent})

	books := bounce.NewBooks(time.Now)
	var virtual *nodes.Controller
	pods, err := provider.New(provider.Config{
		Control: p.control, Cache: p.cache, Clock: &p.clock, Registry: p.registry, Recorder: recorder, Metrics: t.pods,
		Gateway: p.options.gateway(), Binder: p.binder, Networks: p.networks, Books: books, Welcome: p.tenants.Welcome,
		OrphanGrace: p.options.OrphanGrace,
		OnKept:      func(pool string) { virtual.Enqueue(pool) },
	})
	if err != nil {
		return err
	}
	virtual, err = nodes.New(nodes.Config{
		Control: p.control, Cache: p.cache, Registry: p.registry, Admin: p.admin, Recorder: recorder, Metrics: t.nodes,
		Address: p.address, Port: p.port, Books: books, Chosen: p.tenants.Chosen,
		Orphans: func(pool string) (reason, message string) {
			kept := pods.Kept(pool)
			return kept.Reason, kept.Message
		},
	})
	if err != nil {
		return err
	}
	books.OnChange(virtual.Enqueue)
	var open sync.WaitGroup
	defer open.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := p.tenants.OnChange(ctx, virtual.TenantsChanged); err != nil {
		return err
	}
	unsubscribe := p.registry.Subscribe(pools.Handler{
		Added: func(pool context.Context, added *pools.Pool) {
			if err := attach(ctx, pool, added, pods, virtual, &open); err != nil {
				boot.Logger(ctx).Error("pool not attached", "pool", added.Name, "error", err)
			}
		},
		Changed: func(pool *pools.Pool) { virtual.Enqueue(pool.Name) },
		Removed: func(pool *pools.Pool) { virtual.Enqueue(pool.Name) },
		Checked: virtual.Enqueue,
	})
	defer unsubscribe()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return pods.Run(ctx) })
	group.Go(func() error { return virtual.Run(ctx) })
	return group.Wait()
}

// attach has an open pool worked on until it closes or the term ends.
func attach(term, pool context.Context, added *pools.Pool, pods *provider.Provider, virtual *nodes.Controller, open *sync.WaitGroup) error {
	known, err := poolcache.New(added, provider.Component)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(pool)
	context.AfterFunc(term, cancel)
	if err := pods.Attach(ctx, known); err != nil {
		cancel()
		return err
	}
	if err := virtual.Attach(ctx, known); err != nil {
		cancel()
		return err
	}
	open.Go(func() {
		defer cancel()
		known.Run(ctx)
	})
	return nil
}
