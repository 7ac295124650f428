//go:build linux

package plane

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/vxlan/internal/state"
)

var (
	serviceAddr4 = netip.MustParseAddr("10.96.0.10")
	serviceAddr6 = netip.MustParseAddr("fd96::a")
)

// service is one of TCP and UDP port 80 at a pair of addresses, whose last part is given, with pods as backends.
func (l *lab) service(name string, last byte, backends ...string) network.Service {
	v4, v6 := serviceAddr4.As4(), serviceAddr6.As16()
	v4[3], v6[15] = last, last
	s := network.Service{Namespace: "web", Name: name, IPs: []netip.Addr{netip.AddrFrom4(v4), netip.AddrFrom16(v6)}}
	var at []netip.AddrPort
	for _, pod := range backends {
		for _, ip := range l.pods[pod].IPs {
			at = append(at, at8080(ip))
		}
	}
	for _, protocol := range []string{"TCP", "UDP", "SCTP"} {
		s.Ports = append(s.Ports, network.ServicePort{Name: strings.ToLower(protocol), Protocol: protocol, Port: 80, Backends: at})
	}
	return s
}

// serve has all nodes know the Services of a VPC.
func (l *lab) serve(vpc types.UID, services ...network.Service) {
	l.t.Helper()
	for _, n := range l.nodes {
		l.must(n.StoreServices(vpc, services))
		l.must(n.Serve(vpc))
	}
}

func at80(ip netip.Addr) netip.AddrPort { return netip.AddrPortFrom(ip, 80) }

// answerers asks a place until all of some have answered, and fails the test when anybody else does.
func (l *lab) answerers(from *labPod, kind string, to netip.AddrPort, want ...string) {
	l.t.Helper()
	left := slices.Clone(want)
	for deadline := time.Now().Add(patience); len(left) > 0 && time.Now().Before(deadline); {
		who, seen, err := ask(from.ns, kind, to, 0, patience)
		if err != nil || !slices.Contains(want, who) {
			l.t.Errorf("%s over %s from %s/%s: %q answers, want one of %v (%v)", to, kind, from.vpc, from.Name, who, want, err)
			return
		}
		if peer, err := netip.ParseAddrPort(seen); err == nil && !slices.Contains(from.IPs, peer.Addr().Unmap()) {
			l.t.Errorf("%s/%s is seen as %s", from.vpc, from.Name, seen)
		}
		left = slices.DeleteFunc(left, func(name string) bool { return name == who })
	}
	if len(left) > 0 {
		l.t.Errorf("%s over %s from %s/%s: %v never answer", to, kind, from.vpc, from.Name, left)
	}
}

// refused fails the test unless a place answers as a closed port does. Over UDP the kernel tells whoever asks at once, in a
// word of its own.
func (l *lab) refused(from *os.File, kind string, to netip.AddrPort) {
	l.t.Helper()
	err := inside(from, func() error {
		c, err := (&net.Dialer{Timeout: patience}).Dial(kind, to.String())
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write([]byte("who?")); err != nil {
			return err
		}
		_, err = c.Read(make([]byte, 1))
		return err
	})
	if !errors.Is(err, syscall.ECONNREFUSED) && (kind != "udp" || !errors.Is(err, syscall.EPERM)) {
		l.t.Errorf("%s over %s: %v, want it refused", to, kind, err)
	}
}

