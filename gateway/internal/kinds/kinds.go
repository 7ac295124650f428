package kinds

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"vivarium.io/vivarium/gateway/internal/route"
)

// Confinement says how the objects of a kind are told from those of other tenants.
type Confinement int

// The confinements.
const (
	// ByNamespace: the object's namespace carries the tenant's prefix.
	ByNamespace Confinement = iota
	// ByName: the kind is cluster-scoped and the object's name carries the prefix.
	ByName
	// ByLabel: the objects are the platform's; a label selector leaves those that every tenant may read.
	ByLabel
	// Stateless: nothing is stored; the body says it all.
	Stateless
	// Empty: tenants have none of it. The control cluster is only asked whether the user may look.
	Empty
	// Exported: the objects are the operator's classes; a tenant sees those that are exported to it.
	Exported
	// Claimed: the objects are the control cluster's volumes; a tenant sees those that are bound to its claims.
	Claimed
	// Network: the objects are the admin API's; a tenant sees its own, without the prefix of their names.
	Network
	// ByDefinition: the objects are CustomResourceDefinitions, whose names carry the prefix in their middle; a label selector
	// finds a tenant's.
	ByDefinition
)

// Kind is one kind that tenants may use.
type Kind struct {
	Group, Resource string
	// Kind is the object's kind, as in a manifest.
	Kind string
	// Versions are those that are served.
	Versions []string
	// LeftOut are versions that the control cluster may serve besides, if its operator turns them on, and tenants do not get.
	LeftOut []string
	// Namespaced tells whether objects live in a namespace.
	Namespaced bool
	Confined   Confinement
	// Kept tells that the objects are in the admin API's storage and not in the control cluster.
	Kept bool
	// Custom is what a CustomResourceDefinition says of its kind; nil for kinds that are built in.
	Custom *Custom

	verbs        []string
	subresources map[string][]string
	// reason says why nothing, or nothing but reading, is allowed.
	reason string
	// reasons does so for subresources.
	reasons map[string]string
	// readOnly says why a subresource that can be read cannot be written.
	readOnly map[string]string
	// absent says that the kind is answered for as by a cluster that has never heard of it.
	absent bool
	// extended says that an extension API server serves the kind.
	extended bool
	// only are the versions that have a subresource, where not all have.
	only map[string][]string
}

// Scope says which part of a path carries the tenant's name.
func (k *Kind) Scope() route.Scope {
	if k.Custom != nil && !k.Custom.Shared {
		return k.scope() | route.OwnGroup
	}
	return k.scope()
}

func (k *Kind) scope() route.Scope {
	switch k.Confined {
	case ByNamespace:
		return route.Namespaced
	case ByName:
		return route.Named
	case ByDefinition:
		return route.Defined
	case ByLabel, Stateless, Empty, Exported, Claimed, Network:
	}
	if k.Namespaced {
		return route.Namespaced
	}
	return route.Literal
}

// Allows reports whether a verb of the kind or of one of its subresources is served.
func (k *Kind) Allows(subresource, verb string) bool {
	if subresource == "" {
		return slices.Contains(k.verbs, verb)
	}
	return slices.Contains(k.subresources[subresource], verb)
}

// Serves reports whether anything at all of the kind, or of one of its subresources, is served.
func (k *Kind) Serves(subresource string) bool {
	if subresource == "" {
		return len(k.verbs) > 0
	}
	return len(k.subresources[subresource]) > 0
}

// Knows reports whether somebody decided about a subresource, for or against.
func (k *Kind) Knows(subresource string) bool {
	_, allowed := k.subresources[subresource]
	_, refused := k.reasons[subresource]
	return subresource == "" || allowed || refused
}

// Table holds every kind that somebody decided about. It is immutable.
type Table struct {
	kinds map[schema.GroupResource]*Kind
	// groups are those that anybody decided about; versions tells whether something in them is served.
	groups   map[string]bool
	versions map[schema.GroupVersion]bool
	digest   string
}

// NewTable makes the table of the stock kinds.
func NewTable() *Table {
	t := &Table{kinds: map[schema.GroupResource]*Kind{}, groups: map[string]bool{}, versions: map[schema.GroupVersion]bool{}}
	all := stock()
	t.digest = digest(all)
	for _, k := range all {
		t.kinds[schema.GroupResource{Group: k.Group, Resource: k.Resource}] = k
		t.groups[k.Group] = t.groups[k.Group] || !k.absent
		for _, v := range k.Versions {
			gv := schema.GroupVersion{Group: k.Group, Version: v}
			t.versions[gv] = t.versions[gv] || k.Serves("")
		}
	}
	return t
}

