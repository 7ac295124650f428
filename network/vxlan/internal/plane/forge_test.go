//go:build linux

package plane

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// services has the nodes and the world answer where pods must not reach them, and where they must.
func (l *lab) services() {
	if l.served {
		return
	}
	l.served = true
	for name, n := range l.nodes {
		l.answer(n.ns, "node-"+name, 10250, n.addr)
	}
	l.answer(l.wire, "public", 80, publicAddr)
	l.answer(l.wire, "api", int(apiAddr.Port()))
}

// transit asks the node's end of a pod's VPC's link.
func (l *lab) transit(from string) error {
	p := l.pods[from]
	number, err := l.nodes[p.node].number(p.VPC)
	l.must(err)
	return silent(p.ns, "tcp", netip.AddrPortFrom(number.node(true), 10250))
}

// fromWorld asks a pod's infra address from outside of the node, with a route that somebody made by hand.
func (l *lab) fromWorld() error {
	p := l.pods["red/p1"]
	links := l.handle(l.wire)
	l.must(links.RouteReplace(&netlink.Route{Dst: ipNet(netip.PrefixFrom(p.Infra, 32)), Gw: l.nodes["a"].addr.AsSlice()}))
	return silent(l.wire, "tcp", at8080(p.Infra))
}

// fromNode asks a pod by its address in the VPC, with a route that somebody made by hand.
func (l *lab) fromNode() error {
	p, n := l.pods["red/p1"], l.nodes["a"]
	number, err := n.number(p.VPC)
	l.must(err)
	links := l.handle(n.ns)
	l.must(links.RouteReplace(&netlink.Route{Dst: ipNet(netip.PrefixFrom(p.IPs[0], 32)), Gw: number.vpc(true).AsSlice()}))
	defer func() {
		_ = links.RouteDel(&netlink.Route{Dst: ipNet(netip.PrefixFrom(p.IPs[0], 32)), Gw: number.vpc(true).AsSlice()})
	}()
	return silent(n.ns, "tcp", at8080(p.IPs[0]))
}

const marker = "VIVARIUM-FORGERY"

// arrives sends made-up frames until one with the marker comes to the victim, or for long enough.
func (l *lab) arrives(victim string, send func()) error {
	got := l.counted(l.pods[victim].ns, func(frame []byte) bool { return bytes.Contains(frame, []byte(marker)) })
	for deadline := time.Now().Add(impatience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		send()
		if got() > 0 {
			return fmt.Errorf("a forged packet came to %s", victim)
		}
	}
	return nil
}

func mac(text string) net.HardwareAddr {
	m, err := net.ParseMAC(text)
	if err != nil {
		panic(err)
	}
	return m
}

func ethernet(to, from net.HardwareAddr, kind uint16, body []byte) []byte {
	frame := append(append([]byte{}, to...), from...)
	return append(binary.BigEndian.AppendUint16(frame, kind), body...)
}

