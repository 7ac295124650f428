//go:build linux

package plane

import (
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"vivarium.io/vivarium/internal/netkeys"
)

// queue is the bound on a link of a VPC's namespace in bytes per second, 0 without one.
func (l *lab) queue(p *labPod, link string) uint64 {
	l.t.Helper()
	ns, err := openExisting(l.nodes[p.node].netnsPath(p.VPC))
	l.must(err)
	defer ns.Close()
	links := l.handle(ns)
	at, err := links.LinkByName(link)
	if err != nil {
		return 0
	}
	list, err := links.QdiscList(at)
	l.must(err)
	for _, qdisc := range list {
		if tbf, ok := qdisc.(*netlink.Tbf); ok {
			return tbf.Rate
		}
	}
	return 0
}

// takes is how long some bytes need from one pod to another.
func (l *lab) takes(from, to *labPod, ip netip.Addr, size int64) time.Duration {
	l.t.Helper()
	var listener net.Listener
	l.must(inside(to.ns, func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(ip, 0).String())
		return err
	}))
	defer listener.Close()
	came := make(chan error, 1)
	go func() {
		c, err := listener.Accept()
		if err == nil {
			defer c.Close()
			_, err = io.CopyN(io.Discard, c, size)
		}
		came <- err
	}()
	since := time.Now()
	l.must(inside(from.ns, func() error {
		c, err := net.DialTimeout("tcp", listener.Addr().String(), patience)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(make([]byte, size))
		return err
	}))
	select {
	case err := <-came:
		l.must(err)
	case <-time.After(2 * time.Minute):
		l.t.Fatal("the bytes did not come")
	}
	return time.Since(since)
}

// TestRates: a pod's traffic is bounded on its port in each direction, and that of the others is not; what was lost comes
// back, and nothing is left at the end.
func TestRates(t *testing.T) {
	l := newLab(t)
	l.vpc("red", 100, "red123")
	slow, peer, wide := l.pod("red", "slow", "a", 1, 11), l.pod("red", "peer", "a", 1, 12), l.pod("red", "wide", "a", 1, 13)
	slow.Rates = netkeys.Rates{Ingress: 4_000_000, Egress: 2_000_000}
	wide.Rates = netkeys.Rates{Ingress: 1e15, Egress: 1e15}
	l.build()
	shaper := shaperName(slow.Port)
	look := func() {
		t.Helper()
		if in, out := l.queue(slow, slow.Port), l.queue(slow, shaper); in != 500_000 || out != 250_000 {
			t.Errorf("the pod receives %d and sends %d bytes per second", in, out)
		}
	}
	look()
	if got := l.queue(peer, peer.Port); got != 0 {
		t.Errorf("a pod without rates receives %d bytes per second", got)
	}
	l.open(join(l.paths("red/slow", "tcp", "red/peer"), l.paths("red/peer", "udp", "red/slow"), l.paths("red/wide", "tcp", "red/slow"))...)

	// The bucket holds 16 KiB or a tenth of a second: half a second's worth of bytes needs most of that, however fast the
	// machine, and the same bytes between others do not wait.
	const size = 250_000
	for _, ip := range slow.IPs {
		if took := l.takes(peer, slow, ip, size); took < 250*time.Millisecond {
			t.Errorf("%d bytes to the pod took %s", size, took)
		}
	}
	if took := l.takes(slow, peer, peer.IPs[0], size); took < 500*time.Millisecond {
		t.Errorf("%d bytes from the pod took %s", size, took)
	}

	ns, err := openExisting(l.nodes["a"].netnsPath("red"))
	l.must(err)
	defer ns.Close()
	links := l.handle(ns)
	device, err := links.LinkByName(shaper)
	l.must(err)
	l.must(links.LinkDel(device))
	port, err := links.LinkByName(slow.Port)
	l.must(err)
	l.must(links.QdiscDel(tokens(port, slow.Rates.Ingress)))
	if l.queue(slow, slow.Port) != 0 || l.queue(slow, shaper) != 0 {
		t.Fatal("the bounds are not lost")
	}
	l.must(l.nodes["a"].Ensure("red", false))
	look()
	if took := l.takes(slow, peer, peer.IPs[0], size); took < 500*time.Millisecond {
		t.Errorf("%d bytes from the pod took %s after its device was lost", size, took)
	}

	// A port that is lost is made anew, by another name, and bounded again.
	l.must(links.LinkDel(port))
	l.must(l.nodes["a"].Replug())
	again, err := l.nodes["a"].pod(slow.Container)
	l.must(err)
	if _, err := links.LinkByName(shaper); err == nil && again.Port != slow.Port {
		t.Errorf("device %s is left of a port that was lost", shaper)
	}
	slow.Port, shaper = again.Port, shaperName(again.Port)
	look()

	l.must(l.nodes["a"].Detach(slow.Container))
	if _, err := links.LinkByName(shaper); err == nil {
		t.Errorf("device %s is left", shaper)
	}
	if _, err := os.Stat(l.nodes["a"].podFile(slow.Container, slow.VPC)); err == nil {
		t.Error("the pod is not forgotten")
	}
}
