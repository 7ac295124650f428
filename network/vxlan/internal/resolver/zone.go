package resolver

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"vivarium.io/vivarium/network"
)

// ttl is how long an answer about the tenant's cluster may be kept, as with a cluster's own DNS.
const ttl = 5

// apex is the tenant's domain, and version that of Kubernetes' DNS-Based Service Discovery that its names follow.
const (
	apex    = network.ClusterDomain + "."
	version = "1.1.0"
)

// Zone is what the names of one VPC's tenant stand for. It does not change.
type Zone struct {
	// names are all names at or below the apex, in lower case: also those that have nothing but names below them.
	names map[string]*node
	// hosts are the names of addresses.
	hosts map[netip.Addr][]string
	// local are the ranges whose addresses nobody outside is asked about.
	local []netip.Prefix
}

// node is what one name stands for. A name without anything exists all the same.
type node struct {
	ips   []netip.Addr
	srvs  []srv
	cname string
	txt   string
}

type srv struct {
	port   uint16
	target string
}

// NewZone makes the zone of a VPC with such prefixes, whose Services were found valid.
func NewZone(cidrs []netip.Prefix, services []network.Service) *Zone {
	z := &Zone{names: map[string]*node{}, hosts: map[netip.Addr][]string{}, local: cidrs}
	z.at("svc." + apex)
	z.at("dns-version." + apex).txt = version
	for i := range services {
		z.add(&services[i])
	}
	return z
}

// at gives the node of a name, which exists from then on, as do those above it.
func (z *Zone) at(name string) *node {
	n := z.names[name]
	if n == nil {
		n = &node{}
		z.names[name] = n
		if _, above, _ := strings.Cut(name, "."); name != apex {
			z.at(above)
		}
	}
	return n
}

func (z *Zone) add(s *network.Service) {
	name := s.Name + "." + s.Namespace + ".svc." + apex
	self := z.at(name)
	if s.External != "" {
		self.cname = dns.Fqdn(strings.ToLower(s.External))
		return
	}
	for _, ip := range s.IPs {
		self.ips = append(self.ips, ip)
		z.hosts[ip] = append(z.hosts[ip], name)
	}
	if len(s.IPs) > 0 {
		for _, port := range s.Ports {
			z.port(name, network.NamedPort{Name: port.Name, Protocol: port.Protocol, Port: port.Port}, name)
		}
	}
	for _, host := range s.Hosts {
		at := host.Name
		if at == "" {
			at = dashed(host.IP)
		}
		at += "." + name
		self.ips = append(self.ips, host.IP)
		z.at(at).ips = append(z.at(at).ips, host.IP)
		z.hosts[host.IP] = append(z.hosts[host.IP], at)
		for _, port := range host.Ports {
			z.port(name, port, at)
		}
	}
}

// port adds a named port of a Service at a target. Ports without a name have no record.
func (z *Zone) port(service string, port network.NamedPort, target string) {
	if port.Name == "" {
		return
	}
	n := z.at("_" + strings.ToLower(port.Name) + "._" + strings.ToLower(port.Protocol) + "." + service)
	record := srv{port.Port, target}
	for _, there := range n.srvs {
		// One host in both families is one target.
		if there == record {
			return
		}
	}
	n.srvs = append(n.srvs, record)
}

// dashed is the host name of one that has none.
func dashed(ip netip.Addr) string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(ip.String())
}

// reply answers a question of the right form, as far as this zone can. away is the name that somebody else has to be asked
// for then; the reply is complete once that is answered.
func (z *Zone) reply(reply *dns.Msg, q dns.Question, most int) (away string) {
	name := strings.ToLower(q.Name)
	switch {
	case inZone(name):
		reply.Authoritative = true
		return z.answer(reply, q, most)
	case name == "localhost." || strings.HasSuffix(name, ".localhost."):
		reply.Answer = hosts(q.Name, q.Qtype, most, []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()})
	case slices.ContainsFunc(special, func(domain string) bool { return dns.IsSubDomain(domain, name) }):
		nothing(reply, q, dns.RcodeNameError)
	case dns.IsSubDomain("in-addr.arpa.", name) || dns.IsSubDomain("ip6.arpa.", name):
		ip, whole := addressOf(name)
		if whole && !z.reverse(reply, q, ip) {
			return name
		}
		if !whole {
			nothing(reply, q, dns.RcodeSuccess)
		}
	default:
		return name
	}
	return ""
}

// special are domains that are nobody's outside: RFC 6761, 6762 and 7686.
var special = []string{"invalid.", "local.", "onion.", "test."}

// nothing says that there is nothing, and for how long that holds.
func nothing(reply *dns.Msg, q dns.Question, rcode int) {
	soa := authority()
	soa.Hdr.Name = q.Name
	reply.Rcode, reply.Ns = rcode, append(reply.Ns, soa)
}

