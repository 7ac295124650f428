//go:build linux

package plane

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"vivarium.io/vivarium/network"
)

// TestReach: every pod reaches every pod of its VPC, on a node and across, in a subnet and across, and the one that answers
// is its own tenant's although the other has the same addresses.
func TestReach(t *testing.T) {
	l := two(t)
	var group sync.WaitGroup
	for name, from := range l.pods {
		group.Go(func() {
			for other, to := range l.pods {
				if to.vpc != from.vpc || to == from {
					continue
				}
				for _, ip := range to.IPs {
					for _, network := range []string{"tcp", "udp"} {
						if seen := l.reaches(from.ns, network, at8080(ip), other); seen != "" {
							if peer := netip.MustParseAddrPort(seen).Addr(); !slices.Contains(from.IPs, peer.Unmap()) {
								t.Errorf("%s is seen by %s as %s", name, other, seen)
							}
						}
					}
				}
			}
		})
	}
	group.Wait()
}

// TestSameTuples: red and blue use the same addresses and ports at the same time, and each gets its own.
func TestSameTuples(t *testing.T) {
	l := two(t)
	var group sync.WaitGroup
	for _, vpc := range []string{"red", "blue"} {
		for _, kind := range []string{"tcp", "udp"} {
			group.Go(func() {
				for _, to := range []string{"p2", "p3", "p4"} {
					for range 5 {
						who, _, err := ask(l.pods[vpc+"/p1"].ns, kind, at8080(l.pods[vpc+"/"+to].IPs[0]), 45000, patience)
						if err != nil || who != vpc+"/"+to {
							t.Errorf("%s from port 45000 over %s: %q answers (%v)", vpc+"/"+to, kind, who, err)
						}
					}
				}
			})
		}
	}
	group.Wait()
}

// breach is something that must not happen. try gives an error when it did not go as it must.
type breach struct {
	// off are the guards that keep it out, all of them.
	off []guard
	try func(l *lab) error
}

func breaches() map[string]breach {
	// to has red/p1 ask somewhere.
	to := func(network string, addr netip.AddrPort) func(*lab) error {
		return func(l *lab) error { return silent(l.pods["red/p1"].ns, network, addr) }
	}
	return map[string]breach{
		"Node":          {[]guard{guardRanges, guardInput}, to("tcp", netip.MustParseAddrPort("10.99.0.1:10250"))},
		"NodeUDP":       {[]guard{guardRanges, guardInput}, to("udp", netip.MustParseAddrPort("10.99.0.1:10250"))},
		"OtherNode":     {[]guard{guardRanges, guardInput}, to("tcp", netip.MustParseAddrPort("10.99.0.2:10250"))},
		"NodeSix":       {[]guard{guardRanges, guardInput}, to("tcp", netip.MustParseAddrPort("[fd99::1]:10250"))},
		"Transit":       {[]guard{guardRanges, guardInput}, func(l *lab) error { return l.transit("red/p1") }},
		"Metadata":      {[]guard{guardRanges}, to("tcp", netip.AddrPortFrom(metadataAddr, 80))},
		"PrivateRange":  {[]guard{guardRanges}, to("tcp", netip.AddrPortFrom(privateAddr, 80))},
		"APIOtherPort":  {[]guard{guardRanges}, to("tcp", netip.AddrPortFrom(worldAddr, 80))},
		"Infra":         {[]guard{guardRanges, guardNamespace}, func(l *lab) error { return silent(l.pods["red/p1"].ns, "tcp", at8080(l.pods["blue/p1"].Infra)) }},
		"FromTheWorld":  {[]guard{guardNamespace}, func(l *lab) error { return l.fromWorld() }},
		"FromTheNode":   {[]guard{guardFromNode}, func(l *lab) error { return l.fromNode() }},
		"ForgedIP":      {[]guard{guardSpoofIP}, func(l *lab) error { return l.forgedIP() }},
		"ForgedIPSix":   {[]guard{guardSpoofIP}, func(l *lab) error { return l.forgedIPSix() }},
		"ForgedMAC":     {[]guard{guardSpoofMAC}, func(l *lab) error { return l.forgedMAC() }},
		"ForgedARP":     {[]guard{guardSpoofARP}, func(l *lab) error { return l.forgedARP() }},
		"ForgedND":      {[]guard{guardSpoofND}, func(l *lab) error { return l.forgedND() }},
		"ForgedRA":      {[]guard{guardSpoofND}, func(l *lab) error { return l.forgedRA() }},
		"ForgedVXLAN":   {[]guard{guardTunnel, guardRanges, guardInput}, func(l *lab) error { return l.forgedVXLAN() }},
		"StrangeTunnel": {[]guard{guardTunnel}, func(l *lab) error { return l.strangeTunnel() }},
	}
}

