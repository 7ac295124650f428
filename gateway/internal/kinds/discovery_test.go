package kinds

import (
	"os"
	"slices"
	"strings"
	"testing"

	"k8s.io/client-go/discovery"

	"vivarium.io/vivarium/internal/kubetest"
)

// TestEveryKindIsDecided walks what a real kube-apiserver serves and fails on a kind, a version, a subresource or a verb of
// it that nobody has decided about, and on a decision about something that is not there. It does so for a stock API
// server and for one with every alpha and beta API turned on.
func TestEveryKindIsDecided(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a kube-apiserver")
	}
	for name, flags := range map[string][]string{
		"Stock": nil,
		"Gated": {"--runtime-config=api/all=true", "--feature-gates=AllAlpha=true,AllBeta=true"},
	} {
		t.Run(name, func(t *testing.T) { walk(t, name == "Gated", kubetest.WithAPIServerFlags(flags...)) })
	}
}

func walk(t *testing.T, gated bool, options ...kubetest.Option) {
	cluster := kubetest.ControlPlane(t, options...)
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
			if !ok || !k.Knows(subresource) || !slices.Contains(k.Versions, version) && !slices.Contains(k.LeftOut, version) {
				t.Errorf("%s: nobody decided about it", id)
				continue
			}
			if k.absent && !gated {
				t.Errorf("%s: a stock API server serves it and the table says that it does not", id)
			}
			seen[group+"/"+r.Name] = true
			seen[id] = true
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
		if k.absent && !gated || k.extended {
			continue
		}
		versions := k.Versions
		if gated {
			versions = append(slices.Clip(versions), k.LeftOut...)
		}
		for _, version := range versions {
			if id := strings.TrimPrefix(k.Group+"/"+version, "/") + " " + k.Resource; !seen[id] {
				t.Errorf("%s is in the table and not in the cluster", id)
			}
		}
		for _, subresources := range [][]string{keys(k.subresources), keys(k.reasons)} {
			for _, sub := range subresources {
				if !seen[k.Group+"/"+k.Resource+"/"+sub] {
					t.Errorf("%s/%s/%s is in the table and not in the cluster", k.Group, k.Resource, sub)
				}
			}
		}
	}
}

func keys[V any](m map[string]V) []string {
	var out []string
	for key := range m {
		out = append(out, key)
	}
	return out
}

// TestDocument fails when docs/kinds.md is not what the table says.
func TestDocument(t *testing.T) {
	raw, err := os.ReadFile("../../../docs/kinds.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(raw) != Document() {
		t.Error("docs/kinds.md does not say what the table says: run go generate")
	}
}
