package ovnudn

import (
	"fmt"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/internal/ranges"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/internal/custom"
)

const (
	// subnetDomain is that of the annotations by which a network knows its subnets.
	subnetDomain = "subnet." + netkeys.Domain + "/"
	// labelSubnet is on every pool pod that is in a VPC: the UID of its subnet.
	labelSubnet = netkeys.Domain + "/subnet"
	// defaultNetwork is what OVN-Kubernetes calls its own network, by whose name a pod asks for addresses.
	defaultNetwork = "default"
)

var (
	networks = custom.Kind{
		GroupVersion: schema.GroupVersion{Group: "k8s.ovn.org", Version: "v1"},
		Name:         "ClusterUserDefinedNetwork", Plural: "clusteruserdefinednetworks", Plugin: "OVN-Kubernetes with --enable-network-segmentation",
		Ready: networkReady,
	}
	// attachments are looked at and never written.
	attachments = custom.Kind{
		GroupVersion: schema.GroupVersion{Group: "k8s.cni.cncf.io", Version: "v1"},
		Name:         "NetworkAttachmentDefinition", Plural: "network-attachment-definitions", Plugin: "OVN-Kubernetes", Namespace: "ovn-kubernetes",
	}
)

// pluginRanges are what OVN-Kubernetes uses inside every network of its own; its IPv4 ranges are in 100.64.0.0/10, which no
// VPC may have.
var pluginRanges = []netip.Prefix{
	netip.MustParsePrefix("fd69::/112"), // masquerading
	netip.MustParsePrefix("fd97::/64"),  // between nodes
	netip.MustParsePrefix("fd98::/64"),  // between the default network's routers
	netip.MustParsePrefix("fd99::/64"),  // between user-defined networks' routers
}

// networkReady: the network is created where OVN-Kubernetes says so, and nothing that it says of it is no.
func networkReady(o *unstructured.Unstructured) (bool, string) {
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	created, said := false, "it has no condition NetworkCreated yet"
	for _, one := range conditions {
		condition, _ := one.(map[string]any)
		if condition["status"] == "False" {
			return false, fmt.Sprintf("%v: %v: %v", condition["type"], condition["reason"], condition["message"])
		}
		created = created || condition["type"] == "NetworkCreated" && condition["status"] == "True"
	}
	return created, said
}

func networkName(vpc *network.VPC) string { return custom.Name(vpc.Name, string(vpc.UID)) }

func subnetKey(uid types.UID) string { return subnetDomain + string(uid) }

// userDefinedNetwork is a VPC in a pool. Its range is the VPC's and not a subnet's: a namespace has one network, and a tenant's
// subnets reach each other.
func userDefinedNetwork(pool network.Pool, vpc *network.VPC) custom.Object {
	layer2 := map[string]any{"role": "Primary", "subnets": anys(words(sorted(vpc.CIDRs)))}
	if vpc.MTU > 0 {
		layer2["mtu"] = int64(vpc.MTU)
	}
	return custom.Object{
		Kind: networks, Name: networkName(vpc), UID: vpc.UID, VPC: vpc.UID, Tenant: string(vpc.Tenant),
		Spec: map[string]any{
			"namespaceSelector": map[string]any{"matchLabels": map[string]any{
				names.LabelTenant: string(vpc.Tenant), names.LabelControl: string(pool.ControlUID),
			}},
			"network": map[string]any{"topology": "Layer2", "layer2": layer2},
		},
		Fixed: []string{"network"},
	}
}

// check refuses what OVN-Kubernetes cannot do or we cannot write.
func check(pool network.Pool, vpc *network.VPC) error {
	families := map[bool]bool{}
	for _, prefix := range vpc.CIDRs {
		if families[prefix.Addr().Is4()] {
			return fmt.Errorf("%w: VPC %s has two ranges of a family, and a network of OVN-Kubernetes has one that it keeps", network.ErrCapability, vpc.Name)
		}
		families[prefix.Addr().Is4()] = true
		for _, theirs := range pluginRanges {
			if prefix.Overlaps(theirs) {
				return fmt.Errorf("%w: range %s of VPC %s overlaps %s, which OVN-Kubernetes uses itself", network.ErrInvalid, prefix, vpc.Name, theirs)
			}
		}
	}
	switch {
	case pool.ControlUID == "" || pool.Dynamic == nil:
		return fmt.Errorf("%w: pool %s has no identity or no client", network.ErrInvalid, pool.Name)
	case vpc.UID == "" || vpc.Tenant == "" || len(vpc.CIDRs) == 0:
		return fmt.Errorf("%w: VPC %s has no UID, no tenant or no range", network.ErrInvalid, vpc.Name)
	case vpc.Egress == network.EgressNone:
		return fmt.Errorf("%w: egress None of VPC %s: a network of OVN-Kubernetes always has a way out", network.ErrCapability, vpc.Name)
	case len(vpc.SecurityGroups) > 0:
		return fmt.Errorf("%w: VPC %s has security groups", network.ErrCapability, vpc.Name)
	}
	return nil
}

// checkSubnet refuses a subnet that pods could not have all their addresses of.
func checkSubnet(vpc *network.VPC, s *network.Subnet) error {
	if s.VPC != vpc.UID {
		return fmt.Errorf("%w: subnet %s is not in VPC %s", network.ErrInvalid, s.Name, vpc.Name)
	}
	if len(s.CIDRs) != len(vpc.CIDRs) {
		return fmt.Errorf("%w: subnet %s lacks a range of a family of VPC %s: in a network of OVN-Kubernetes pods have an address of each", network.ErrCapability, s.Name, vpc.Name)
	}
	for _, cidr := range s.CIDRs {
		around, ok := rangeOf(vpc, cidr.Addr())
		if !ok || around.Bits() > cidr.Bits() {
			return fmt.Errorf("%w: range %s of subnet %s is not in VPC %s", network.ErrInvalid, cidr, s.Name, vpc.Name)
		}
		// The network's first address is its gateway, the second the nodes'.
		gateway := around.Addr().Next()
		for _, theirs := range []netip.Addr{gateway, gateway.Next()} {
			if cidr.Contains(theirs) && !kept(s, theirs) {
				return fmt.Errorf("%w: spec.reserved of subnet %s has to name %s, which OVN-Kubernetes has itself in a network of %s", network.ErrInvalid, s.Name, theirs, around)
			}
		}
	}
	return nil
}

// kept reports whether no pod is given an address.
func kept(s *network.Subnet, ip netip.Addr) bool {
	return slices.Contains(s.Gateway, ip) || slices.ContainsFunc(s.Reserved, func(r ranges.Range) bool { return r.Contains(ip) })
}

// rangeOf gives the VPC's range that an address is in.
func rangeOf(vpc *network.VPC, ip netip.Addr) (netip.Prefix, bool) {
	i := slices.IndexFunc(vpc.CIDRs, func(p netip.Prefix) bool { return p.Contains(ip) })
	if i < 0 {
		return netip.Prefix{}, false
	}
	return vpc.CIDRs[i], true
}

// sorted puts IPv4 first.
func sorted(prefixes []netip.Prefix) []netip.Prefix {
	return slices.SortedFunc(slices.Values(prefixes), func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
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
	var all []any
	for _, value := range values {
		all = append(all, value)
	}
	return all
}
