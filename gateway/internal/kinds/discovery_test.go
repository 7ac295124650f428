package kinds

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/client-go/discovery"

	"vivarium.io/vivarium/internal/kubetest"
)

// TestEveryKindIsDecided walks what a real kube-apiserver serves and fails on a kind, a subresource or a verb of it that
// nobody has decided about, and on a decision about something that is not there.
func TestEveryKindIsDecided(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a kube-apiserver")
	}
	cluster := kubetest.ControlPlane(t)
	client, err := discovery.NewDiscoveryClientForConfig(cluster.Config)
	if err != nil {
		t.Fatal(err)
	}
	_, lists, err := client.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	table := NewTable()
	seen := map[string]bool{}
	for _, list := range lists {
		group, version, ok := strings.Cut(list.GroupVersion, "/")
		if !ok {
			group, version = "", list.GroupVersion
		}
		for _, r := range list.APIResources {
			resource, subresource, _ := strings.Cut(r.Name, "/")
			id := list.GroupVersion + " " + r.Name
			k, ok := table.Lookup(group, resource)
			if !ok || !k.Knows(subresource) || !slices.Contains(k.Versions, version) {
				t.Errorf("%s: nobody decided about it", id)
				continue
			}
			seen[group+"/"+r.Name] = true
			if k.Namespaced != r.Namespaced {
				t.Errorf("%s: namespaced is %v in the table", id, k.Namespaced)
			}
			if subresource == "" && k.Kind != r.Kind {
				t.Errorf("%s: kind is %s in the table, %s in the cluster", id, k.Kind, r.Kind)
			}
			served := k.verbs
			if subresource != "" {
				served = k.subresources[subresource]
			}
			for _, verb := range served {
				if !slices.Contains(r.Verbs, verb) {
					t.Errorf("%s: the cluster has no verb %s", id, verb)
				}
			}
		}
	}
	for _, k := range stock() {
		if !seen[k.Group+"/"+k.Resource] {
			t.Errorf("%s/%s is in the table and not in the cluster", k.Group, k.Resource)
		}
		for sub := range k.subresources {
			if !seen[k.Group+"/"+k.Resource+"/"+sub] {
				t.Errorf("%s/%s/%s is in the table and not in the cluster", k.Group, k.Resource, sub)
			}
		}
	}
}
