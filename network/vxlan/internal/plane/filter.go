//go:build linux

package plane

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/vxlan/internal/state"
)

// What pods may send and receive inside their VPC is decided where they are: what a pod sends by its node, before an
// address is translated, and what it receives by its node, whether the sender is beside it or far away. Connections are
// tracked, so a node asks once for each and lets the answers pass. Frames between ports of a bridge are given to the same
// rules by br_netfilter, which is switched on for VPCs that have groups or policies, and costs the others nothing.

// filtered reports whether a VPC's packets are to be tracked on this node.
func filtered(desired *state.Desired, pods []Pod) bool {
	return len(desired.Groups)+len(desired.Policies) > 0 || slices.ContainsFunc(pods, func(p Pod) bool { return len(p.Groups) > 0 }) ||
		slices.ContainsFunc(desired.Endpoints, func(e state.Endpoint) bool { return len(e.Groups) > 0 })
}

// member is a pod of the VPC as filters see it.
type member struct {
	ips []netip.Addr
	// mac and port are those of one that is here.
	mac, port    string
	groups, sets []string
	ports        []network.NamedPort
	// here says that it is on this node, and known that its endpoint was told.
	here, known bool
}

// members gives the VPC's pods. What is known of one that is here counts from its first packet on, until its endpoint is
// told; and its addresses are its own, whatever endpoint had them before.
func members(desired *state.Desired, pods []Pod) []member {
	endpoints := make(map[string]*state.Endpoint, len(desired.Endpoints))
	for i := range desired.Endpoints {
		endpoints[string(desired.Endpoints[i].Pod)] = &desired.Endpoints[i]
	}
	here := map[netip.Addr]bool{}
	var all []member
	for _, pod := range pods {
		m := member{ips: pod.IPs, mac: pod.MAC, port: pod.Port, groups: pod.Groups, here: true}
		if e := endpoints[string(pod.UID)]; e != nil {
			m.groups, m.sets, m.ports, m.known = e.Groups, e.Sets, e.Ports, true
		}
		for _, ip := range pod.IPs {
			here[ip] = true
		}
		all = append(all, m)
	}
	for _, e := range desired.Endpoints {
		if !slices.ContainsFunc(e.IPs, func(ip netip.Addr) bool { return here[ip] }) {
			all = append(all, member{ips: e.IPs, groups: e.Groups, sets: e.Sets, ports: e.Ports, known: true})
		}
	}
	return all
}

// layer is one kind of filter. A packet must pass every layer.
type layer struct {
	name     string
	guard    guard
	policies []network.Policy
	// in reports whether a pod is in a set of the layer's.
	in func(m *member, set string) bool
	// isolated reports whether any filter of the layer is on a pod.
	isolated func(m *member, d direction) bool
}

func layers(desired *state.Desired) []layer {
	return []layer{{
		name: "groups", guard: guardGroups, policies: desired.Groups,
		in: func(m *member, set string) bool { return slices.Contains(m.groups, set) },
		// Also in a group that is not there any more, whose rules allow nothing.
		isolated: func(m *member, _ direction) bool { return len(m.groups) > 0 },
	}, {
		name: "policies", guard: guardPolicies, policies: desired.Policies,
		in: func(m *member, set string) bool { return slices.Contains(m.sets, set) },
		// Also while it is not known what it may.
		isolated: func(m *member, d direction) bool {
			return len(desired.Policies) > 0 && !m.known || slices.ContainsFunc(desired.Policies, func(p network.Policy) bool {
				return d.isolates(&p) && slices.Contains(m.sets, p.Pods)
			})
		},
	}}
}

// direction is that of a packet, as the pod sees it that is filtered.
type direction struct {
	name string
	// own and peer are the words for the addresses of the pod and of the other end.
	own, peer string
	isolates  func(*network.Policy) bool
	rules     func(*network.Policy) []network.PolicyRule
}

