//go:build linux

package plane

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/network/vxlan/internal/state"
)

// transit is the link between the node and one of its VPCs: a number, out of which its name and addresses follow.
type transit int

func (t transit) link() string { return linkPrefix + strconv.Itoa(int(t)) }

// node and vpc are the addresses of the two ends.
func (t transit) node(four bool) netip.Addr { return t.address(four, 0) }
func (t transit) vpc(four bool) netip.Addr  { return t.address(four, 1) }

func (t transit) address(four bool, end uint32) netip.Addr {
	base := transit6.Addr()
	if four {
		base = transit4.Addr()
	}
	bytes := base.AsSlice()
	at := uint32(t)*2 + end
	last := len(bytes) - 1
	bytes[last] |= byte(at)
	bytes[last-1] |= byte(at >> 8)
	addr, _ := netip.AddrFromSlice(bytes)
	return addr
}

func bridgeName(vni uint32) string { return "br" + strconv.FormatUint(uint64(vni), 10) }
func vxlanName(vni uint32) string  { return "vx" + strconv.FormatUint(uint64(vni), 10) }

// space is the network namespace of a VPC, opened.
type space struct {
	ns      *os.File
	links   *netlink.Handle
	transit transit
}

func (s *space) close() {
	if s.links != nil {
		s.links.Close()
	}
	_ = s.ns.Close()
}

// Ensure makes a VPC on this node what was last stored of it. What has no pod here is not made, unless it is there already;
// always asks for it all the same.
func (n *Node) Ensure(vpc types.UID, always bool) error {
	unlock, err := n.lock(string(vpc))
	if err != nil {
		return err
	}
	defer unlock()
	desired, err := n.Stored(vpc)
	if err != nil {
		return err
	}
	if !always {
		pods, err := n.Pods(vpc)
		if err != nil {
			return err
		}
		existing, err := openExisting(n.netnsPath(vpc))
		if existing != nil {
			_ = existing.Close()
		}
		if err != nil || existing == nil && len(pods) == 0 {
			return err
		}
	}
	s, err := n.ensure(desired)
	if s != nil {
		s.close()
	}
	return err
}

// ensure does it, under the VPC's lock, and gives the namespace open. The order is what keeps it closed: a namespace whose
// rules are seen in the kernel, then links.
func (n *Node) ensure(desired *state.Desired) (*space, error) {
	if err := desired.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err := n.guarded(); err != nil {
		return nil, err
	}
	s, err := n.open(desired.UID)
	if err != nil {
		return nil, err
	}
	pods, err := n.Pods(desired.UID)
	for _, step := range []func() error{
		func() error { return err },
		func() error { return n.filter(s, desired, pods) },
		func() error { return n.join(s) },
		s.resolvable,
		func() error { return n.segments(s, desired, pods) },
		func() error { return n.mesh(s, desired, pods) },
		func() error { return n.routes(s, pods) },
	} {
		if err := step(); err != nil {
			s.close()
			return nil, fmt.Errorf("VPC %s: %w", desired.UID, err)
		}
	}
	return s, nil
}

