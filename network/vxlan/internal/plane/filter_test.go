//go:build linux

package plane

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"

	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/vxlan/internal/state"
)

// path is from a pod to somewhere.
type path struct {
	from, protocol string
	to             netip.AddrPort
	// want is who answers; with the rules on, or where a guard is off.
	want string
}

func (p path) String() string { return fmt.Sprintf("%s over %s to %s", p.from, p.protocol, p.to) }

// paths gives the paths to both addresses of a pod.
func (l *lab) paths(from, protocol, to string) []path {
	var out []path
	for _, ip := range l.pods[to].IPs {
		out = append(out, path{from, protocol, at8080(ip), to})
	}
	return out
}

func join(lists ...[]path) []path {
	var out []path
	for _, list := range lists {
		out = append(out, list...)
	}
	return out
}

// open and closed try paths at once.
func (l *lab) open(paths ...path) {
	l.t.Helper()
	var group sync.WaitGroup
	for _, p := range paths {
		group.Go(func() { l.reaches(l.pods[p.from].ns, p.protocol, p.to, p.want) })
	}
	group.Wait()
}

func (l *lab) closed(paths ...path) {
	l.t.Helper()
	var group sync.WaitGroup
	for _, p := range paths {
		group.Go(func() {
			if err := silent(l.pods[p.from].ns, p.protocol, p.to); err != nil {
				l.t.Error(err)
			}
		})
	}
	group.Wait()
}

// in puts a pod into security groups, as both its place and its endpoint say it.
func (l *lab) in(pod string, groups ...string) {
	p := l.pods[pod]
	p.Groups = groups
	for i := range l.vpcs[p.vpc].Endpoints {
		if e := &l.vpcs[p.vpc].Endpoints[i]; e.Pod == p.UID {
			e.Groups = groups
		}
	}
}

var publicPort = netip.AddrPortFrom(publicAddr, 80)

// grouped is the lab of security groups: web may ask db and something public, db nobody, and who is in no group everybody
// that lets him.
func grouped(t *testing.T, omit ...guard) *lab {
	t.Helper()
	l := newLab(t, omit...)
	v := l.vpc("red", 100, "red123")
	tcp := func(first, last uint16) []network.PolicyPort {
		return []network.PolicyPort{{Protocol: "TCP", First: first, Last: last}}
	}
	v.Groups = []network.Policy{
		{
			Pods: "web", Receive: true, Send: true,
			From: []network.PolicyRule{{Anyone: true, Ports: tcp(8000, 8080)}, {Anyone: true, Ports: tcp(8080, 8090)}},
			To: []network.PolicyRule{
				{Sets: []string{"db"}, Ports: tcp(8080, 8080)},
				{Blocks: []network.PolicyBlock{{CIDR: netip.PrefixFrom(publicAddr, 32)}, {CIDR: netip.MustParsePrefix(network.APIAddress + "/32")}}},
			},
		},
		{Pods: "db", Receive: true, Send: true, From: []network.PolicyRule{{Sets: []string{"web"}, Ports: tcp(8080, 8080)}}},
	}
	l.pod("red", "web1", "a", 1, 11)
	l.pod("red", "web2", "b", 2, 12)
	l.pod("red", "db1", "a", 1, 13)
	l.pod("red", "db2", "b", 1, 14)
	l.pod("red", "none1", "a", 1, 15)
	l.pod("red", "none2", "b", 2, 16)
	for _, name := range []string{"web1", "web2"} {
		l.in("red/"+name, "web")
	}
	for _, name := range []string{"db1", "db2"} {
		l.in("red/"+name, "db")
	}
	l.build()
	l.services()
	return l
}

