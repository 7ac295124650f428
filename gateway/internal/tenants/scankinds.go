package tenants

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"vivarium.io/vivarium/internal/names"
)

// discovery tells what kinds the control cluster serves, always afresh: the documents are fetched again only when they
// have changed.
type discovery struct {
	client *http.Client
	base   *url.URL

	// mu guards the documents last seen.
	mu   sync.Mutex
	seen map[string]document
}

type document struct {
	etag   string
	groups apidiscoveryv2.APIGroupDiscoveryList
}

// clusterKind is a cluster-scoped kind that can be listed.
type clusterKind struct {
	resource schema.GroupVersionResource
	kind     string
}

// measurements is the group of what pods and nodes use.
const measurements = "metrics.k8s.io"

// clusterScoped gives the names of all API groups, and the cluster-scoped kinds that can be listed, each in its preferred
// version. It fails when a part of the API is out of reach, because nobody can then say what is in it.
func (d *discovery) clusterScoped(ctx context.Context) (groups []string, kinds []clusterKind, err error) {
	for _, path := range []string{"/api", "/apis"} {
		list, err := d.fetch(ctx, path)
		if err != nil {
			return nil, nil, fmt.Errorf("discover %s of the control cluster: %w", path, err)
		}
		for _, group := range list.Items {
			groups = append(groups, group.Name)
			if _, _, ok := names.SplitGroup(group.Name); ok {
				// The objects in it are of the tenant whose group it is, and no other tenant can have any: what looks like a
				// tenant's group is never shared. The gateway has no right to list them.
				continue
			}
			if group.Name == measurements {
				// It is derived from nodes and pods, and while whoever measures is away tenants must still come and go.
				continue
			}
			found, err := clusterKinds(group)
			if err != nil {
				return nil, nil, fmt.Errorf("discover API group %q of the control cluster: %w", group.Name, err)
			}
			kinds = append(kinds, found...)
		}
	}
	return groups, kinds, nil
}

func clusterKinds(group apidiscoveryv2.APIGroupDiscovery) ([]clusterKind, error) {
	var kinds []clusterKind
	seen := map[string]bool{}
	for _, version := range group.Versions {
		if version.Freshness == apidiscoveryv2.DiscoveryFreshnessStale {
			return nil, fmt.Errorf("version %s: %w", version.Version, errStale)
		}
		for _, resource := range version.Resources {
			if seen[resource.Resource] || resource.Scope != apidiscoveryv2.ScopeCluster || !slices.Contains(resource.Verbs, "list") {
				continue
			}
			seen[resource.Resource] = true
			if group.Name == "" && resource.Resource == "componentstatuses" {
				// Not objects but probes, with names that nobody chooses.
				continue
			}
			kind := resource.SingularResource
			if resource.ResponseKind != nil && resource.ResponseKind.Kind != "" {
				kind = resource.ResponseKind.Kind
			}
			kinds = append(kinds, clusterKind{
				resource: schema.GroupVersionResource{Group: group.Name, Version: version.Version, Resource: resource.Resource},
				kind:     kind,
			})
		}
	}
	return kinds, nil
}

// The media type of the aggregated discovery document; every supported minor serves it.
const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

func (d *discovery) fetch(ctx context.Context, path string) (apidiscoveryv2.APIGroupDiscoveryList, error) {
	d.mu.Lock()
	known := d.seen[path]
	d.mu.Unlock()

	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base.JoinPath(path).String(), http.NoBody)
	if err != nil {
		return apidiscoveryv2.APIGroupDiscoveryList{}, err
	}
	request.Header.Set("Accept", aggregated)
	if known.etag != "" {
		request.Header.Set("If-None-Match", known.etag)
	}
	response, err := d.client.Do(request)
	if err != nil {
		return apidiscoveryv2.APIGroupDiscoveryList{}, err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusNotModified:
		return known.groups, nil
	case http.StatusOK:
	default:
		return apidiscoveryv2.APIGroupDiscoveryList{}, errors.New(response.Status)
	}
	fresh := document{etag: response.Header.Get("Etag")}
	if err := json.NewDecoder(io.LimitReader(response.Body, 64<<20)).Decode(&fresh.groups); err != nil {
		return apidiscoveryv2.APIGroupDiscoveryList{}, err
	}
	if fresh.groups.Kind != "APIGroupDiscoveryList" {
		return apidiscoveryv2.APIGroupDiscoveryList{}, fmt.Errorf("got %q, which is no aggregated discovery; Kubernetes 1.30 is the oldest that can be served", fresh.groups.Kind)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seen == nil {
		d.seen = map[string]document{}
	}
	d.seen[path] = fresh
	return fresh.groups, nil
}
