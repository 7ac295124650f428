package customs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	clientset "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/gateway/internal/follow"
	"vivarium.io/vivarium/gateway/internal/kinds"
	"vivarium.io/vivarium/gateway/internal/route"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
)

const (
	// missedFor is how long a kind that the control cluster does not have is taken to be missing without asking again.
	missedFor = 250 * time.Millisecond
	// missedMost bounds how many such kinds are remembered.
	missedMost = 4096
	// aheadFor is how long a definition that was looked up counts before the informer must have told of it.
	aheadFor = 10 * time.Second
	// lookupTimeout bounds a lookup, which no client's leaving may end: others wait for the same answer.
	lookupTimeout = 5 * time.Second
)

// Config says what a [Registry] needs.
type Config struct {
	// Control is the gateway's own identity at the control cluster.
	Control *rest.Config
	// Shared tells what operators share; nil for nothing.
	Shared *Shared
}

// Registry follows the definitions of the control cluster. Safe for concurrent use.
type Registry struct {
	definitions definitionGetter
	informer    cache.SharedIndexInformer
	handled     cache.ResourceEventHandlerRegistration
	shared      *Shared
	missed      *lru.Cache[string, time.Time]
	lookups     singleflight.Group

	// mu guards what follows.
	mu sync.Mutex
	// epoch counts changes, so that a snapshot made before one is not kept after it.
	epoch     uint64
	snapshots map[names.TenantID]*Snapshot
	// ahead are definitions that were looked up before the informer told of them, by name.
	ahead map[string]looked
}

type looked struct {
	crd   *apiextensionsv1.CustomResourceDefinition
	until time.Time
}

// definitionGetter is what is used of the control cluster.
type definitionGetter interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (*apiextensionsv1.CustomResourceDefinition, error)
	List(ctx context.Context, options metav1.ListOptions) (*apiextensionsv1.CustomResourceDefinitionList, error)
}

const byTenant = "tenant"

// New makes a Registry; it asks nothing before it runs or is asked.
func New(c Config) (*Registry, error) {
	config := rest.CopyConfig(c.Control)
	// Tenants' own limits bound what is asked on their behalf.
	config.QPS = -1
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	client, err := clientset.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client of the control cluster: %w", err)
	}
	crds := client.ApiextensionsV1().CustomResourceDefinitions()
	r := &Registry{
		definitions: crds, shared: c.Shared, snapshots: map[names.TenantID]*Snapshot{}, ahead: map[string]looked{},
	}
	if r.missed, err = lru.New[string, time.Time](missedMost); err != nil {
		return nil, fmt.Errorf("remember what is missing: %w", err)
	}
	r.informer = cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(follow.ListWatch("custom resource definitions",
		func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return crds.List(ctx, options)
		}, crds.Watch,
	), client), &apiextensionsv1.CustomResourceDefinition{}, 0, cache.Indexers{byTenant: func(obj any) ([]string, error) {
		if id, _, ok := tenantOf(obj.(*apiextensionsv1.CustomResourceDefinition)); ok {
			return []string{string(id)}, nil
		}
		return nil, nil
	}})
	if err := r.informer.SetTransform(slim); err != nil {
		return nil, fmt.Errorf("watch custom resource definitions: %w", err)
	}
	r.handled, err = r.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { r.observe(nil, obj) }, UpdateFunc: r.observe, DeleteFunc: func(obj any) { r.observe(obj, nil) },
	})
	if err != nil {
		return nil, fmt.Errorf("watch custom resource definitions: %w", err)
	}
	if c.Shared != nil {
		if err := c.Shared.attach(r); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// slim drops what fills the memory and nobody here reads: schemas above all.
func slim(obj any) (any, error) {
	crd, ok := obj.(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return obj, nil
	}
	crd.ManagedFields, crd.Annotations = nil, nil
	for i := range crd.Spec.Versions {
		crd.Spec.Versions[i].Schema = nil
	}
	return crd, nil
}

// Run follows the control cluster until ctx is done.
func (r *Registry) Run(ctx context.Context) error {
	if r.shared != nil {
		go r.shared.run(ctx)
	}
	r.informer.RunWithContext(ctx)
	return nil
}

// HasSynced reports whether every definition that existed at the start of Run is known.
func (r *Registry) HasSynced() bool {
	return r.handled.HasSynced() && (r.shared == nil || r.shared.hasSynced())
}

// observe forgets what a change has made wrong.
func (r *Registry) observe(old, now any) {
	r.mu.Lock()
	for _, obj := range []any{old, now} {
		if tombstone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = tombstone.Obj
		}
		crd, ok := obj.(*apiextensionsv1.CustomResourceDefinition)
		if !ok {
			continue
		}
		r.epoch++
		if ahead, ok := r.ahead[crd.Name]; ok && (now == nil || !older(crd, ahead.crd)) {
			delete(r.ahead, crd.Name)
		}
		if id, _, ok := tenantOf(crd); ok {
			delete(r.snapshots, id)
		} else {
			clear(r.snapshots)
		}
	}
	r.mu.Unlock()
	if r.shared != nil {
		r.shared.trigger()
	}
}

