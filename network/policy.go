package network

import (
	"fmt"
	"net/netip"
	"slices"
)

// Policy says what some pods of a VPC may receive or send. A pod that any policy isolates in a direction passes only what
// some rule of those allows, and the answers to that; a pod that none isolates passes everything. What its node asks it, as
// a kubelet does with probes, always passes.
//
// It is NetworkPolicy in a form that needs no labels: who is meant is said by sets, and each [Endpoint] says in which it is.
type Policy struct {
	// Pods is the set of pods that it is about.
	Pods string `json:"pods"`
	// Receive and Send say in which directions it isolates them.
	Receive bool `json:"receive,omitempty"`
	Send    bool `json:"send,omitempty"`
	// From are the rules for what they receive, To those for what they send.
	From []PolicyRule `json:"from,omitempty"`
	To   []PolicyRule `json:"to,omitempty"`
}

// PolicyRule allows traffic with any of its peers, on any of its ports.
type PolicyRule struct {
	// Anyone is everybody, in the VPC and outside; Sets and Blocks are then of no matter. A rule that names nobody allows
	// nothing.
	Anyone bool          `json:"anyone,omitempty"`
	Sets   []string      `json:"sets,omitempty"`
	Blocks []PolicyBlock `json:"blocks,omitempty"`
	// Ports are the receiver's; none is everything, whatever the protocol.
	Ports []PolicyPort `json:"ports,omitempty"`
}

// PolicyBlock is a range of addresses with exceptions.
type PolicyBlock struct {
	CIDR   netip.Prefix   `json:"cidr"`
	Except []netip.Prefix `json:"except,omitempty"`
}

// PolicyPort is a protocol with a range of ports, a port that each pod has its own number for, or neither: the protocol
// whatever the port.
type PolicyPort struct {
	// Protocol is TCP, UDP, SCTP or ICMP, which is ICMPv6 too and has no ports.
	Protocol string `json:"protocol"`
	First    uint16 `json:"first,omitempty"`
	Last     uint16 `json:"last,omitempty"`
	// Name is a port's that endpoints have a number for.
	Name string `json:"name,omitempty"`
}

// NamedPort is the number that a pod's port of a name has.
type NamedPort struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port"`
}

// policyProtocols are those that a rule can name.
var policyProtocols = []string{"TCP", "UDP", "SCTP", "ICMP"}

// Validate reports what no driver can enforce. Its errors are [ErrInvalid].
func (p *Policy) Validate() error {
	for _, rules := range [][]PolicyRule{p.From, p.To} {
		for _, rule := range rules {
			for _, block := range rule.Blocks {
				for _, prefix := range append(slices.Clone(block.Except), block.CIDR) {
					if !prefix.IsValid() || prefix != prefix.Masked() || prefix.Addr().Is4() != block.CIDR.Addr().Is4() {
						return fmt.Errorf("%w: policy for %s: block %s except %v", ErrInvalid, p.Pods, block.CIDR, block.Except)
					}
				}
			}
			for _, port := range rule.Ports {
				portless := port.First == 0 && port.Last == 0
				if !slices.Contains(policyProtocols, port.Protocol) || !portless && (port.First > port.Last || port.First == 0 || port.Name != "" || port.Protocol == "ICMP") {
					return fmt.Errorf("%w: policy for %s: port %+v", ErrInvalid, p.Pods, port)
				}
			}
		}
	}
	if p.Pods == "" {
		return fmt.Errorf("%w: a policy for no set of pods", ErrInvalid)
	}
	return nil
}
