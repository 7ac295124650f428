//go:build linux

package plane

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"

	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/vxlan/internal/state"
)

// Attached is what a pod got.
type Attached struct {
	// Interfaces are what the stock plugin reports: links on both ends.
	Interfaces []Interface
	// Infra is the address that the node, and nobody else, knows the pod by.
	Infra netip.Addr
}

// Interface is a link as the plugins' results tell it.
type Interface struct {
	Name    string `json:"name"`
	Mac     string `json:"mac,omitempty"`
	Sandbox string `json:"sandbox,omitempty"`
}

// Attach plugs a pod into its subnet. It may be repeated for a container, and for another container of the same pod, whose
// place the new one takes. An address that another pod has is refused. On an error nothing of the pod is reachable; what
// was made is removed by the next Attach or by [Node.Detach].
func (n *Node) Attach(pod Pod) (*Attached, error) {
	if !validContainer(pod.Container) {
		return nil, fmt.Errorf("%w: container %q", ErrRefused, pod.Container)
	}
	desired, err := n.Stored(pod.VPC)
	if err != nil {
		return nil, err
	}
	unlock, err := n.lock(string(pod.VPC))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if desired, err = n.Stored(desired.UID); err != nil {
		return nil, err
	}
	subnet := desired.Subnet(pod.Subnet)
	if subnet == nil {
		return nil, fmt.Errorf("%w: VPC %s has no subnet %s yet", ErrNotReady, pod.VPC, pod.Subnet)
	}
	if err := subnet.Validate(pod.IPs, pod.MAC); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err := n.alone(desired, &pod); err != nil {
		return nil, err
	}
	pod.Infra, pod.Port = netip.Addr{}, ""
	if err := n.savePod(&pod); err != nil {
		return nil, err
	}
	s, err := n.built(desired, subnet)
	if err != nil {
		return nil, err
	}
	defer s.close()
	attached, err := n.plug(s, desired, subnet, &pod)
	if err == nil {
		var services []network.Service
		if services, err = n.StoredServices(pod.VPC); err == nil {
			err = n.serve(&pod, services)
		}
	}
	if err != nil {
		return nil, errors.Join(err, n.unplug(s, &pod))
	}
	return attached, nil
}

// alone makes sure that nobody else has the pod's addresses, as far as this node can know, and ends what another container
// of the same pod has.
func (n *Node) alone(desired *state.Desired, pod *Pod) error {
	others, err := n.Pods(pod.VPC)
	if err != nil {
		return err
	}
	shared := func(ips []netip.Addr, mac string) bool {
		return mac == pod.MAC || slices.ContainsFunc(ips, func(ip netip.Addr) bool { return slices.Contains(pod.IPs, ip) })
	}
	for i := range others {
		other := &others[i]
		switch {
		case other.UID == pod.UID && (other.Namespace != pod.Namespace || other.Name != pod.Name):
			return fmt.Errorf("%w: the place is that of pod %s/%s on this node", ErrRefused, other.Namespace, other.Name)
		case other.UID == pod.UID:
			if err := n.detach(other); err != nil {
				return err
			}
		case other.Subnet == pod.Subnet && shared(other.IPs, other.MAC):
			return fmt.Errorf("%w: %v or %s is pod %s/%s's on this node", ErrRefused, pod.IPs, pod.MAC, other.Namespace, other.Name)
		}
	}
	for _, e := range desired.Endpoints {
		if e.Subnet == pod.Subnet && e.Pod != pod.UID && shared(e.IPs, e.MAC) {
			return fmt.Errorf("%w: %v or %s is pod %s's on node %s", ErrRefused, pod.IPs, pod.MAC, e.Pod, e.Node)
		}
	}
	return nil
}

// built gives a VPC's namespace with the subnet in it, and builds what is missing.
func (n *Node) built(desired *state.Desired, subnet *state.Subnet) (*space, error) {
	if err := n.guarded(); err != nil {
		return nil, err
	}
	existing, err := openExisting(n.netnsPath(desired.UID))
	if err != nil {
		return nil, err
	}
	if existing != nil {
		_ = existing.Close()
		s, err := n.open(desired.UID)
		if err != nil {
			return nil, err
		}
		if tunnel, err := s.links.LinkByName(vxlanName(subnet.VNI)); err == nil && tunnel.Attrs().MasterIndex != 0 {
			return s, nil
		}
		s.close()
	}
	return n.ensure(desired)
}

