//go:build linux

package plane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// generation tells one state of a network namespace's packet filter from all others that it has had: the kernel counts its
// changes, whoever makes them. As long as it is the same, rules that were seen in the kernel are still there, and need not
// be listed again.
func generation(in *os.File) (string, error) {
	var at syscall.Stat_t
	if err := syscall.Fstat(int(in.Fd()), &at); err != nil {
		return "", fmt.Errorf("look at %s: %w", in.Name(), err)
	}
	var count uint32
	err := inside(in, func() error {
		request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
		request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
		messages, err := request.Execute(unix.NETLINK_NETFILTER, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN)
		if err != nil {
			return err
		}
		for _, message := range messages {
			attributes, err := nl.ParseRouteAttr(message[min(len(message), nl.SizeofNfgenmsg):])
			if err != nil {
				return err
			}
			for _, a := range attributes {
				if a.Attr.Type == unix.NFTA_GEN_ID && len(a.Value) == 4 {
					count = binary.BigEndian.Uint32(a.Value)
					return nil
				}
			}
		}
		return errors.New("the kernel does not tell")
	})
	if err != nil {
		return "", fmt.Errorf("ask for the packet filter's generation: %w", err)
	}
	return fmt.Sprintf("%d.%d.%d", at.Dev, at.Ino, count), nil
}
