package offers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
)

// Kind is a kind whose objects are offered.
type Kind struct{ Group, Version, Resource, Kind string }

// path is where the control cluster has it.
func (k Kind) path() string {
	if k.Group == "" {
		return "/api/" + k.Version + "/" + k.Resource
	}
	return "/apis/" + k.Group + "/" + k.Version + "/" + k.Resource
}

// network reports whether the admin API has the kind.
func (k Kind) network() bool { return k == VPCs || k == Subnets }

// Volumes is the kind of volumes; every other one of the control cluster is a class.
var Volumes = Kind{"", "v1", "persistentvolumes", "PersistentVolume"}

var classes = []Kind{
	{"storage.k8s.io", "v1", "storageclasses", "StorageClass"},
	{"storage.k8s.io", "v1", "volumeattributesclasses", "VolumeAttributesClass"},
	{"scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass"},
	{"node.k8s.io", "v1", "runtimeclasses", "RuntimeClass"},
	{"networking.k8s.io", "v1", "ingressclasses", "IngressClass"},
	{"resource.k8s.io", "v1", "deviceclasses", "DeviceClass"},
}

// Set is every store.
type Set struct {
	control server
	admin   server
	byKind  map[string]*Store
	known   atomic.Bool
}

// server is where objects are read.
type server struct {
	base   string
	client *http.Client
}

func newServer(config *rest.Config) (server, error) {
	config = rest.CopyConfig(config)
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return server{}, err
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return server{}, err
	}
	return server{strings.TrimSuffix(base.String(), "/"), client}, nil
}

// New makes a Set that reads the control cluster as the gateway itself, and the admin API through its loopback; without one
// there are no networks. It knows nothing before it runs.
func New(control, loopback *rest.Config) (*Set, error) {
	s := &Set{byKind: map[string]*Store{Volumes.Kind: newStore(Volumes)}}
	var err error
	if s.control, err = newServer(control); err != nil {
		return nil, fmt.Errorf("client for classes and volumes: %w", err)
	}
	for _, kind := range classes {
		s.byKind[kind.Kind] = newStore(kind)
	}
	if loopback == nil {
		return s, nil
	}
	if s.admin, err = newServer(loopback); err != nil {
		return nil, fmt.Errorf("client for networks: %w", err)
	}
	for _, kind := range []Kind{VPCs, Subnets} {
		s.byKind[kind.Kind] = newStore(kind)
	}
	return s, nil
}

// follower makes what keeps a store.
func (s *Set) follower(store *Store) *follower {
	from := s.control
	if store.kind.network() {
		from = s.admin
	}
	return &follower{store: store, client: from.client, url: from.base + store.kind.path(), log: slog.With("resource", store.kind.Resource)}
}

// Run follows the control cluster until ctx is done.
func (s *Set) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, store := range s.byKind {
		group.Go(func() error { s.follower(store).run(ctx); return nil })
	}
	return group.Wait()
}

// Known says what is not known yet. A kind that the control cluster does not have, or does not let the gateway read, is
// known to have no objects.
func (s *Set) Known() error {
	if s.known.Load() {
		return nil
	}
	var problems []error
	for kind, store := range s.byKind {
		store.mu.Lock()
		if !store.known {
			problems = append(problems, fmt.Errorf("%s: the control cluster has not answered yet", kind))
		}
		store.mu.Unlock()
	}
	s.known.Store(len(problems) == 0)
	return errors.Join(problems...)
}

// Store gives the store of a kind, nil for a kind that is not offered.
func (s *Set) Store(kind string) *Store { return s.byKind[kind] }

// Exported reports whether a class is exported to a tenant.
func (s *Set) Exported(v Viewer, kind, name string) bool {
	store, ok := s.byKind[kind]
	return ok && kind != Volumes.Kind && store.Get(name).Visible(v)
}

// Bound reports whether a volume is bound to a claim of a tenant.
func (s *Set) Bound(v Viewer, name string) bool { return s.byKind[Volumes.Kind].Get(name).Visible(v) }

// Wake tells every watch that a tenant has changed.
func (s *Set) Wake() {
	for _, store := range s.byKind {
		store.Wake()
	}
}