// open opens a VPC's namespace and makes it where it is missing: without links, and with no way through.
func (n *Node) open(vpc types.UID) (*space, error) {
	number, err := n.number(vpc)
	if err != nil {
		return nil, err
	}
	ns, made, err := openNetNS(n.netnsPath(vpc))
	if err != nil {
		return nil, err
	}
	s := &space{ns: ns, transit: number}
	if s.links, err = handle(ns); err == nil && made {
		err = s.begin()
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *space) begin() error {
	err := sysctl(s.ns, map[string]string{
		"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1",
		"ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0",
		"ipv4/conf/all/accept_redirects": "0", "ipv4/conf/default/accept_redirects": "0",
		"ipv4/conf/all/send_redirects": "0", "ipv4/conf/default/send_redirects": "0",
		"ipv6/conf/all/accept_ra": "0", "ipv6/conf/default/accept_ra": "0",
		"ipv6/conf/default/accept_dad": "0", "ipv6/conf/default/accept_redirects": "0",
		// Bridged packets are the bridge's rules' to judge; twice costs twice.
		"bridge/bridge-nf-call-iptables": "0", "bridge/bridge-nf-call-ip6tables": "0", "bridge/bridge-nf-call-arptables": "0",
	})
	if err != nil {
		return err
	}
	loopback, err := s.links.LinkByName("lo")
	if err == nil {
		err = s.links.LinkSetUp(loopback)
	}
	if err != nil {
		return fmt.Errorf("set the loopback up: %w", err)
	}
	return nil
}

// number gives the VPC's transit number, the same for as long as the VPC is on the node.
func (n *Node) number(vpc types.UID) (transit, error) {
	file := filepath.Join(n.vpcDir(vpc), "transit")
	if raw, err := os.ReadFile(file); err == nil {
		number, err := strconv.Atoi(string(raw))
		if err != nil || number < 1 || number >= maxVPCs {
			return 0, fmt.Errorf("read the transit number of VPC %s: %q", vpc, raw)
		}
		return transit(number), nil
	}
	unlock, err := n.lock(nodeLock)
	if err != nil {
		return 0, err
	}
	defer unlock()
	files, err := filepath.Glob(filepath.Join(n.config.Dir, "vpcs", "*", "transit"))
	if err != nil {
		return 0, fmt.Errorf("list transit numbers: %w", err)
	}
	used := map[string]bool{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, fmt.Errorf("list transit numbers: %w", err)
		}
		used[string(raw)] = true
	}
	for number := 1; number < maxVPCs; number++ {
		if !used[strconv.Itoa(number)] {
			return transit(number), replaceFile(file, []byte(strconv.Itoa(number)))
		}
	}
	return 0, fmt.Errorf("%w: this node has %d VPCs", ErrRefused, maxVPCs-1)
}

// filter loads the VPC's rules where they are not those that are there.
func (n *Node) filter(s *space, desired *state.Desired, pods []Pod) error {
	if err := s.track(filtered(desired, pods)); err != nil {
		return err
	}
	r := n.vpcRules(desired, s.transit, pods)
	loaded, seen := filepath.Join(n.vpcDir(desired.UID), "rules"), filepath.Join(n.vpcDir(desired.UID), "generation")
	// Asked before the rules are listed: what changes meanwhile is another generation.
	now, err := generation(s.ns)
	if err != nil {
		return err
	}
	if before, err := os.ReadFile(loaded); err == nil && string(before) == r.text.String() {
		if last, err := os.ReadFile(seen); err == nil && string(last) == now {
			return nil
		}
		if r.verify(s.ns, "bridge "+vpcTable, "inet "+vpcTable) == nil {
			return replaceFile(seen, []byte(now))
		}
	}
	if err := r.secure(s.ns, "bridge "+vpcTable, "inet "+vpcTable); err != nil {
		return err
	}
	return replaceFile(loaded, []byte(r.text.String()))
}

// join makes the link between the node and the VPC.
func (n *Node) join(s *space) error {
	inside, err := s.links.LinkByName(transitLink)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = s.transit.link()
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: transitLink, PeerNamespace: netlink.NsFd(int(s.ns.Fd()))}
		if old, err := n.links.LinkByName(attrs.Name); err == nil {
			// Its other end went with a namespace that is gone.
			_ = n.links.LinkDel(old)
		}
		if err := n.links.LinkAdd(veth); err != nil {
			return fmt.Errorf("add link %s: %w", attrs.Name, err)
		}
		inside, err = s.links.LinkByName(transitLink)
	}
	if err != nil {
		return fmt.Errorf("look for link %s: %w", transitLink, err)
	}
	outside, err := n.links.LinkByName(s.transit.link())
	if err != nil {
		return fmt.Errorf("look for link %s: %w", s.transit.link(), err)
	}
	for _, end := range []struct {
		links *netlink.Handle
		link  netlink.Link
		at    func(bool) netip.Addr
	}{{n.links, outside, s.transit.node}, {s.links, inside, s.transit.vpc}} {
		for _, four := range []bool{true, false} {
			addr := end.at(four)
			if err := ensureAddress(end.links, end.link, netip.PrefixFrom(addr, addr.BitLen()-1)); err != nil {
				if !four && errors.Is(err, errNoIPv6) {
					continue
				}
				return err
			}
		}
		if end.link.Attrs().Flags&net.FlagUp == 0 {
			if err := end.links.LinkSetUp(end.link); err != nil {
				return fmt.Errorf("set link %s up: %w", end.link.Attrs().Name, err)
			}
		}
	}
	for _, four := range []bool{true, false} {
		route := &netlink.Route{LinkIndex: inside.Attrs().Index, Gw: s.transit.node(four).AsSlice()}
		if err := s.links.RouteReplace(route); err != nil && four {
			return fmt.Errorf("route from the VPC to the node: %w", err)
		}
	}
	return nil
}

