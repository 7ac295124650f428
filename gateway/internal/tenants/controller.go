package tenants

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/podsecurity"
)

// Config is what a Controller needs.
type Config struct {
	// Loopback reaches the admin API with every right.
	Loopback *rest.Config
	// Control reaches the control cluster as the gateway itself.
	Control *rest.Config
	// Scanner looks for what is left of a tenant.
	Scanner *Scanner
	// Authority signs tenants' certificates.
	Authority *Authority
	// ServerURL is where tenants reach their API, ServingCA (PEM) what they verify it with.
	ServerURL string
	ServingCA []byte
	// PodAddress is where pods reach the gateway.
	PodAddress netip.AddrPort
	// Shared gives the cluster-scoped resources that operators share with tenants; nil for none.
	Shared func() []schema.GroupVersionResource
	// Metrics, when set, gets vivarium_tenants.
	Metrics prometheus.Registerer
}

func (c Config) validate() error {
	var problems []error
	missing := func(is bool, what string) {
		if is {
			problems = append(problems, fmt.Errorf("no %s", what))
		}
	}
	missing(c.Loopback == nil, "way to the admin API")
	missing(c.Control == nil, "way to the control cluster")
	missing(c.Scanner == nil, "scanner of the control cluster")
	missing(c.Authority == nil, "tenant CA")
	missing(c.ServerURL == "", "URL for tenants")
	missing(len(c.ServingCA) == 0, "CA of the gateway")
	missing(!c.PodAddress.IsValid(), "address for pods")
	// The control cluster refuses such endpoints, and no pod could reach them.
	if addr := c.PodAddress.Addr(); addr.IsValid() && (addr.IsLoopback() || addr.IsUnspecified() || addr.IsLinkLocalUnicast() || addr.IsMulticast()) {
		problems = append(problems, fmt.Errorf("address for pods %s: pods cannot reach it", c.PodAddress))
	}
	return errors.Join(problems...)
}

// Controller makes the control cluster match the Tenants and reports back in their status. It is level-triggered: each
// reconcile compares everything, so it may be killed anywhere, and any number of replicas may run.
type Controller struct {
	tenants  *client[*v1alpha1.Tenant, *v1alpha1.TenantList]
	networks *networks
	informer cache.SharedIndexInformer
	control  kubernetes.Interface
	scanner  *Scanner
	// kept finds what the admin API keeps for tenants.
	kept      *Scanner
	shared    func() []schema.GroupVersionResource
	namespace cache.SharedIndexInformer
	roles     *roles
	authority *Authority
	signer    *signer
	access    access
	pods      netip.AddrPort
	queue     workqueue.TypedRateLimitingInterface[names.TenantID]
}

// How the controller paces itself.
const (
	workers          = 8
	reconcileTimeout = 30 * time.Second
	// resync is how often what nobody watches is put right: a tenant's own changes to its roles or Service.
	resync = 5 * time.Minute
	// spread is the distance between tenants that are looked at again for the same reason at the same time.
	spread = 20 * time.Millisecond
	// While a tenant is being removed, its namespaces are looked at this often, besides on their own news, and what waits
	// for somebody's decision seldom.
	removalPoll = time.Second
	stuckPoll   = 5 * time.Second
	// The first retry is quick because most failures are lost races.
	firstRetry, slowestRetry = 20 * time.Millisecond, 30 * time.Second
)

// NewController makes a Controller; it does nothing until it runs.
func NewController(config Config) (*Controller, error) {
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("configure tenants: %w", err)
	}
	kept, err := NewScanner(config.Loopback)
	if err != nil {
		return nil, err
	}
	api, err := adminAPI(config.Loopback)
	if err != nil {
		return nil, err
	}
	tenants := newClient[v1alpha1.Tenant, v1alpha1.TenantList](api, "tenants")
	identity := rest.CopyConfig(config.Control)
	identity.QPS = -1
	identity.WarningHandler = rest.NoWarnings{} // Endpoints are deprecated, and expected of every cluster.
	control, err := kubernetes.NewForConfig(identity)
	if err != nil {
		return nil, fmt.Errorf("make the client of the control cluster: %w", err)
	}
	c := &Controller{
		tenants:   tenants,
		networks:  newNetworks(api),
		informer:  newInformer(tenants, &v1alpha1.Tenant{}),
		control:   control,
		scanner:   config.Scanner,
		kept:      kept,
		shared:    config.Shared,
		authority: config.Authority,
		access:    access{server: config.ServerURL, servingCA: config.ServingCA},
		pods:      config.PodAddress,
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(
			workqueue.NewTypedItemExponentialFailureRateLimiter[names.TenantID](firstRetry, slowestRetry),
			workqueue.TypedRateLimitingQueueConfig[names.TenantID]{Name: "tenants"}),
	}
	if c.roles, err = newRoles(control, c.everyone, c.queue.Add); err != nil {
		return nil, err
	}
	if c.signer, err = newSigner(config.Authority, identity, control, c.certifiable); err != nil {
		return nil, err
	}
	c.namespace = c.newNamespaceInformer()
	if err := c.watch(); err != nil {
		return nil, err
	}
	if config.Metrics != nil {
		if err := config.Metrics.Register(&phases{store: c.informer.GetStore()}); err != nil {
			return nil, fmt.Errorf("register metrics of tenants: %w", err)
		}
	}
	return c, nil
}

