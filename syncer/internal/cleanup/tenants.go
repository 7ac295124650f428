package cleanup

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/adminclient"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
)

// Control is what is asked about the control cluster; package demand answers it.
type Control interface {
	NamespacesOf(tenant names.TenantID) int
	HasSynced() bool
}

// Registry is what is asked about pools; pools.Registry answers it.
type Registry interface {
	HasSynced() bool
	Resources() []*v1alpha1.ResourcePool
	Pool(name string) (*pools.Pool, bool)
	Status(name string) (pools.Status, bool)
}

// TenantsConfig is what [Tenants] is made of; every field is required.
type TenantsConfig struct {
	Admin    client.WithWatch
	Control  kubernetes.Interface
	Known    Control
	Registry Registry
}

// Tenants takes deleted tenants out of every pool, then lets go of the Tenant. Make one with [NewTenants].
type Tenants struct {
	config   TenantsConfig
	informer cache.SharedIndexInformer
	queue    workqueue.TypedRateLimitingInterface[names.TenantID]
}

// NewTenants makes a Tenants; nothing is dialled before Run.
func NewTenants(config TenantsConfig) *Tenants {
	return &Tenants{
		config:   config,
		informer: cache.NewSharedIndexInformer(adminclient.ListWatch[v1alpha1.TenantList](config.Admin), &v1alpha1.Tenant{}, 0, cache.Indexers{}),
		queue:    workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[names.TenantID](retryFirst, retryLast)),
	}
}

// HasSynced reports whether the tenants that exist are known.
func (t *Tenants) HasSynced() bool { return t.informer.HasSynced() }

// Terminating reports whether a tenant is known to be on its way out.
func (t *Tenants) Terminating(id names.TenantID) bool {
	tenant, ok := t.get(id)
	return ok && tenant.DeletionTimestamp != nil
}

func (t *Tenants) get(id names.TenantID) (*v1alpha1.Tenant, bool) {
	object, ok, err := t.informer.GetStore().GetByKey(string(id))
	if err != nil || !ok {
		return nil, false
	}
	tenant, ok := object.(*v1alpha1.Tenant)
	return tenant, ok
}

// Look queues a tenant; whoever sees one of its namespaces vanish calls it. It does not block.
func (t *Tenants) Look(id names.TenantID) {
	if t.Terminating(id) {
		t.queue.Add(id)
	}
}

// Run works until ctx is done.
func (t *Tenants) Run(ctx context.Context) error {
	add := func(object any) {
		if tenant, ok := object.(*v1alpha1.Tenant); ok && tenant.DeletionTimestamp != nil {
			t.queue.Add(names.TenantID(tenant.Name))
		}
	}
	if _, err := t.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, object any) { add(object) }}); err != nil {
		return fmt.Errorf("watch Tenants: %w", err)
	}
	var group sync.WaitGroup
	group.Go(func() { t.informer.RunWithContext(ctx) })
	if cache.WaitForCacheSync(ctx.Done(), t.HasSynced, t.config.Known.HasSynced, t.config.Registry.HasSynced) {
		for range 4 {
			group.Go(func() {
				for next(ctx, t.queue, t.work) {
				}
			})
		}
	}
	<-ctx.Done()
	t.queue.ShutDown()
	group.Wait()
	return nil
}

// work takes one step for one tenant and reports whether it has to be looked at again soon.
func (t *Tenants) work(ctx context.Context, id names.TenantID) (again bool, err error) {
	tenant, ok := t.get(id)
	if !ok || tenant.DeletionTimestamp == nil || !slices.Contains(tenant.Finalizers, v1alpha1.FinalizerPools) {
		return false, nil
	}
	if _, err := names.ParseTenantID(string(id)); err != nil {
		return false, err
	}
	held, err := t.heldUp(ctx, id)
	if err != nil {
		return false, err
	}
	if len(held) > 0 {
		return true, t.report(ctx, tenant, held)
	}
	before := tenant.DeepCopy()
	after := tenant.DeepCopy()
	after.Finalizers = slices.DeleteFunc(after.Finalizers, func(f string) bool { return f == v1alpha1.FinalizerPools })
	if err := t.config.Admin.Patch(ctx, after, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("let go of Tenant %s: %w", id, err)
	}
	boot.Logger(ctx).Info("tenant is gone from every pool", "tenant", string(id))
	return false, nil
}