// TestIsolation tries everything that must not work.
func TestIsolation(t *testing.T) {
	l := two(t)
	l.services()
	for name, b := range breaches() {
		t.Run(name, func(t *testing.T) {
			if err := b.try(l); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("OtherTenant", func(t *testing.T) {
		var group sync.WaitGroup
		for vpc, other := range map[string]string{"red": "blue", "blue": "red"} {
			for _, ip := range l.pods[other+"/only"].IPs {
				for _, kind := range []string{"tcp", "udp"} {
					for _, from := range []string{"p1", "p3", "p4"} {
						group.Go(func() {
							if err := silent(l.pods[vpc+"/"+from].ns, kind, at8080(ip)); err != nil {
								t.Error(err)
							}
						})
					}
				}
			}
		}
		group.Wait()
	})
}

// happens tries a breach until it succeeds: on a slow machine that may be later than one try waits.
func happens(try func() error) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if try() != nil {
			return true
		}
	}
	return false
}

// TestGuardsMatter switches off what keeps each breach out, and nothing else, and sees it happen: without this, a test that
// sees nothing would prove nothing.
func TestGuardsMatter(t *testing.T) {
	if testing.Short() {
		t.Skip("a lab for each guard")
	}
	// One lab serves all that fall with the same guards.
	labs := map[string][]string{}
	for name, b := range breaches() {
		labs[fmt.Sprintf("%q", b.off)] = append(labs[fmt.Sprintf("%q", b.off)], name)
	}
	for off, fall := range labs {
		t.Run(off, func(t *testing.T) {
			t.Parallel()
			l := few(t, breaches()[fall[0]].off...)
			l.services()
			for _, name := range fall {
				if !happens(func() error { return breaches()[name].try(l) }) {
					t.Errorf("%s does not happen although %s are switched off", name, off)
				}
			}
		})
	}
	t.Run("one VPC for two tenants", func(t *testing.T) {
		t.Parallel()
		l := newLab(t)
		l.vpc("red", 100, "red123")
		l.pod("red", "p1", "a", 1, 11)
		l.pod("red", "only", "b", 1, 60)
		l.build()
		if !happens(func() error { return silent(l.pods["red/p1"].ns, "tcp", at8080(l.pods["red/only"].IPs[0])) }) {
			t.Error("a pod of the same VPC is not reached")
		}
	})
}

// TestWaysOut: the tenant's API, public addresses, and the node's way to a pod.
func TestWaysOut(t *testing.T) {
	l := two(t)
	l.services()
	api := netip.MustParseAddrPort(fmt.Sprintf("%s:%d", network.APIAddress, network.APIPort))
	public := netip.AddrPortFrom(publicAddr, 80)
	for _, name := range []string{"red/p1", "blue/p1", "red/p4"} {
		l.reaches(l.pods[name].ns, "tcp", api, "api")
		l.reaches(l.pods[name].ns, "tcp", apiAddr, "api")
		l.reaches(l.pods[name].ns, "udp", public, "public")
		seen := l.reaches(l.pods[name].ns, "tcp", public, "public")
		if seen != "" && netip.MustParseAddrPort(seen).Addr().Unmap() != l.nodes[l.pods[name].node].addr {
			t.Errorf("%s goes out as %s, not as its node", name, seen)
		}
	}
	for name, p := range l.pods {
		seen := l.reaches(l.nodes[p.node].ns, "tcp", at8080(p.Infra), name)
		if seen != "" && netip.MustParseAddrPort(seen).Addr() != l.vpcs[p.vpc].Subnet(p.Subnet).Gateway[0] {
			t.Errorf("%s is asked by %s, not by its gateway", name, seen)
		}
	}

	// What is for a pod that is not here stays on the node, whoever would answer out there.
	l.must(ensureAddress(l.handle(l.wire), l.up(l.handle(l.wire), "wire"), netip.MustParsePrefix("198.18.77.7/32")))
	if err := silent(l.nodes["a"].ns, "tcp", netip.MustParseAddrPort("198.18.77.7:80")); err != nil {
		t.Error(err)
	}

	// Without egress there is the API and nothing else.
	l.vpcs["red"].Egress = false
	l.store()
	l.reaches(l.pods["red/p1"].ns, "tcp", api, "api")
	l.reaches(l.pods["red/p1"].ns, "tcp", apiAddr, "api")
	if err := silent(l.pods["red/p1"].ns, "tcp", netip.AddrPortFrom(apiAddr.Addr(), apiAddr.Port()+1)); err != nil {
		t.Error(err)
	}
	if err := silent(l.pods["red/p1"].ns, "tcp", public); err != nil {
		t.Error(err)
	}
	l.reaches(l.pods["blue/p1"].ns, "tcp", public, "public")
}

// TestAddresses: what a pod may not be given.
func TestAddresses(t *testing.T) {
	l := two(t)
	node := l.nodes["a"]
	taken := l.pods["red/p1"].Pod
	taken.Container, taken.UID = "thief", "thief"
	remote := l.pods["red/p3"].Pod
	remote.Container, remote.UID = "thief", "thief"
	again := l.pods["red/p1"].Pod
	again.Container, again.Name = "thief", "thief"
	gateway := taken
	gateway.IPs = l.vpcs["red"].Subnets[0].Gateway
	elsewhere := taken
	elsewhere.IPs = []netip.Addr{netip.MustParseAddr("10.0.2.77")}
	alien := taken
	alien.Subnet = "blue-s1"
	for name, tc := range map[string]struct {
		pod  Pod
		want error
	}{
		"Taken":       {taken, ErrRefused},
		"TakenAway":   {remote, ErrRefused},
		"SamePlace":   {again, ErrRefused},
		"Gateway":     {gateway, ErrRefused},
		"OtherSubnet": {elsewhere, ErrRefused},
		"OtherVPC":    {alien, ErrNotReady},
		"NoVPC":       {Pod{Container: "x", VPC: "green"}, ErrNotReady},
		"BadVPC":      {Pod{Container: "x", VPC: "../red"}, ErrRefused},
		"BadContents": {Pod{Container: "../x", VPC: "red"}, ErrRefused},
	} {
		if _, err := node.Attach(tc.pod); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	l.reaches(l.pods["red/p2"].ns, "tcp", at8080(l.pods["red/p1"].IPs[0]), "red/p1")
}

// TestRepair: pods come and go, rules and links are put right, and nothing is left at the end.
func TestRepair(t *testing.T) {
	l := two(t)
	node, p1 := l.nodes["a"], l.pods["red/p1"]
	p3 := at8080(l.pods["red/p3"].IPs[0])

	t.Run("Flushed", func(t *testing.T) {
		ns, err := openExisting(node.netnsPath("red"))
		l.must(err)
		defer ns.Close()
		nft, err := program("nft")
		l.must(err)
		for _, at := range []*os.File{ns, node.ns} {
			_, err := run(at, nil, nil, nft, "flush", "ruleset")
			l.must(err)
		}
		l.must(node.Guard([]netip.Addr{l.nodes["b"].addr}, []netip.AddrPort{apiAddr}))
		l.must(node.Ensure("red", false))
		l.reaches(p1.ns, "tcp", p3, "red/p3")
		l.services()
		if err := silent(p1.ns, "tcp", netip.MustParseAddrPort("10.99.0.2:10250")); err != nil {
			t.Error(err)
		}
	})
	t.Run("NamespaceLost", func(t *testing.T) {
		l.must(removeNetNS(node.netnsPath("red")))
		// The kernel ends the old tunnels in its own time; an agent asks again, too.
		err := node.Ensure("red", false)
		for deadline := time.Now().Add(patience); err != nil && time.Now().Before(deadline); err = node.Ensure("red", false) {
			time.Sleep(50 * time.Millisecond)
		}
		l.must(err)
		// One that is being plugged in at this moment is not the agent's to plug in.
		halfway := l.pods["red/p2"].Pod
		halfway.Container, halfway.UID, halfway.Port = "halfway", "halfway", ""
		l.must(node.savePod(&halfway))
		l.must(node.Replug())
		if got, err := node.pod("halfway"); err != nil || got == nil || got.Port != "" {
			t.Errorf("a pod that is being plugged in became %+v, %v", got, err)
		}
		l.must(os.Remove(node.podFile("halfway", "red")))
		// The pool goes on knowing the pod by the address that it was told.
		l.reaches(node.ns, "tcp", at8080(p1.Infra), "red/p1")
		l.reaches(p1.ns, "tcp", p3, "red/p3")
		l.reaches(p1.ns, "tcp", at8080(l.pods["red/p2"].IPs[1]), "red/p2")
	})
	t.Run("Moved", func(t *testing.T) {
		// only goes from b to a with its addresses, as a pod of a StatefulSet does.
		only := l.pods["red/only"]
		l.must(l.nodes["b"].Detach(only.Container))
		for i := range l.vpcs["red"].Endpoints {
			if e := &l.vpcs["red"].Endpoints[i]; e.Pod == only.UID {
				e.Node, e.Pod = node.addr, "red-only-2"
			}
		}
		l.store()
		again := l.namespace("again")
		only.UID, only.Container, only.ns, only.NetNS, only.node = "red-only-2", "red-only-2", again, again.Name(), "a"
		l.attach(only)
		l.answer(only.ns, "red/only", 8080)
		l.reaches(l.pods["red/p4"].ns, "tcp", at8080(only.IPs[0]), "red/only")
		l.reaches(only.ns, "udp", at8080(l.pods["red/p4"].IPs[1]), "red/p4")
	})
	t.Run("Sandbox", func(t *testing.T) {
		// Another container of the same pod takes its place, without a word of the first one's end.
		before := p1.Infra
		ns := l.namespace("sandbox")
		p1.Container, p1.ns, p1.NetNS = "red-p1-again", ns, ns.Name()
		l.attach(p1)
		l.answer(ns, "red/p1", 8080)
		l.reaches(l.pods["red/p2"].ns, "tcp", at8080(p1.IPs[0]), "red/p1")
		if p1.Infra == before {
			t.Logf("infra address %s is the same", before)
		}
		l.must(node.Detach("red-p1"))
		l.reaches(l.pods["red/p2"].ns, "tcp", at8080(p1.IPs[0]), "red/p1")
	})
	t.Run("Gone", func(t *testing.T) {
		if err := node.Remove("red"); !errors.Is(err, ErrRefused) {
			t.Errorf("a VPC with pods is removed: %v", err)
		}
		for _, n := range l.nodes {
			pods, err := n.Pods("")
			l.must(err)
			for range 2 {
				for _, p := range pods {
					l.must(n.Detach(p.Container))
				}
			}
			vpcs, err := n.Known()
			l.must(err)
			for _, vpc := range vpcs {
				l.must(n.Remove(vpc))
				l.must(n.Remove(vpc))
			}
			links, err := n.links.LinkList()
			l.must(err)
			for _, link := range links {
				if name := link.Attrs().Name; name != "lo" && name != "eth0" {
					t.Errorf("link %s is left", name)
				}
			}
			for _, dir := range []string{"vpcs", "pods"} {
				entries, err := os.ReadDir(n.config.Dir + "/" + dir)
				l.must(err)
				if len(entries) > 0 {
					t.Errorf("%s holds %v", dir, entries)
				}
			}
		}
	})
}

// TestClosed: nothing is made on a node that is not guarded.
func TestClosed(t *testing.T) {
	l := newLab(t)
	l.vpc("red", 100, "red123")
	node := l.nodes["a"]
	l.must(os.Remove(node.guardPath()))
	_, err := node.Store(l.vpcs["red"])
	l.must(err)
	if err := node.Ensure("red", true); !errors.Is(err, ErrNotReady) {
		t.Errorf("a VPC on a node without a guard: %v", err)
	}
}

// TestNoNamespaceIsKept: a VPC that is removed is gone, with its tunnels, also while this process lives: their numbers can
// be used again at once.
func TestNoNamespaceIsKept(t *testing.T) {
	l := newLab(t)
	node := l.nodes["a"]
	for range 30 {
		l.vpc("red", 100, "red123")
		_, err := node.Store(l.vpcs["red"])
		l.must(err)
		l.must(node.Ensure("red", true))
		l.must(node.Remove("red"))
	}
}

// TestGeneration: rules are not listed while nobody touches the packet filter, and are as soon as somebody does.
func TestGeneration(t *testing.T) {
	l := newLab(t)
	l.vpc("red", 100, "red123")
	node := l.nodes["a"]
	_, err := node.Store(l.vpcs["red"])
	l.must(err)
	for range 3 {
		l.must(node.Ensure("red", true))
	}
	ns, err := openExisting(node.netnsPath("red"))
	l.must(err)
	defer ns.Close()
	seen, err := os.ReadFile(node.vpcDir("red") + "/generation")
	l.must(err)
	if now, err := generation(ns); err != nil || now != string(seen) {
		t.Errorf("the generation is %s, seen was %s: %v", now, seen, err)
	}
	nft, err := program("nft")
	l.must(err)
	for _, harm := range [][]string{{"flush", "chain", "bridge", vpcTable, "prerouting"}, {"delete", "table", "inet", vpcTable}, {"flush", "ruleset"}} {
		_, err := run(ns, nil, nil, nft, harm...)
		l.must(err)
		l.must(node.Ensure("red", true))
		r := node.vpcRules(l.vpcs["red"], 1, nil)
		if err := r.verify(ns, "bridge "+vpcTable, "inet "+vpcTable); err != nil {
			t.Errorf("after %v: %v", harm, err)
		}
	}
}
