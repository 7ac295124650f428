package ipam

import (
	"fmt"
	"net/netip"
	"testing"

	"vivarium.io/vivarium/network"
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// TestLayout compares with the plainest way to say which addresses pods can have.
func TestLayout(t *testing.T) {
	cases := map[string]struct {
		cidrs, reserved []string
		gateway         string
		want            string // the free indexes
	}{
		"Smallest":       {[]string{"10.0.0.0/28"}, nil, "10.0.0.1", "2-14"},
		"GatewayLast":    {[]string{"10.0.0.0/28"}, nil, "10.0.0.14", "1-13"},
		"Addresses":      {[]string{"10.0.0.16/28"}, []string{"10.0.0.18", "10.0.0.20"}, "10.0.0.17", "3,5-14"},
		"Ranges":         {[]string{"10.0.0.0/28"}, []string{"10.0.0.4-10.0.0.9", "10.0.0.8-10.0.0.10"}, "10.0.0.1", "2-3,11-14"},
		"Prefix":         {[]string{"10.0.0.0/28"}, []string{"10.0.0.8/29"}, "10.0.0.1", "2-7"},
		"WiderThanIt":    {[]string{"10.0.0.0/28"}, []string{"10.0.0.0/8"}, "10.0.0.1", ""},
		"ElsewhereIsNot": {[]string{"10.0.0.0/28"}, []string{"10.0.1.0/24", "fd00::5"}, "10.0.0.1", "2-14"},
		"Dual":           {[]string{"10.0.0.0/28", "fd00::/120"}, []string{"fd00::5", "fd00::20-fd00::30"}, "10.0.0.1", "2-4,6-14"},
		"SixHasNoLast":   {[]string{"fd00::/124"}, nil, "fd00::1", "2-15"},
		"RangeOverlaps":  {[]string{"10.0.0.16/28"}, []string{"10.0.0.1-10.0.0.20"}, "10.0.0.17", "5-14"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			subnet := &network.Subnet{CIDRs: prefixes(tc.cidrs...), Gateway: []netip.Addr{netip.MustParseAddr(tc.gateway)}}
			l, err := newLayout(subnet, tc.reserved)
			if err != nil {
				t.Fatal(err)
			}
			got, count, start := "", int64(0), -1
			for i := uint32(0); i <= l.size; i++ {
				if l.available(i) {
					count++
					if l.next(i) != i {
						t.Errorf("next(%d) = %d", i, l.next(i))
					}
					if start < 0 {
						start = int(i)
					}
					continue
				}
				if start >= 0 {
					if got != "" {
						got += ","
					}
					got += fmt.Sprint(start)
					if int(i)-1 > start {
						got += fmt.Sprintf("-%d", i-1)
					}
					start = -1
				}
			}
			if got != tc.want || l.total() != count {
				t.Errorf("free: %s (total %d), want %s (%d)", got, l.total(), tc.want, count)
			}
		})
	}
	for _, bad := range []string{"x", "10.0.0.9-10.0.0.1", "10.0.0.1-fd00::1", "10.0.0.0/33"} {
		if _, err := newLayout(&network.Subnet{CIDRs: prefixes("10.0.0.0/28")}, []string{bad}); err == nil {
			t.Errorf("%q is taken for a range", bad)
		}
	}
}
