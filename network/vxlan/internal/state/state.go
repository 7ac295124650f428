// Package state is what the control side of the driver tells the nodes of a pool: VPCs, their subnets, and where every pod
// of a VPC is. It is values and their checks alone: the driver writes them into a pool, an agent reads them there, and the
// data plane makes them true.
//
// What is in here comes over a pool's API, so a reader must never act on a value that [VPC.Validate] or
// [Endpoint.Validate] has not passed. Start at [VPC].
package state

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/network"
)

// VPC is one tenant's private network as the nodes of a pool need it.
type VPC struct {
	UID    types.UID      `json:"uid"`
	Name   string         `json:"name"`
	Tenant names.TenantID `json:"tenant"`
	CIDRs  []netip.Prefix `json:"cidrs"`
	// MTU of the pods' interfaces; 0 is what the tunnel leaves of the node's.
	MTU int `json:"mtu,omitempty"`
	// Egress lets pods reach public addresses, behind the node's own.
	Egress bool `json:"egress,omitempty"`
	// API is where the tenant's API is, seen from the nodes; not valid where pods do not get it.
	API     netip.AddrPort `json:"api,omitzero"`
	Subnets []Subnet       `json:"subnets,omitempty"`
	// Groups are the security groups' rules: each policy is about the pods of the group that it is named after. A pod in
	// groups passes what both they and the policies allow.
	Groups []network.Policy `json:"groups,omitempty"`
	// Policies are the tenant's. While there are any, a pod that no endpoint is told of is in none of their sets and held to
	// them all the same.
	Policies []network.Policy `json:"policies,omitempty"`
}

// Subnet is one L2 segment.
type Subnet struct {
	UID  types.UID `json:"uid"`
	Name string    `json:"name"`
	// VNI tells the segment from all others of the platform.
	VNI     uint32         `json:"vni"`
	CIDRs   []netip.Prefix `json:"cidrs"`
	Gateway []netip.Addr   `json:"gateway"`
}

// Endpoint is one pod of a VPC, in whichever pool.
type Endpoint struct {
	// Pod is the UID of the tenant's pod, as the control cluster knows it.
	Pod    types.UID    `json:"pod"`
	Subnet types.UID    `json:"subnet"`
	IPs    []netip.Addr `json:"ips"`
	MAC    string       `json:"mac"`
	// Node is the tunnel address of the node that it is on.
	Node netip.Addr `json:"node"`
	// Groups are the names of the security groups that it is in.
	Groups []string `json:"groups,omitempty"`
	// Sets are those of the policies that it is in, and Ports its ports that they name.
	Sets  []string            `json:"sets,omitempty"`
	Ports []network.NamedPort `json:"ports,omitempty"`
}

// Place is what a pod's annotation [PlaceAnnotation] says of its place in its subnet. VPC and subnet are in its binding.
type Place struct {
	Pod types.UID    `json:"pod"`
	IPs []netip.Addr `json:"ips"`
	MAC string       `json:"mac"`
	// Groups are the security groups that the pod is in from its first packet on, until its endpoint says otherwise.
	Groups []string `json:"groups,omitempty"`
	// Rates bound the pod's traffic.
	Rates netkeys.Rates `json:"rates,omitzero"`
}

// PlaceAnnotation is on every pool pod that is in a VPC.
const PlaceAnnotation = Domain + "/place"

// Desired is a VPC and its pods.
type Desired struct {
	VPC
	Endpoints []Endpoint `json:"endpoints,omitempty"`
}

// Subnet gives the subnet of a UID, nil where the VPC has none such.
func (v *VPC) Subnet(uid types.UID) *Subnet {
	for i := range v.Subnets {
		if v.Subnets[i].UID == uid {
			return &v.Subnets[i]
		}
	}
	return nil
}

// uidPattern is what may become the name of a file or of an object.
var uidPattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// ValidUID reports whether a UID may become a part of a name.
func ValidUID(uid types.UID) bool { return uidPattern.MatchString(string(uid)) }

// maxVNI is the largest of a VXLAN header's 24 bits.
const maxVNI = 1<<24 - 1