// answer answers a question about a name of the zone, following names that stand for other names of it. away is where it
// ends when the last one stands for a name elsewhere; the answer is then complete once that is.
func (z *Zone) answer(reply *dns.Msg, q dns.Question, most int) (away string) {
	owner, name := q.Name, strings.ToLower(q.Name)
	// Whoever lets names stand for each other gets no further than this.
	for range 8 {
		n := z.names[name]
		if n == nil {
			reply.Rcode = dns.RcodeNameError
			break
		}
		if n.cname == "" || q.Qtype == dns.TypeCNAME {
			if z.records(reply, owner, q.Qtype, most, n) {
				return ""
			}
			break
		}
		reply.Answer = append(reply.Answer, &dns.CNAME{Hdr: header(owner, dns.TypeCNAME), Target: n.cname})
		owner, name = n.cname, n.cname
		if !inZone(name) {
			return name
		}
	}
	reply.Ns = append(reply.Ns, authority())
	return ""
}

// records adds those of one name, if there are any of the kind.
func (z *Zone) records(reply *dns.Msg, owner string, kind uint16, most int, n *node) bool {
	var out []dns.RR
	switch kind {
	case dns.TypeA, dns.TypeAAAA:
		out = hosts(owner, kind, most, n.ips)
	case dns.TypeSRV:
		listed := map[string]bool{}
		for _, s := range shuffled(n.srvs) {
			if len(out)*shortest > most {
				break
			}
			// All of them are as good as each other.
			out = append(out, &dns.SRV{Hdr: header(owner, dns.TypeSRV), Priority: 0, Weight: uint16(100 / len(n.srvs)), Port: s.port, Target: s.target})
			if target := z.names[s.target]; target != nil && !listed[s.target] {
				listed[s.target] = true
				reply.Extra = append(reply.Extra, hosts(s.target, dns.TypeA, most, target.ips)...)
				reply.Extra = append(reply.Extra, hosts(s.target, dns.TypeAAAA, most, target.ips)...)
			}
		}
	case dns.TypeTXT:
		if n.txt != "" {
			out = append(out, &dns.TXT{Hdr: header(owner, dns.TypeTXT), Txt: []string{n.txt}})
		}
	case dns.TypeCNAME:
		if n.cname != "" {
			out = append(out, &dns.CNAME{Hdr: header(owner, dns.TypeCNAME), Target: n.cname})
		}
	case dns.TypeSOA:
		if strings.EqualFold(owner, apex) {
			out = append(out, authority())
		}
	case dns.TypeNS:
		if strings.EqualFold(owner, apex) {
			out = append(out, &dns.NS{Hdr: header(owner, dns.TypeNS), Ns: "ns.dns." + apex})
		}
	}
	reply.Answer = append(reply.Answer, out...)
	return len(out) > 0
}

// shortest is the length of the shortest record that there is.
const shortest = 12

// hosts gives the records of one family, in an order that is another each time. Of more than an answer of so many bytes has
// room for there are some too many, so that the answer says that it is not whole.
func hosts(owner string, kind uint16, most int, ips []netip.Addr) []dns.RR {
	var out []dns.RR
	for _, ip := range shuffled(ips) {
		if len(out)*shortest > most {
			break
		}
		switch {
		case kind == dns.TypeA && ip.Is4():
			out = append(out, &dns.A{Hdr: header(owner, kind), A: ip.AsSlice()})
		case kind == dns.TypeAAAA && ip.Is6():
			out = append(out, &dns.AAAA{Hdr: header(owner, kind), AAAA: ip.AsSlice()})
		}
	}
	return out
}

// reverse answers a question about the name of an address. ours says that nobody else is to be asked.
func (z *Zone) reverse(reply *dns.Msg, q dns.Question, ip netip.Addr) (ours bool) {
	names, known := z.hosts[ip]
	switch {
	case !known && !z.nobodys(ip):
		return false
	case !known:
		nothing(reply, q, dns.RcodeNameError)
	case q.Qtype != dns.TypePTR:
		nothing(reply, q, dns.RcodeSuccess)
	}
	if q.Qtype == dns.TypePTR {
		for _, name := range shuffled(names) {
			reply.Answer = append(reply.Answer, &dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: name})
		}
	}
	return true
}

// nobodys reports whether an address is of a kind that public name servers know nothing of, or of the VPC.
func (z *Zone) nobodys(ip netip.Addr) bool {
	for _, prefix := range slices.Concat(reserved, z.local) {
		if prefix.Contains(ip) {
			return true
		}
	}
	return !ip.IsGlobalUnicast() || ip.IsPrivate()
}

// reserved are ranges for special use that the library of addresses does not know.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b::/96"),
}

// addressOf reads the name of an address below in-addr.arpa or ip6.arpa.
func addressOf(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		parts := strings.Split(rest, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		ip, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
		return ip, err == nil
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa.")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	var bytes [16]byte
	for i := range 32 {
		digit := strings.IndexByte("0123456789abcdef", rest[2*i])
		if digit < 0 || i < 31 && rest[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		bytes[15-i/2] |= byte(digit) << (4 * (i % 2))
	}
	return netip.AddrFrom16(bytes), true
}

func inZone(name string) bool { return dns.IsSubDomain(apex, name) }

func header(owner string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: owner, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

// authority is the record that tells how long an answer of nothing may be kept.
func authority() *dns.SOA {
	return &dns.SOA{
		Hdr: header(apex, dns.TypeSOA), Ns: "ns.dns." + apex, Mbox: "hostmaster." + apex, Serial: uint32(time.Now().Unix()),
		Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
	}
}

func shuffled[T any](list []T) []T {
	if len(list) < 2 {
		return list
	}
	out := append([]T(nil), list...)
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}