var errNoIPv6 = errors.New("no IPv6 on this node")

// ensureAddress gives a link an address, at once, without asking whether somebody else has it.
func ensureAddress(links *netlink.Handle, link netlink.Link, prefix netip.Prefix) error {
	const noDAD = 0x02
	addr := &netlink.Addr{IPNet: ipNet(prefix)}
	if prefix.Addr().Is6() {
		addr.Flags = noDAD
	}
	err := links.AddrReplace(link, addr)
	if err != nil && prefix.Addr().Is6() && noIPv6() {
		return errNoIPv6
	}
	if err != nil {
		return fmt.Errorf("set address %s of link %s: %w", prefix, link.Attrs().Name, err)
	}
	return nil
}

func noIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err != nil
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}

// segments makes a bridge and a tunnel for each subnet, and removes those of subnets that are gone.
func (n *Node) segments(s *space, desired *state.Desired, pods []Pod) error {
	mtu := n.mtu(desired.MTU)
	wanted := map[string]bool{}
	for _, subnet := range desired.Subnets {
		wanted[bridgeName(subnet.VNI)], wanted[vxlanName(subnet.VNI)] = true, true
		if err := n.segment(s, &subnet, mtu); err != nil {
			return fmt.Errorf("subnet %s: %w", subnet.UID, err)
		}
	}
	links, err := s.links.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, link := range links {
		name := link.Attrs().Name
		ours := link.Type() == "bridge" && strings.HasPrefix(name, "br") || link.Type() == "vxlan" && strings.HasPrefix(name, "vx")
		if ours && !wanted[name] {
			if err := s.links.LinkDel(link); err != nil {
				return fmt.Errorf("remove link %s: %w", name, err)
			}
		}
	}
	for _, pod := range pods {
		if pod.Port == "" {
			continue
		}
		if port, err := s.links.LinkByName(pod.Port); err == nil {
			if err := errors.Join(s.podPort(port), s.shape(port, pod.Rates)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *Node) segment(s *space, subnet *state.Subnet, mtu int) error {
	name := bridgeName(subnet.VNI)
	bridge, err := s.links.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.HardwareAddr = name, mtu, state.GatewayMAC
		// Neighbour discovery is multicast, and nobody here asks who wants to hear it.
		snoop := false
		if err := s.links.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snoop}); err != nil {
			return fmt.Errorf("add bridge %s: %w", name, err)
		}
		bridge, err = s.links.LinkByName(name)
	}
	if err != nil {
		return fmt.Errorf("look for bridge %s: %w", name, err)
	}
	for i, cidr := range subnet.CIDRs {
		if err := ensureAddress(s.links, bridge, netip.PrefixFrom(subnet.Gateway[i], cidr.Bits())); err != nil {
			return err
		}
	}
	tunnel, err := n.tunnel(s, subnet, mtu)
	if err != nil {
		return err
	}
	if tunnel.Attrs().MasterIndex != bridge.Attrs().Index {
		if err := s.links.LinkSetMaster(tunnel, bridge); err != nil {
			return fmt.Errorf("put %s on its bridge: %w", tunnel.Attrs().Name, err)
		}
	}
	// What is not written down is nowhere: nothing is learned from packets, and nothing unknown goes to other nodes.
	err = s.setPort(tunnel, map[int]bool{
		nl.IFLA_BRPORT_LEARNING: false, nl.IFLA_BRPORT_UNICAST_FLOOD: false, nl.IFLA_BRPORT_MCAST_FLOOD: false,
		nl.IFLA_BRPORT_BCAST_FLOOD: false, nl.IFLA_BRPORT_NEIGH_SUPPRESS: true,
	})
	if err != nil {
		return err
	}
	for _, link := range []netlink.Link{tunnel, bridge} {
		if err := s.links.LinkSetUp(link); err != nil {
			return fmt.Errorf("set link %s up: %w", link.Attrs().Name, err)
		}
	}
	return nil
}

