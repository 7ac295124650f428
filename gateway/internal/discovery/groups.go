package discovery

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/gateway/internal/kinds"
)

// body is one answer.
type body struct {
	json []byte
	etag string
}

func newBody(value any) (body, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return body{}, fmt.Errorf("write discovery: %w", err)
	}
	return body{json: raw, etag: tag(raw)}, nil
}

func tag(raw ...[]byte) string {
	hash := sha256.New()
	for _, part := range raw {
		hash.Write(part)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// groups are the answers made of one aggregated document, of /api or of /apis.
type groups struct {
	// aggregated is the document itself; list is the legacy answer of the same path.
	aggregated, list body
	// byGroup and byVersion are legacy answers, by group and by "group/version" (or "v1").
	byGroup, byVersion map[string]body
	// served and legacy are what aggregated and list were written of.
	served apidiscoveryv2.APIGroupDiscoveryList
	legacy metav1.APIGroupList
}

// newGroups cuts an aggregated discovery document down to what is served. core tells /api from /apis; server is the
// address that clients reach this API by.
func newGroups(raw []byte, table *kinds.Table, core bool, server string) (groups, error) {
	var document apidiscoveryv2.APIGroupDiscoveryList
	if err := json.Unmarshal(raw, &document); err != nil {
		return groups{}, fmt.Errorf("read discovery: %w", err)
	}
	out := groups{byGroup: map[string]body{}, byVersion: map[string]body{}}
	served := apidiscoveryv2.APIGroupDiscoveryList{TypeMeta: document.TypeMeta, Items: []apidiscoveryv2.APIGroupDiscovery{}}
	legacy := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{}}
	for _, item := range document.Items {
		group, err := out.add(&item, table)
		if err != nil {
			return groups{}, err
		}
		if len(group.Versions) == 0 {
			continue
		}
		served.Items = append(served.Items, item)
		inList := *group
		inList.TypeMeta = metav1.TypeMeta{}
		legacy.Groups = append(legacy.Groups, inList)
		if out.byGroup[item.Name], err = newBody(group); err != nil {
			return groups{}, err
		}
	}
	var err error
	if out.aggregated, err = newBody(served); err != nil {
		return groups{}, err
	}
	if !core {
		out.served, out.legacy = served, legacy
		out.list, err = newBody(legacy)
		return out, err
	}
	versions := metav1.APIVersions{
		TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"},
		ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{{ClientCIDR: "0.0.0.0/0", ServerAddress: server}},
	}
	out.list, err = newBody(versions)
	return out, err
}

// add cuts one group down, in place, and gives its legacy form.
func (g *groups) add(item *apidiscoveryv2.APIGroupDiscovery, table *kinds.Table) (*metav1.APIGroup, error) {
	legacy := &metav1.APIGroup{TypeMeta: metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}, Name: item.Name}
	var versions []apidiscoveryv2.APIVersionDiscovery
	for _, version := range item.Versions {
		if !table.ServesVersion(item.Name, version.Version) {
			continue
		}
		groupVersion := version.Version
		if item.Name != "" {
			groupVersion = item.Name + "/" + version.Version
		}
		resources := metav1.APIResourceList{
			TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: groupVersion, APIResources: []metav1.APIResource{},
		}
		var kept []apidiscoveryv2.APIResourceDiscovery
		for _, resource := range version.Resources {
			kind, ok := table.Lookup(item.Name, resource.Resource)
			if !ok || !kind.Serves("") {
				continue
			}
			cut(&resource, kind)
			kept = append(kept, resource)
			resources.APIResources = append(resources.APIResources, flatten(item.Name, version.Version, &resource)...)
		}
		version.Resources = kept
		versions = append(versions, version)
		legacy.Versions = append(legacy.Versions, metav1.GroupVersionForDiscovery{GroupVersion: groupVersion, Version: version.Version})
		var err error
		if g.byVersion[groupVersion], err = newBody(resources); err != nil {
			return nil, err
		}
	}
	item.Versions = versions
	if len(legacy.Versions) > 0 {
		legacy.PreferredVersion = legacy.Versions[0]
	}
	// An object's metadata tells when the control cluster learnt of the group: nobody's business.
	item.ObjectMeta = metav1.ObjectMeta{Name: item.Name}
	return legacy, nil
}

// cut leaves the verbs and the subresources that are served.
func cut(resource *apidiscoveryv2.APIResourceDiscovery, kind *kinds.Kind) {
	resource.Verbs = kind.Verbs("", resource.Verbs)
	var kept []apidiscoveryv2.APISubresourceDiscovery
	for _, sub := range resource.Subresources {
		if sub.Verbs = kind.Verbs(sub.Subresource, sub.Verbs); len(sub.Verbs) > 0 {
			kept = append(kept, sub)
		}
	}
	resource.Subresources = kept
}

// flatten gives the legacy form of a resource and its subresources.
func flatten(group, version string, resource *apidiscoveryv2.APIResourceDiscovery) []metav1.APIResource {
	namespaced := resource.Scope == apidiscoveryv2.ScopeNamespace
	one := func(name string, verbs []string, kind *metav1.GroupVersionKind) metav1.APIResource {
		out := metav1.APIResource{Name: name, Namespaced: namespaced, Verbs: verbs}
		if kind != nil {
			out.Kind = kind.Kind
			// Legacy clients take a missing group and version for those of the list.
			if kind.Group != group || kind.Version != version {
				out.Group, out.Version = kind.Group, kind.Version
			}
		}
		return out
	}
	first := one(resource.Resource, resource.Verbs, resource.ResponseKind)
	first.SingularName, first.ShortNames, first.Categories = resource.SingularResource, resource.ShortNames, resource.Categories
	out := []metav1.APIResource{first}
	for _, sub := range resource.Subresources {
		out = append(out, one(resource.Resource+"/"+sub.Subresource, sub.Verbs, sub.ResponseKind))
	}
	return out
}
