package network

import (
	"math"
	"net/netip"
	"testing"
)

func TestIndexes(t *testing.T) {
	v4, v6 := netip.MustParsePrefix("10.1.2.0/24"), netip.MustParsePrefix("fd00:1:2:3::/64")
	high := netip.MustParsePrefix("fd00:1:2:3:ffff:ffff:ffff:ff00/120")
	cases := map[string]struct {
		cidrs []netip.Prefix
		size  uint32
		index uint32
		want  []string
	}{
		"Four":       {[]netip.Prefix{v4}, 256, 255, []string{"10.1.2.255"}},
		"Six":        {[]netip.Prefix{v6}, math.MaxUint32, 0xfffffffe, []string{"fd00:1:2:3::ffff:fffe"}},
		"SixHigh":    {[]netip.Prefix{high}, 256, 9, []string{"fd00:1:2:3:ffff:ffff:ffff:ff09"}},
		"Dual":       {[]netip.Prefix{v4, v6}, 256, 9, []string{"10.1.2.9", "fd00:1:2:3::9"}},
		"DualSwap":   {[]netip.Prefix{v6, v4}, 256, 17, []string{"fd00:1:2:3::11", "10.1.2.17"}},
		"Everything": {[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, 1 << 24, 1<<24 - 1, []string{"10.255.255.255"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := &Subnet{CIDRs: tc.cidrs}
			if got := s.Size(); got != tc.size {
				t.Errorf("Size = %d, want %d", got, tc.size)
			}
			got := s.At(tc.index)
			for i := range tc.want {
				if got[i].String() != tc.want[i] || !tc.cidrs[i].Contains(got[i]) {
					t.Errorf("At(%d) = %v, want %v", tc.index, got, tc.want)
				}
				if back, ok := s.IndexOf(got[i]); !ok || back != tc.index {
					t.Errorf("IndexOf(%s) = %d, %t", got[i], back, ok)
				}
			}
		})
	}
	dual := &Subnet{CIDRs: []netip.Prefix{v4, v6}}
	for _, outside := range []string{"10.1.3.0", "fd00:1:2:4::1", "fd00:1:2:3::100", "fd00:1:2:3:1::5"} {
		if index, ok := dual.IndexOf(netip.MustParseAddr(outside)); ok {
			t.Errorf("IndexOf(%s) = %d", outside, index)
		}
	}
	if got := MAC(0x01020304); got != "02:00:01:02:03:04" {
		t.Errorf("MAC = %s", got)
	}
}