// groupBreaches are what groups keep out: on a node, across nodes, routed between subnets, in either direction.
func groupBreaches(l *lab) []path {
	return join(
		l.paths("red/none1", "tcp", "red/db1"), l.paths("red/none1", "tcp", "red/db2"), l.paths("red/none2", "tcp", "red/db1"),
		l.paths("red/none1", "udp", "red/db1"), l.paths("red/web1", "udp", "red/db2"), l.paths("red/none1", "udp", "red/web1"),
		l.paths("red/web1", "tcp", "red/none1"), l.paths("red/web1", "tcp", "red/web2"), l.paths("red/web2", "tcp", "red/none1"),
		l.paths("red/db1", "tcp", "red/none1"), l.paths("red/db2", "udp", "red/none1"), l.paths("red/db1", "tcp", "red/web1"),
		[]path{{"red/db1", "tcp", publicPort, "public"}, {"red/db2", "udp", publicPort, "public"}},
	)
}

// sidesteps are ways around rules that go by the addresses of pods.
func (l *lab) sidesteps(from, to string) map[string]func() error {
	a, b := l.pods[from], l.pods[to]
	arrives := func(hardware string, packet []byte, kind uint16) func() error {
		return func() error {
			return l.arrives(to, func() { l.send(a.ns, ethernet(mac(hardware), mac(a.MAC), kind, packet)) })
		}
	}
	broadcast, group := netip.MustParseAddr("10.0.1.255"), netip.MustParseAddr("ff02::1")
	return map[string]func() error{
		"LinkLocal":     func() error { return silent(a.ns, "tcp", at8080(linkLocal(b.MAC).WithZone("eth0"))) },
		"FromLinkLocal": arrives(b.MAC, udpPacket(linkLocal(a.MAC), b.IPs[1], 8080, []byte(marker)), 0x86dd),
		"ToLinkLocal":   arrives(b.MAC, udpPacket(a.IPs[1], linkLocal(b.MAC), 8080, []byte(marker)), 0x86dd),
		"Broadcast":     arrives("ff:ff:ff:ff:ff:ff", udpPacket(a.IPs[0], broadcast, 8080, []byte(marker)), 0x0800),
		"Multicast":     arrives("33:33:00:00:00:01", udpPacket(a.IPs[1], group, 8080, []byte(marker)), 0x86dd),
		"GroupMAC":      arrives("33:33:00:00:00:01", udpPacket(a.IPs[0], b.IPs[0], 8080, []byte(marker)), 0x0800),
	}
}

// TestSidesteps: there is no way around the filters of the sender or of the receiver on one bridge.
func TestSidesteps(t *testing.T) {
	for name, omit := range map[string][]guard{"On": nil, "Off": {guardGroups, guardPolicies}} {
		t.Run(name, func(t *testing.T) {
			l := grouped(t, omit...)
			for _, ends := range [][2]string{{"red/none1", "red/db1"}, {"red/db1", "red/none1"}} {
				for way, try := range l.sidesteps(ends[0], ends[1]) {
					if name == "Off" {
						if !happens(try) {
							t.Errorf("%s from %s to %s does not happen", way, ends[0], ends[1])
						}
					} else if err := try(); err != nil {
						t.Errorf("%s from %s to %s: %v", way, ends[0], ends[1], err)
					}
				}
			}
		})
	}
}

