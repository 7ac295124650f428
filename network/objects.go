package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/internal/ranges"
)

// VPCOf gives the values of a VPC object. api is where the pool's nodes find the gateway.
func VPCOf(o *v1alpha1.VPC, api netip.AddrPort) (*VPC, error) {
	tenant, err := names.ParseTenantID(o.Spec.Tenant)
	if err != nil {
		return nil, fmt.Errorf("%w: VPC %s: %w", ErrInvalid, o.Name, err)
	}
	v := &VPC{Name: o.Name, UID: o.UID, Tenant: tenant, MTU: int(o.Spec.MTU), Egress: EgressSharedNAT, API: api, ProviderID: o.Spec.ProviderID}
	if o.Spec.Egress != "" {
		v.Egress = Egress(o.Spec.Egress)
	}
	if v.CIDRs, err = ranges.ParsePrefixes(o.Spec.CIDRs); err != nil {
		return nil, fmt.Errorf("%w: VPC %s: %w", ErrInvalid, o.Name, err)
	}
	for _, group := range o.Spec.SecurityGroups {
		g := SecurityGroup{Name: group.Name, ProviderID: group.ProviderID}
		if g.Ingress, err = rulesOf(group.Ingress); err == nil {
			g.Egress, err = rulesOf(group.Egress)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: VPC %s, security group %s: %w", ErrInvalid, o.Name, group.Name, err)
		}
		v.SecurityGroups = append(v.SecurityGroups, g)
	}
	return v, nil
}

// SubnetOf gives the values of a Subnet object that is in the VPC with that UID.
func SubnetOf(o *v1alpha1.Subnet, vpc types.UID) (*Subnet, error) {
	s := &Subnet{Name: o.Name, UID: o.UID, VPC: vpc, VNI: o.Status.VNI, ProviderID: o.Spec.ProviderID}
	var err error
	if s.CIDRs, err = ranges.ParsePrefixes(o.Spec.CIDRs); err != nil {
		return nil, fmt.Errorf("%w: subnet %s: %w", ErrInvalid, o.Name, err)
	}
	for _, text := range o.Spec.Gateway {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("%w: subnet %s: %w", ErrInvalid, o.Name, err)
		}
		s.Gateway = append(s.Gateway, ip)
	}
	for _, text := range o.Spec.Reserved {
		r, err := ranges.ParseRange(text)
		if err != nil {
			return nil, fmt.Errorf("%w: subnet %s: reserved %q %w", ErrInvalid, o.Name, text, err)
		}
		s.Reserved = append(s.Reserved, r)
	}
	for i := len(s.Gateway); i < len(s.CIDRs); i++ {
		s.Gateway = append(s.Gateway, s.CIDRs[i].Addr().Next())
	}
	return s, nil
}

func rulesOf(list []v1alpha1.SecurityRule) ([]SecurityRule, error) {
	var out []SecurityRule
	for _, rule := range list {
		r := SecurityRule{Protocol: string(rule.Protocol), Groups: slices.Clone(rule.Groups)}
		var err error
		if r.CIDRs, err = ranges.ParsePrefixes(rule.CIDRs); err != nil {
			return nil, err
		}
		for _, text := range rule.Ports {
			from, to, isRange := strings.Cut(text, "-")
			if !isRange {
				to = from
			}
			first, err := strconv.ParseUint(from, 10, 16)
			if err != nil {
				return nil, err
			}
			last, err := strconv.ParseUint(to, 10, 16)
			if err != nil {
				return nil, err
			}
			r.Ports = append(r.Ports, PortRange{uint16(first), uint16(last)})
		}
		out = append(out, r)
	}
	return out, nil
}

// Selection is what a tenant asks of the network for a pod, with the four keys that are its own to set.
type Selection struct {
	// Subnets are labels of the tenant's subnets, the most wanted first; none is the tenant's default.
	Subnets []string
	// IPs are the addresses that the pod must have, at most one of a family.
	IPs []netip.Addr
	// SecurityGroups are names of groups, in order.
	SecurityGroups []string
	// Bandwidth bounds the pod's traffic.
	Bandwidth netkeys.Rates
}

// SelectionOf reads the keys of a pod, and those of its namespace for what the pod does not say. An address is one pod's
// and never a namespace's. Its errors are [ErrInvalid] and in the tenant's words.
func SelectionOf(pod, namespace map[string]string) (Selection, error) {
	var s Selection
	for key, read := range map[string]func(string) error{
		netkeys.Subnets:        func(value string) (err error) { s.Subnets, err = netkeys.ParseSubnets(value); return err },
		netkeys.SecurityGroups: func(value string) (err error) { s.SecurityGroups, err = netkeys.ParseSecurityGroups(value); return err },
		netkeys.IP:             func(value string) (err error) { s.IPs, err = netkeys.ParseIPs(value); return err },
		netkeys.Bandwidth:      func(value string) (err error) { s.Bandwidth, err = netkeys.ParseBandwidth(value); return err },
	} {
		value, ok := pod[key]
		if !ok && key != netkeys.IP {
			value, ok = namespace[key]
		}
		if !ok {
			continue
		}
		if err := read(value); err != nil {
			return Selection{}, fmt.Errorf("%w: annotation %s %w", ErrInvalid, key, err)
		}
	}
	slices.Sort(s.SecurityGroups)
	return s, nil
}
