//go:build linux

package plane

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/vxlan/internal/state"
)

// guard names what a set of rules keeps out. Tests switch guards off one by one and see the packet come through.
type guard string

const (
	guardSpoofIP   guard = "spoofed addresses"
	guardSpoofMAC  guard = "spoofed hardware addresses"
	guardSpoofARP  guard = "spoofed ARP"
	guardSpoofND   guard = "spoofed neighbour discovery"
	guardRanges    guard = "nodes, metadata and infra addresses"
	guardInput     guard = "what the node and the gateways serve"
	guardFromNode  guard = "what enters a VPC unasked"
	guardTunnel    guard = "tunnel packets of strangers"
	guardEgress    guard = "egress"
	guardNamespace guard = "forwarding into VPCs"
	guardGroups    guard = "security groups"
	guardPolicies  guard = "policies of tenants"
)

// rules is a text for nft, built line by line.
type rules struct {
	omit map[guard]bool
	text strings.Builder
	// chains and count are what must be found in the kernel afterwards.
	chains, count int
}

func (r *rules) line(format string, args ...any) { fmt.Fprintf(&r.text, format+"\n", args...) }

// chain begins a chain; hook is its type, hook and policy, empty for one that others jump to.
func (r *rules) chain(name, hook string) {
	r.chains++
	r.line(" chain %s {", name)
	if hook != "" {
		r.line("  %s", hook)
	}
}

func (r *rules) end() { r.line(" }") }

func (r *rules) rule(format string, args ...any) {
	r.count++
	r.line("  "+format, args...)
}

// guarded is a rule that drops on behalf of a guard.
func (r *rules) guarded(g guard, format string, args ...any) {
	if !r.omit[g] {
		r.rule(format, args...)
	}
}

// admitted is a rule that accepts only what passes a guard, or without it everything that match matches.
func (r *rules) admitted(g guard, match, check string) {
	if r.omit[g] {
		check = ""
	}
	r.rule("%s %s accept", match, check)
}

// policy is drop, unless the guard is switched off.
func (r *rules) policy(g guard) string {
	if r.omit[g] {
		return "policy accept;"
	}
	return "policy drop;"
}

// set declares a named set or map. elements may be none.
func (r *rules) set(kind, name, spec string, elements []string) {
	r.line(" %s %s { type %s;", kind, name, spec)
	if len(elements) > 0 {
		r.line("  elements = { %s }", strings.Join(elements, ", "))
	}
	r.line(" }")
}

// table begins a table that replaces the one of that name.
func (r *rules) table(family, name string) {
	r.line("table %s %s\ndelete table %[1]s %[2]s\ntable %[1]s %[2]s {", family, name)
}

// The tables: one on the node, two in each VPC.
const (
	nodeTable = "vivarium-vpc"
	vpcTable  = "vpc"
)

// families are how rules say what they say of IPv4 and of IPv6.
var families = []struct {
	four               bool
	ip, set, kind, api string
}{
	{true, "ip", "4", "ipv4_addr", network.APIAddress},
	{false, "ip6", "6", "ipv6_addr", network.APIAddress6},
}

func texts(prefixes []netip.Prefix) []string {
	var out []string
	for _, p := range prefixes {
		out = append(out, p.String())
	}
	return out
}