// older reports whether one object is of an earlier moment than another of the same name.
func older(a, b *apiextensionsv1.CustomResourceDefinition) bool {
	va, errA := strconv.ParseUint(a.ResourceVersion, 10, 64)
	vb, errB := strconv.ParseUint(b.ResourceVersion, 10, 64)
	return errA == nil && errB == nil && va < vb
}

// Changed forgets what is known of a tenant's share in what operators share.
func (r *Registry) Changed(id names.TenantID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch++
	delete(r.snapshots, id)
	if r.shared != nil {
		r.shared.trigger()
	}
}

// everybodyChanged forgets it of all tenants.
func (r *Registry) everybodyChanged() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch++
	clear(r.snapshots)
}

// Of gives what a tenant has.
func (r *Registry) Of(id names.TenantID) *Snapshot {
	r.mu.Lock()
	if s, ok := r.snapshots[id]; ok {
		r.mu.Unlock()
		return s
	}
	epoch := r.epoch
	r.mu.Unlock()
	s := r.build(id)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.epoch == epoch {
		r.snapshots[id] = s
	}
	return s
}

// own gives the tenant's own definitions by name, those that were just looked up included.
func (r *Registry) own(id names.TenantID) map[string]*apiextensionsv1.CustomResourceDefinition {
	out := map[string]*apiextensionsv1.CustomResourceDefinition{}
	// The index exists, so that there is no error.
	indexed, _ := r.informer.GetIndexer().ByIndex(byTenant, string(id))
	for _, obj := range indexed {
		crd := obj.(*apiextensionsv1.CustomResourceDefinition)
		out[crd.Name] = crd
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, ahead := range r.ahead {
		switch owner, _, ok := tenantOf(ahead.crd); {
		case time.Now().After(ahead.until):
			delete(r.ahead, name)
		case ok && owner == id && (out[name] == nil || older(out[name], ahead.crd)):
			out[name] = ahead.crd
		}
	}
	return out
}

func (r *Registry) build(id names.TenantID) *Snapshot {
	own := r.own(id)
	var resources []*Resource
	groups, definitions := map[string]bool{}, map[string]bool{}
	for name, crd := range own {
		_, group, _ := tenantOf(crd)
		groups[group] = true
		if name, err := id.DefinitionToTenant(name); err == nil {
			definitions[name] = true
		}
		if resource := resourceOf(crd, group, false); resource != nil {
			resources = append(resources, resource)
		}
	}
	var shared []string
	if r.shared != nil {
		// A group of the tenant's own is never taken from it.
		for _, resource := range r.shared.with(id, func(group string) bool { return groups[group] }) {
			resources = append(resources, resource)
			if n := len(shared); n == 0 || shared[n-1] != resource.Group {
				shared = append(shared, resource.Group)
			}
		}
	}
	resources = append(resources, r.networks(id)...)
	if len(own) == 0 && len(resources) == 0 {
		return empty
	}
	return newSnapshot(resources, shared, definitions)
}

// SharedWith reports whether the operator shares a resource with a tenant under the group's own name.
func (r *Registry) SharedWith(id names.TenantID, group, resource string) bool {
	found := r.Of(id).lookup(group, resource)
	return found != nil && found.Custom.Shared
}

// Find finds the kind of a request in a group that is not built in, and whether its verb is allowed; the snapshot is what
// the tenant has at that moment. The error is an API error, or kinds.ErrNoSuchPath.
func (r *Registry) Find(ctx context.Context, id names.TenantID, request *route.Request) (*kinds.Kind, *Snapshot, error) {
	s := r.Of(id)
	found := s.lookup(request.Group, request.Resource)
	if found != nil {
		if kind, err := found.Decide(request); err == nil || found.Custom.Shared {
			return kind, s, err
		}
	}
	if r.lookup(ctx, id, request) {
		s = r.Of(id)
		found = s.lookup(request.Group, request.Resource)
	}
	if found == nil {
		return nil, s, kinds.ErrNoSuchPath
	}
	kind, err := found.Decide(request)
	return kind, s, err
}

// lookup asks the control cluster about a kind that is missing or lacks something, and reports whether it learnt of any
// change.
func (r *Registry) lookup(ctx context.Context, id names.TenantID, request *route.Request) bool {
	// What cannot be a definition's name is not asked for.
	if !strings.Contains(request.Group, ".") || names.Reserved(request.Group+"/") || len(validation.IsDNS1123Subdomain(request.Group)) > 0 || len(validation.IsDNS1035Label(request.Resource)) > 0 {
		return false
	}
	name, err := id.DefinitionToControl(names.JoinDefinition(request.Resource, request.Group))
	if err != nil {
		return false
	}
	// A kind that is there and lacks a version is another question than one that is not there.
	key := name + "/" + request.Version + "/" + request.Subresource
	if since, ok := r.missed.Get(key); ok && time.Since(since) < missedFor {
		return false
	}
	learnt, err, _ := r.lookups.Do(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
		defer cancel()
		crd, err := r.definitions.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		return r.learn(crd), nil
	})
	if err != nil && !apierrors.IsNotFound(err) && !errors.Is(err, context.Canceled) {
		boot.Logger(ctx).Error("A custom kind cannot be looked up", "error", err, "tenant", id)
	}
	if changed, ok := learnt.(bool); ok && changed {
		return true
	}
	r.missed.Add(key, time.Now())
	return false
}

