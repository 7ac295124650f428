//go:build linux

package plane

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/miekg/dns"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/vxlan/internal/resolver"
)

// resolve has a VPC's names be answered on a node, as an agent does, with a Service of an address that tells whose it is.
func (l *lab) resolve(node string, vpc types.UID, last byte) *Sockets {
	l.t.Helper()
	sockets, err := l.nodes[node].Listen(vpc)
	l.must(err)
	if sockets == nil {
		l.t.Fatalf("VPC %s has no namespace on node %s", vpc, node)
	}
	r := resolver.New(resolver.Upstream{})
	r.Set(nil, []network.Service{{Namespace: "team", Name: "web", IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, last})}}}, false)
	s := resolver.Serve(r, sockets.Packets, sockets.Listeners)
	l.t.Cleanup(s.Close)
	return sockets
}

// lookup asks a VPC's resolver from a namespace.
func lookup(from *os.File, kind string, server netip.Addr, wait time.Duration) (answer string, err error) {
	err = inside(from, func() error {
		// Datagrams may be lost on a machine that has too much to do.
		for deadline := time.Now().Add(wait); ; {
			client := &dns.Client{Net: kind, Timeout: min(wait, 2*time.Second)}
			reply, _, err := client.Exchange(new(dns.Msg).SetQuestion("web.team.svc.cluster.local.", dns.TypeA), netip.AddrPortFrom(server, dnsPort).String())
			if err == nil && len(reply.Answer) == 1 {
				answer = reply.Answer[0].(*dns.A).A.String()
				return nil
			}
			if err == nil {
				return fmt.Errorf("the answer is %s", reply)
			}
			if time.Now().After(deadline) {
				return err
			}
		}
	})
	return answer, err
}

// names fails the test unless a pod is told the wanted address by every way that there is.
func (l *lab) names(pod, want string) {
	l.t.Helper()
	for _, server := range resolverAddresses {
		for _, kind := range []string{"udp", "tcp"} {
			if got, err := lookup(l.pods[pod].ns, kind, server, patience); err != nil || got != want {
				l.t.Errorf("%s asks %s over %s: %q, %v; want %s", pod, server, kind, got, err, want)
			}
		}
	}
}

// TestResolver: a VPC's pods, and nobody else, ask their own resolver at the address that all have, whatever filters there are;
// and where it is there is nothing else.
func TestResolver(t *testing.T) {
	l := newLab(t)
	for i, vpc := range []string{"red", "blue"} {
		l.vpc(vpc, uint32(100*(i+1)), "abc123")
		l.pod(vpc, "p1", "a", 1, 11)
		l.pod(vpc, "p4", "b", 2, 14)
	}
	// Nothing may be sent or received by anybody but that.
	red := l.vpcs["red"]
	red.Policies = []network.Policy{{Pods: "all", Receive: true, Send: true}}
	for i := range red.Endpoints {
		red.Endpoints[i].Sets = []string{"all"}
	}
	if sockets, err := l.nodes["a"].Listen("red"); sockets != nil || err != nil {
		t.Fatalf("where there is no namespace: %v, %v", sockets, err)
	}
	l.build()
	for _, node := range []string{"a", "b"} {
		l.resolve(node, "red", 1)
		l.resolve(node, "blue", 2)
	}
	for _, pod := range []string{"p1", "p4"} {
		l.names("red/"+pod, "10.96.0.1")
		l.names("blue/"+pod, "10.96.0.2")
	}
	ns, err := openExisting(l.nodes["a"].netnsPath("blue"))
	l.must(err)
	defer ns.Close()
	l.answer(ns, "somebody", 54)
	l.answer(ns, "somebody", 8080)
	for _, server := range resolverAddresses {
		for _, kind := range []string{"tcp", "udp"} {
			for _, port := range []uint16{54, 8080} {
				if err := silent(l.pods["blue/p1"].ns, kind, netip.AddrPortFrom(server, port)); err != nil {
					t.Error(err)
				}
			}
			// Neither does a VPC's gateway answer for names.
			if _, err := lookup(l.pods["blue/p1"].ns, kind, l.vpcs["blue"].Subnets[0].Gateway[0], impatience); err == nil {
				t.Errorf("the gateway answers over %s", kind)
			}
			if _, err := lookup(l.nodes["a"].ns, kind, server, impatience); err == nil {
				t.Errorf("the node is answered over %s at %s", kind, server)
			}
		}
	}
	if err := silent(l.pods["red/p1"].ns, "tcp", at8080(l.pods["red/p4"].IPs[0])); err != nil {
		t.Errorf("the policy does not hold: %v", err)
	}
}

// TestResolverMoves: when a VPC's namespace is made anew, whoever has sockets in the old one can tell, and has them in the new
// one. While they are open the old one's tunnels are, too.
func TestResolverMoves(t *testing.T) {
	l := few(t)
	node := l.nodes["a"]
	before := l.resolve("a", "red", 1)
	l.names("red/p1", "10.96.0.1")
	if now, err := node.Space("red"); err != nil || now != before.Space {
		t.Fatalf("the namespace is %q, the sockets are in %q (%v)", now, before.Space, err)
	}
	l.must(removeNetNS(node.netnsPath("red")))
	if now, err := node.Space("red"); err != nil || now != "" {
		t.Errorf("the namespace that is gone is %q (%v)", now, err)
	}
	before.Close()
	err := node.Ensure("red", true)
	for deadline := time.Now().Add(patience); err != nil && time.Now().Before(deadline); err = node.Ensure("red", true) {
		time.Sleep(50 * time.Millisecond)
	}
	l.must(err)
	l.must(node.Replug())
	// Nobody listens yet, and says so.
	err = inside(l.pods["red/p1"].ns, func() error {
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(resolverAddresses[0], dnsPort).String(), patience)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	if netErr, ok := err.(net.Error); err == nil || ok && netErr.Timeout() {
		t.Errorf("without a resolver: %v", err)
	}
	after := l.resolve("a", "red", 3)
	if after.Space == before.Space {
		t.Errorf("the namespace is the one of before")
	}
	l.names("red/p1", "10.96.0.3")
}

// TestQuestionsAreBounded: more packets in a second than a pod may send do not come to the resolver.
func TestQuestionsAreBounded(t *testing.T) {
	l := few(t)
	sockets, err := l.nodes["a"].Listen("red")
	l.must(err)
	defer sockets.Close()
	const sent = 4 * questionsPerSecond
	begin, count, ended := time.Now(), 0, make(chan struct{})
	go func() {
		defer close(ended)
		for buffer := make([]byte, 10); ; count++ {
			if _, _, err := sockets.Packets[0].ReadFrom(buffer); err != nil {
				return
			}
		}
	}()
	l.must(inside(l.pods["red/p1"].ns, func() error {
		c, err := net.Dial("udp", netip.AddrPortFrom(resolverAddresses[0], dnsPort).String())
		if err != nil {
			return err
		}
		defer c.Close()
		for range sent {
			// The pod itself is not told.
			_, _ = c.Write([]byte("x"))
		}
		return nil
	}))
	// A burst of a second's, and what time has allowed since.
	took := time.Since(begin)
	allowed := questionsPerSecond * (1 + took.Seconds())
	_ = sockets.Packets[0].SetReadDeadline(time.Now().Add(impatience))
	<-ended
	if count == 0 || float64(count) > allowed+1 {
		t.Errorf("of %d packets in %s %d came, %.0f may", sent, took, count, allowed)
	}
}