// nodeRules are the node's own: tunnels carry packets of the platform's nodes alone, and the links of VPCs are for what the
// node began, for the tenants' API, and for public addresses.
func (n *Node) nodeRules(peers []netip.Addr, apis []netip.AddrPort) *rules {
	r := &rules{omit: n.config.omit}
	r.table("inet", nodeTable)
	for _, f := range families {
		var vteps, api []string
		for _, peer := range peers {
			if peer.Is4() == f.four {
				vteps = append(vteps, peer.String())
			}
		}
		for _, a := range apis {
			if a.IsValid() && a.Addr().Is4() == f.four {
				api = append(api, fmt.Sprintf("%s . %d", a.Addr(), a.Port()))
			}
		}
		r.set("set", "vteps"+f.set, f.kind+";", vteps)
		r.set("set", "apis"+f.set, f.kind+" . inet_service;", api)
		r.set("set", "protected"+f.set, f.kind+"; flags interval;", texts(n.protected(f.four)))
	}

	// Whoever may send such a packet to a node writes into a VPC of his choice, so it is looked at before anything else, and
	// whatever a pod sends is never one: not to this node, nor through it to another with the address of a node as source.
	r.chain("tunnels", "type filter hook prerouting priority raw; policy accept;")
	for _, f := range families {
		r.rule("meta nfproto %s iifname %q udp dport %d %s saddr @vteps%s notrack accept", nfproto(f.four), n.uplink.Attrs().Name, vxlanPort, f.ip, f.set)
	}
	r.guarded(guardTunnel, "udp dport %d drop", vxlanPort)
	r.end()

	r.chain("input", "type filter hook input priority filter - 5; policy accept;")
	r.rule("iifname %q ct state established,related accept", linkPrefix+"*")
	r.rule("iifname %q icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept", linkPrefix+"*")
	for _, f := range families {
		r.rule("iifname %q %s daddr . tcp dport @apis%s accept", linkPrefix+"*", f.ip, f.set)
	}
	r.guarded(guardInput, "iifname %q drop", linkPrefix+"*")
	r.end()

	r.chain("forward", "type filter hook forward priority filter - 5; policy accept;")
	r.rule("iifname %q ct state established,related accept", linkPrefix+"*")
	r.rule("oifname %q ct state established,related accept", linkPrefix+"*")
	r.guarded(guardNamespace, "oifname %q drop", linkPrefix+"*")
	for _, f := range families {
		r.rule("iifname %q %s daddr . tcp dport @apis%s accept", linkPrefix+"*", f.ip, f.set)
		r.guarded(guardRanges, "iifname %q %s daddr @protected%s drop", linkPrefix+"*", f.ip, f.set)
	}
	r.end()

	r.chain("postrouting", "type nat hook postrouting priority srcnat + 5; policy accept;")
	r.rule("oifname != %q ip saddr %s masquerade", linkPrefix+"*", transit4)
	r.rule("oifname != %q ip6 saddr %s masquerade", linkPrefix+"*", transit6)
	r.end()
	r.line("}")
	return r
}

func nfproto(four bool) string {
	if four {
		return "ipv4"
	}
	return "ipv6"
}

