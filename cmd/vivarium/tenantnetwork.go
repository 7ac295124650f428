package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"vivarium.io/vivarium/api/v1alpha1"
)

// wholeSubnet is the subnet of a VPC for which no other was named.
const wholeSubnet = "default"

// networkFlags are the flags that give a new tenant a VPC.
type networkFlags struct {
	vpc     string
	cidrs   []string
	subnets []string
	egress  string
	mtu     int32
}

func (f *networkFlags) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&f.vpc, "vpc", "", "Name of a VPC that exists, for the tenant's pods. (default: the pools' own networks)")
	flags.StringSliceVar(&f.cidrs, "vpc-cidr", nil, "Prefix of a VPC that is made with the tenant, as in 10.0.0.0/16; up to four.")
	flags.StringArrayVar(&f.subnets, "subnet", nil, "NAME=CIDR[,CIDR][@POOL[,POOL]]: subnet of that VPC; repeat for more. (default: one called "+wholeSubnet+", of the first prefix of each family)")
	flags.StringVar(&f.egress, "egress", "", "SharedNAT or None: how pods reach what is outside of that VPC. (default SharedNAT)")
	flags.Int32Var(&f.mtu, "mtu", 0, "Largest packet in that VPC. (default: the network driver's)")
}

// network is what the flags ask for. What they say of addresses is for the admin API to judge.
func (f *networkFlags) network() (v1alpha1.TenantNetwork, error) {
	if len(f.cidrs) == 0 {
		for flag, set := range map[string]bool{"--subnet": len(f.subnets) > 0, "--egress": f.egress != "", "--mtu": f.mtu != 0} {
			if set {
				return v1alpha1.TenantNetwork{}, usageError{fmt.Errorf("%s: is for a VPC that is made with the tenant, which --vpc-cidr asks for", flag)}
			}
		}
		if f.vpc == "" {
			return v1alpha1.TenantNetwork{}, nil
		}
		return v1alpha1.TenantNetwork{Mode: v1alpha1.NetworkVPC, VPC: f.vpc}, nil
	}
	if f.vpc != "" {
		return v1alpha1.TenantNetwork{}, usageError{fmt.Errorf("--vpc: excludes --vpc-cidr, for a tenant has one VPC")}
	}
	template := &v1alpha1.VPCTemplate{CIDRs: f.cidrs, MTU: f.mtu, Egress: v1alpha1.EgressMode(f.egress)}
	for _, text := range f.subnets {
		subnet, err := parseSubnet(text)
		if err != nil {
			return v1alpha1.TenantNetwork{}, err
		}
		template.Subnets = append(template.Subnets, subnet)
	}
	if len(template.Subnets) == 0 {
		template.Subnets = []v1alpha1.SubnetTemplate{{Name: wholeSubnet, CIDRs: firstOfEach(f.cidrs)}}
	}
	return v1alpha1.TenantNetwork{Mode: v1alpha1.NetworkVPC, Template: template}, nil
}

func parseSubnet(text string) (v1alpha1.SubnetTemplate, error) {
	name, rest, ok := strings.Cut(text, "=")
	cidrs, pools, placed := strings.Cut(rest, "@")
	if !ok || name == "" || cidrs == "" || placed && pools == "" {
		return v1alpha1.SubnetTemplate{}, usageError{fmt.Errorf("--subnet: %q is not NAME=CIDR[,CIDR][@POOL[,POOL]]", text)}
	}
	subnet := v1alpha1.SubnetTemplate{Name: name, CIDRs: strings.Split(cidrs, ",")}
	if placed {
		subnet.Pools = strings.Split(pools, ",")
	}
	return subnet, nil
}

// firstOfEach gives the first prefix of each family.
func firstOfEach(cidrs []string) []string {
	var out []string
	seen := map[bool]bool{}
	for _, cidr := range cidrs {
		if six := strings.Contains(cidr, ":"); !seen[six] {
			seen[six] = true
			out = append(out, cidr)
		}
	}
	return out
}