// TestServices: pods reach Services of their VPC at the addresses that their tenant sees, whichever node and subnet the
// backends are in, and nobody else's.
func TestServices(t *testing.T) {
	l := two(t)
	p1, p2 := l.pods["red/p1"], l.pods["red/p2"]
	web := l.service("web", 10, "red/p2", "red/p3", "red/p4")
	own, none, sticky := l.service("own", 11, "red/p2"), l.service("none", 12), l.service("sticky", 13, "red/p2", "red/p3", "red/p4")
	sticky.Sticky = time.Hour
	headless := network.Service{Namespace: "web", Name: "headless", Hosts: []network.ServiceHost{{IP: p1.IPs[0]}}}
	red := []network.Service{web, own, none, sticky, headless}

	t.Run("None", func(t *testing.T) {
		l.serve("red")
		if entries, err := os.ReadDir(filepath.Join(l.nodes["a"].config.Dir, "served")); err != nil || len(entries) > 0 {
			t.Errorf("without Services there are %v, %v", entries, err)
		}
	})
	l.serve("red", red...)
	l.serve("blue", l.service("web", 10, "blue/p3"), l.service("own", 11, "blue/p1"))
	t.Run("Reach", func(t *testing.T) {
		for _, ip := range web.IPs {
			for _, kind := range []string{"tcp", "udp"} {
				for _, from := range []string{"p1", "p2", "p4"} {
					l.answerers(l.pods["red/"+from], kind, at80(ip), "red/p2", "red/p3", "red/p4")
				}
				l.answerers(l.pods["blue/p1"], kind, at80(ip), "blue/p3")
			}
		}
	})
	t.Run("Hairpin", func(t *testing.T) {
		for _, ip := range own.IPs {
			for _, kind := range []string{"tcp", "udp"} {
				l.answerers(p2, kind, at80(ip), "red/p2")
				l.answerers(l.pods["blue/p1"], kind, at80(ip), "blue/p1")
			}
		}
	})
	t.Run("Closed", func(t *testing.T) {
		for _, kind := range []string{"tcp", "udp"} {
			for _, ip := range none.IPs {
				l.refused(p1.ns, kind, at80(ip))
			}
		}
	})
	t.Run("Sticky", func(t *testing.T) {
		who, _, err := ask(p1.ns, "tcp", at80(sticky.IPs[0]), 0, patience)
		l.must(err)
		for range 8 {
			l.answerers(p1, "tcp", at80(sticky.IPs[0]), who)
		}
		// Of backends that come, none takes the pod from the one that it has.
		for i := range 16 {
			sticky.Ports[0].Backends = append(sticky.Ports[0].Backends, netip.AddrPortFrom(p2.IPs[0], uint16(9000+i)))
		}
		l.serve("red", append(slices.Clone(red[:3]), sticky)...)
		l.answerers(p1, "tcp", at80(sticky.IPs[0]), who)
		var others []string
		for _, pod := range []string{"red/p2", "red/p3", "red/p4"} {
			if pod != who {
				others = append(others, pod)
			}
		}
		sticky = l.service("sticky", 13, others...)
		sticky.Sticky = time.Hour
		l.serve("red", append(slices.Clone(red[:3]), sticky)...)
		again, _, err := ask(p1.ns, "tcp", at80(sticky.IPs[0]), 0, patience)
		if err != nil || !slices.Contains(others, again) {
			t.Errorf("once %s is no backend, %q answers (%v)", who, again, err)
		}
	})
	t.Run("Later", func(t *testing.T) {
		// It comes when the Services are known already.
		late := l.pod("red", "late", "a", 2, 77)
		l.store()
		l.attach(late)
		l.answerers(late, "tcp", at80(serviceAddr4), "red/p2", "red/p3", "red/p4")
	})
	t.Run("PutBack", func(t *testing.T) {
		nft, err := program("nft")
		l.must(err)
		for _, harm := range [][]string{{"flush", "chain", "inet", servicesTable, "lead"}, {"delete", "table", "inet", servicesTable}, {"flush", "ruleset"}} {
			_, err := run(p1.ns, nil, nil, nft, harm...)
			l.must(err)
			l.must(l.nodes["a"].Serve("red"))
			l.answerers(p1, "tcp", at80(serviceAddr4), "red/p2", "red/p3", "red/p4")
		}
	})
	t.Run("Restart", func(t *testing.T) {
		before, err := generation(p1.ns)
		l.must(err)
		again, err := New(l.nodes["a"].config)
		l.must(err)
		defer again.Close()
		l.must(again.Serve("red"))
		if after, err := generation(p1.ns); err != nil || after != before {
			t.Errorf("what is as it should be is loaded again: generation %s, then %s (%v)", before, after, err)
		}
	})
	t.Run("Refused", func(t *testing.T) {
		wrong := web
		wrong.Ports = []network.ServicePort{{Protocol: "tcp }", Port: 80}}
		if err := l.nodes["a"].StoreServices("red", []network.Service{wrong}); !errors.Is(err, ErrRefused) {
			t.Errorf("a Service that is none is stored: %v", err)
		}
		l.must(l.nodes["a"].Serve("red"))
		l.answerers(p1, "udp", at80(serviceAddr6), "red/p2", "red/p3", "red/p4")
	})
	t.Run("Gone", func(t *testing.T) {
		l.must(removeNetNS(l.pods["red/late"].NetNS))
		l.serve("red")
		if err := silent(p1.ns, "tcp", at80(serviceAddr4)); err != nil {
			t.Error(err)
		}
		l.must(l.nodes["a"].Detach(p1.Container))
		if _, err := os.Stat(l.nodes["a"].servedPath(p1.Container)); !os.IsNotExist(err) {
			t.Errorf("what was written of a pod that is gone: %v", err)
		}
	})
}