func (n *Node) plug(s *space, desired *state.Desired, subnet *state.Subnet, pod *Pod) (*Attached, error) {
	// The pod's end may be there from a time when this was cut short.
	if err := removeLink(pod.NetNS, pod.Interface); err != nil {
		return nil, err
	}
	if pod.Port != "" && pod.Rates.Egress > 0 {
		if err := s.unshape(pod.Port); err != nil {
			return nil, err
		}
	}
	raw, err := n.plugin(s.ns, "bridge", "ADD", pod, n.bridgeConfig(desired, subnet, pod))
	if err != nil {
		return nil, err
	}
	var result struct {
		Interfaces []Interface `json:"interfaces"`
	}
	if err := json.Unmarshal(raw, &result); err != nil {
		return nil, fmt.Errorf("read the result of the bridge plugin: %w", err)
	}
	for _, i := range result.Interfaces {
		if i.Sandbox == "" && i.Name != bridgeName(subnet.VNI) {
			pod.Port = i.Name
		}
	}
	if pod.Port == "" {
		return nil, fmt.Errorf("the bridge plugin made no port: %s", raw)
	}
	if !pod.Infra.IsValid() {
		if pod.Infra, err = n.lease(pod); err != nil {
			return nil, err
		}
	}
	if err := n.savePod(pod); err != nil {
		return nil, err
	}
	if filtered(desired, []Pod{*pod}) {
		if err := s.disconnect(pod.IPs); err != nil {
			return nil, err
		}
	}
	if err := n.refresh(s, desired); err != nil {
		return nil, err
	}
	return &Attached{Interfaces: result.Interfaces, Infra: pod.Infra}, nil
}

// removeLink removes a link of a network namespace, and with a veth its other end. Neither has to be there.
func removeLink(path, name string) error {
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
	link, err := links.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = links.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("remove link %s of a pod: %w", name, err)
	}
	return nil
}

// refresh makes ports, neighbours, rules and routes those of the pods that are written down.
func (n *Node) refresh(s *space, desired *state.Desired) error {
	pods, err := n.Pods(desired.UID)
	if err != nil {
		return err
	}
	for _, pod := range pods {
		if port, err := s.links.LinkByName(pod.Port); err == nil {
			if err := errors.Join(s.podPort(port), s.shape(port, pod.Rates)); err != nil {
				return err
			}
		}
	}
	if err := n.mesh(s, desired, pods); err != nil {
		return err
	}
	if err := s.track(filtered(desired, pods)); err != nil {
		return err
	}
	r := n.vpcRules(desired, s.transit, pods)
	if err := r.load(s.ns); err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(n.vpcDir(desired.UID), "rules"), []byte(r.text.String())); err != nil {
		return err
	}
	return n.routes(s, pods)
}

// routes leads from the node to the infra addresses of the VPC's pods, and to no others through this VPC.
func (n *Node) routes(s *space, pods []Pod) error {
	link, err := n.links.LinkByName(s.transit.link())
	if err != nil {
		return fmt.Errorf("look for link %s: %w", s.transit.link(), err)
	}
	want := map[netip.Addr]bool{}
	for _, pod := range pods {
		if pod.Infra.IsValid() {
			want[pod.Infra] = false
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := n.links.RouteList(link, family)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		for i := range list {
			if list[i].Gw == nil || list[i].Dst == nil {
				continue
			}
			ip, ok := netip.AddrFromSlice(list[i].Dst.IP)
			if _, wanted := want[ip.Unmap()]; ok && wanted {
				want[ip.Unmap()] = true
			} else if err := n.links.RouteDel(&list[i]); err != nil {
				return fmt.Errorf("remove the route to %s: %w", ip, err)
			}
		}
	}
	for ip, there := range want {
		if there {
			continue
		}
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(netip.PrefixFrom(ip, ip.BitLen())), Gw: s.transit.vpc(ip.Is4()).AsSlice()}
		if err := n.links.RouteReplace(route); err != nil {
			return fmt.Errorf("add the route to %s: %w", ip, err)
		}
	}
	return nil
}

