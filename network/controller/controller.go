// Package controller lets network drivers write in pools: each pool's driver prepares every namespace that the platform
// has there, puts right what somebody changed, and sweeps what is left of namespaces that are gone. What it finds is the
// condition Fenced on the ResourcePool. For tenants with a VPC it makes the VPC and its subnets be in their pools, gives
// each pod its place before it is made there, and tells pools where the VPC's pods are and what its tenant's Services lead to.
//
// It must never name a driver (its caller gives them), choose another driver than the ResourcePool names, say that
// tenants are fenced where nobody can know, put a pod in another network than it asks for because that one is not ready,
// or take an address back from a pod that may still run somewhere. Start at [Controller.Run]; pool.go works for one pool,
// fabric.go for VPCs: objects.go makes them, places.go gives places in them, mesh.go tells where pods are,
// services.go where Services lead.
package controller

import (
	"context"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/internal/adminclient"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/leader"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/network"
)

// name is the component's: Lease and user agent.
const name = "network"

// DriverFn gives the driver that a ResourcePool names; an empty name is the default driver.
type DriverFn func(name string) (network.Driver, error)

// Controller is the component. Make one with [New].
type Controller struct {
	options Options
	drivers DriverFn
	control kubernetes.Interface
	admin   client.WithWatch
	timing  timing
}

// New reads the files that the options name and makes clients; nothing is dialled before Run.
func New(options *Options, drivers DriverFn) (*Controller, error) {
	control, err := clientcmd.BuildConfigFromFlags("", options.ControlKubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--control-kubeconfig: %w", err)
	}
	admin, err := clientcmd.BuildConfigFromFlags("", options.AdminKubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--admin-kubeconfig: %w", err)
	}
	control.UserAgent, admin.UserAgent = "vivarium-"+name, "vivarium-"+name
	// The clusters' own fairness decides; a limit here would only hide a backlog.
	control.QPS, admin.QPS = -1, -1
	c := &Controller{options: *options, drivers: drivers, timing: defaultTiming()}
	if c.control, err = kubernetes.NewForConfig(control); err != nil {
		return nil, fmt.Errorf("--control-kubeconfig: %w", err)
	}
	if c.admin, err = adminclient.New(admin); err != nil {
		return nil, fmt.Errorf("--admin-kubeconfig: %w", err)
	}
	return c, nil
}

// Run works until ctx is done, or waits to be the replica that works.
func (c *Controller) Run(ctx context.Context, health *boot.Health) error {
	m := newMetrics(health.Metrics)
	health.SetReady(func() error { return nil })
	return leader.Run(ctx, leader.Config{Control: c.control, Name: name, Enabled: c.options.LeaderElect}, func(ctx context.Context) error {
		return c.lead(ctx, health, m)
	})
}

func (c *Controller) lead(ctx context.Context, health *boot.Health, m *metrics) error {
	registry, err := pools.NewRegistry(pools.RegistryConfig{Admin: c.admin, Control: c.control, UserAgent: "vivarium-" + name})
	if err != nil {
		return err
	}
	health.SetReady(func() error {
		if !registry.HasSynced() {
			return fmt.Errorf("ResourcePools: not known yet")
		}
		return nil
	})
	defer health.SetReady(func() error { return nil })
	conditions := newConditions(c.admin, registry, c.drivers)
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.control.CoreV1().Events("")})
	fabric, err := newFabric(c, registry, broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "vivarium-" + name}), m)
	if err != nil {
		return err
	}
	var (
		running sync.WaitGroup
		mu      sync.Mutex // guards workers
		workers = map[*pools.Pool]*worker{}
	)
	defer registry.Subscribe(pools.Handler{
		Added: func(ctx context.Context, pool *pools.Pool) {
			w := newWorker(pool, c.drivers, conditions, m, c.timing, fabric.live)
			mu.Lock()
			workers[pool] = w
			mu.Unlock()
			running.Go(func() { w.run(ctx) })
			running.Go(func() {
				if err := fabric.attach(ctx, pool); err != nil {
					boot.Logger(ctx).Error("cannot watch a pool", "pool", pool.Name, "error", err)
				}
			})
			fabric.poolChanged(pool.Name)
		},
		Changed: func(pool *pools.Pool) {
			mu.Lock()
			defer mu.Unlock()
			if w := workers[pool]; w != nil {
				w.resync()
			}
			fabric.poolChanged(pool.Name)
		},
		Removed: func(pool *pools.Pool) {
			mu.Lock()
			defer mu.Unlock()
			delete(workers, pool)
		},
		Checked: func(pool string) {
			conditions.look(pool)
			fabric.poolChanged(pool)
		},
	})()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return registry.Run(ctx) })
	group.Go(func() error { conditions.run(ctx); return nil })
	group.Go(func() error { fabric.run(ctx, c.timing); return nil })
	err = group.Wait()
	running.Wait()
	return err
}

// metrics have one series per pool.
type metrics struct {
	namespaces *prometheus.GaugeVec
	failures   *prometheus.CounterVec
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		namespaces: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "vivarium_network_namespaces",
			Help: "Tenants' namespaces in the pool, by whether the driver has prepared them.",
		}, []string{"pool", "prepared"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vivarium_network_failures_total",
			Help: "Calls of a driver that failed, by reason.",
		}, []string{"pool", "reason"}),
	}
	registry.MustRegister(m.namespaces, m.failures)
	return m
}
