package discovery

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/discovery"

	"vivarium.io/vivarium/gateway/internal/customs"
	"vivarium.io/vivarium/internal/names"
)

// World is whose discovery it is. Its zero value has the built-in kinds alone.
type World struct {
	Tenant names.TenantID
	// Customs are the custom kinds; nil for none.
	Customs *customs.Snapshot
	// Schemas gives the definitions of a group, or of all groups if it is empty, in the tenant's names; exact is false if
	// they are no longer those of Customs.
	Schemas func(ctx context.Context, group string) (crds []*apiextensionsv1.CustomResourceDefinition, exact bool, err error)
	// MayRead says whether the user may read the few documents that not everybody may; its error is an API error. Without it
	// nobody may.
	MayRead func(ctx context.Context, path string) error
}

func (w World) groups() []customs.Group {
	if w.Customs == nil {
		return nil
	}
	return w.Customs.Groups()
}

func (w World) group(name string) (customs.Group, bool) {
	if w.Customs == nil {
		return customs.Group{}, false
	}
	return w.Customs.Group(name)
}

// customVerbs are those of every custom kind, in the order in which an API server names them.
var (
	customVerbs      = []string{"delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"}
	subresourceVerbs = []string{"get", "patch", "update"}
)

// customGroup gives the aggregated form of a group.
func customGroup(g customs.Group) apidiscoveryv2.APIGroupDiscovery {
	out := apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: g.Name}}
	for _, v := range g.Versions {
		version := apidiscoveryv2.APIVersionDiscovery{Version: v, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
		for _, r := range g.Resources {
			i := slices.IndexFunc(r.Versions, func(have customs.Version) bool { return have.Name == v })
			if i < 0 {
				continue
			}
			version.Resources = append(version.Resources, customResource(r, r.Versions[i]))
		}
		out.Versions = append(out.Versions, version)
	}
	return out
}

func customResource(r *customs.Resource, v customs.Version) apidiscoveryv2.APIResourceDiscovery {
	kind := &metav1.GroupVersionKind{Group: r.Group, Version: v.Name, Kind: r.Kind.Kind}
	out := apidiscoveryv2.APIResourceDiscovery{
		Resource: r.Names.Plural, ResponseKind: kind, Scope: apidiscoveryv2.ScopeCluster, SingularResource: r.Names.Singular,
		Verbs: r.Verbs("", customVerbs), ShortNames: r.Names.ShortNames, Categories: r.Names.Categories,
	}
	if r.Namespaced {
		out.Scope = apidiscoveryv2.ScopeNamespace
	}
	if v.Status {
		out.Subresources = append(out.Subresources, apidiscoveryv2.APISubresourceDiscovery{
			Subresource: "status", ResponseKind: kind, Verbs: r.Verbs("status", subresourceVerbs),
		})
	}
	if v.Scale {
		out.Subresources = append(out.Subresources, apidiscoveryv2.APISubresourceDiscovery{
			Subresource: "scale", ResponseKind: &metav1.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"},
			Verbs: r.Verbs("scale", subresourceVerbs),
		})
	}
	return out
}

// legacyGroup gives the legacy form of a group.
func legacyGroup(g customs.Group) metav1.APIGroup {
	out := metav1.APIGroup{Name: g.Name}
	for _, v := range g.Versions {
		out.Versions = append(out.Versions, metav1.GroupVersionForDiscovery{GroupVersion: g.Name + "/" + v, Version: v})
	}
	out.PreferredVersion = out.Versions[0]
	return out
}

// withCustoms adds the custom groups to the answers for /apis, which are in their aggregated and their legacy form.
func (g groups) withCustoms(custom []customs.Group) (aggregated, list body, err error) {
	if len(custom) == 0 {
		return g.aggregated, g.list, nil
	}
	served, legacy := g.served, g.legacy
	served.Items, legacy.Groups = slices.Clip(served.Items), slices.Clip(legacy.Groups)
	for _, group := range custom {
		served.Items = append(served.Items, customGroup(group))
		legacy.Groups = append(legacy.Groups, legacyGroup(group))
	}
	if aggregated, err = newBody(served); err != nil {
		return body{}, body{}, err
	}
	list, err = newBody(legacy)
	return aggregated, list, err
}

