// Package controller lets network drivers write in pools: each pool's driver prepares every namespace that the platform
// has there, puts right what somebody changed, and sweeps what is left of namespaces that are gone. What it finds is the
// condition Fenced on the ResourcePool.
//
// It must never name a driver (its caller gives them), choose another driver than the ResourcePool names, or say that
// tenants are fenced where nobody can know. Start at [Controller.Run]; pool.go works for one pool.
package controller

import (
	"context"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
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
	conditions := newConditions(c.admin, registry)
	var (
		running sync.WaitGroup
		mu      sync.Mutex // guards workers
		workers = map[*pools.Pool]*worker{}
	)
	defer registry.Subscribe(pools.Handler{
		Added: func(ctx context.Context, pool *pools.Pool) {
			w := newWorker(pool, c.drivers, conditions, m, c.timing)
			mu.Lock()
			workers[pool] = w
			mu.Unlock()
			running.Go(func() { w.run(ctx) })
		},
		Changed: func(pool *pools.Pool) {
			mu.Lock()
			defer mu.Unlock()
			if w := workers[pool]; w != nil {
				w.resync()
			}
		},
		Removed: func(pool *pools.Pool) {
			mu.Lock()
			defer mu.Unlock()
			delete(workers, pool)
		},
		Checked: conditions.look,
	})()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return registry.Run(ctx) })
	group.Go(func() error { conditions.run(ctx); return nil })
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
