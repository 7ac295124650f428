//go:build linux

package plane

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/network"
)

// The addresses of a tenant's Services are led to backends where the question begins: in the pod's own network namespace,
// before a packet leaves it. So the VPC's rules, on whatever node, see pods talk to pods and judge that. A pod could change
// what is in its own namespace only with rights that it does not have, and would change its own packets alone.

// servicesTable is the table in a pod's namespace.
const servicesTable = "vivarium-services"

// service is one port at one address of a Service.
type service struct {
	at       netip.AddrPort
	protocol string // as rules spell it
	sticky   bool
	backends []netip.AddrPort
}

func (s *service) key() string {
	return fmt.Sprintf("%s . %s . %d", s.at.Addr(), s.protocol, s.at.Port())
}

// servicePorts gives everything that is led somewhere, or is to be refused, in an order of its own.
func servicePorts(services []network.Service) []service {
	var out []service
	for i := range services {
		s := &services[i]
		for _, ip := range s.IPs {
			for _, port := range s.Ports {
				backends := slices.DeleteFunc(slices.Clone(port.Backends), func(b netip.AddrPort) bool { return b.Addr().Is4() != ip.Is4() })
				out = append(out, service{
					at: netip.AddrPortFrom(ip, port.Port), protocol: strings.ToLower(port.Protocol), sticky: s.Sticky > 0,
					backends: Distinct(backends, netip.AddrPort.Compare),
				})
			}
		}
	}
	slices.SortFunc(out, func(a, b service) int {
		return cmp.Or(a.at.Compare(b.at), strings.Compare(a.protocol, b.protocol))
	})
	return out
}

// serviceRules are those of one pod. chosen has its choices of before; now are those that hold with these rules.
func serviceRules(pod types.UID, services []network.Service, chosen map[string]netip.AddrPort) (r *rules, now map[string]netip.AddrPort) {
	r, now = &rules{}, map[string]netip.AddrPort{}
	ports := servicePorts(services)
	var lead []string
	chains := 0
	r.table("inet", servicesTable)
	for _, f := range families {
		var one, many, closed []string
		for i := range ports {
			s := &ports[i]
			switch {
			case s.at.Addr().Is4() != f.four:
			case len(s.backends) == 0:
				closed = append(closed, s.key())
			case s.sticky || len(s.backends) == 1:
				to := s.backends[0]
				if s.sticky {
					to = s.choose(pod, chosen)
					now[s.key()] = to
				}
				one = append(one, fmt.Sprintf("%s : %s", s.key(), spell(to)))
			default:
				name := fmt.Sprintf("many-%d", chains)
				chains++
				many = append(many, fmt.Sprintf("%s : goto %s", s.key(), name))
				r.chain(name, "")
				r.rule("meta l4proto { tcp, udp, sctp } dnat %s to numgen random mod %d map { %s }", f.ip, len(s.backends), numbered(s.backends))
				r.end()
			}
		}
		key := f.kind + " . inet_proto . inet_service"
		r.set("set", "closed"+f.set, key+";", closed)
		r.set("map", "one"+f.set, key+" : "+f.kind+" . inet_service;", one)
		r.set("map", "many"+f.set, key+" : verdict;", many)
		lead = append(lead, fmt.Sprintf("dnat %s to %[1]s daddr . meta l4proto . th dport map @one%s", f.ip, f.set),
			fmt.Sprintf("%s daddr . meta l4proto . th dport vmap @many%s", f.ip, f.set))
	}
	r.chain("lead", "type nat hook output priority -100; policy accept;")
	for _, rule := range lead {
		r.rule("%s", rule)
	}
	r.end()
	// A connection that began while there was a backend has that one's address here.
	r.chain("refuse", "type filter hook output priority filter; policy accept;")
	for _, f := range families {
		r.rule("%s daddr . meta l4proto . th dport @closed%s goto closed", f.ip, f.set)
	}
	r.end()
	r.chain("closed", "")
	r.rule("meta l4proto tcp reject with tcp reset")
	r.rule("reject with icmpx type port-unreachable")
	r.end()
	r.line("}")
	return r, now
}

func spell(at netip.AddrPort) string { return fmt.Sprintf("%s . %d", at.Addr(), at.Port()) }

func numbered(backends []netip.AddrPort) string {
	var out []string
	for i, b := range backends {
		out = append(out, fmt.Sprintf("%d : %s", i, spell(b)))
	}
	return strings.Join(out, ", ")
}

// choose gives the backend that a pod has as long as that is one, or else that which the pod's UID puts first: pods spread
// over the backends, and the kernel has nothing to remember.
func (s *service) choose(pod types.UID, chosen map[string]netip.AddrPort) netip.AddrPort {
	if before, ok := chosen[s.key()]; ok && slices.Contains(s.backends, before) {
		return before
	}
	weight := func(b netip.AddrPort) string {
		sum := sha256.Sum256(fmt.Append(nil, pod, " ", s.key(), " ", b))
		return string(sum[:])
	}
	return slices.MaxFunc(s.backends, func(a, b netip.AddrPort) int { return strings.Compare(weight(a), weight(b)) })
}

