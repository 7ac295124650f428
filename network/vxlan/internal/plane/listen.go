//go:build linux

package plane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/vxlan/internal/state"
)

// dnsPort is where a VPC's resolver is asked.
const dnsPort = 53

// questionsPerSecond is how many packets of a VPC's pods come to its resolver on a node: a pod that asks all the time takes
// no more of the node than that.
const questionsPerSecond = 5000

// resolverAddresses are those of every VPC's resolver.
var resolverAddresses = []netip.Addr{netip.MustParseAddr(network.ResolverAddress), netip.MustParseAddr(network.ResolverAddress6)}

// resolvable gives a VPC's namespace the addresses of its resolver. Without one, who asks there is told so at once.
func (s *space) resolvable() error {
	loopback, err := s.links.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("look for the loopback: %w", err)
	}
	for _, addr := range resolverAddresses {
		if err := ensureAddress(s.links, loopback, netip.PrefixFrom(addr, addr.BitLen())); err != nil && !errors.Is(err, errNoIPv6) {
			return err
		}
	}
	return nil
}

// resolverRules let a VPC's pods ask their resolver, and nothing else where it is.
func (r *rules) resolverRules() {
	for i, f := range families {
		asked := fmt.Sprintf("iifname @subnets %s daddr %s meta l4proto { tcp, udp } th dport %d", f.ip, resolverAddresses[i], dnsPort)
		r.rule("%s limit rate over %d/second burst %[2]d packets drop", asked, questionsPerSecond)
		r.rule("%s accept", asked)
	}
}

// Sockets are where a VPC's resolver on this node is asked.
type Sockets struct {
	// Space is the VPC's namespace that they are in, as [Node.Space] tells it.
	Space     string
	Packets   []net.PacketConn
	Listeners []net.Listener
}

// Close closes them.
func (s *Sockets) Close() {
	for _, c := range s.Packets {
		_ = c.Close()
	}
	for _, l := range s.Listeners {
		_ = l.Close()
	}
}

// Space tells the namespace that a VPC has on this node from all that it ever had; empty where it has none.
func (n *Node) Space(vpc types.UID) (string, error) {
	if !state.ValidUID(vpc) {
		return "", fmt.Errorf("%w: VPC %q", ErrRefused, vpc)
	}
	ns, err := openExisting(n.netnsPath(vpc))
	if ns == nil || err != nil {
		return "", err
	}
	defer ns.Close()
	return spaceOf(ns)
}

func spaceOf(ns *os.File) (string, error) {
	var at syscall.Stat_t
	if err := syscall.Fstat(int(ns.Fd()), &at); err != nil {
		return "", fmt.Errorf("look at %s: %w", ns.Name(), err)
	}
	return fmt.Sprintf("%d.%d", at.Dev, at.Ino), nil
}

// Listen opens the sockets of a VPC's resolver in the namespace that the VPC has on this node, nil where it has none. They
// keep the namespace alive: whoever has them closes them when [Node.Space] tells of another.
func (n *Node) Listen(vpc types.UID) (*Sockets, error) {
	if !state.ValidUID(vpc) {
		return nil, fmt.Errorf("%w: VPC %q", ErrRefused, vpc)
	}
	// Whoever makes the namespace has the lock until its addresses are there.
	unlock, err := n.lock(string(vpc))
	if err != nil {
		return nil, err
	}
	defer unlock()
	ns, err := openExisting(n.netnsPath(vpc))
	if ns == nil || err != nil {
		return nil, err
	}
	defer ns.Close()
	sockets := &Sockets{}
	if sockets.Space, err = spaceOf(ns); err != nil {
		return nil, err
	}
	err = inside(ns, func() error {
		var config net.ListenConfig
		for _, addr := range resolverAddresses {
			at := netip.AddrPortFrom(addr, dnsPort).String()
			packets, err := config.ListenPacket(context.Background(), "udp", at)
			if err != nil && addr.Is6() && noIPv6() {
				continue
			}
			if err != nil {
				return err
			}
			sockets.Packets = append(sockets.Packets, packets)
			listener, err := config.Listen(context.Background(), "tcp", at)
			if err != nil {
				return err
			}
			sockets.Listeners = append(sockets.Listeners, listener)
		}
		return nil
	})
	if err != nil {
		sockets.Close()
		return nil, fmt.Errorf("listen for questions in VPC %s: %w", vpc, err)
	}
	return sockets, nil
}
