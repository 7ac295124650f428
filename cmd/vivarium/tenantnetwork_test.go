package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"vivarium.io/vivarium/api/v1alpha1"
)

func TestNetworkFlags(t *testing.T) {
	type network = v1alpha1.TenantNetwork
	template := func(x v1alpha1.VPCTemplate) network { return network{Mode: v1alpha1.NetworkVPC, Template: &x} }
	cases := map[string]struct {
		args string
		want network
		err  string
	}{
		"Nothing": {"", network{}, ""},
		"VPC":     {"--vpc demo01-net", network{Mode: v1alpha1.NetworkVPC, VPC: "demo01-net"}, ""},
		"CIDR":    {"--vpc-cidr 10.0.0.0/16", template(v1alpha1.VPCTemplate{CIDRs: []string{"10.0.0.0/16"}, Subnets: []v1alpha1.SubnetTemplate{{Name: "default", CIDRs: []string{"10.0.0.0/16"}}}}), ""},
		"Two": {"--vpc-cidr 10.0.0.0/16,10.1.0.0/16 --vpc-cidr fd00::/48 --egress None --mtu 1400", template(v1alpha1.VPCTemplate{
			CIDRs: []string{"10.0.0.0/16", "10.1.0.0/16", "fd00::/48"}, Egress: "None", MTU: 1400, Subnets: []v1alpha1.SubnetTemplate{{Name: "default", CIDRs: []string{"10.0.0.0/16", "fd00::/48"}}}}), ""},
		"Subnets": {"--vpc-cidr 10.0.0.0/16 --subnet a=10.0.1.0/24,fd00::/64@east,west --subnet b=10.0.2.0/24", template(v1alpha1.VPCTemplate{
			CIDRs: []string{"10.0.0.0/16"}, Subnets: []v1alpha1.SubnetTemplate{
				{Name: "a", CIDRs: []string{"10.0.1.0/24", "fd00::/64"}, Pools: []string{"east", "west"}}, {Name: "b", CIDRs: []string{"10.0.2.0/24"}},
			}}), ""},
		"Both":      {"--vpc x --vpc-cidr 10.0.0.0/16", network{}, "--vpc: excludes --vpc-cidr"},
		"NoVPC":     {"--subnet a=10.0.1.0/24", network{}, "--subnet: is for a VPC that is made with the tenant"},
		"NoName":    {"--vpc-cidr 10.0.0.0/16 --subnet 10.0.1.0/24", network{}, "is not NAME=CIDR"},
		"EmptyPool": {"--vpc-cidr 10.0.0.0/16 --subnet a=10.0.1.0/24@", network{}, "is not NAME=CIDR"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var f networkFlags
			flags := pflag.NewFlagSet("", pflag.ContinueOnError)
			f.addFlags(flags)
			if err := flags.Parse(strings.Fields(tc.args)); err != nil {
				t.Fatal(err)
			}
			got, err := f.network()
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("got %v, want %s", err, tc.err)
				}
				return
			}
			if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
}