// Detach unplugs the pod of a container. It is no error when there is none.
func (n *Node) Detach(container string) error {
	pod, err := n.pod(container)
	if err != nil || pod == nil {
		return err
	}
	unlock, err := n.lock(string(pod.VPC))
	if err != nil {
		return err
	}
	defer unlock()
	// Another process may have been first.
	if pod, err = n.pod(container); err != nil || pod == nil {
		return err
	}
	return n.detach(pod)
}

func (n *Node) detach(pod *Pod) error {
	existing, err := openExisting(n.netnsPath(pod.VPC))
	if err != nil {
		return err
	}
	if existing == nil {
		return n.forget(pod)
	}
	_ = existing.Close()
	s, err := n.open(pod.VPC)
	if err != nil {
		return err
	}
	defer s.close()
	return n.unplug(s, pod)
}

func (n *Node) unplug(s *space, pod *Pod) error {
	if pod.Port != "" {
		if port, err := s.links.LinkByName(pod.Port); err == nil {
			if err := s.links.LinkDel(port); err != nil && !errors.As(err, &netlink.LinkNotFoundError{}) {
				return fmt.Errorf("remove port %s: %w", pod.Port, err)
			}
		}
		if pod.Rates.Egress > 0 {
			if err := s.unshape(pod.Port); err != nil {
				return err
			}
		}
	} else if err := removeLink(pod.NetNS, pod.Interface); err != nil {
		// It was cut short before the port's name was known.
		return err
	}
	if err := n.forget(pod); err != nil {
		return err
	}
	desired, err := n.Stored(pod.VPC)
	if errors.Is(err, ErrNotReady) {
		return nil
	}
	if err != nil {
		return err
	}
	return n.refresh(s, desired)
}

// forget gives the pod's infra address back and removes what is written of it.
func (n *Node) forget(pod *Pod) error {
	if _, err := n.plugin(n.ns, "host-local", "DEL", pod, n.leaseConfig(pod)); err != nil {
		return err
	}
	for _, file := range []string{n.servedPath(pod.Container), n.podFile(pod.Container, pod.VPC)} {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget pod %s/%s: %w", pod.Namespace, pod.Name, err)
		}
	}
	return nil
}

// Check reports what is missing of a container's pod.
func (n *Node) Check(container string) error {
	pod, err := n.pod(container)
	if err != nil {
		return err
	}
	if pod == nil || pod.Port == "" {
		return fmt.Errorf("container %s is not plugged in", container)
	}
	existing, err := openExisting(n.netnsPath(pod.VPC))
	if err != nil {
		return err
	}
	if existing == nil {
		return fmt.Errorf("VPC %s of container %s is not on this node", pod.VPC, container)
	}
	defer existing.Close()
	links, err := handle(existing)
	if err != nil {
		return err
	}
	defer links.Close()
	if _, err := links.LinkByName(pod.Port); err != nil {
		return fmt.Errorf("look for port %s of container %s: %w", pod.Port, container, err)
	}
	return nil
}

// Replug plugs in again what lost its port, as when a VPC's namespace was removed under its pods. A pod whose own namespace
// is gone is forgotten.
func (n *Node) Replug() error {
	pods, err := n.Pods("")
	if err != nil {
		return err
	}
	var problems []error
	for _, pod := range pods {
		there, err := openExisting(pod.NetNS)
		switch {
		case err != nil:
		case there == nil:
			// A file that is no namespace is one that this process cannot see into: the pod may well live.
			if _, gone := os.Stat(pod.NetNS); errors.Is(gone, fs.ErrNotExist) {
				err = n.Detach(pod.Container)
			}
		default:
			_ = there.Close()
			err = n.replug(pod.Container)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("plug in pod %s/%s again: %w", pod.Namespace, pod.Name, err))
		}
	}
	return errors.Join(problems...)
}