// TestGroups: what the rules of groups allow passes, and nothing else that has to do with a pod in a group.
func TestGroups(t *testing.T) {
	l := grouped(t)
	api := netip.MustParseAddrPort(fmt.Sprintf("%s:%d", network.APIAddress, network.APIPort))
	allowed := join(
		l.paths("red/web1", "tcp", "red/db1"), l.paths("red/web1", "tcp", "red/db2"), l.paths("red/web2", "tcp", "red/db1"), l.paths("red/web2", "tcp", "red/db2"),
		l.paths("red/none1", "tcp", "red/web1"), l.paths("red/none2", "tcp", "red/web1"),
		l.paths("red/none1", "udp", "red/none2"), l.paths("red/none2", "tcp", "red/none1"),
		[]path{{"red/web1", "tcp", publicPort, "public"}, {"red/web2", "udp", publicPort, "public"}, {"red/web1", "tcp", api, "api"}, {"red/none1", "tcp", publicPort, "public"}},
	)
	l.open(allowed...)
	l.closed(groupBreaches(l)...)
	for name, p := range l.pods {
		// A kubelet's probes come in whatever the rules.
		l.reaches(l.nodes[p.node].ns, "tcp", at8080(p.Infra), name)
	}

	v := l.vpcs["red"]
	t.Run("RulesChange", func(t *testing.T) {
		v.Groups[1].From = append(v.Groups[1].From, network.PolicyRule{Blocks: []network.PolicyBlock{
			{CIDR: netip.MustParsePrefix("10.0.0.0/16"), Except: []netip.Prefix{netip.MustParsePrefix("10.0.2.0/24")}},
			{CIDR: netip.MustParsePrefix("::/0"), Except: []netip.Prefix{netip.MustParsePrefix("fd10:0:0:2::/64")}},
		}})
		l.store()
		l.open(join(l.paths("red/none1", "tcp", "red/db1"), l.paths("red/none1", "udp", "red/db2"))...)
		l.closed(l.paths("red/none2", "tcp", "red/db1")...)
	})
	t.Run("PodsChange", func(t *testing.T) {
		l.in("red/none2", "web")
		l.in("red/db2")
		l.store()
		l.open(join(l.paths("red/none2", "tcp", "red/db1"), l.paths("red/db2", "tcp", "red/none1"))...)
		l.closed(l.paths("red/web1", "tcp", "red/db2")...)
	})
	t.Run("GroupGone", func(t *testing.T) {
		v.Groups = nil
		l.store()
		l.closed(join(l.paths("red/web1", "tcp", "red/db1"), l.paths("red/none1", "tcp", "red/web1"))...)
		l.open(l.paths("red/db2", "tcp", "red/none1")...)
	})
	t.Run("None", func(t *testing.T) {
		for name := range l.pods {
			l.in(name)
		}
		// What the pods were plugged in with still counts on their nodes where no endpoint says otherwise; here one does.
		l.store()
		l.open(join(l.paths("red/none1", "tcp", "red/db1"), l.paths("red/db1", "udp", "red/web2"))...)
	})
}

// TestGroupsFromTheFirstPacket: a pod whose endpoint nobody has told of yet is in its groups all the same, on its node and
// towards the others.
func TestGroupsFromTheFirstPacket(t *testing.T) {
	l := grouped(t)
	endpoints := l.vpcs["red"].Endpoints
	p := l.pod("red", "db3", "a", 1, 17)
	p.Groups = []string{"db"}
	l.vpcs["red"].Endpoints = endpoints // as if it were not known yet
	l.store()
	l.attach(p)
	l.answer(p.ns, "red/db3", 8080)
	l.open(l.paths("red/web1", "tcp", "red/db3")...)
	l.closed(join(l.paths("red/none1", "tcp", "red/db3"), l.paths("red/db3", "tcp", "red/none1"))...)
}

// TestGroupsMatter switches the groups off and sees each breach happen.
func TestGroupsMatter(t *testing.T) {
	l := grouped(t, guardGroups)
	l.open(groupBreaches(l)...)
}

// TestPredecessor: what was allowed to the pod that had an address before is not allowed to the next one.
func TestPredecessor(t *testing.T) {
	l := grouped(t)
	before := l.pods["red/none1"]
	// A connection over UDP that goes on, from one port to one port.
	to := at8080(before.IPs[0])
	ns := l.pods["red/none2"].ns
	if who, _, err := ask(ns, "udp", to, 45001, patience); err != nil || who != "red/none1" {
		t.Fatalf("%q answers (%v)", who, err)
	}
	node := l.nodes["a"]
	l.must(node.Detach(before.Container))
	after := l.namespace("after")
	next := *before
	next.UID, next.Container, next.ns, next.NetNS, next.Groups = "next", "next", after, after.Name(), []string{"db"}
	for i := range l.vpcs["red"].Endpoints {
		if e := &l.vpcs["red"].Endpoints[i]; e.Pod == before.UID {
			e.Pod, e.Groups = "next", next.Groups
		}
	}
	l.store()
	l.attach(&next)
	l.answer(after, "next", 8080)
	if who, _, err := ask(ns, "udp", to, 45001, impatience); err == nil {
		t.Errorf("%q answers over the connection of its predecessor", who)
	}
}