var (
	leaving = direction{"leave", "saddr", "daddr",
		func(p *network.Policy) bool { return p.Send }, func(p *network.Policy) []network.PolicyRule { return p.To }}
	arriving = direction{"arrive", "daddr", "saddr",
		func(p *network.Policy) bool { return p.Receive }, func(p *network.Policy) []network.PolicyRule { return p.From }}
)

// filter writes the rules of a VPC's layers. Rules name sets by numbers, so that nothing of what a set is called comes into
// the text.
type filter struct {
	*rules
	members []member
	// numbers are those of sets, by layer and what they are called.
	numbers map[string]int
	// declared are the sets that rules name.
	declared []declared
}

type declared struct {
	name, spec string
	elements   []string
}

// filterRules writes what a VPC's pods on this node may send and receive. The chain arrive is jumped to for what is
// forwarded between subnets; leave is a hook of its own.
func (r *rules) filterRules(desired *state.Desired, pods []Pod) {
	f := &filter{rules: r, members: members(desired, pods), numbers: map[string]int{}}
	jumps := map[string][]string{}
	for _, l := range layers(desired) {
		for _, d := range []direction{leaving, arriving} {
			for _, family := range families {
				if chain := f.layer(l, d, family.four, family.ip); chain != "" {
					jumps[d.name] = append(jumps[d.name], fmt.Sprintf("%s %s @%s jump %s", family.ip, d.own, chain, chain))
				}
			}
		}
	}
	discovery := "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit }"

	r.chain("leave", "type filter hook prerouting priority mangle; policy accept;")
	r.rule("iifname != @subnets accept")
	r.rule("ct state established,related accept")
	r.rule("%s accept", discovery)
	// What a gateway itself answers is the input's to decide.
	r.rule("iifname . ip daddr @gateways4 accept")
	r.rule("iifname . ip6 daddr @gateways6 accept")
	// So are questions for names: whatever a pod may send, it may ask where to.
	for i, f := range families {
		r.rule("%s daddr %s accept", f.ip, resolverAddresses[i])
	}
	for _, jump := range jumps[leaving.name] {
		r.rule("%s", jump)
	}
	r.end()

	r.chain("arrive", "")
	r.rule("ct state established,related return")
	r.rule("%s return", discovery)
	for _, jump := range jumps[arriving.name] {
		r.rule("%s", jump)
	}
	r.end()

	for _, set := range f.declared {
		r.set("set", set.name, set.spec, set.elements)
	}
}

// manyRules keep what is sent to many from the ports of pods that may not receive everything: it names no pod, so that
// the rules that go by addresses let it pass.
func (r *rules) manyRules(desired *state.Desired, pods []Pod) {
	var shut []string
	members := members(desired, pods)
	for i := range members {
		m := &members[i]
		if m.port != "" && slices.ContainsFunc(layers(desired), func(l layer) bool { return !r.omit[l.guard] && l.isolated(m, arriving) }) {
			shut = append(shut, fmt.Sprintf("%q", m.port))
		}
	}
	r.set("set", "shut", "ifname;", shut)
	r.chain("forward", "type filter hook forward priority filter; policy accept;")
	r.rule("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept")
	r.rule("oifname @shut ether type { ip, ip6 } ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 drop")
	r.end()
}