// TestServiceChanges: who asks over UDP from one port comes to the backend that there is now, and a TCP connection stays
// where it is.
func TestServiceChanges(t *testing.T) {
	l := few(t)
	p1 := l.pods["red/p1"]
	for _, name := range []string{"red/p2", "red/p3"} {
		l.must(inside(l.pods[name].ns, func() error {
			listener, err := net.Listen("tcp", ":9090")
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = listener.Close() })
			go func() {
				for {
					c, err := listener.Accept()
					if err != nil {
						return
					}
					t.Cleanup(func() { _ = c.Close() })
					go func() {
						for lines := bufio.NewScanner(c); lines.Scan(); {
							_, _ = fmt.Fprintln(c, name)
						}
					}()
				}
			}()
			return nil
		}))
	}
	service := func(backends ...string) network.Service {
		s := l.service("web", 10, backends...)
		s.Ports = append(s.Ports, network.ServicePort{Name: "echo", Protocol: "TCP", Port: 90})
		for _, b := range backends {
			s.Ports[3].Backends = append(s.Ports[3].Backends, netip.AddrPortFrom(l.pods[b].IPs[0], 9090))
		}
		return s
	}
	dial := func(kind, to string) net.Conn {
		var c net.Conn
		l.must(inside(p1.ns, func() (err error) { c, err = (&net.Dialer{Timeout: patience}).Dial(kind, to); return err }))
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	// asked asks until the wanted one answers, or refuses.
	asked := func(c net.Conn, want string) {
		t.Helper()
		var line string
		var err error
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
			_, err = c.Write([]byte("who?\n"))
			if err == nil {
				_ = c.SetReadDeadline(time.Now().Add(time.Second))
				line, err = bufio.NewReader(c).ReadString('\n')
			}
			if want == "" && (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EPERM)) || want != "" && err == nil && strings.Fields(line)[0] == want {
				return
			}
		}
		t.Errorf("%s answers %q (%v), want %q", c.RemoteAddr(), line, err, want)
	}
	early4, early6 := dial("udp", at80(serviceAddr4).String()), dial("udp", at80(serviceAddr6).String())
	// The question that was asked before there was a Service is no reason to go where it went.
	_, _ = early4.Write([]byte("who?"))
	l.serve("red", service("red/p2"))
	standing := dial("tcp", netip.AddrPortFrom(serviceAddr4, 90).String())
	asked(standing, "red/p2")
	asked(early4, "red/p2")
	asked(early6, "red/p2")
	for _, now := range []string{"red/p3", "red/p2"} {
		l.serve("red", service(now))
		asked(early4, now)
		asked(early6, now)
		asked(standing, "red/p2")
	}
	l.serve("red", service())
	asked(early4, "")
	l.serve("red", service("red/p3"))
	asked(early4, "red/p3")
	asked(standing, "red/p2")
}