// vpcRules are those of one VPC on this node, with the pods that it has here.
func (n *Node) vpcRules(desired *state.Desired, transit transit, pods []Pod) *rules {
	r, vpc := &rules{omit: n.config.omit}, &desired.VPC
	n.portRules(r, desired, pods)

	r.table("inet", vpcTable)
	var bridges []string
	for _, s := range vpc.Subnets {
		bridges = append(bridges, fmt.Sprintf("%q", bridgeName(s.VNI)))
	}
	r.set("set", "subnets", "ifname;", bridges)
	for _, f := range families {
		var infra, gateways []string
		for _, pod := range pods {
			if pod.Infra.IsValid() && pod.Infra.Is4() == f.four && len(pod.IPs) > 0 {
				if to, ok := of(pod.IPs, f.four); ok {
					infra = append(infra, fmt.Sprintf("%s : %s", pod.Infra, to))
				}
			}
		}
		for _, s := range vpc.Subnets {
			if gateway, ok := of(s.Gateway, f.four); ok {
				gateways = append(gateways, fmt.Sprintf("%q . %s", bridgeName(s.VNI), gateway))
			}
		}
		r.set("map", "infra"+f.set, f.kind+" : "+f.kind+";", infra)
		r.set("set", "gateways"+f.set, "ifname . "+f.kind+";", gateways)
		var inside []netip.Prefix
		for _, cidr := range vpc.CIDRs {
			if cidr.Addr().Is4() == f.four {
				inside = append(inside, cidr)
			}
		}
		r.set("set", "protected"+f.set, f.kind+"; flags interval;", texts(n.protected(f.four, inside...)))
	}

	r.chain("prerouting", "type nat hook prerouting priority dstnat; policy accept;")
	for _, f := range families {
		r.rule("iifname %q dnat %s to %s daddr map @infra%s", transitLink, f.ip, f.ip, f.set)
		if vpc.API.IsValid() && vpc.API.Addr().Is4() == f.four {
			r.rule("iifname @subnets %s daddr %s tcp dport %d dnat %s to %s", f.ip, f.api, network.APIPort, f.ip, vpc.API)
		}
	}
	r.end()

	r.chain("postrouting", "type nat hook postrouting priority srcnat; policy accept;")
	for _, f := range families {
		node := transit.node(f.four)
		for _, s := range vpc.Subnets {
			// What the node asks its pods comes from their gateway: that is an address which they can answer.
			if gateway, ok := of(s.Gateway, f.four); ok {
				r.rule("oifname %q ct status dnat %s saddr %s snat %s to %s", bridgeName(s.VNI), f.ip, node, f.ip, gateway)
			}
		}
	}
	r.rule("oifname %q masquerade", transitLink)
	r.end()

	r.chain("input", "type filter hook input priority filter; "+r.policy(guardInput))
	// First, because who asks all the time from one port has a connection for all that.
	r.resolverRules()
	r.rule("ct state established,related accept")
	r.rule("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept")
	r.rule("icmp type echo-request iifname . ip daddr @gateways4 accept")
	r.rule("icmpv6 type echo-request iifname . ip6 daddr @gateways6 accept")
	r.end()

	if filtered(desired, pods) {
		r.filterRules(desired, pods)
	}
	r.chain("forward", "type filter hook forward priority filter; policy drop;")
	if filtered(desired, pods) {
		r.rule("iifname @subnets jump arrive")
	}
	// Between subnets first, and whatever connection tracking thinks: the way back leaves by the gateway of another node, so
	// each node sees one direction.
	r.rule("iifname @subnets oifname @subnets accept")
	r.rule("ct state established,related accept")
	r.rule("ct state invalid drop")
	r.rule("iifname %q ct status dnat accept", transitLink)
	if r.omit[guardFromNode] {
		r.rule("iifname %q accept", transitLink)
	}
	if vpc.API.IsValid() {
		// Also by its own address and port, which the issuer of the pods' tokens may be named by.
		r.rule("iifname @subnets oifname %q %s daddr %s tcp dport %d accept", transitLink, ipWord(vpc.API.Addr()), vpc.API.Addr(), vpc.API.Port())
	}
	for _, f := range families {
		r.guarded(guardRanges, "oifname %q %s daddr @protected%s drop", transitLink, f.ip, f.set)
	}
	r.guarded(guardTunnel, "udp dport %d drop", vxlanPort)
	if vpc.Egress || r.omit[guardEgress] {
		r.rule("iifname @subnets oifname %q accept", transitLink)
	}
	r.end()
	r.line("}")
	return r
}