// layer writes the chain of one layer for one direction and family, and gives its name, which is that of the set of pods
// too that it is for. It gives none where that would be empty.
func (f *filter) layer(l layer, d direction, four bool, ip string) string {
	name := l.name + "-" + d.name + suffix(four)
	var own []string
	for i := range f.members {
		if m := &f.members[i]; m.here && l.isolated(m, d) {
			own = append(own, addresses(m.ips, four)...)
			if !four {
				// No rule allows anything to the address that it makes itself, which is in no set of pods.
				own = append(own, linkLocal(m.mac).String())
			}
		}
	}
	if len(own) == 0 {
		return ""
	}
	f.declare(name, kind(four)+";", own)
	f.chain(name, "")
	for i := range l.policies {
		p := &l.policies[i]
		if !d.isolates(p) || !slices.ContainsFunc(f.members, func(m member) bool { return m.here && l.in(&m, p.Pods) }) {
			continue
		}
		pods := fmt.Sprintf("%s %s @%s", ip, d.own, f.podSet(l, p.Pods, four))
		for _, rule := range d.rules(p) {
			for _, peer := range f.peers(l, d, rule, four, ip) {
				for _, port := range f.ports(rule.Ports, four, ip) {
					f.rule("%s return", strings.Join(slices.DeleteFunc([]string{pods, peer, port}, func(s string) bool { return s == "" }), " "))
				}
			}
		}
	}
	f.guarded(l.guard, "drop")
	f.end()
	return name
}

// number gives the number of a set.
func (f *filter) number(called string) int {
	number, ok := f.numbers[called]
	if !ok {
		number = len(f.numbers)
		f.numbers[called] = number
	}
	return number
}

// declare has a set written down.
func (f *filter) declare(name, spec string, elements []string) {
	f.declared = append(f.declared, declared{name, spec, elements})
}

// known reports whether a set is written down already.
func (f *filter) known(name string) bool {
	return slices.ContainsFunc(f.declared, func(d declared) bool { return d.name == name })
}

// podSet gives the name of a set of pods.
func (f *filter) podSet(l layer, set string, four bool) string {
	name := fmt.Sprintf("%s-%d%s", l.name, f.number(l.name+"/"+set), suffix(four))
	if f.known(name) {
		return name
	}
	var elements []string
	for i := range f.members {
		if m := &f.members[i]; l.in(m, set) {
			elements = append(elements, addresses(m.ips, four)...)
		}
	}
	f.declare(name, kind(four)+";", elements)
	return name
}

// peers gives the matches of a rule's other ends in a family; the packet has to be of that family already.
func (f *filter) peers(l layer, d direction, rule network.PolicyRule, four bool, ip string) []string {
	if rule.Anyone {
		return []string{""}
	}
	var out []string
	for _, set := range rule.Sets {
		out = append(out, fmt.Sprintf("%s %s @%s", ip, d.peer, f.podSet(l, set, four)))
	}
	var whole []netip.Prefix
	for _, block := range rule.Blocks {
		switch {
		case block.CIDR.Addr().Is4() != four:
		case len(block.Except) == 0:
			whole = append(whole, block.CIDR)
		default:
			out = append(out, fmt.Sprintf("%s%s %s != { %s }", within(ip, d.peer, block.CIDR), ip, d.peer, strings.Join(texts(disjoint(slices.Clone(block.Except))), ", ")))
		}
	}
	if whole = disjoint(whole); len(whole) > 0 && whole[0].Bits() == 0 {
		out = append(out, "")
	} else if len(whole) > 0 {
		out = append(out, fmt.Sprintf("%s %s { %s }", ip, d.peer, strings.Join(texts(whole), ", ")))
	}
	return out
}

// within matches a range, nothing being needed for the range of everything.
func within(ip, end string, prefix netip.Prefix) string {
	if prefix.Bits() == 0 {
		return ""
	}
	return fmt.Sprintf("%s %s %s ", ip, end, prefix)
}

// ports gives the matches of a rule's ports; one that matches everything where it has none.
func (f *filter) ports(list []network.PolicyPort, four bool, ip string) []string {
	if len(list) == 0 {
		return []string{""}
	}
	var out []string
	for _, protocol := range []string{"TCP", "UDP", "SCTP", "ICMP"} {
		var numbers []network.PortRange
		all := false
		for _, p := range list {
			switch {
			case p.Protocol != protocol:
			case p.Name != "":
				out = append(out, fmt.Sprintf("%s daddr . %s dport @%s", ip, strings.ToLower(protocol), f.portSet(p, four)))
			case p.First != 0:
				numbers = append(numbers, network.PortRange{First: p.First, Last: p.Last})
			default:
				all = true
			}
		}
		word := strings.ToLower(protocol)
		switch {
		case protocol == "ICMP" && all && !four:
			out = append(out, "meta l4proto ipv6-icmp")
		case all:
			out = append(out, "meta l4proto "+word)
		case len(numbers) > 0:
			out = append(out, fmt.Sprintf("%s dport { %s }", word, strings.Join(merged(numbers), ", ")))
		}
	}
	return out
}

