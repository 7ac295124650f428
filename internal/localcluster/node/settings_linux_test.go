package node

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

func TestNoted(t *testing.T) {
	cases := map[string]struct {
		reason, alias string
		want          map[string]int
	}{
		"Nothing": {"no setting was changed", "", map[string]int{}},
		"Ours":    {"both are to be given back", "vivarium before: a/b=0 c=128", map[string]int{"a/b": 0, "c": 128}},
		"Foreign": {"somebody else named the link", "uplink to=1", map[string]int{}},
		"Torn":    {"what is no number is left out", "vivarium before: a=x b=2 c", map[string]int{"b": 2}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Alias: tc.alias}}
			if diff := cmp.Diff(tc.want, noted(link)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}
