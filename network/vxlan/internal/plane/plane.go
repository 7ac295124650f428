//go:build linux

// Package plane makes the VPCs of tenants true on one node: a network namespace for each VPC, in it a bridge and a VXLAN
// device for each subnet, a veth to the node, and the packet filter that decides what passes. Two VPCs share nothing on a
// node but that filter of the node itself, so their addresses may be equal.
//
// Everything is level-triggered: [Node.Ensure] and [Node.Guard] make what is there agree with what is given, and may be
// cut short at any point and called again, also by another process. The agent and the CNI plugin both use this package, at
// the same time; locks in the node's directory order them.
//
// The package must never let a link carry packets before the rules for it are loaded and seen in the kernel, never forward
// between two VPCs, and never choose another network for a pod than the one it is given. Start at [Node.Ensure].
package plane

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vivarium.io/vivarium/network/vxlan/internal/state"
)

// Errors that callers tell from each other.
var (
	// ErrNotReady says that the node does not know the VPC yet, or is not guarded: ask again.
	ErrNotReady = errors.New("the VPC is not ready on this node")
	// ErrRefused says that what was asked for contradicts what is there; repeating does not help.
	ErrRefused = errors.New("refused")
)

// Config describes a node.
type Config struct {
	// Dir is where the state of this boot is; it does not outlive one. Required.
	Dir string
	// Tunnel is the node's address, which the tunnels of other nodes lead to. Required.
	Tunnel netip.Addr
	// Protected are ranges that pods never reach, besides [AlwaysProtected]: those of nodes, pods and Services of the pool.
	Protected []netip.Prefix
	// Allowed are exceptions to AlwaysProtected: private ranges that an operator lets tenants reach. What Protected names
	// stays closed.
	Allowed []netip.Prefix
	// Plugins is the directory of the stock CNI plugins. Required for pods.
	Plugins string
	// NetNS is the path of the node's network namespace. Default: the process's own.
	NetNS string

	// omit switches guards off, for the tests that prove that they are what keeps a packet out.
	omit map[guard]bool
}

// The ranges that all nodes use for themselves. They are local to a node: nothing leaves it with such an address.
var (
	// transit4 and transit6 are the ranges of the links between a node and its VPCs. Each gets two addresses of each, so that
	// the node's connection tracking tells VPCs apart.
	transit4 = netip.MustParsePrefix("169.254.64.0/18")
	transit6 = netip.MustParsePrefix("fd00:76:6976:2::/112")
)

// AlwaysProtected is what is nobody's public address: pods reach it only by what their own VPC routes. It holds the
// metadata addresses of clouds and every address of a private network that a node may be in.
var AlwaysProtected = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
	"192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
	"::/8", "64:ff9b::/96", "100::/64", "fc00::/7", "fe80::/10", "ff00::/8",
)

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// maxVPCs is how many VPCs the transit ranges have links for.
const maxVPCs = 1 << (32 - 18 - 1)

// linkPrefix begins the names of the links between the node and its VPCs, on the node's side.
const linkPrefix = "vvt"

// transitLink is the VPC's end of such a link.
const transitLink = "up0"

// vxlanPort is the UDP port of the tunnels.
const vxlanPort = 4789

// Node is the data plane of one node. Make one with [New].
type Node struct {
	config Config
	// ns is the node's network namespace and links works in it.
	ns    *os.File
	links *netlink.Handle
	// uplink is the link that has the tunnel's address.
	uplink netlink.Link
}

// New opens a node's data plane. It changes nothing but its own directory.
func New(config Config) (*Node, error) {
	if config.Dir == "" || !config.Tunnel.IsValid() {
		return nil, errors.New("a node needs a directory and a tunnel address")
	}
	if config.NetNS == "" {
		config.NetNS = "/proc/thread-self/ns/net"
	}
	for _, dir := range []string{"vpcs", "pods", "served", "locks"} {
		if err := os.MkdirAll(filepath.Join(config.Dir, dir), 0o700); err != nil {
			return nil, fmt.Errorf("make the node's directory: %w", err)
		}
	}
	ns, err := os.Open(config.NetNS)
	if err != nil {
		return nil, fmt.Errorf("open the node's network namespace: %w", err)
	}
	n := &Node{config: config, ns: ns}
	if n.links, err = handle(ns); err == nil {
		n.uplink, err = linkWith(n.links, config.Tunnel)
	}
	if err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// Close lets go of what [New] opened. What was built stays.
func (n *Node) Close() {
	if n.links != nil {
		n.links.Close()
	}
	_ = n.ns.Close()
}

// handle gives netlink sockets in a network namespace.
func handle(ns *os.File) (*netlink.Handle, error) {
	h, err := netlink.NewHandleAt(nsHandle(ns), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", ns.Name(), err)
	}
	return h, nil
}

// linkWith finds the link that has an address.
func linkWith(links *netlink.Handle, addr netip.Addr) (netlink.Link, error) {
	all, err := links.AddrList(nil, family(addr))
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range all {
		if got, ok := netip.AddrFromSlice(a.IP); ok && got.Unmap() == addr {
			link, err := links.LinkByIndex(a.LinkIndex)
			if err != nil {
				return nil, fmt.Errorf("look for the link of %s: %w", addr, err)
			}
			return link, nil
		}
	}
	return nil, fmt.Errorf("no link has the tunnel's address %s", addr)
}

func family(addr netip.Addr) int {
	if addr.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// mtu is the VPC's, or what the tunnel leaves of the uplink's.
func (n *Node) mtu(vpc int) int {
	// Ethernet, VXLAN and UDP headers, and the outer IP header.
	room := n.uplink.Attrs().MTU - 50
	if n.config.Tunnel.Is6() {
		room -= 20
	}
	if vpc == 0 || vpc > room {
		return room
	}
	return vpc
}

// protected is what pods never reach, of one family.
func (n *Node) protected(four bool, vpc ...netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range AlwaysProtected {
		out = append(out, subtract(p, n.config.Allowed)...)
	}
	out = append(out, n.config.Protected...)
	out = append(out, state.Infra...)
	out = append(out, transit4, transit6, netip.PrefixFrom(n.config.Tunnel, n.config.Tunnel.BitLen()))
	out = append(out, vpc...)
	return disjoint(slices.DeleteFunc(out, func(p netip.Prefix) bool { return p.Addr().Is4() != four }))
}

// subtract gives what is left of a prefix without others.
func subtract(p netip.Prefix, others []netip.Prefix) []netip.Prefix {
	for _, other := range others {
		switch {
		case !p.Overlaps(other):
			continue
		case other.Bits() <= p.Bits():
			return nil
		}
		low, high := halves(p)
		return append(subtract(low, others), subtract(high, others)...)
	}
	return []netip.Prefix{p}
}

func halves(p netip.Prefix) (low, high netip.Prefix) {
	low = netip.PrefixFrom(p.Addr(), p.Bits()+1)
	bytes := p.Addr().AsSlice()
	bytes[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	addr, _ := netip.AddrFromSlice(bytes)
	return low, netip.PrefixFrom(addr, p.Bits()+1)
}

// disjoint drops prefixes that lie in others, in an order of its own: a packet filter's intervals may not overlap.
func disjoint(all []netip.Prefix) []netip.Prefix {
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if a.Bits() != b.Bits() {
			return a.Bits() - b.Bits()
		}
		return a.Addr().Compare(b.Addr())
	})
	var out []netip.Prefix
	for _, p := range all {
		if !slices.ContainsFunc(out, p.Overlaps) {
			out = append(out, p.Masked())
		}
	}
	return out
}