// udpPacket is a UDP packet of IPv4 or IPv6 without a UDP checksum in IPv4; nobody looks at the one in IPv6 on the way.
func udpPacket(from, to netip.Addr, port uint16, body []byte) []byte {
	udp := binary.BigEndian.AppendUint16(nil, 4000)
	udp = binary.BigEndian.AppendUint16(udp, port)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(body)))
	udp = append(append(udp, 0, 0), body...)
	if from.Is6() {
		return ipv6(from, to, unix.IPPROTO_UDP, 64, udp)
	}
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(udp)))
	ip = append(append(ip, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	return append(ip, udp...)
}

func ipv6(from, to netip.Addr, next, hops byte, body []byte) []byte {
	ip := []byte{0x60, 0, 0, 0, 0, 0, next, hops}
	binary.BigEndian.PutUint16(ip[4:], uint16(len(body)))
	return append(append(append(ip, from.AsSlice()...), to.AsSlice()...), body...)
}

func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, part := range parts {
		for i := 0; i < len(part); i += 2 {
			word := uint32(part[i]) << 8
			if i+1 < len(part) {
				word |= uint32(part[i+1])
			}
			sum += word
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// icmpv6 is a message with a right checksum.
func icmpv6(from, to netip.Addr, body []byte) []byte {
	body = bytes.Clone(body)
	pseudo := append(append([]byte{}, from.AsSlice()...), to.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(body)))
	binary.BigEndian.PutUint16(body[2:], checksum(pseudo, []byte{0, 0, 0, unix.IPPROTO_ICMPV6}, body))
	return ipv6(from, to, unix.IPPROTO_ICMPV6, 255, body)
}

// forgedIP: p1 writes as p3.
func (l *lab) forgedIP() error {
	p1, p2, p3 := l.pods["red/p1"], l.pods["red/p2"], l.pods["red/p3"]
	return l.arrives("red/p2", func() {
		l.send(p1.ns, ethernet(mac(p2.MAC), mac(p1.MAC), 0x0800, udpPacket(p3.IPs[0], p2.IPs[0], 8080, []byte(marker))))
	})
}

func (l *lab) forgedIPSix() error {
	p1, p2, p3 := l.pods["red/p1"], l.pods["red/p2"], l.pods["red/p3"]
	return l.arrives("red/p2", func() {
		l.send(p1.ns, ethernet(mac(p2.MAC), mac(p1.MAC), 0x86dd, udpPacket(p3.IPs[1], p2.IPs[1], 8080, []byte(marker))))
	})
}

// forgedMAC: p1 writes with its address and the hardware address of p3, which is on another node.
func (l *lab) forgedMAC() error {
	p1, p2, p3 := l.pods["red/p1"], l.pods["red/p2"], l.pods["red/p3"]
	return l.arrives("red/p2", func() {
		l.send(p1.ns, ethernet(mac(p2.MAC), mac(p3.MAC), 0x0800, udpPacket(p1.IPs[0], p2.IPs[0], 8080, []byte(marker))))
	})
}

// neighbour is what a pod believes an address's hardware address to be.
func (l *lab) neighbour(ns *os.File, ip netip.Addr) string {
	list, err := l.handle(ns).NeighList(0, family(ip))
	l.must(err)
	for _, n := range list {
		if got, ok := netip.AddrFromSlice(n.IP); ok && got.Unmap() == ip {
			return n.HardwareAddr.String()
		}
	}
	return ""
}

// believes sends until the victim takes the thief's word for where an address is.
func (l *lab) believes(victim *labPod, ip netip.Addr, thief *labPod, send func()) error {
	for deadline := time.Now().Add(impatience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		send()
		if l.neighbour(victim.ns, ip) == thief.MAC {
			return fmt.Errorf("%s believes that %s is %s", filepath.Base(victim.ns.Name()), ip, thief.Name)
		}
	}
	return nil
}

// forgedARP: p1 tells p2 that the gateway is p1.
func (l *lab) forgedARP() error {
	p1, p2 := l.pods["red/p1"], l.pods["red/p2"]
	gateway := l.vpcs["red"].Subnets[0].Gateway[0]
	_, _, _ = ask(p2.ns, "udp", netip.AddrPortFrom(gateway, 9), 0, 50*time.Millisecond)
	// A kernel believes nothing new for a second after it has learned something.
	l.must(sysctl(p2.ns, map[string]string{"ipv4/neigh/eth0/locktime": "0"}))
	arp := []byte{0, 1, 8, 0, 6, 4, 0, 2}
	arp = append(append(append(append(arp, mac(p1.MAC)...), gateway.AsSlice()...), mac(p2.MAC)...), p2.IPs[0].AsSlice()...)
	return l.believes(p2, gateway, p1, func() { l.send(p1.ns, ethernet(mac(p2.MAC), mac(p1.MAC), 0x0806, arp)) })
}

// forgedND: the same for IPv6.
func (l *lab) forgedND() error {
	p1, p2 := l.pods["red/p1"], l.pods["red/p2"]
	gateway := l.vpcs["red"].Subnets[0].Gateway[1]
	_, _, _ = ask(p2.ns, "udp", netip.AddrPortFrom(gateway, 9), 0, 50*time.Millisecond)
	claim := append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, gateway.AsSlice()...)
	claim = append(append(claim, 2, 1), mac(p1.MAC)...)
	packet := icmpv6(p1.IPs[1], p2.IPs[1], claim)
	return l.believes(p2, gateway, p1, func() { l.send(p1.ns, ethernet(mac(p2.MAC), mac(p1.MAC), 0x86dd, packet)) })
}

// forgedRA: p1 says that it is a router.
func (l *lab) forgedRA() error {
	p1, p2 := l.pods["red/p1"], l.pods["red/p2"]
	from := linkLocal(p1.MAC)
	claim := append([]byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0}, append([]byte{1, 3}, []byte("012345"+marker)...)...)
	packet := icmpv6(from, p2.IPs[1], claim)
	return l.arrives("red/p2", func() { l.send(p1.ns, ethernet(mac(p2.MAC), mac(p1.MAC), 0x86dd, packet)) })
}