// portSet gives the name of the set of all pods' ports of a name, each with its pod's address.
func (f *filter) portSet(port network.PolicyPort, four bool) string {
	name := fmt.Sprintf("ports-%d%s", f.number("ports/"+port.Protocol+"/"+port.Name), suffix(four))
	if f.known(name) {
		return name
	}
	var elements []string
	for i := range f.members {
		m := &f.members[i]
		for _, p := range m.ports {
			if p.Name != port.Name || p.Protocol != port.Protocol {
				continue
			}
			for _, ip := range addresses(m.ips, four) {
				if element := fmt.Sprintf("%s . %d", ip, p.Port); !slices.Contains(elements, element) {
					elements = append(elements, element)
				}
			}
		}
	}
	f.declare(name, kind(four)+" . inet_service;", elements)
	return name
}

// merged spells ranges of ports with none in another: a packet filter's intervals may not overlap.
func merged(list []network.PortRange) []string {
	slices.SortFunc(list, func(a, b network.PortRange) int { return int(a.First) - int(b.First) })
	var joined []network.PortRange
	for _, r := range list {
		if last := len(joined) - 1; last >= 0 && int(r.First) <= int(joined[last].Last)+1 {
			joined[last].Last = max(joined[last].Last, r.Last)
			continue
		}
		joined = append(joined, r)
	}
	var out []string
	for _, r := range joined {
		if r.First == r.Last {
			out = append(out, fmt.Sprint(r.First))
		} else {
			out = append(out, fmt.Sprintf("%d-%d", r.First, r.Last))
		}
	}
	return out
}

func suffix(four bool) string {
	if four {
		return "-4"
	}
	return "-6"
}

func kind(four bool) string {
	if four {
		return "ipv4_addr"
	}
	return "ipv6_addr"
}

func addresses(ips []netip.Addr, four bool) []string {
	var out []string
	for _, ip := range ips {
		if ip.Is4() == four {
			out = append(out, ip.String())
		}
	}
	return out
}

// track has frames between the ports of a VPC's bridges go through its rules, or not. Without it nobody filters them, so
// that a kernel which cannot do it has no VPCs with groups or policies.
func (s *space) track(on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	return inside(s.ns, func() error {
		for _, name := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"} {
			path := "/proc/sys/net/bridge/" + name
			switch now, err := os.ReadFile(path); {
			case errors.Is(err, fs.ErrNotExist) && !on, err == nil && strings.TrimSpace(string(now)) == value:
				continue
			case err != nil:
				return fmt.Errorf("filter between pods, which needs the kernel module br_netfilter: %w", err)
			}
			if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
				return fmt.Errorf("filter between pods: %w", err)
			}
		}
		return nil
	})
}

// disconnect forgets the connections that whoever had a pod's addresses before it left behind: they would pass as
// established.
func (s *space) disconnect(ips []netip.Addr) error {
	return inside(s.ns, func() error {
		for _, ip := range ips {
			for _, end := range []netlink.ConntrackFilterType{netlink.ConntrackOrigSrcIP, netlink.ConntrackOrigDstIP} {
				f := &netlink.ConntrackFilter{}
				if err := f.AddIP(end, ip.AsSlice()); err != nil {
					return fmt.Errorf("forget the connections of %s: %w", ip, err)
				}
				if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(family(ip)), f); err != nil {
					return fmt.Errorf("forget the connections of %s: %w", ip, err)
				}
			}
		}
		return nil
	})
}