// limited is the lab of policies: who is in set "front" may ask those in "back" over TCP at their port "http"; those in
// "quiet" send nothing but to one address; "open" lets in everybody over UDP. back1 is in a group as well.
func limited(t *testing.T, omit ...guard) *lab {
	t.Helper()
	l := newLab(t, omit...)
	v := l.vpc("red", 100, "red123")
	v.Groups = []network.Policy{{Pods: "listeners", Receive: true, Send: true, From: []network.PolicyRule{{Anyone: true}}}}
	v.Policies = []network.Policy{
		{Pods: "back", Receive: true, From: []network.PolicyRule{
			{Sets: []string{"front"}, Ports: []network.PolicyPort{{Protocol: "TCP", Name: "http"}, {Protocol: "SCTP"}, {Protocol: "SCTP", First: 7, Last: 9}, {Protocol: "SCTP", Name: "http"}}},
			{Sets: []string{"nobody"}}, {},
		}},
		{Pods: "quiet", Send: true, To: []network.PolicyRule{{Blocks: []network.PolicyBlock{{CIDR: netip.PrefixFrom(publicAddr, 32)}, {CIDR: netip.MustParsePrefix("0.0.0.0/0"), Except: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/1"), netip.MustParsePrefix("128.0.0.0/1"), netip.MustParsePrefix("10.0.0.0/8")}}}}}},
		{Pods: "open", Receive: true, Send: true, From: []network.PolicyRule{{Anyone: true, Ports: []network.PolicyPort{{Protocol: "UDP"}}}}},
	}
	l.pod("red", "front1", "a", 1, 11)
	l.pod("red", "front2", "b", 2, 12)
	l.pod("red", "back1", "a", 1, 13)
	l.pod("red", "back2", "b", 1, 14)
	l.pod("red", "free", "a", 1, 15)
	l.pod("red", "quiet", "a", 1, 16)
	for i := range v.Endpoints {
		e := &v.Endpoints[i]
		set := strings.TrimRight(strings.TrimPrefix(string(e.Pod), "red-"), "12")
		e.Sets = []string{set}
		if set == "back" {
			e.Ports = []network.NamedPort{{Name: "http", Protocol: "TCP", Port: 8080}, {Name: "http", Protocol: "SCTP", Port: 8080}}
		}
	}
	v.Endpoints[len(v.Endpoints)-1].Sets = []string{"quiet", "open"}
	l.in("red/back1", "listeners")
	l.build()
	l.services()
	return l
}

func limitedBreaches(l *lab) []path {
	return join(
		l.paths("red/free", "tcp", "red/back1"), l.paths("red/free", "tcp", "red/back2"), l.paths("red/front2", "udp", "red/back1"), l.paths("red/quiet", "tcp", "red/back2"),
		l.paths("red/quiet", "udp", "red/free"), l.paths("red/quiet", "tcp", "red/front2"), l.paths("red/front1", "tcp", "red/quiet"), l.paths("red/front2", "tcp", "red/quiet"),
	)
}

// TestPolicies: what the tenant's policies allow passes, beside what security groups allow, and nothing else of those that
// they isolate.
func TestPolicies(t *testing.T) {
	l := limited(t)
	l.open(join(
		l.paths("red/front1", "tcp", "red/back1"), l.paths("red/front1", "tcp", "red/back2"), l.paths("red/front2", "tcp", "red/back1"), l.paths("red/front2", "tcp", "red/back2"),
		l.paths("red/back2", "tcp", "red/free"), l.paths("red/free", "udp", "red/front2"), l.paths("red/free", "udp", "red/quiet"), l.paths("red/front2", "udp", "red/quiet"),
		[]path{{"red/quiet", "tcp", publicPort, "public"}, {"red/back2", "tcp", publicPort, "public"}},
	)...)
	l.closed(limitedBreaches(l)...)
	// The other layer holds as well: a pod whose policies let it send, and whose groups do not.
	l.closed(join(l.paths("red/back1", "tcp", "red/free"), []path{{"red/back1", "tcp", publicPort, "public"}})...)
	for name, p := range l.pods {
		l.reaches(l.nodes[p.node].ns, "tcp", at8080(p.Infra), name)
	}
	t.Run("NotKnownYet", func(t *testing.T) {
		v := l.vpcs["red"]
		endpoints := v.Endpoints
		p := l.pod("red", "new", "a", 1, 17)
		told := v.Endpoints
		v.Endpoints = endpoints
		l.store()
		l.attach(p)
		l.answer(p.ns, "red/new", 8080)
		l.closed(join(l.paths("red/new", "tcp", "red/free"), l.paths("red/free", "tcp", "red/new"))...)
		l.reaches(l.nodes["a"].ns, "tcp", at8080(p.Infra), "red/new")
		v.Endpoints = told
		l.store()
		l.open(join(l.paths("red/new", "tcp", "red/free"), l.paths("red/free", "tcp", "red/new"))...)
	})
	t.Run("Gone", func(t *testing.T) {
		l.vpcs["red"].Policies = nil
		l.store()
		l.open(join(l.paths("red/free", "tcp", "red/back2"), l.paths("red/quiet", "tcp", "red/front2"))...)
		l.closed(l.paths("red/back1", "tcp", "red/free")...)
	})
}

// TestPoliciesMatter switches the policies off and sees each breach happen; a pod that is not known yet is let through, too.
func TestPoliciesMatter(t *testing.T) {
	l := limited(t, guardPolicies)
	l.open(limitedBreaches(l)...)
	v := l.vpcs["red"]
	endpoints := v.Endpoints
	p := l.pod("red", "new", "a", 1, 17)
	v.Endpoints = endpoints
	l.store()
	l.attach(p)
	l.answer(p.ns, "red/new", 8080)
	l.open(join(l.paths("red/new", "tcp", "red/free"), l.paths("red/free", "tcp", "red/new"))...)
}

// TestNoFilter: a VPC without groups has no rules for them and tracks no frames.
func TestNoFilter(t *testing.T) {
	l := newLab(t)
	v := l.vpc("red", 100, "red123")
	l.pod("red", "p1", "a", 1, 11)
	l.build()
	text := l.nodes["a"].vpcRules(v, 1, []Pod{l.pods["red/p1"].Pod}).text.String()
	for _, word := range []string{"leave", "arrive"} {
		if containsLine(text, "chain "+word) {
			t.Errorf("there is a chain %s", word)
		}
	}
	if got := l.tracked(v); got != "0" {
		t.Errorf("bridge-nf-call-iptables is %s", got)
	}
	v.Groups = []network.Policy{{Pods: "web", Receive: true, Send: true}}
	l.store()
	if got := l.tracked(v); got != "1" {
		t.Errorf("with groups bridge-nf-call-iptables is %s", got)
	}
	ns, err := openExisting(l.nodes["a"].netnsPath(v.UID))
	l.must(err)
	defer ns.Close()
	l.must(sysctl(ns, map[string]string{"bridge/bridge-nf-call-iptables": "0"}))
	l.must(l.nodes["a"].Ensure(v.UID, false))
	if got := l.tracked(v); got != "1" {
		t.Errorf("after somebody switched it off bridge-nf-call-iptables is %s", got)
	}
}

func containsLine(text, want string) bool {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), want) {
			return true
		}
	}
	return false
}

// tracked is whether node a gives a VPC's frames to its rules.
func (l *lab) tracked(v *state.Desired) string {
	l.t.Helper()
	ns, err := openExisting(l.nodes["a"].netnsPath(v.UID))
	l.must(err)
	defer ns.Close()
	var raw []byte
	l.must(inside(ns, func() (err error) {
		raw, err = os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
		return err
	}))
	return strings.TrimSpace(string(raw))
}