// learn keeps a definition until the informer tells of it, and reports whether it is news.
func (r *Registry) learn(crd *apiextensionsv1.CustomResourceDefinition) bool {
	_, _ = slim(crd)
	id, _, ok := tenantOf(crd)
	if !ok {
		return false
	}
	if known, exists, err := r.informer.GetStore().GetByKey(crd.Name); err == nil && exists && !older(known.(*apiextensionsv1.CustomResourceDefinition), crd) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ahead[crd.Name] = looked{crd, time.Now().Add(aheadFor)}
	r.epoch++
	delete(r.snapshots, id)
	return true
}

// Schemas gives the definitions of a tenant's groups with their schemas, in the tenant's names, by control name: of one
// group, or of all if it is empty. It asks the control cluster each time; exact is false if the answer is no longer what the
// snapshot was made of.
func (r *Registry) Schemas(ctx context.Context, id names.TenantID, s *Snapshot, group string) ([]*apiextensionsv1.CustomResourceDefinition, bool, error) {
	exact := true
	var out []*apiextensionsv1.CustomResourceDefinition
	own := map[string]*apiextensionsv1.CustomResourceDefinition{}
	if group == "" && len(s.definitions) > 0 {
		list, err := r.definitions.List(ctx, metav1.ListOptions{LabelSelector: names.LabelTenant + "=" + string(id)})
		if err != nil {
			return nil, false, fmt.Errorf("list custom resource definitions: %w", err)
		}
		for i := range list.Items {
			own[list.Items[i].Name] = &list.Items[i]
		}
	}
	for _, g := range s.groups {
		if group != "" && g.Name != group {
			continue
		}
		for _, resource := range g.Resources {
			if resource.builtIn != nil {
				out = append(out, resource.builtIn.DeepCopy())
				continue
			}
			crd := own[resource.Definition]
			if crd == nil {
				var err error
				crd, err = r.definitions.Get(ctx, resource.Definition, metav1.GetOptions{})
				if apierrors.IsNotFound(err) {
					exact = false
					continue
				}
				if err != nil {
					return nil, false, fmt.Errorf("get custom resource definition: %w", err)
				}
			}
			exact = exact && crd.UID == resource.uid && crd.Generation == resource.generation
			crd.Spec.Group, crd.Name = g.Name, names.JoinDefinition(resource.Names.Plural, g.Name)
			crd.Spec.Names = resource.Names
			crd.Annotations, crd.Labels, crd.ManagedFields = nil, nil, nil
			out = append(out, crd)
		}
	}
	return out, exact, nil
}
