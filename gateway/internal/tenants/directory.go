package tenants

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

// Tenant is what the tenant listener must know of a tenant for every request.
type Tenant struct {
	// ID is the tenant's name and the prefix of its names in control.
	ID names.TenantID
	// UID is the security principal: a credential that carries another UID is of an earlier tenant of the same name.
	UID types.UID
	// Suspended tenants are refused everything, for now.
	Suspended bool
	// Terminating tenants are refused everything, for good.
	Terminating bool
	// CredentialsNotBefore refuses client certificates whose validity starts before it; zero refuses none.
	CredentialsNotBefore time.Time
	// Beginning is where its history begins.
	Beginning Beginning
	// Limits are all set and positive.
	Limits Limits
	// VPC is the name of the tenant's VPC; empty for a tenant whose network is flat.
	VPC string
	// Labels are those of the Tenant object, by which an operator chooses tenants, as labels.Set.String writes them.
	Labels string
}

// Limits bound one tenant at one gateway replica.
type Limits struct {
	// RequestsPerSecond is the sustained rate, Burst what may come at once above it.
	RequestsPerSecond float64
	Burst             int
	// MaxInFlight bounds the requests under way, MaxWatches the open watches, MaxStreams exec, attach, port-forward,
	// proxies and logs. None counts toward another.
	MaxInFlight int
	MaxWatches  int
	MaxStreams  int
	// CustomResourceDefinitions bounds how many the tenant may have, at all replicas together.
	CustomResourceDefinitions int
}

// Directory tells who the tenants are, from memory. It follows the admin API within milliseconds and keeps the last
// known state while the admin API is away. Safe for concurrent use.
//
// Callers must refuse a tenant that Get does not know, and everything until HasSynced.
type Directory struct {
	informer cache.SharedIndexInformer
	handled  cache.ResourceEventHandlerRegistration

	// mu guards what follows.
	mu          sync.RWMutex
	tenants     map[names.TenantID]Tenant
	subscribers []func(names.TenantID)
}

// NewDirectory makes a Directory that reads the admin API through the loopback; it is empty until it runs.
func NewDirectory(loopback *rest.Config) (*Directory, error) {
	api, err := adminAPI(loopback)
	if err != nil {
		return nil, err
	}
	tenants := newClient[v1alpha1.Tenant, v1alpha1.TenantList](api, "tenants")
	d := &Directory{informer: newInformer(tenants, &v1alpha1.Tenant{}), tenants: map[names.TenantID]Tenant{}}
	d.handled, err = d.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { d.observe(obj, false) },
		UpdateFunc: func(_, obj any) { d.observe(obj, false) },
		DeleteFunc: func(obj any) { d.observe(obj, true) },
	})
	if err != nil {
		return nil, fmt.Errorf("watch tenants: %w", err)
	}
	return d, nil
}

// Run follows the admin API until ctx is done.
func (d *Directory) Run(ctx context.Context) error {
	d.informer.RunWithContext(ctx)
	return nil
}

// HasSynced reports whether every tenant that existed at the start of Run is known.
func (d *Directory) HasSynced() bool { return d.handled.HasSynced() }

// Get gives a tenant by its ID. A suspended or terminating tenant is still given: the caller refuses it.
func (d *Directory) Get(id names.TenantID) (Tenant, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	t, ok := d.tenants[id]
	return t, ok
}

// All gives every tenant, in no particular order.
func (d *Directory) All() []Tenant {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Collect(maps.Values(d.tenants))
}

// Subscribe calls changed after each change that [Directory.Get] shows of a tenant, its appearance and removal included.
// Calls come one at a time and hold up further changes, so changed must not block. There is no way to unsubscribe.
func (d *Directory) Subscribe(changed func(names.TenantID)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.subscribers = append(d.subscribers, changed)
}

func (d *Directory) observe(obj any, gone bool) {
	if tombstone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = tombstone.Obj
	}
	object, ok := obj.(*v1alpha1.Tenant)
	if !ok {
		return
	}
	id, err := names.ParseTenantID(object.Name)
	if err != nil {
		// Admission refuses such a name; whoever wrote it into etcd gets no tenant for it.
		slog.Error("Tenant with an impossible name is ignored", "name", object.Name)
		return
	}
	for _, changed := range d.update(id, fromObject(id, object), gone) {
		changed(id)
	}
}

// update stores what is known of a tenant and returns whom to tell, nobody when nothing changed.
func (d *Directory) update(id names.TenantID, tenant Tenant, gone bool) []func(names.TenantID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old, known := d.tenants[id]
	if gone {
		delete(d.tenants, id)
	} else {
		d.tenants[id] = tenant
	}
	if known != gone && old == tenant {
		return nil
	}
	return d.subscribers[:len(d.subscribers):len(d.subscribers)]
}

func fromObject(id names.TenantID, object *v1alpha1.Tenant) Tenant {
	object = object.DeepCopy()
	// An object stored by an older release may lack a default of this one.
	v1alpha1.SetDefaultsTenant(object)
	limits := object.Spec.Limits
	t := Tenant{
		ID:          id,
		UID:         object.UID,
		Suspended:   object.Spec.Suspended,
		Terminating: object.DeletionTimestamp != nil,
		VPC:         id.VPC(object.Spec.Network),
		Labels:      labels.Set(object.Labels).String(),
		Limits: Limits{
			RequestsPerSecond: float64(limits.RequestsPerSecond),
			Burst:             int(limits.Burst),
			MaxInFlight:       int(limits.MaxInFlight),
			MaxWatches:        int(limits.MaxWatches),
			MaxStreams:        int(limits.MaxStreams),

			CustomResourceDefinitions: int(limits.CustomResourceDefinitions),
		},
	}
	switch began := object.Status.Beginning; {
	case began != nil:
		t.Beginning = Beginning{Control: uint64(began.Control), Events: uint64(began.Events), Admin: uint64(began.Admin)}
	case object.Annotations[v1alpha1.AnnotationKubeconfig] == "":
		// Nobody can use the tenant yet, unless another replica is ahead.
		t.Beginning = notBegun
	}
	if notBefore := object.Spec.CredentialsNotBefore; notBefore != nil {
		t.CredentialsNotBefore = notBefore.Time
	}
	// The admin API refuses any other value.
	if n, err := strconv.ParseInt(object.Annotations[v1alpha1.AnnotationMaxInFlight], 10, 32); err == nil && n > 0 {
		t.Limits.MaxInFlight = int(n)
	}
	return t
}