// podPort sets up a pod's port: nothing is learned from what it sends, and only what is meant for it comes to it.
func (s *space) podPort(port netlink.Link) error {
	return s.setPort(port, map[int]bool{nl.IFLA_BRPORT_LEARNING: false, nl.IFLA_BRPORT_UNICAST_FLOOD: false, nl.IFLA_BRPORT_MODE: false})
}

// setPort sets flags of a bridge's port, all at once; the netlink library knows some of them, each by itself.
func (s *space) setPort(port netlink.Link, flags map[int]bool) error {
	return inside(s.ns, func() error {
		message := nl.NewIfInfomsg(unix.AF_BRIDGE)
		message.Index = int32(port.Attrs().Index)
		info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
		for flag, on := range flags {
			value := []byte{0}
			if on {
				value[0] = 1
			}
			info.AddRtAttr(flag, value)
		}
		request := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
		request.AddData(message)
		request.AddData(info)
		if _, err := request.Execute(unix.NETLINK_ROUTE, 0); err != nil {
			return fmt.Errorf("set up port %s: %w", port.Attrs().Name, err)
		}
		return nil
	})
}

// tunnel makes the VXLAN device of a subnet. Its socket stays in the node's namespace, its frames are the VPC's.
func (n *Node) tunnel(s *space, subnet *state.Subnet, mtu int) (netlink.Link, error) {
	name := vxlanName(subnet.VNI)
	link, err := s.links.LinkByName(name)
	if err == nil {
		if vxlan, ok := link.(*netlink.Vxlan); ok && vxlan.VxlanId == int(subnet.VNI) && vxlan.SrcAddr.Equal(n.config.Tunnel.AsSlice()) {
			return link, nil
		}
		if err := s.links.LinkDel(link); err != nil {
			return nil, fmt.Errorf("remove link %s: %w", name, err)
		}
	} else if !errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, fmt.Errorf("look for link %s: %w", name, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.Namespace = name, mtu, netlink.NsFd(int(s.ns.Fd()))
	vxlan := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: int(subnet.VNI), SrcAddr: n.config.Tunnel.AsSlice(), Port: vxlanPort, Learning: false, VtepDevIndex: n.uplink.Attrs().Index}
	if err := n.links.LinkAdd(vxlan); err != nil {
		return nil, fmt.Errorf("add link %s: %w", name, err)
	}
	if link, err = s.links.LinkByName(name); err != nil {
		return nil, fmt.Errorf("look for link %s: %w", name, err)
	}
	return link, nil
}

