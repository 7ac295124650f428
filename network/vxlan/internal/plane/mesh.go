//go:build linux

package plane

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vivarium.io/vivarium/network/vxlan/internal/state"
)

// mesh writes down where every pod of the VPC is: who has which address, behind which port, on which node. Nothing else
// tells a packet where to go.
func (n *Node) mesh(s *space, desired *state.Desired, pods []Pod) error {
	here := map[netip.Addr]bool{}
	for _, pod := range pods {
		for _, ip := range pod.IPs {
			here[ip] = true
		}
	}
	for i := range desired.Subnets {
		subnet := &desired.Subnets[i]
		w := wires{neighbours: map[netip.Addr]string{}, ports: map[string]string{}, tunnels: map[string]netip.Addr{}}
		for _, pod := range pods {
			if pod.Subnet != subnet.UID || pod.Port == "" {
				continue
			}
			w.ports[pod.MAC] = pod.Port
			for _, ip := range pod.IPs {
				w.neighbours[ip] = pod.MAC
			}
		}
		for _, e := range desired.Endpoints {
			// A pod that is here is where its port is, whatever others believe; one that is said to be here and is not is nowhere.
			if e.Subnet != subnet.UID || e.Node == n.config.Tunnel || w.ports[e.MAC] != "" || !e.Node.IsValid() || e.Node.Is4() != n.config.Tunnel.Is4() {
				continue
			}
			if subnet.Validate(e.IPs, e.MAC) != nil {
				continue
			}
			w.tunnels[e.MAC] = e.Node
			for _, ip := range e.IPs {
				if !here[ip] {
					w.neighbours[ip] = e.MAC
				}
			}
		}
		if err := s.wire(subnet, w); err != nil {
			return fmt.Errorf("subnet %s: %w", subnet.UID, err)
		}
	}
	return nil
}

// wires are the entries of one subnet.
type wires struct {
	neighbours map[netip.Addr]string
	// ports and tunnels are by hardware address.
	ports   map[string]string
	tunnels map[string]netip.Addr
}

func (s *space) wire(subnet *state.Subnet, w wires) error {
	bridge, err := s.links.LinkByName(bridgeName(subnet.VNI))
	if err != nil {
		return fmt.Errorf("look for bridge %s: %w", bridgeName(subnet.VNI), err)
	}
	tunnel, err := s.links.LinkByName(vxlanName(subnet.VNI))
	if err != nil {
		return fmt.Errorf("look for link %s: %w", vxlanName(subnet.VNI), err)
	}
	if err := s.neighbours(bridge, w.neighbours); err != nil {
		return err
	}
	return s.forwarding(bridge, tunnel, w)
}

// neighbours makes the permanent neighbours of a bridge be exactly these.
func (s *space) neighbours(bridge netlink.Link, want map[netip.Addr]string) error {
	there := map[netip.Addr]bool{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := s.links.NeighList(bridge.Attrs().Index, family)
		if err != nil {
			return fmt.Errorf("list neighbours: %w", err)
		}
		for i := range list {
			ip, ok := netip.AddrFromSlice(list[i].IP)
			if !ok || list[i].State&netlink.NUD_PERMANENT == 0 || ip.IsMulticast() {
				continue
			}
			if ip = ip.Unmap(); want[ip] == list[i].HardwareAddr.String() {
				there[ip] = true
			} else if want[ip] == "" {
				if err := s.links.NeighDel(&list[i]); err != nil && !errors.Is(err, syscall.ENOENT) {
					return fmt.Errorf("remove neighbour %s: %w", ip, err)
				}
			}
		}
	}
	for ip, mac := range want {
		if there[ip] {
			continue
		}
		hardware, err := net.ParseMAC(mac)
		if err != nil {
			return fmt.Errorf("add neighbour %s: %w", ip, err)
		}
		neighbour := &netlink.Neigh{LinkIndex: bridge.Attrs().Index, State: netlink.NUD_PERMANENT, IP: ip.AsSlice(), HardwareAddr: hardware, Family: family(ip)}
		if err := s.links.NeighSet(neighbour); err != nil {
			return fmt.Errorf("add neighbour %s: %w", ip, err)
		}
	}
	return nil
}

// forwarding makes the static entries of a bridge, and of the tunnel behind it, be exactly these.
func (s *space) forwarding(bridge, tunnel netlink.Link, w wires) error {
	type entry struct {
		link  int
		flags int
		mac   string
		to    netip.Addr
	}
	want := map[entry]bool{}
	for mac, node := range w.tunnels {
		want[entry{tunnel.Attrs().Index, netlink.NTF_SELF, mac, node}] = false
		want[entry{tunnel.Attrs().Index, netlink.NTF_MASTER, mac, netip.Addr{}}] = false
	}
	for mac, name := range w.ports {
		port, err := s.links.LinkByName(name)
		if err != nil {
			// Its container ended; the runtime will say so.
			continue
		}
		want[entry{port.Attrs().Index, netlink.NTF_MASTER, mac, netip.Addr{}}] = false
	}
	list, err := s.links.NeighList(0, unix.AF_BRIDGE)
	if err != nil {
		return fmt.Errorf("list forwarding entries: %w", err)
	}
	for i := range list {
		e := &list[i]
		if e.LinkIndex != tunnel.Attrs().Index && e.MasterIndex != bridge.Attrs().Index {
			continue
		}
		key := entry{link: e.LinkIndex, flags: netlink.NTF_MASTER, mac: e.HardwareAddr.String()}
		if e.MasterIndex == 0 {
			key.flags = netlink.NTF_SELF
		}
		if ip, ok := netip.AddrFromSlice(e.IP); ok {
			key.to = ip.Unmap()
		}
		if _, ok := want[key]; ok {
			want[key] = true
			continue
		}
		// A port's own address is permanent and of the kernel's making.
		if e.State&netlink.NUD_PERMANENT != 0 && key.flags == netlink.NTF_MASTER || e.LinkIndex == bridge.Attrs().Index {
			continue
		}
		e.Family, e.Flags = unix.AF_BRIDGE, key.flags
		if err := s.links.NeighDel(e); err != nil && !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("remove forwarding entry %s: %w", key.mac, err)
		}
	}
	for key, there := range want {
		if there {
			continue
		}
		hardware, err := net.ParseMAC(key.mac)
		if err != nil {
			return fmt.Errorf("add forwarding entry: %w", err)
		}
		e := &netlink.Neigh{LinkIndex: key.link, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP, Flags: key.flags, HardwareAddr: hardware}
		if key.to.IsValid() {
			e.IP, e.State = key.to.AsSlice(), netlink.NUD_PERMANENT
		}
		if err := s.links.NeighSet(e); err != nil {
			return fmt.Errorf("add forwarding entry %s: %w", key.mac, err)
		}
	}
	return nil
}

// linkLocal is the IPv6 address that a pod makes itself out of its hardware address.
func linkLocal(mac string) netip.Addr {
	hardware, err := net.ParseMAC(mac)
	if err != nil || len(hardware) != 6 {
		return netip.Addr{}
	}
	return netip.AddrFrom16([16]byte{
		0xfe, 0x80, 8: hardware[0] ^ 2, 9: hardware[1], 10: hardware[2], 11: 0xff, 12: 0xfe, 13: hardware[3], 14: hardware[4], 15: hardware[5],
	})
}