// Serve makes the Services in the namespaces of a VPC's pods here be those that were last stored. The VPC's lock is let go of
// between pods: one that comes meanwhile does not wait for all of them.
func (n *Node) Serve(vpc types.UID) error {
	services, err := n.StoredServices(vpc)
	if err != nil {
		return err
	}
	pods, err := n.Pods(vpc)
	if err != nil {
		return err
	}
	var problems []error
	for i := range pods {
		if err := n.serveOne(pods[i].Container, services); err != nil {
			problems = append(problems, fmt.Errorf("services of pod %s/%s: %w", pods[i].Namespace, pods[i].Name, err))
		}
	}
	return errors.Join(problems...)
}

func (n *Node) serveOne(container string, services []network.Service) error {
	pod, err := n.pod(container)
	if err != nil || pod == nil {
		return err
	}
	unlock, err := n.lock(string(pod.VPC))
	if err != nil {
		return err
	}
	defer unlock()
	// Another process may have unplugged it, or not have plugged it in yet: then that is who serves it.
	if pod, err = n.pod(container); err != nil || pod == nil || pod.Port == "" {
		return err
	}
	return n.serve(pod, services)
}

// served is what is written down of a pod's Services once they are in its namespace.
type served struct {
	// Rules is a digest of their text, and Generation that of the packet filter in which they were last seen.
	Rules      string `json:"rules"`
	Generation string `json:"generation"`
	// Chosen are the backends that the pod keeps, by the Service's address, protocol and port.
	Chosen map[string]netip.AddrPort `json:"chosen,omitempty"`
}

func (n *Node) servedPath(container string) string {
	return filepath.Join(n.config.Dir, "served", container+".json")
}

// serve puts Services into a pod's namespace, all or none, under the VPC's lock. A namespace that is gone is no error.
func (n *Node) serve(pod *Pod, services []network.Service) error {
	path := n.servedPath(pod.Container)
	var before served
	raw, err := os.ReadFile(path)
	if err == nil {
		// What cannot be read is made anew.
		_ = json.Unmarshal(raw, &before)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read a pod's services: %w", err)
	}
	if len(services) == 0 && before.Rules == "" {
		// A pod whose VPC has no Services tracks no connections for them.
		return nil
	}
	ns, err := openExisting(pod.NetNS)
	if ns == nil || err != nil {
		return err
	}
	defer ns.Close()
	r, chosen := serviceRules(pod.UID, services, before.Chosen)
	sum := sha256.Sum256([]byte(r.text.String()))
	after := served{Rules: hex.EncodeToString(sum[:]), Chosen: chosen}
	if after.Generation, err = generation(ns); err != nil {
		return err
	}
	if before.Rules == after.Rules && (before.Generation == after.Generation || r.verify(ns, "inet "+servicesTable) == nil) {
		if before.Generation == after.Generation {
			return nil
		}
	} else {
		if err := r.load(ns); err != nil {
			return err
		}
		// Asked before the rules are listed: what changes meanwhile is another generation.
		if after.Generation, err = generation(ns); err != nil {
			return err
		}
		if err := r.verify(ns, "inet "+servicesTable); err != nil {
			return err
		}
		// An answer that connection tracking takes for none of its own would be one from a stranger, and end the connection.
		if err := sysctl(ns, map[string]string{"netfilter/nf_conntrack_tcp_be_liberal": "1"}); err != nil {
			return err
		}
		if err := endStale(ns, servicePorts(services)); err != nil {
			return err
		}
	}
	if raw, err = json.Marshal(after); err != nil {
		return fmt.Errorf("write a pod's services: %w", err)
	}
	return replaceFile(path, raw)
}

// endStale has UDP begin anew where it goes to a backend that is none any more: for connection tracking it is one
// connection as long as the pod asks from one port. What TCP began ends as its ends see fit.
func endStale(ns *os.File, ports []service) error {
	leads := stale{}
	for _, s := range ports {
		if s.protocol == "udp" {
			leads[s.at] = s.backends
		}
	}
	return inside(ns, func() error {
		for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, leads); err != nil {
				return fmt.Errorf("end connections with backends that are gone: %w", err)
			}
		}
		return nil
	})
}

// stale are where the UDP ports of Services lead now. It matches the connections that lead elsewhere.
type stale map[netip.AddrPort][]netip.AddrPort

// MatchConntrackFlow implements [netlink.CustomConntrackFilter].
func (leads stale) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	asked, _ := netip.AddrFromSlice(flow.Forward.DstIP)
	answers, _ := netip.AddrFromSlice(flow.Reverse.SrcIP)
	to, by := netip.AddrPortFrom(asked.Unmap(), flow.Forward.DstPort), netip.AddrPortFrom(answers.Unmap(), flow.Reverse.SrcPort)
	backends, served := leads[to]
	return served && !slices.Contains(backends, by) || !served && to != by
}