// Validate reports what no node can build.
func (v *VPC) Validate() error {
	if !ValidUID(v.UID) {
		return fmt.Errorf("VPC %q: UID %q", v.Name, v.UID)
	}
	if _, err := names.ParseTenantID(string(v.Tenant)); err != nil {
		return fmt.Errorf("VPC %s: %w", v.UID, err)
	}
	if v.MTU != 0 && (v.MTU < 1280 || v.MTU > 9000) {
		return fmt.Errorf("VPC %s: an MTU of %d", v.UID, v.MTU)
	}
	vnis := map[uint32]bool{}
	for i := range v.Subnets {
		s := &v.Subnets[i]
		switch {
		case !ValidUID(s.UID):
			return fmt.Errorf("VPC %s: subnet %q with UID %q", v.UID, s.Name, s.UID)
		case s.VNI == 0 || s.VNI > maxVNI || vnis[s.VNI]:
			return fmt.Errorf("VPC %s: subnet %s with VNI %d", v.UID, s.UID, s.VNI)
		case len(s.CIDRs) == 0 || len(s.CIDRs) > 2 || len(s.Gateway) != len(s.CIDRs):
			return fmt.Errorf("VPC %s: subnet %s with CIDRs %v and gateways %v", v.UID, s.UID, s.CIDRs, s.Gateway)
		}
		vnis[s.VNI] = true
		for n, cidr := range s.CIDRs {
			if !cidr.IsValid() || cidr != cidr.Masked() || !cidr.Contains(s.Gateway[n]) || n > 0 && cidr.Addr().Is4() == s.CIDRs[0].Addr().Is4() {
				return fmt.Errorf("VPC %s: subnet %s with CIDRs %v and gateways %v", v.UID, s.UID, s.CIDRs, s.Gateway)
			}
		}
	}
	for _, policies := range [][]network.Policy{v.Groups, v.Policies} {
		for i := range policies {
			if err := policies[i].Validate(); err != nil {
				return fmt.Errorf("VPC %s: %w", v.UID, err)
			}
		}
	}
	return nil
}

// Validate reports an endpoint that cannot be in its subnet.
func (s *Subnet) Validate(ips []netip.Addr, mac string) error {
	if len(ips) == 0 || len(ips) > len(s.CIDRs) {
		return fmt.Errorf("%d addresses in subnet %s, which has %d prefixes", len(ips), s.UID, len(s.CIDRs))
	}
	var taken [2]bool
	for _, ip := range ips {
		at := -1
		for n, cidr := range s.CIDRs {
			if cidr.Contains(ip) {
				at = n
			}
		}
		if at < 0 || taken[at] || ip == s.Gateway[at] {
			return fmt.Errorf("address %s cannot be a pod's in subnet %s", ip, s.UID)
		}
		taken[at] = true
	}
	hardware, err := net.ParseMAC(mac)
	if err != nil || len(hardware) != 6 || hardware.String() != mac || hardware[0]&3 != 2 || bytes.Equal(hardware, GatewayMAC) {
		return fmt.Errorf("%q is no hardware address of a pod", mac)
	}
	return nil
}

// GatewayMAC is that of every subnet's gateway, on every node: a pod's neighbours stay true wherever its packets leave.
// No pod has it, for theirs have 0 as second octet.
var GatewayMAC = net.HardwareAddr{0x02, 0x76, 0x69, 0x76, 0x00, 0x01}

// Infra are the ranges that every node gives its pods addresses from by which it alone knows them; the same on all nodes,
// and nobody else's, because nothing leaves a node with one.
var Infra = []netip.Prefix{netip.MustParsePrefix("198.18.0.0/16"), netip.MustParsePrefix("fd00:76:6976:1::/112")}

// IsInfra reports whether an address is of those.
func IsInfra(ip netip.Addr) bool { return Infra[0].Contains(ip) || Infra[1].Contains(ip) }

// Sort puts everything into an order of its own, so that equal states are equal texts.
func (d *Desired) Sort() {
	slices.SortFunc(d.Endpoints, func(a, b Endpoint) int {
		if c := strings.Compare(string(a.Subnet), string(b.Subnet)); c != 0 {
			return c
		}
		return strings.Compare(string(a.Pod), string(b.Pod))
	})
}