// Remove removes all of a VPC from this node but its pods: with pods here it is refused.
func (n *Node) Remove(vpc types.UID) error {
	if !state.ValidUID(vpc) {
		return fmt.Errorf("%w: VPC %q", ErrRefused, vpc)
	}
	unlock, err := n.lock(string(vpc))
	if err != nil {
		return err
	}
	defer unlock()
	pods, err := n.Pods(vpc)
	if err != nil {
		return err
	}
	if len(pods) > 0 {
		return fmt.Errorf("%w: VPC %s has pods on this node, such as %s/%s", ErrRefused, vpc, pods[0].Namespace, pods[0].Name)
	}
	if raw, err := os.ReadFile(filepath.Join(n.vpcDir(vpc), "transit")); err == nil {
		// A namespace that somebody holds open would keep it alive.
		if link, err := n.links.LinkByName(linkPrefix + string(raw)); err == nil {
			if err := n.links.LinkDel(link); err != nil {
				return fmt.Errorf("remove link %s: %w", link.Attrs().Name, err)
			}
		}
	}
	// The kernel takes its time to end a namespace, and until then its tunnels hold their numbers.
	if err := dismantle(n.netnsPath(vpc)); err != nil {
		return err
	}
	if err := removeNetNS(n.netnsPath(vpc)); err != nil {
		return err
	}
	if err := os.RemoveAll(n.vpcDir(vpc)); err != nil {
		return fmt.Errorf("forget VPC %s: %w", vpc, err)
	}
	return nil
}

// dismantle removes the tunnels of a namespace.
func dismantle(path string) error {
	ns, err := openExisting(path)
	if ns == nil || err != nil {
		return err
	}
	defer ns.Close()
	links, err := handle(ns)
	if err != nil {
		return err
	}
	defer links.Close()
	all, err := links.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, link := range all {
		if link.Type() != "vxlan" {
			continue
		}
		if err := links.LinkDel(link); err != nil {
			return fmt.Errorf("remove link %s: %w", link.Attrs().Name, err)
		}
	}
	return nil
}

// Guard makes the node's own rules those for the given peers, the tunnel addresses of all nodes of the platform, and the
// addresses of tenants' APIs. Until it has succeeded once, no VPC is made and no pod plugged in.
func (n *Node) Guard(peers []netip.Addr, apis []netip.AddrPort) error {
	unlock, err := n.lock(nodeLock)
	if err != nil {
		return err
	}
	defer unlock()
	peers = slices.DeleteFunc(Distinct(peers, netip.Addr.Compare), func(a netip.Addr) bool { return !a.IsValid() || a == n.config.Tunnel })
	r := n.nodeRules(peers, Distinct(apis, netip.AddrPort.Compare))
	if before, err := os.ReadFile(n.guardPath()); err == nil && string(before) == r.text.String() && r.verify(n.ns, "inet "+nodeTable) == nil {
		return nil
	}
	if err := r.secure(n.ns, "inet "+nodeTable); err != nil {
		// What is there, if anything, is not known to hold.
		return errors.Join(fmt.Errorf("guard the node: %w", err), os.Remove(n.guardPath()))
	}
	if err := sysctl(n.ns, map[string]string{"ipv4/ip_forward": "1"}); err != nil {
		return err
	}
	if err := n.contain(); err != nil {
		return err
	}
	return replaceFile(n.guardPath(), []byte(r.text.String()))
}

// contain keeps what is meant for a pod that is not here from leaving the node: whoever would answer a probe out there would
// make a dead container a ready one.
func (n *Node) contain() error {
	for _, infra := range state.Infra {
		route := &netlink.Route{Dst: ipNet(infra), Type: unix.RTN_UNREACHABLE}
		if err := n.links.RouteReplace(route); err != nil && (infra.Addr().Is4() || !noIPv6()) {
			return fmt.Errorf("keep %s on the node: %w", infra, err)
		}
	}
	return nil
}

// Distinct gives a list in order and each value once. Its input stays as it is.
func Distinct[T comparable](list []T, compare func(a, b T) int) []T {
	list = slices.Clone(list)
	slices.SortFunc(list, compare)
	return slices.Compact(list)
}

func (n *Node) guardPath() string { return filepath.Join(n.config.Dir, "guard") }

// guarded reports whether [Node.Guard] has succeeded since the node was booted.
func (n *Node) guarded() error {
	if _, err := os.Stat(n.guardPath()); err != nil {
		return fmt.Errorf("%w: the node is not guarded", ErrNotReady)
	}
	return nil
}
