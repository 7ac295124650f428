package kubeovn

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/internal/custom"
)

// Addresses inside every VPC that are the platform's: no VPC may have them (198.18.0.0/15 is reserved for that).
var (
	// transit4 and transit6 are where the gateway to the outside has its inner address.
	transit4 = netip.MustParsePrefix("198.19.254.0/24")
	transit6 = netip.MustParsePrefix("fd00:76:6976:1::/120")
	// apiRange4 and apiRange6 are the tenant's API.
	apiRange4 = netip.PrefixFrom(netip.MustParseAddr(network.APIAddress), 32)
	apiRange6 = netip.PrefixFrom(netip.MustParseAddr(network.APIAddress6), 128)
)

func vpcName(vpc *network.VPC) string     { return custom.Name(vpc.Name, string(vpc.UID)) }
func subnetName(s *network.Subnet) string { return custom.Name(s.Name, string(s.UID)) }
func wayOutName(vpc *network.VPC) string  { return custom.Name(vpc.Name+"-out", string(vpc.UID), "out") }
func groupName(vpc *network.VPC, group string) string {
	return custom.Name(vpc.Name+"-"+group, string(vpc.UID), "group", group)
}

func ofVPC(vpc *network.VPC, k custom.Kind, name string, spec map[string]any, fixed ...string) custom.Object {
	return custom.Object{Kind: k, Name: name, UID: vpc.UID, VPC: vpc.UID, Tenant: string(vpc.Tenant), Spec: spec, Fixed: fixed}
}

// router is the Vpc itself. Kube-OVN's gateway reroutes whatever comes from the VPC's addresses (at priority 29100), so what
// stays inside is let through before that, and what a VPC without egress may not send is dropped.
func router(vpc *network.VPC) custom.Object {
	routes := []any{}
	route := func(priority int64, action, match string) {
		routes = append(routes, map[string]any{"priority": priority, "action": action, "match": match})
	}
	for _, family := range families(vpc.CIDRs) {
		inside := strings.Join(family.of(vpc.CIDRs), ", ")
		route(29900, "allow", fmt.Sprintf("%s.dst == {%s, %s}", family.ovn, inside, family.transit))
		if vpc.Egress != network.EgressNone {
			continue
		}
		outside := fmt.Sprintf("%s.src == {%s}", family.ovn, inside)
		if vpc.API.IsValid() && family.has(vpc.API.Addr()) {
			outside += fmt.Sprintf(" && %s.dst != %s", family.ovn, vpc.API.Addr())
		}
		route(29800, "drop", outside)
	}
	return ofVPC(vpc, vpcs, vpcName(vpc), map[string]any{"policyRoutes": routes})
}

// subnet is a tenant's Subnet. No namespace is listed: pods name it, and nobody joins it by where it is.
func subnet(vpc *network.VPC, s *network.Subnet) custom.Object {
	spec := subnetSpec(vpc, s.CIDRs, s.Gateway)
	return custom.Object{Kind: subnets, Name: subnetName(s), UID: s.UID, VPC: vpc.UID, Tenant: string(vpc.Tenant), Spec: spec, Fixed: []string{"vpc", "cidrBlock", "protocol"}}
}

