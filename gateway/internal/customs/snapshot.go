package customs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/version"

	"vivarium.io/vivarium/gateway/internal/kinds"
	"vivarium.io/vivarium/internal/names"
)

// Resource is one custom kind as a tenant has it.
type Resource struct {
	*kinds.Kind
	// Names are those that the control cluster has accepted.
	Names apiextensionsv1.CustomResourceDefinitionNames
	// Versions are those that are served, the preferred one first.
	Versions []Version
	// Storage is the version that objects are stored in.
	Storage string
	// Definition is the name of the CustomResourceDefinition in the control cluster.
	Definition string

	uid        types.UID
	generation int64
	// builtIn is the definition of a kind that the control cluster does not have.
	builtIn *apiextensionsv1.CustomResourceDefinition
}

// Version is a served version of a custom kind.
type Version struct {
	Name          string
	Status, Scale bool
}

// Snapshot is what one tenant has at a moment. It is immutable and in the tenant's names.
type Snapshot struct {
	resources map[schema.GroupResource]*Resource
	scopes    map[schema.GroupKind]bool
	groups    []Group
	shared    []string
	// definitions are the names of the tenant's own, established or not.
	definitions map[string]bool
	digest      string
}

// Group is an API group of custom kinds.
type Group struct {
	Name string
	// Versions are those that some kind is served in, the preferred one first.
	Versions []string
	// Resources are in the order of their names.
	Resources []*Resource
}

// empty is what a tenant without any custom kind has.
var empty = newSnapshot(nil, nil, nil)

// ScopeOfKind implements translate.Customs.
func (s *Snapshot) ScopeOfKind(group, kind string) (namespaced, known bool) {
	namespaced, known = s.scopes[schema.GroupKind{Group: group, Kind: kind}]
	return namespaced, known
}

// ScopeOfResource implements translate.Customs.
func (s *Snapshot) ScopeOfResource(group, resource string) (namespaced, known bool) {
	r, ok := s.resources[schema.GroupResource{Group: group, Resource: resource}]
	return ok && r.Namespaced, ok
}

// SharedGroups are the groups that have the same name in both worlds.
func (s *Snapshot) SharedGroups() []string { return s.shared }

// Groups are the tenant's custom groups in the order of their names.
func (s *Snapshot) Groups() []Group { return s.groups }

// Group finds a group by its name.
func (s *Snapshot) Group(name string) (Group, bool) {
	i, ok := slices.BinarySearchFunc(s.groups, name, func(g Group, name string) int { return strings.Compare(g.Name, name) })
	if !ok {
		return Group{}, false
	}
	return s.groups[i], true
}

// Definitions counts the tenant's CustomResourceDefinitions.
func (s *Snapshot) Definitions() int { return len(s.definitions) }

// Defines reports whether the tenant has a CustomResourceDefinition.
func (s *Snapshot) Defines(name string) bool { return s.definitions[name] }

// Digest changes when any of the kinds or their schemas do.
func (s *Snapshot) Digest() string { return s.digest }

// Digest changes when a kind of the group or its schema does.
func (g Group) Digest() string { return digest(g.Resources) }

// Lookup finds a custom kind by its resource.
func (s *Snapshot) Lookup(group, resource string) (*Resource, bool) {
	r, ok := s.resources[schema.GroupResource{Group: group, Resource: resource}]
	return r, ok
}

func (s *Snapshot) lookup(group, resource string) *Resource {
	return s.resources[schema.GroupResource{Group: group, Resource: resource}]
}