// forgery is a frame for blue's p3, in VXLAN.
func (l *lab) forgery() []byte {
	p3 := l.pods["blue/p3"]
	frame := ethernet(mac(p3.MAC), mac(l.pods["blue/p1"].MAC), 0x0800, udpPacket(l.pods["blue/p1"].IPs[0], p3.IPs[0], 8080, []byte(marker)))
	header := []byte{8, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(header[4:], l.vpcs["blue"].Subnets[0].VNI<<8)
	return append(header, frame...)
}

// forgedVXLAN: red's p1, which may get out, writes into blue's tunnel.
func (l *lab) forgedVXLAN() error {
	return l.arrives("blue/p3", func() { l.vxlanTo(l.pods["red/p1"].ns, l.nodes["b"].addr) })
}

// strangeTunnel: somebody beside the nodes does, and somebody behind a node says that it is the node.
func (l *lab) strangeTunnel() error {
	err := l.arrives("blue/p3", func() { l.vxlanTo(l.wire, l.nodes["b"].addr) })
	flat := l.flatPod("a")
	behind := l.arrives("blue/p3", func() {
		l.send(flat, ethernet(l.hardware(l.nodes["a"].ns, "flat"), l.hardware(flat, "eth0"), 0x0800,
			udpPacket(l.nodes["a"].addr, l.nodes["b"].addr, vxlanPort, l.forgery())))
	})
	if err == nil && behind != nil || err != nil && behind == nil {
		return errors.Join(err, behind)
	}
	return err
}

func (l *lab) vxlanTo(ns *os.File, node netip.Addr) {
	l.must(inside(ns, func() error {
		c, err := net.Dial("udp", netip.AddrPortFrom(node, vxlanPort).String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(l.forgery())
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EPERM) {
			return nil
		}
		return err
	}))
}

// flatPod makes a pod beside the VPCs, plugged into the node as plain plugins do.
func (l *lab) flatPod(node string) *os.File {
	ns, n := l.namespace("flat-"+node), l.nodes[node]
	links := l.handle(n.ns)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "flat"
	l.must(links.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.Fd()))}))
	l.must(ensureAddress(links, l.up(links, "flat"), netip.MustParsePrefix("10.244.0.1/24")))
	inside := l.handle(ns)
	eth0 := l.up(inside, "eth0")
	l.must(ensureAddress(inside, eth0, netip.MustParsePrefix("10.244.0.2/24")))
	l.must(inside.RouteReplace(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: net.IPv4(10, 244, 0, 1)}))
	l.must(sysctl(n.ns, map[string]string{"ipv4/conf/flat/rp_filter": "0", "ipv4/conf/all/rp_filter": "0", "ipv4/conf/flat/accept_local": "1"}))
	return ns
}

func (l *lab) hardware(ns *os.File, link string) net.HardwareAddr {
	got, err := l.handle(ns).LinkByName(link)
	l.must(err)
	return got.Attrs().HardwareAddr
}
