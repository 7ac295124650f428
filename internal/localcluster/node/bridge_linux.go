package node

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
)

// Bridge joins nodes with the host and, through the host, with what the host reaches.
type Bridge struct {
	// Name is that of the link. Links whose names begin with it are cables of nodes.
	Name string
	// Address is the host's in the nodes' network.
	Address netip.Prefix
	// Network holds the addresses of all nodes and their pods.
	Network netip.Prefix
	// Table names the host's packet filter table that belongs to the bridge.
	Table string
	// Ports are the host's that nodes and pods use, as first:last.
	Ports string
	// Sibling tells the names of other instances' bridges.
	Sibling func(name string) bool
}

// FreeNetwork gives the first of the networks that this machine does not use.
func FreeNetwork(networks []netip.Prefix) (netip.Prefix, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("list routes: %w", err)
	}
	var used []netip.Prefix
	for _, route := range routes {
		if route.Dst == nil {
			continue
		}
		if addr, ok := netip.AddrFromSlice(route.Dst.IP.To4()); ok {
			if ones, _ := route.Dst.Mask.Size(); ones > 0 {
				used = append(used, netip.PrefixFrom(addr, ones))
			}
		}
	}
	for _, network := range networks {
		if !slices.ContainsFunc(used, network.Overlaps) {
			return network, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("find a network for nodes and pods: routes of this machine overlap all of %s to %s",
		networks[0], networks[len(networks)-1])
}

// Ensure makes what is missing of the bridge. A machine whose settings cannot be changed, or whose packet filter cannot
// translate addresses, gets a working bridge and a warning among the notes: pods reach the host and each other, but perhaps nothing beyond.
func (b Bridge) Ensure() (notes []string, err error) {
	link, err := netlink.LinkByName(b.Name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = b.Name
		// An address of its own: the bridge would take that of whichever cable has the lowest, and change with them.
		octets := b.Address.Addr().As4()
		attrs.HardwareAddr = append([]byte{0x02, 0x76}, octets[:]...)
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return nil, fmt.Errorf("add bridge %s: %w", b.Name, err)
		}
		link, err = netlink.LinkByName(b.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("look for bridge %s: %w", b.Name, err)
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(b.Address)}); err != nil {
		return nil, fmt.Errorf("set address %s of bridge %s: %w", b.Address, b.Name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set bridge %s up: %w", b.Name, err)
	}
	notes, err = borrow(link)
	if err != nil {
		notes = append(notes, fmt.Sprintf("warning: some of the host's settings stay as they are: %v", err))
	}
	if err := errors.Join(b.masquerade(), b.admit()); err != nil {
		notes = append(notes, fmt.Sprintf("warning: pods reach only this machine and each other: %v", err))
	}
	return notes, nil
}

// masquerade hides nodes and pods behind the host toward the rest of the world. All of it is in one table of ours.
func (b Bridge) masquerade() error {
	return run(fmt.Sprintf(`add table ip %[1]s
delete table ip %[1]s
table ip %[1]s {
	chain postrouting {
		type nat hook postrouting priority srcnat
		ip saddr %[2]s ip daddr != %[2]s masquerade
	}
}
`, b.Table, b.Network), "nft", "-f", "-")
}

// admit lets the bridge's packets pass where somebody, such as Docker or a firewall, has the host drop what nobody asked for.
// A table of ours could not overrule theirs, so these are the only rules outside of it; they carry its name as a comment.
func (b Bridge) admit() error {
	rules := map[string][][]string{
		"INPUT":   {{"-i", b.Name, "-p", "tcp", "--dport", b.Ports}},
		"FORWARD": {{"-i", b.Name}, {"-o", b.Name}},
	}
	for chain, matches := range rules {
		if !slices.Contains(filterRules(), "-P "+chain+" DROP") {
			continue
		}
		for _, match := range matches {
			rule := slices.Concat([]string{chain}, match, []string{"-m", "comment", "--comment", b.Table, "-j", "ACCEPT"})
			if run("", "iptables", append([]string{"-w", "-C"}, rule...)...) == nil {
				continue
			}
			if err := run("", "iptables", append([]string{"-w", "-I"}, rule...)...); err != nil {
				return err
			}
		}
	}
	return nil
}

// filterRules lists the host's filter rules as iptables writes them; none where there is no iptables.
func filterRules() []string {
	path, ok := FindProgram("iptables")
	if !ok {
		return nil
	}
	out, err := exec.Command(path, "-w", "-S").Output()
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// Remove removes the bridge, every cable in it and the packet filter's rules for it. It is no error when they are gone.
func (b Bridge) Remove() error {
	var errs []error
	links, err := netlink.LinkList()
	if err != nil {
		errs = append(errs, fmt.Errorf("list links: %w", err))
	}
	for _, link := range links {
		if !strings.HasPrefix(link.Attrs().Name, b.Name) {
			continue
		}
		if link.Attrs().Name == b.Name {
			errs = append(errs, giveBack(link, links, b.Sibling))
		}
		if err := netlink.LinkDel(link); err != nil && !errors.Is(err, syscall.ENODEV) {
			errs = append(errs, fmt.Errorf("remove link %s: %w", link.Attrs().Name, err))
		}
	}
	if _, ok := FindProgram("nft"); ok {
		// Adding it first makes the removal of nothing a success.
		errs = append(errs, run(fmt.Sprintf("add table ip %[1]s\ndelete table ip %[1]s\n", b.Table), "nft", "-f", "-"))
	}
	for _, rule := range filterRules() {
		if fields := strings.Fields(rule); slices.Contains(fields, b.Table) && fields[0] == "-A" {
			errs = append(errs, run("", "iptables", slices.Concat([]string{"-w", "-D"}, fields[1:])...))
		}
	}
	return errors.Join(errs...)
}

// run runs a program of the system and gives its complaint as an error.
func run(stdin, name string, args ...string) error {
	path, ok := FindProgram(name)
	if !ok {
		return fmt.Errorf("run %s: it is not installed", name)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}