// newSnapshot puts resources together.
func newSnapshot(resources []*Resource, shared []string, definitions map[string]bool) *Snapshot {
	s := &Snapshot{
		resources: map[schema.GroupResource]*Resource{}, scopes: map[schema.GroupKind]bool{}, shared: shared, definitions: definitions,
	}
	slices.SortFunc(resources, func(a, b *Resource) int {
		if c := strings.Compare(a.Group, b.Group); c != 0 {
			return c
		}
		return strings.Compare(a.Kind.Resource, b.Kind.Resource)
	})
	for _, r := range resources {
		s.resources[schema.GroupResource{Group: r.Group, Resource: r.Kind.Resource}] = r
		s.scopes[schema.GroupKind{Group: r.Group, Kind: r.Kind.Kind}] = r.Namespaced
		if n := len(s.groups); n == 0 || s.groups[n-1].Name != r.Group {
			s.groups = append(s.groups, Group{Name: r.Group})
		}
		g := &s.groups[len(s.groups)-1]
		g.Resources = append(g.Resources, r)
		for _, v := range r.Versions {
			if !slices.Contains(g.Versions, v.Name) {
				g.Versions = append(g.Versions, v.Name)
			}
		}
	}
	for _, g := range s.groups {
		slices.SortFunc(g.Versions, preferred)
	}
	s.digest = digest(resources)
	return s
}

// preferred orders versions as every API server does.
func preferred(a, b string) int { return -version.CompareKubeAwareVersionStrings(a, b) }

func digest(resources []*Resource) string {
	hash := sha256.New()
	for _, r := range resources {
		fmt.Fprintf(hash, "%q %q %s %d %v %q\n", r.Group, r.Definition, r.uid, r.generation, r.Versions, r.Names)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// resourceOf gives the kind of a definition, nil while it is not served. group is the tenant's word for its group.
func resourceOf(crd *apiextensionsv1.CustomResourceDefinition, group string, shared bool) *Resource {
	if !is(crd, apiextensionsv1.Established) {
		return nil
	}
	accepted := crd.Status.AcceptedNames
	r := &Resource{Names: accepted, Definition: crd.Name, uid: crd.UID, generation: crd.Generation}
	custom := &kinds.Custom{Shared: shared, ListKind: accepted.ListKind, Columns: map[string]string{}}
	var served, status, scale []string
	for i := range crd.Spec.Versions {
		v := &crd.Spec.Versions[i]
		if v.Storage {
			r.Storage = v.Name
		}
		if !v.Served {
			continue
		}
		served = append(served, v.Name)
		one := Version{Name: v.Name}
		if sub := v.Subresources; sub != nil && sub.Status != nil {
			one.Status = true
			status = append(status, v.Name)
		}
		if sub := v.Subresources; sub != nil && sub.Scale != nil {
			one.Scale = true
			scale = append(scale, v.Name)
		}
		r.Versions = append(r.Versions, one)
		custom.Columns[v.Name] = metadataColumns(v.AdditionalPrinterColumns)
	}
	slices.SortFunc(r.Versions, func(a, b Version) int { return preferred(a.Name, b.Name) })
	r.Kind = kinds.NewCustom(group, accepted.Plural, accepted.Kind, crd.Spec.Scope == apiextensionsv1.NamespaceScoped, served, status, scale, custom)
	return r
}

// metadataColumns names the columns that show what the platform writes otherwise than the tenant: names and groups.
func metadataColumns(columns []apiextensionsv1.CustomResourceColumnDefinition) string {
	var out []string
	for _, c := range columns {
		path := strings.TrimPrefix(c.JSONPath, ".")
		if strings.HasPrefix(path, "metadata") || strings.HasPrefix(path, "apiVersion") || !strings.HasPrefix(c.JSONPath, ".") || strings.HasPrefix(path, "[") || strings.HasPrefix(path, ".") || strings.HasPrefix(path, "*") {
			out = append(out, c.Name)
		}
	}
	return strings.Join(out, "\n")
}

func is(crd *apiextensionsv1.CustomResourceDefinition, what apiextensionsv1.CustomResourceDefinitionConditionType) bool {
	for _, c := range crd.Status.Conditions {
		if c.Type == what {
			return c.Status == apiextensionsv1.ConditionTrue
		}
	}
	return false
}

// tenantOf gives the tenant of a definition, and its group in the tenant's words. Both its group and its label must say so.
func tenantOf(crd *apiextensionsv1.CustomResourceDefinition) (names.TenantID, string, bool) {
	id, group, ok := names.SplitGroup(crd.Spec.Group)
	if !ok || crd.Labels[names.LabelTenant] != string(id) {
		return "", "", false
	}
	return id, group, true
}
