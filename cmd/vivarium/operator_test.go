package main

import (
	"strings"
	"testing"

	"vivarium.io/vivarium/api/v1alpha1"
)

// TestPoolManifests: a driver that is built on another brings that one's files along, and nothing comes twice.
func TestPoolManifests(t *testing.T) {
	for name, tc := range map[string]struct {
		drivers []string
		wants   map[string]int
	}{
		"Flat":   {[]string{v1alpha1.DriverFlat}, map[string]int{"name: vivarium-reach\n": 2, "name: vivarium-network\n": 0, "name: vivarium-multus\n": 0}},
		"VXLAN":  {[]string{v1alpha1.DriverVXLAN}, map[string]int{"name: vivarium-network\n": 1, "name: vivarium-multus\n": 0}},
		"Multus": {[]string{v1alpha1.DriverMultus}, map[string]int{"name: vivarium-network\n": 1, "name: vivarium-multus\n": 2}},
		"All":    {v1alpha1.Drivers(), map[string]int{"name: vivarium-network\n": 1, "name: vivarium-multus\n": 2, "name: vivarium-ovn-udn\n": 2}},
		// What the pool's administrator edits and applies is not registered.
		"NoDaemons": {v1alpha1.Drivers(), map[string]int{"kind: DaemonSet": 0, "kind: NetworkAttachmentDefinition": 0}},
	} {
		manifests, err := poolManifests(tc.drivers...)
		if err != nil {
			t.Fatal(err)
		}
		for text, want := range tc.wants {
			if got := strings.Count(string(manifests.YAML()), text); got != want {
				t.Errorf("%s: %q comes %d times, want %d", name, text, got, want)
			}
		}
	}
}
