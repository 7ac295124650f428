package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
)

// uplink is the node's end of its cable.
const uplink = "eth0"

// plug connects the namespace of the process pid to the bridge. A fresh node has no cable yet, and what is left of its
// predecessor's is removed first.
func plug(config Config, pid int, fresh bool) error {
	link, err := netlink.LinkByName(config.Link)
	switch {
	case err == nil && !fresh:
		return route(config)
	case err == nil:
		// It goes by itself, but not at once.
		if err := netlink.LinkDel(link); err != nil && !errors.Is(err, syscall.ENODEV) {
			return fmt.Errorf("remove the old cable %s: %w", config.Link, err)
		}
	case !errors.As(err, &netlink.LinkNotFoundError{}):
		return fmt.Errorf("look for cable %s: %w", config.Link, err)
	}
	bridge, err := netlink.LinkByName(config.Bridge)
	if err != nil {
		return fmt.Errorf("look for bridge %s: %w", config.Bridge, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.Flags = config.Link, bridge.Attrs().Index, net.FlagUp
	cable := &netlink.Veth{LinkAttrs: attrs, PeerName: uplink, PeerNamespace: netlink.NsPid(pid)}
	if err := netlink.LinkAdd(cable); err != nil {
		return fmt.Errorf("add cable %s: %w", config.Link, err)
	}
	if err := netlink.LinkSetUp(cable); err != nil {
		return fmt.Errorf("set cable %s up: %w", config.Link, err)
	}
	return route(config)
}

// route leads from the host to the node's pods. The route lives as long as the bridge.
func route(config Config) error {
	bridge, err := netlink.LinkByName(config.Bridge)
	if err != nil {
		return fmt.Errorf("look for bridge %s: %w", config.Bridge, err)
	}
	return replaceRoute(bridge, config.PodCIDR, config.Address.Addr())
}

func replaceRoute(link netlink.Link, to netip.Prefix, via netip.Addr) error {
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: via.AsSlice()}
	if to.Bits() > 0 {
		r.Dst = ipNet(to)
	}
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("route %s via %s: %w", to, via, err)
	}
	return nil
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}

// joinNetwork waits for the node's cable, which the host plugs in, and sets the node's addresses and routes.
func joinNetwork(config Config) error {
	if err := syscall.Sethostname([]byte(config.Name)); err != nil {
		return fmt.Errorf("set the hostname: %w", err)
	}
	loopback, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(loopback)
	}
	if err != nil {
		return fmt.Errorf("set the loopback up: %w", err)
	}
	var link netlink.Link
	for {
		if link, err = netlink.LinkByName(uplink); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(config.Address)}); err != nil {
		return fmt.Errorf("set the node's address %s: %w", config.Address, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", uplink, err)
	}
	if err := replaceRoute(link, netip.PrefixFrom(netip.IPv4Unspecified(), 0), config.Gateway); err != nil {
		return err
	}
	for pods, peer := range config.Peers {
		if err := replaceRoute(link, pods, peer); err != nil {
			return err
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("forward packets of pods: %w", err)
	}
	return nil
}