// portRules are on the bridges: a port carries what its pod may say, and what is no port of a pod carries nothing. There is
// no rule for a port before it has one, so a pod that is being plugged in is silent.
func (n *Node) portRules(r *rules, desired *state.Desired, pods []Pod) {
	r.table("bridge", vpcTable)
	var tunnels, macs []string
	for _, s := range desired.Subnets {
		tunnels = append(tunnels, fmt.Sprintf("%q", vxlanName(s.VNI)))
	}
	ips := map[bool][]string{}
	for _, pod := range pods {
		if pod.Port == "" {
			continue
		}
		macs = append(macs, fmt.Sprintf("%q . %s", pod.Port, pod.MAC))
		for _, ip := range append(slices.Clone(pod.IPs), linkLocal(pod.MAC)) {
			ips[ip.Is4()] = append(ips[ip.Is4()], fmt.Sprintf("%q . %s . %s", pod.Port, pod.MAC, ip))
		}
	}
	r.set("set", "tunnels", "ifname;", tunnels)
	r.set("set", "ports", "ifname . ether_addr;", macs)
	r.set("set", "source4", "ifname . ether_addr . ipv4_addr;", ips[true])
	r.set("set", "source6", "ifname . ether_addr . ipv6_addr;", ips[false])

	r.chain("prerouting", "type filter hook prerouting priority dstnat; policy drop;")
	// Neighbours are written down on every node, so a tunnel carries nobody's questions or claims.
	r.guarded(guardSpoofARP, "iifname @tunnels ether type arp drop")
	r.guarded(guardSpoofND, "iifname @tunnels icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert, nd-redirect } drop")
	r.rule("iifname @tunnels ether type { ip, ip6, arp } accept")
	r.guarded(guardSpoofMAC, "iifname . ether saddr != @ports drop")
	r.guarded(guardSpoofND, "icmpv6 type { nd-router-advert, nd-redirect } drop")
	r.rule("icmpv6 type nd-neighbor-advert jump claims")
	sender4, sender6, arp := "iifname . ether saddr . ip saddr @source4", "iifname . ether saddr . ip6 saddr @source6", "iifname . arp saddr ether . arp saddr ip @source4"
	if r.omit[guardSpoofMAC] {
		arp, sender4, sender6 = "", "", ""
	}
	r.admitted(guardSpoofIP, "ether type ip", sender4)
	r.admitted(guardSpoofIP, "ether type ip6", sender6)
	// A host asks whether an address is taken before it has one.
	r.rule("ether type ip6 ip6 saddr :: icmpv6 type nd-neighbor-solicit accept")
	r.admitted(guardSpoofARP, "arp htype 1 arp ptype ip arp operation { request, reply }", arp)
	r.end()

	// The address that an advertisement claims is the first of its body.
	r.chain("claims", "")
	for _, pod := range pods {
		if pod.Port == "" {
			continue
		}
		for _, ip := range append(slices.Clone(pod.IPs), linkLocal(pod.MAC)) {
			if ip.Is6() {
				r.rule("iifname %q @th,64,128 0x%x return", pod.Port, ip.As16())
			}
		}
	}
	r.guarded(guardSpoofND, "drop")
	r.end()
	if filtered(desired, pods) {
		r.manyRules(desired, pods)
	}
	r.line("}")
}

// of gives the address of one family.
func of(addrs []netip.Addr, four bool) (netip.Addr, bool) {
	for _, a := range addrs {
		if a.Is4() == four {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func ipWord(addr netip.Addr) string {
	if addr.Is4() {
		return "ip"
	}
	return "ip6"
}

// load loads rules into a namespace, all or none, and looks in the kernel whether they are there. ns is the node's or a
// VPC's. The kernel changes from the old to the new in one step.
func (r *rules) load(in *os.File) error {
	nft, err := program("nft")
	if err != nil {
		return err
	}
	if _, err := run(in, []byte(r.text.String()), nil, nft, "-f", "-"); err != nil {
		return fmt.Errorf("load rules: %w", err)
	}
	return nil
}

// verify reports when the kernel does not have as many chains and rules in the tables as were loaded: somebody flushed or
// cut them.
func (r *rules) verify(in *os.File, tables ...string) error {
	nft, err := program("nft")
	if err != nil {
		return err
	}
	chains, count := 0, 0
	for _, table := range tables {
		out, err := run(in, nil, nil, nft, append([]string{"--stateless", "--terse", "list", "table"}, strings.Fields(table)...)...)
		if err != nil {
			return fmt.Errorf("verify rules: %w", err)
		}
		inChain := false
		for line := range strings.Lines(string(out)) {
			line = strings.TrimSpace(line)
			switch {
			case strings.HasPrefix(line, "chain "):
				inChain = true
				chains++
			case line == "}":
				inChain = false
			case inChain && !strings.HasPrefix(line, "type ") && line != "":
				count++
			}
		}
	}
	if chains != r.chains || count != r.count {
		return fmt.Errorf("verify rules: the kernel has %d chains with %d rules, not %d with %d", chains, count, r.chains, r.count)
	}
	return nil
}

// secure loads rules and verifies them.
func (r *rules) secure(in *os.File, tables ...string) error {
	if err := r.load(in); err != nil {
		return err
	}
	return r.verify(in, tables...)
}

// program finds a program of the system, also for users whose PATH lacks the administrator's.
func program(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", errors.New(name + " is not installed")
}