// customPath gives the legacy answer for a custom group, or a group and version.
func customPath(g customs.Group, version string) (body, bool, error) {
	if version == "" {
		group := legacyGroup(g)
		group.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
		out, err := newBody(group)
		return out, true, err
	}
	if !slices.Contains(g.Versions, version) {
		return body{}, false, nil
	}
	list := metav1.APIResourceList{
		TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: g.Name + "/" + version, APIResources: []metav1.APIResource{},
	}
	for _, v := range customGroup(g).Versions {
		if v.Version != version {
			continue
		}
		for i := range v.Resources {
			flat := flatten(g.Name, version, &v.Resources[i])
			flat[0].StorageVersionHash = storageHash(g, v.Resources[i].Resource)
			list.APIResources = append(list.APIResources, flat...)
		}
	}
	out, err := newBody(list)
	return out, true, err
}

// storageHash says by what version a kind's objects are stored, so that clients notice when it changes.
func storageHash(g customs.Group, resource string) string {
	for _, r := range g.Resources {
		if r.Names.Plural == resource {
			return discovery.StorageVersionHash(g.Name, r.Storage, r.Kind.Kind)
		}
	}
	return ""
}

// customHash names the OpenAPI v3 document of a custom group and version. It changes with every schema in it.
func customHash(g customs.Group, version string) string {
	return strings.ToUpper(tag([]byte(g.Digest()), []byte(version)))
}

// withCustoms adds the custom groups to the table of contents of OpenAPI v3.
func (x index) withCustoms(custom []customs.Group) (body, error) {
	if len(custom) == 0 {
		return x.body, nil
	}
	served := indexDocument{Paths: maps.Clone(x.served.Paths)}
	for _, g := range custom {
		for _, v := range g.Versions {
			path := "apis/" + g.Name + "/" + v
			served.Paths[path] = indexEntry{ServerRelativeURL: "/openapi/v3/" + path + "?hash=" + customHash(g, v)}
		}
	}
	return newBody(served)
}

// serveCustomV3 answers for the document of a custom group and version.
func (s *Server) serveCustomV3(w http.ResponseWriter, r *http.Request, world World, g customs.Group, version, hash string) error {
	key := documentKey{world.Tenant, g.Name, version}
	want := customHash(g, version)
	document, ok := s.customV3.get(key, want)
	exact := true
	if !ok {
		var crds []*apiextensionsv1.CustomResourceDefinition
		var err error
		if crds, exact, err = world.Schemas(r.Context(), g.Name); err != nil {
			return err
		}
		if document, err = customV3(crds, version); err != nil {
			return err
		}
		if exact {
			s.customV3.put(key, want, document)
		}
	}
	if exact && hash == want {
		s.keep(w)
	}
	return document.serve(w, r)
}

// customV2For gives the OpenAPI v2 document with the custom kinds of a tenant.
func (s *Server) customV2For(ctx context.Context, base *openAPI, world World) (*openAPI, error) {
	if len(world.groups()) == 0 {
		return base, nil
	}
	key := documentKey{tenant: world.Tenant}
	want := base.etag + world.Customs.Digest()
	if document, ok := s.customV2.get(key, want); ok {
		return document, nil
	}
	crds, exact, err := world.Schemas(ctx, "")
	if err != nil {
		return nil, err
	}
	document, err := customV2(base, crds)
	if err != nil {
		return nil, err
	}
	if exact {
		s.customV2.put(key, want, document)
	}
	return document, nil
}

// mergeObject adds members to a JSON object, save for those that it has.
func mergeObject(object json.RawMessage, more map[string]json.RawMessage) (json.RawMessage, error) {
	have := map[string]json.RawMessage{}
	if len(object) > 0 {
		if err := json.Unmarshal(object, &have); err != nil {
			return nil, fmt.Errorf("read OpenAPI: %w", err)
		}
	}
	for key, value := range more {
		if _, ok := have[key]; !ok {
			have[key] = value
		}
	}
	return json.Marshal(have)
}