// TestServicesAreFiltered: what may reach a backend is what may reach it by its own address.
func TestServicesAreFiltered(t *testing.T) {
	l := newLab(t)
	v := l.vpc("red", 100, "red123")
	v.Policies = []network.Policy{{Pods: "shut", Receive: true, From: []network.PolicyRule{{Sets: []string{"friends"}}}}}
	l.pod("red", "friend", "a", 1, 11)
	l.pod("red", "other", "a", 1, 12)
	l.pod("red", "near", "a", 1, 13)
	l.pod("red", "far", "b", 2, 14)
	l.pod("red", "open", "b", 1, 15)
	for i := range v.Endpoints {
		switch e := &v.Endpoints[i]; e.Pod {
		case "red-near", "red-far":
			e.Sets = []string{"shut"}
		case "red-friend":
			e.Sets = []string{"friends"}
		}
	}
	l.build()
	near, far, open := l.service("near", 20, "red/near"), l.service("far", 21, "red/far"), l.service("open", 22, "red/open")
	l.serve("red", near, far, open)
	for _, kind := range []string{"tcp", "udp"} {
		for i, ip := range near.IPs {
			l.answerers(l.pods["red/friend"], kind, at80(ip), "red/near")
			l.answerers(l.pods["red/friend"], kind, at80(far.IPs[i]), "red/far")
			l.answerers(l.pods["red/other"], kind, at80(open.IPs[i]), "red/open")
			for _, to := range []netip.Addr{ip, far.IPs[i]} {
				if err := silent(l.pods["red/other"].ns, kind, at80(to)); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// TestChoose: pods spread over a Service's backends, each keeps to its own, and one that goes takes only its own with it.
func TestChoose(t *testing.T) {
	s := service{at: at80(serviceAddr4), protocol: "tcp", sticky: true}
	for i := range 4 {
		s.backends = append(s.backends, at8080(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})))
	}
	count := map[netip.AddrPort]int{}
	fewer := s
	fewer.backends = s.backends[1:]
	for i := range 400 {
		pod := types.UID(fmt.Sprint("pod-", i))
		choice := s.choose(pod, nil)
		count[choice]++
		if choice != s.choose(pod, nil) {
			t.Fatalf("pod %s changes its mind", pod)
		}
		if after := fewer.choose(pod, nil); choice != s.backends[0] && after != choice {
			t.Errorf("pod %s goes from %s to %s though both are there", pod, choice, after)
		}
	}
	for _, backend := range s.backends {
		if got := s.choose("pod-0", map[string]netip.AddrPort{s.key(): backend}); got != backend {
			t.Errorf("a pod is taken from %s to %s", backend, got)
		}
		if count[backend] < 60 || count[backend] > 140 {
			t.Errorf("of 400 pods %d are at %s", count[backend], backend)
		}
	}
}

// TestServicesBesideDesired: Services go with their VPC, and none are what nobody has said anything of.
func TestServicesBesideDesired(t *testing.T) {
	l := newLab(t)
	l.vpc("red", 100, "red123")
	l.store()
	node := l.nodes["a"]
	if got, err := node.StoredServices("red"); err != nil || len(got) > 0 {
		t.Errorf("before anything is said: %v, %v", got, err)
	}
	want := network.Service{Namespace: "a", Name: "b", External: "example.com"}
	l.must(node.StoreServices("red", []network.Service{want}))
	if got, err := node.StoredServices("red"); err != nil || len(got) != 1 || got[0].External != want.External {
		t.Errorf("stored is %v, %v", got, err)
	}
	l.must(node.Remove("red"))
	if got, err := node.StoredServices("red"); err != nil || len(got) > 0 {
		t.Errorf("after the VPC: %v, %v", got, err)
	}
	if _, err := node.StoredServices(state.LabelVPC); !errors.Is(err, ErrRefused) {
		t.Errorf("a VPC that is none: %v", err)
	}
}
