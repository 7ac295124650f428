//go:build linux

package plane

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vivarium.io/vivarium/internal/netkeys"
)

// A pod's rates are kept on its port, where it has no hand in them: what it receives waits at the port, what it sends at an
// ifb device that its port's frames go through first.

// shaperPrefix begins the names of those devices; the rest is that of the port.
const (
	shaperPrefix = "ifb"
	portPrefix   = "veth"
)

func shaperName(port string) string { return shaperPrefix + strings.TrimPrefix(port, portPrefix) }

// shape makes a port's rates be a pod's. A port without any is not looked at: none had a rate that it lost.
func (s *space) shape(port netlink.Link, rates netkeys.Rates) error {
	if rates.Ingress > 0 {
		if err := s.limit(port, rates.Ingress); err != nil {
			return err
		}
	}
	if rates.Egress == 0 {
		return nil
	}
	shaper, err := s.links.LinkByName(shaperName(port.Attrs().Name))
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = shaperName(port.Attrs().Name), port.Attrs().MTU
		if err = s.links.LinkAdd(&netlink.Ifb{LinkAttrs: attrs}); err == nil {
			shaper, err = s.links.LinkByName(attrs.Name)
		}
	}
	if err != nil {
		return fmt.Errorf("make device %s, which needs the kernel module ifb: %w", shaperName(port.Attrs().Name), err)
	}
	if shaper.Attrs().Flags&net.FlagUp == 0 {
		if err := s.links.LinkSetUp(shaper); err != nil {
			return fmt.Errorf("set link %s up: %w", shaper.Attrs().Name, err)
		}
	}
	// First the limit, then the way there.
	if err := s.limit(shaper, rates.Egress); err != nil {
		return err
	}
	return s.redirect(port, shaper)
}

// limit makes a link's queue let through a rate in bits per second.
func (s *space) limit(link netlink.Link, rate int64) error {
	want := tokens(link, rate)
	there, err := s.links.QdiscList(link)
	if err != nil {
		return fmt.Errorf("list queues of %s: %w", link.Attrs().Name, err)
	}
	for _, qdisc := range there {
		if tbf, ok := qdisc.(*netlink.Tbf); ok && tbf.Parent == netlink.HANDLE_ROOT && tbf.Rate == want.Rate {
			return nil
		}
	}
	if err := s.links.QdiscReplace(want); err != nil {
		return fmt.Errorf("limit %s to %d bit/s: %w", link.Attrs().Name, rate, err)
	}
	return nil
}

// tokens is a bucket of a tenth of a second's traffic, but of some whole packets, with a queue of as much.
func tokens(link netlink.Link, rate int64) *netlink.Tbf {
	const least, most = 16 << 10, 256 << 20
	perSecond := uint64(max(rate/8, 1))
	burst := uint32(min(max(perSecond/10, least), most))
	return &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       perSecond, Limit: 2 * burst, Buffer: netlink.Xmittime(perSecond, burst),
	}
}

// redirect has what comes out of a pod's port go through the shaper.
func (s *space) redirect(port, shaper netlink.Link) error {
	there, err := s.links.FilterList(port, netlink.MakeHandle(0xffff, 0))
	if err != nil {
		return fmt.Errorf("list redirections of %s: %w", port.Attrs().Name, err)
	}
	for _, filter := range there {
		u32, ok := filter.(*netlink.U32)
		if !ok {
			continue
		}
		for _, action := range u32.Actions {
			if mirred, ok := action.(*netlink.MirredAction); ok && mirred.Ifindex == shaper.Attrs().Index {
				return nil
			}
		}
		// It leads to a device that is gone, and frames with it.
		if err := s.links.FilterDel(filter); err != nil {
			return fmt.Errorf("remove a redirection of %s: %w", port.Attrs().Name, err)
		}
	}
	ingress := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: port.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}}
	if err := s.links.QdiscAdd(ingress); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("look at what comes out of %s: %w", port.Attrs().Name, err)
	}
	filter := &netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: port.Attrs().Index, Parent: ingress.Handle, Priority: 1, Protocol: unix.ETH_P_ALL},
		Actions:     []netlink.Action{netlink.NewMirredAction(shaper.Attrs().Index)},
	}
	if err := s.links.FilterAdd(filter); err != nil {
		return fmt.Errorf("redirect what comes out of %s: %w", port.Attrs().Name, err)
	}
	return nil
}

// unshape removes the device of a port.
func (s *space) unshape(port string) error {
	shaper, err := s.links.LinkByName(shaperName(port))
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = s.links.LinkDel(shaper)
	}
	if err != nil {
		return fmt.Errorf("remove device %s: %w", shaperName(port), err)
	}
	return nil
}
