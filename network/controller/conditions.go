package controller

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/pools"
)

// Reasons of the condition v1alpha1.PoolFenced.
const (
	reasonEnforced           = "Enforced"
	reasonEnforcementUnknown = "EnforcementUnknown"
	reasonNotPrepared        = "NamespacesNotPrepared"
	reasonNoDriver           = "UnknownDriver"
	reasonPoolUnavailable    = "PoolUnavailable"
)

// finding is the condition without its times.
type finding struct {
	status          metav1.ConditionStatus
	reason, message string
}

// conditions writes findings into ResourcePools, one write at a time and only when something changed.
type conditions struct {
	admin    client.WithWatch
	registry *pools.Registry
	drivers  DriverFn
	queue    workqueue.TypedRateLimitingInterface[string]

	mu     sync.Mutex // guards latest
	latest map[string]finding
}

func newConditions(admin client.WithWatch, registry *pools.Registry, drivers DriverFn) *conditions {
	return &conditions{
		admin: admin, registry: registry, drivers: drivers, latest: map[string]finding{},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, 30*time.Second)),
	}
}

// set publishes what was found in a pool.
func (c *conditions) set(pool string, f finding) {
	c.mu.Lock()
	changed := c.latest[pool] != f
	c.latest[pool] = f
	c.mu.Unlock()
	if changed {
		c.queue.Add(pool)
	}
}

// forget says that nobody works for the pool any more.
func (c *conditions) forget(pool string) {
	c.mu.Lock()
	delete(c.latest, pool)
	c.mu.Unlock()
	c.queue.Add(pool)
}

// look queues a pool whose reachability changed. It does not block.
func (c *conditions) look(pool string) { c.queue.Add(pool) }

func (c *conditions) run(ctx context.Context) {
	var group sync.WaitGroup
	group.Go(func() {
		for {
			pool, shutdown := c.queue.Get()
			if shutdown {
				return
			}
			attempt, cancel := context.WithTimeout(ctx, callTimeout)
			err := c.write(attempt, pool)
			cancel()
			if err != nil && ctx.Err() == nil {
				boot.Logger(ctx).Log(ctx, -1, "condition is written later", "pool", pool, "error", err)
				c.queue.AddRateLimited(pool)
			} else {
				c.queue.Forget(pool)
			}
			c.queue.Done(pool)
		}
	})
	<-ctx.Done()
	c.queue.ShutDown()
	group.Wait()
}

func (c *conditions) write(ctx context.Context, pool string) error {
	resource, ok := c.registry.Resource(pool)
	if !ok {
		return nil
	}
	f := c.finding(pool)
	before, after := resource.DeepCopy(), resource.DeepCopy()
	meta.SetStatusCondition(&after.Status.Conditions, metav1.Condition{
		Type: v1alpha1.PoolFenced, Status: f.status, Reason: f.reason, Message: f.message, ObservedGeneration: resource.Generation,
	})
	after.Status.Network = c.able(resource)
	if equality.Semantic.DeepEqual(before.Status, after.Status) {
		return nil
	}
	err := c.admin.Status().Patch(ctx, after, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("report on ResourcePool %s: %w", pool, err)
	}
	return nil
}

// able says what the pool's driver can do for VPCs.
func (c *conditions) able(resource *v1alpha1.ResourcePool) *v1alpha1.PoolNetworkStatus {
	driver, err := c.drivers(resource.Spec.Network.Driver)
	if err != nil {
		return nil
	}
	status, can := &v1alpha1.PoolNetworkStatus{Driver: driver.Name()}, driver.Capabilities()
	for _, capability := range []struct {
		has  bool
		name v1alpha1.NetworkCapability
	}{
		{can.VPC, v1alpha1.CapabilityVPC},
		{can.VPC && can.DualStack, v1alpha1.CapabilityDualStack},
		{can.SecurityGroups, v1alpha1.CapabilitySecurityGroups},
		{can.NetworkPolicies, v1alpha1.CapabilityNetworkPolicies},
		{can.Services, v1alpha1.CapabilityServices},
		{can.Bandwidth, v1alpha1.CapabilityBandwidth},
		{can.CrossPool, v1alpha1.CapabilityCrossPool},
	} {
		if capability.has {
			status.Capabilities = append(status.Capabilities, capability.name)
		}
	}
	return status
}

func (c *conditions) finding(pool string) finding {
	c.mu.Lock()
	latest, ok := c.latest[pool]
	c.mu.Unlock()
	status, _ := c.registry.Status(pool)
	if !ok || !status.Reachable.Good() {
		return finding{metav1.ConditionUnknown, reasonPoolUnavailable, "the pool cannot be asked"}
	}
	return latest
}