func subnetSpec(vpc *network.VPC, cidrs []netip.Prefix, gateways []netip.Addr) map[string]any {
	// Kube-OVN wants IPv4 before IPv6, and its own order of what is excluded.
	cidrs, gateways = slices.Clone(cidrs), slices.Clone(gateways)
	slices.SortFunc(cidrs, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	slices.SortFunc(gateways, netip.Addr.Compare)
	excluded := words(gateways)
	slices.Sort(excluded)
	protocol := "Dual"
	if len(cidrs) == 1 {
		protocol = "IPv4"
		if cidrs[0].Addr().Is6() {
			protocol = "IPv6"
		}
	}
	spec := map[string]any{
		"vpc": vpcName(vpc), "protocol": protocol,
		"cidrBlock": strings.Join(words(cidrs), ","), "gateway": strings.Join(words(gateways), ","),
		"excludeIps": anys(excluded),
		// All of a VPC is one tenant's: its subnets reach each other, and what is between pods is for security groups. NAT of
		// a Subnet is for the default VPC only; enableLb is how the tenant's API gets its address.
		"private": false, "natOutgoing": false, "enableLb": true,
	}
	if vpc.MTU > 0 {
		spec["mtu"] = int64(vpc.MTU)
	}
	return spec
}

// hasWayOut reports whether pods of the VPC reach anything outside of it.
func hasWayOut(vpc *network.VPC) bool { return vpc.Egress != network.EgressNone || vpc.API.IsValid() }

// transit is the Subnet of the VPC's gateway, which no pod of a tenant is in.
func transit(vpc *network.VPC) []custom.Object {
	if !hasWayOut(vpc) {
		return nil
	}
	var cidrs []netip.Prefix
	var gateways []netip.Addr
	for _, family := range families(vpc.CIDRs) {
		cidrs, gateways = append(cidrs, family.transit), append(gateways, family.transit.Addr().Next())
	}
	return []custom.Object{ofVPC(vpc, subnets, wayOutName(vpc), subnetSpec(vpc, cidrs, gateways), "vpc", "cidrBlock", "protocol")}
}

// wayOut is the gateway that gives the VPC's pods an address of the external Subnet, and the address of the tenant's API.
func wayOut(vpc *network.VPC, external string) []custom.Object {
	if !hasWayOut(vpc) {
		return nil
	}
	gateway := ofVPC(vpc, gateways, wayOutName(vpc), map[string]any{
		"vpc": vpcName(vpc), "replicas": int64(1), "internalSubnet": wayOutName(vpc), "externalSubnet": external,
		"policies": []any{map[string]any{"snat": true, "ipBlocks": anys(words(vpc.CIDRs))}},
	})
	objects := []custom.Object{gateway}
	for _, family := range families(vpc.CIDRs) {
		if !vpc.API.IsValid() || !family.has(vpc.API.Addr()) {
			continue
		}
		rule := ofVPC(vpc, balancers, wayOutName(vpc), map[string]any{
			"vip": family.api, "namespace": namespace, "endpoints": anys([]string{vpc.API.Addr().String()}),
			"ports": []any{map[string]any{"name": "https", "protocol": "TCP", "port": int64(network.APIPort), "targetPort": int64(vpc.API.Port())}},
		})
		// By its endpoints alone the rule would be the default VPC's. A health check would need an address of a tenant's subnet.
		rule.Annotations = map[string]string{"ovn.kubernetes.io/logical_router": vpcName(vpc), "ovn.kubernetes.io/service_health_check": "false"}
		objects = append(objects, rule)
	}
	return objects
}

func securityGroups(vpc *network.VPC) []custom.Object {
	var objects []custom.Object
	for _, group := range vpc.SecurityGroups {
		objects = append(objects, ofVPC(vpc, groups, groupName(vpc, group.Name), map[string]any{
			"ingressRules": rules(vpc, group.Ingress), "egressRules": rules(vpc, group.Egress),
			// Being in one group allows nothing by itself.
			"allowSameGroupTraffic": false,
		}))
	}
	return objects
}

// rules spells rules as Kube-OVN wants them: one for each family, other end and range of ports. All allow, so their
// priority does not matter; what no rule allows, Kube-OVN drops for every port that is in a group.
func rules(vpc *network.VPC, in []network.SecurityRule) []any {
	out := []any{}
	for _, rule := range in {
		protocols := []string{strings.ToLower(rule.Protocol)}
		if rule.Protocol == "" {
			protocols = []string{"all"}
			if len(rule.Ports) > 0 {
				protocols = []string{"tcp", "udp"}
			}
		}
		for _, family := range families(vpc.CIDRs) {
			for _, remote := range remotes(vpc, rule, family) {
				for _, protocol := range protocols {
					for _, ports := range portsOf(protocol, rule.Ports) {
						one := map[string]any{"ipVersion": family.rule, "protocol": protocol, "priority": int64(1), "policy": "allow"}
						for _, fields := range []map[string]any{remote, ports} {
							for key, value := range fields {
								one[key] = value
							}
						}
						out = append(out, one)
					}
				}
			}
		}
	}
	return out
}

func remotes(vpc *network.VPC, rule network.SecurityRule, f family) []map[string]any {
	var all []map[string]any
	address := func(cidr string) { all = append(all, map[string]any{"remoteType": "address", "remoteAddress": cidr}) }
	if len(rule.CIDRs)+len(rule.Groups) == 0 {
		address(f.all)
	}
	for _, cidr := range f.of(rule.CIDRs) {
		address(cidr)
	}
	for _, group := range rule.Groups {
		all = append(all, map[string]any{"remoteType": "securityGroup", "remoteSecurityGroup": groupName(vpc, group)})
	}
	return all
}

func portsOf(protocol string, ports []network.PortRange) []map[string]any {
	if protocol != "tcp" && protocol != "udp" {
		return []map[string]any{nil}
	}
	if len(ports) == 0 {
		ports = []network.PortRange{{First: 1, Last: 65535}}
	}
	var all []map[string]any
	for _, r := range ports {
		all = append(all, map[string]any{"portRangeMin": int64(max(r.First, 1)), "portRangeMax": int64(r.Last)})
	}
	return all
}

// family is IPv4 or IPv6 in the words of OVN and of Kube-OVN.
type family struct {
	ovn, rule, all, api string
	transit             netip.Prefix
	has                 func(netip.Addr) bool
}

var (
	ipv4 = family{"ip4", "ipv4", "0.0.0.0/0", network.APIAddress, transit4, netip.Addr.Is4}
	ipv6 = family{"ip6", "ipv6", "::/0", network.APIAddress6, transit6, netip.Addr.Is6}
)

// families gives those that the prefixes have.
func families(prefixes []netip.Prefix) []family {
	var found []family
	for _, f := range []family{ipv4, ipv6} {
		if len(f.of(prefixes)) > 0 {
			found = append(found, f)
		}
	}
	return found
}

// of gives the family's own among the prefixes.
func (f family) of(prefixes []netip.Prefix) []string {
	var own []string
	for _, prefix := range prefixes {
		if f.has(prefix.Addr()) {
			own = append(own, prefix.String())
		}
	}
	return own
}

func words[T fmt.Stringer](values []T) []string {
	var all []string
	for _, value := range values {
		all = append(all, value.String())
	}
	return all
}

// anys is what JSON has for a list.
func anys(values []string) []any {
	all := []any{}
	for _, value := range values {
		all = append(all, value)
	}
	return all
}

// using reports whether a Subnet's addresses are in use, as Kube-OVN counts them.
func using(s *unstructured.Unstructured) bool {
	for _, field := range []string{"v4usingIPs", "v6usingIPs"} {
		value, _, _ := unstructured.NestedFieldNoCopy(s.Object, "status", field)
		switch n := value.(type) {
		case int64:
			if n > 0 {
				return true
			}
		case float64:
			if n > 0 {
				return true
			}
		}
	}
	return false
}