// Lookup gives a kind, whatever the table says of it.
func (t *Table) Lookup(group, resource string) (*Kind, bool) {
	k, ok := t.kinds[schema.GroupResource{Group: group, Resource: resource}]
	return k, ok
}

// HasGroup reports whether anybody decided about a kind of a group.
func (t *Table) HasGroup(group string) bool { return t.groups[group] }

// ServesVersion reports whether a kind of a group and version is served.
func (t *Table) ServesVersion(group, version string) bool {
	return t.versions[schema.GroupVersion{Group: group, Version: version}]
}

// ErrNoSuchPath says that the path leads nowhere: a stock API server answers in plain text, without a Status.
var ErrNoSuchPath = errors.New("404 page not found")

// Decide finds the kind of a request for a resource and whether its verb is allowed. The error is an API error, or
// [ErrNoSuchPath].
func (t *Table) Decide(r *route.Request) (*Kind, error) {
	if !t.groups[r.Group] {
		return nil, ErrNoSuchPath
	}
	k, ok := t.Lookup(r.Group, r.Resource)
	if !ok || k.absent {
		return nil, route.NotFound(r.Verb)
	}
	return k.Decide(r)
}

// Decide does so for a request whose kind has been found.
func (k *Kind) Decide(r *route.Request) (*Kind, error) {
	if !slices.Contains(k.Versions, r.Version) || !k.fits(r) || !k.has(r.Version, r.Subresource) {
		return nil, route.NotFound(r.Verb)
	}
	if reason, refused := k.reasons[r.Subresource]; refused {
		return nil, forbidden(r, reason)
	}
	if !k.Knows(r.Subresource) {
		return nil, route.NotFound(r.Verb)
	}
	if !wellFormed(r) {
		return nil, route.MethodNotAllowed(r.Verb)
	}
	switch {
	case k.Allows(r.Subresource, r.Verb):
		return k, nil
	case k.readOnly[r.Subresource] != "" && r.Verb != "create" && r.Verb != "delete":
		return nil, forbidden(r, k.readOnly[r.Subresource])
	case k.reason != "":
		return nil, forbidden(r, k.reason)
	}
	return nil, route.MethodNotAllowed(r.Verb)
}

// fits reports whether the path has the shape that the kind's scope gives it. A cluster-scoped object under a namespace
// would be found there by an API server that looks at the name alone.
func (k *Kind) fits(r *route.Request) bool {
	if !k.Namespaced {
		return r.Namespace == ""
	}
	// All namespaces at once can be listed and watched, nothing else.
	return r.Namespace != "" || r.Verb == "list" || r.Verb == "watch"
}

// wellFormed reports whether an API server has the method at all for a collection or a named object.
func wellFormed(r *route.Request) bool {
	switch {
	case r.Name == "":
		return r.Verb != "update" && r.Verb != "patch"
	case r.Subresource == "":
		return r.Verb != "create"
	}
	return true
}

func forbidden(r *route.Request, reason string) error {
	resource := r.Resource
	if r.Subresource != "" {
		resource += "/" + r.Subresource
	}
	err := apierrors.NewForbidden(schema.GroupResource{Group: r.Group, Resource: resource}, r.Name, errors.New(reason))
	err.ErrStatus.Code = http.StatusForbidden
	return err
}

// protected are the namespaces that every cluster has and none may lose.
func protected(ns string) bool {
	switch ns {
	case "default", "kube-system", "kube-public", "kube-node-lease":
		return true
	}
	return false
}

// CheckDelete refuses, as a stock API server does, to delete the namespaces that every cluster has. The control cluster
// protects its own only.
func (k *Kind) CheckDelete(r *route.Request) error {
	if k.Group != "" || k.Resource != "namespaces" || r.Verb != "delete" || r.Subresource != "" || !protected(r.Name) {
		return nil
	}
	return apierrors.NewForbidden(r.GroupResource(), r.Name, errors.New("this namespace may not be deleted"))
}

// Verbs gives the verbs that are served, of the kind or of a subresource, among those given.
func (k *Kind) Verbs(subresource string, upstream []string) []string {
	var out []string
	for _, verb := range upstream {
		if k.Allows(subresource, verb) {
			out = append(out, verb)
		}
	}
	return out
}

// words splits a list written in one string, which keeps the table readable.
func words(s string) []string { return strings.Fields(s) }

// Digest changes when the table decides anything otherwise.
func (t *Table) Digest() string { return t.digest }

// digest spells the table and hashes it. Maps are printed in the order of their keys.
func digest(all []*Kind) string {
	hash := sha256.New()
	for _, k := range all {
		fmt.Fprintf(hash, "%q %q %q %v %v %v\n", k.Group, k.Resource, k.Versions, k.Namespaced, k.verbs, k.subresources)
	}
	return hex.EncodeToString(hash.Sum(nil))
}