// replug plugs in again what was plugged in once and lost its port. It keeps the infra address, because that is what the
// runtime and the pool know. What never had a port is being plugged in, or the runtime was told that it could not be.
func (n *Node) replug(container string) error {
	pod, err := n.pod(container)
	if err != nil || pod == nil || pod.Port == "" {
		return err
	}
	unlock, err := n.lock(string(pod.VPC))
	if err != nil {
		return err
	}
	defer unlock()
	if pod, err = n.pod(container); err != nil || pod == nil || pod.Port == "" || n.Check(container) == nil {
		return err
	}
	desired, err := n.Stored(pod.VPC)
	if err != nil {
		return err
	}
	subnet := desired.Subnet(pod.Subnet)
	if subnet == nil {
		return fmt.Errorf("%w: VPC %s has no subnet %s", ErrNotReady, pod.VPC, pod.Subnet)
	}
	s, err := n.built(desired, subnet)
	if err != nil {
		return err
	}
	defer s.close()
	_, err = n.plug(s, desired, subnet, pod)
	return err
}

type object = map[string]any

// bridgeConfig is the stock bridge plugin's, for a bridge that is there already.
func (n *Node) bridgeConfig(desired *state.Desired, subnet *state.Subnet, pod *Pod) object {
	var addresses, routes []object
	for _, ip := range pod.IPs {
		for i, cidr := range subnet.CIDRs {
			if !cidr.Contains(ip) {
				continue
			}
			addresses = append(addresses, object{"address": netip.PrefixFrom(ip, cidr.Bits()).String(), "gateway": subnet.Gateway[i].String()})
			everywhere := "0.0.0.0/0"
			if ip.Is6() {
				everywhere = "::/0"
			}
			routes = append(routes, object{"dst": everywhere, "gw": subnet.Gateway[i].String()})
		}
	}
	return object{
		"cniVersion": "1.0.0", "name": "vpc", "type": "bridge", "bridge": bridgeName(subnet.VNI), "mtu": n.mtu(desired.MTU),
		// With it the plugin does not wait seconds for somebody to object to an IPv6 address; it is switched off right after.
		"hairpinMode":   true,
		"ipam":          object{"type": "static", "addresses": addresses, "routes": routes},
		"runtimeConfig": object{"mac": pod.MAC},
	}
}

// leaseConfig is that of the plugin which gives addresses by which the node knows pods.
func (n *Node) leaseConfig(pod *Pod) object {
	four := len(pod.IPs) == 0 || slices.ContainsFunc(pod.IPs, netip.Addr.Is4)
	var ranges [][]object
	for _, infra := range state.Infra {
		if infra.Addr().Is4() == four {
			ranges = append(ranges, []object{{"subnet": infra.String()}})
		}
	}
	return object{
		"cniVersion": "1.0.0", "name": "infra", "type": "host-local",
		"ipam": object{"type": "host-local", "dataDir": filepath.Join(n.config.Dir, "leases"), "ranges": ranges},
	}
}

// lease takes an infra address of the family of the pod's first address.
func (n *Node) lease(pod *Pod) (netip.Addr, error) {
	raw, err := n.plugin(n.ns, "host-local", "ADD", pod, n.leaseConfig(pod))
	if err != nil {
		return netip.Addr{}, err
	}
	var result struct {
		IPs []struct {
			Address netip.Prefix `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(raw, &result); err != nil || len(result.IPs) != 1 {
		return netip.Addr{}, fmt.Errorf("read the result of the host-local plugin: %w: %s", err, raw)
	}
	return result.IPs[0].Address.Addr(), nil
}

// plugin runs a stock plugin inside a namespace: what the plugin takes for the node is the VPC.
func (n *Node) plugin(ns *os.File, name, command string, pod *Pod, config object) ([]byte, error) {
	stdin, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("configure plugin %s: %w", name, err)
	}
	// Nothing of what the runtime gave is passed on: plugins take addresses out of CNI_ARGS.
	env := []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + pod.Container, "CNI_NETNS=" + pod.NetNS, "CNI_IFNAME=" + pod.Interface,
		"CNI_PATH=" + n.config.Plugins, "PATH=" + os.Getenv("PATH"),
	}
	return run(ns, stdin, env, filepath.Join(n.config.Plugins, name))
}