// newNamespaceInformer follows the tenants' namespaces by their metadata.
func (c *Controller) newNamespaceInformer() cache.SharedIndexInformer {
	namespaces := c.scanner.objects.Resource(namespaceResource)
	return cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.LabelSelector = names.LabelTenant
			return namespaces.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.LabelSelector = names.LabelTenant
			return namespaces.Watch(ctx, options)
		},
	}, &metav1.PartialObjectMetadata{}, 0, cache.Indexers{})
}

// watch says what brings a tenant into the queue.
func (c *Controller) watch() error {
	var known int
	_, err := c.informer.AddEventHandler(cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(obj any, initial bool) {
			t := obj.(*v1alpha1.Tenant)
			if !initial || readyCondition(t) != metav1.ConditionTrue || t.DeletionTimestamp != nil {
				c.queue.Add(names.TenantID(t.Name))
				return
			}
			// What was ready before this process began is looked at in passing.
			known++
			c.queue.AddAfter(names.TenantID(t.Name), time.Duration(known)*spread)
		},
		UpdateFunc: func(old, now any) {
			if matters(old.(*v1alpha1.Tenant), now.(*v1alpha1.Tenant)) {
				c.queue.Add(names.TenantID(now.(*v1alpha1.Tenant).Name))
			}
		},
	})
	if err != nil {
		return fmt.Errorf("watch tenants: %w", err)
	}
	enqueue := func(obj any) {
		if tombstone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = tombstone.Obj
		}
		if ns, ok := obj.(*metav1.PartialObjectMetadata); ok {
			if id, _, ok := names.SplitNamespace(names.ControlNamespace(ns.Name)); ok {
				c.queue.Add(id)
			}
		}
	}
	_, err = c.namespace.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(old, now any) {
			before, after := old.(*metav1.PartialObjectMetadata), now.(*metav1.PartialObjectMetadata)
			if !labelsKept(before.Labels, after.Labels) {
				enqueue(now)
			}
		},
		DeleteFunc: enqueue,
	})
	if err != nil {
		return fmt.Errorf("watch tenants' namespaces: %w", err)
	}
	return c.networks.watch(c.queue.Add)
}

// labelsKept reports whether nothing of ours was taken from a namespace.
func labelsKept(before, after map[string]string) bool {
	for _, key := range []string{names.LabelTenant, podsecurity.Enforce, podsecurity.EnforceVersion} {
		if before[key] != after[key] {
			return false
		}
	}
	return true
}

// matters tells a change that asks for work from the echo of our own writes.
func matters(old, now *v1alpha1.Tenant) bool {
	kubeconfig := func(t *v1alpha1.Tenant) string { return t.Annotations[v1alpha1.AnnotationKubeconfig] }
	return old.Generation != now.Generation ||
		(old.DeletionTimestamp == nil) != (now.DeletionTimestamp == nil) ||
		old.UID != now.UID ||
		(kubeconfig(old) != "" && kubeconfig(old) != kubeconfig(now))
}

// certifiable gives a tenant whose users may have certificates.
func (c *Controller) certifiable(id names.TenantID) (*v1alpha1.Tenant, bool) {
	obj, ok, err := c.informer.GetStore().GetByKey(string(id))
	if err != nil || !ok {
		return nil, false
	}
	t := obj.(*v1alpha1.Tenant)
	return t, t.DeletionTimestamp == nil && !t.Spec.Suspended
}

// everyone brings all tenants into the queue, one after the other.
func (c *Controller) everyone() {
	for i, name := range c.informer.GetStore().ListKeys() {
		c.queue.AddAfter(names.TenantID(name), time.Duration(i)*spread)
	}
}

// Run works until ctx is done.
func (c *Controller) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	run := func(informer cache.SharedIndexInformer) {
		group.Go(func() error { informer.RunWithContext(ctx); return nil })
	}
	run(c.namespace)
	c.roles.run(run)
	run(c.networks.knownVPCs)
	run(c.networks.knownSubnets)
	run(c.informer)
	run(c.signer.requests)
	group.Go(func() error {
		if cache.WaitForCacheSync(ctx.Done(), c.informer.HasSynced, c.signer.requests.HasSynced) {
			c.signer.run(ctx)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		c.queue.ShutDown()
		return nil
	})
	group.Go(func() error {
		var working sync.WaitGroup
		// Rank needs all tenants, and what of their networks exists must not look missing.
		if cache.WaitForCacheSync(ctx.Done(), c.informer.HasSynced, c.networks.knownVPCs.HasSynced, c.networks.knownSubnets.HasSynced) {
			for range workers {
				working.Go(func() {
					for c.work(ctx) {
					}
				})
			}
		}
		working.Wait()
		return nil
	})
	return group.Wait()
}

// work takes one tenant from the queue; it reports false when there will be no more.
func (c *Controller) work(ctx context.Context) bool {
	id, stop := c.queue.Get()
	if stop {
		return false
	}
	defer c.queue.Done(id)
	ctx, cancel := context.WithTimeout(ctx, reconcileTimeout)
	defer cancel()
	again, err := c.reconcile(ctx, id)
	switch {
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
	case err != nil:
		if c.queue.NumRequeues(id) >= patience {
			boot.Logger(ctx).Warn("Tenant is not what it should be yet", "tenant", id, "error", err)
		}
		c.queue.AddRateLimited(id)
	default:
		c.queue.Forget(id)
		if again > 0 {
			c.queue.AddAfter(id, again)
		}
	}
	return true
}