// heldUp deletes what can be deleted of a tenant in the pools and says, in order, what still stands in the way.
func (t *Tenants) heldUp(ctx context.Context, id names.TenantID) ([]string, error) {
	if n := t.config.Known.NamespacesOf(id); n > 0 {
		return []string{fmt.Sprintf("waiting for %d namespaces in the control cluster", n)}, nil
	}
	left, err := t.config.Control.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: names.LabelTenant + "=" + string(id), Limit: 1})
	if err != nil {
		return nil, fmt.Errorf("list namespaces of tenant %s: %w", id, err)
	}
	if len(left.Items) > 0 {
		return []string{"waiting for namespaces in the control cluster"}, nil
	}
	var (
		mu   sync.Mutex // guards held
		held []string
		wait sync.WaitGroup
	)
	for _, resource := range t.config.Registry.Resources() {
		wait.Go(func() {
			if what := t.cleanPool(ctx, resource.Name, id); what != "" {
				mu.Lock()
				defer mu.Unlock()
				held = append(held, what)
			}
		})
	}
	wait.Wait()
	slices.Sort(held)
	return held, nil
}

// cleanPool deletes a tenant's namespaces in one pool and says what is left; nothing when all is gone.
func (t *Tenants) cleanPool(ctx context.Context, name string, id names.TenantID) string {
	pool, open := t.config.Registry.Pool(name)
	status, _ := t.config.Registry.Status(name)
	if !open || !status.Reachable.Good() {
		return fmt.Sprintf("pool %s cannot be asked: %s", name, unavailable(status))
	}
	// What is said of a pool that does not answer has to be written within the attempt.
	ctx, cancel := context.WithTimeout(ctx, callTimeout/2)
	defer cancel()
	namespaces, err := poolNamespaces(ctx, pool, id)
	if err != nil {
		boot.Logger(ctx).Info("cannot clean up a tenant", "tenant", string(id), "pool", name, "error", err)
		return fmt.Sprintf("pool %s does not answer", name)
	}
	for i := range namespaces {
		if err := deleteNamespace(ctx, pool, &namespaces[i]); err != nil {
			boot.Logger(ctx).Info("cannot clean up a tenant", "tenant", string(id), "pool", name, "error", err)
			return fmt.Sprintf("pool %s refuses to delete namespace %s", name, namespaces[i].Name)
		}
	}
	if len(namespaces) > 0 {
		return fmt.Sprintf("pool %s is deleting the tenant's namespaces", name)
	}
	return ""
}

// unavailable says why a pool cannot be worked with.
func unavailable(status pools.Status) string {
	for _, finding := range []pools.Finding{status.Reachable, status.Identified} {
		if finding.Message != "" && !finding.Good() {
			return finding.Message
		}
	}
	return "it was not checked yet"
}

func (t *Tenants) report(ctx context.Context, tenant *v1alpha1.Tenant, held []string) error {
	before, after := tenant.DeepCopy(), tenant.DeepCopy()
	if !meta.SetStatusCondition(&after.Status.Conditions, metav1.Condition{
		Type: v1alpha1.TenantCleanedPools, Status: metav1.ConditionFalse, Reason: "Waiting", Message: strings.Join(held, "; "),
		ObservedGeneration: tenant.Generation,
	}) {
		return nil
	}
	err := t.config.Admin.Status().Patch(ctx, after, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("report on Tenant %s: %w", tenant.Name, err)
	}
	return nil
}
