package translate

import (
	"strings"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/internal/names"
)

// nodeLabelDomains are the domains whose labels a tenant needs to place pods.
var nodeLabelDomains = [...]string{"kubernetes.io/", "node.kubernetes.io/", "topology.kubernetes.io/", "beta.kubernetes.io/", "node-role.kubernetes.io/"}

// nodeToTenant reduces a virtual Node, or its NodeMetrics, to what a tenant may know: that it is there, what fits on it, how
// it is and how much of it is used. Any other Node is foreign.
func (r *response) nodeToTenant(node *jsonwire.Value) error {
	if err := r.nodeMetadataToTenant(node.Get("metadata")); err != nil {
		return err
	}
	keepMembers(node, "kind", "apiVersion", "metadata", "spec", "status", "timestamp", "window", "usage")
	keepMembers(node.Get("spec"), "taints", "unschedulable")
	status := node.Get("status")
	keepMembers(status, "capacity", "allocatable", "conditions", "nodeInfo", "phase")
	for _, c := range status.Get("conditions").Elems() {
		if m := c.Get("message"); m.Text() != "" {
			m.SetText(r.view.TextToTenant(m.Text()))
		}
	}
	return nil
}

func (r *response) nodeMetadataToTenant(meta *jsonwire.Value) error {
	if r.bookmark {
		// Of no Node. An annotation says that all there is has been sent.
		return nil
	}
	labels := meta.Get("labels")
	if labels.Get(names.LabelPool) == nil {
		return errForeignItem
	}
	r.owned = true
	keepMembers(meta, "name", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "labels")
	labels.Filter(func(m *jsonwire.Member) bool {
		if m.Key == "type" {
			return true
		}
		for _, domain := range nodeLabelDomains {
			if strings.HasPrefix(m.Key, domain) {
				return true
			}
		}
		return false
	})
	return nil
}

func keepMembers(v *jsonwire.Value, keys ...string) {
	v.Filter(func(m *jsonwire.Member) bool {
		for _, k := range keys {
			if m.Key == k {
				return true
			}
		}
		return false
	})
}
