package network

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net"
	"net/netip"
)

// A pod's place in a subnet is one number, its index: the address of each family is the family's prefix plus the index,
// and the MAC is the index too. So a pod with two families is one allocation, and nobody has to remember pairs.

// Size is how many indexes a subnet has: as many as its smallest prefix has addresses.
func (s *Subnet) Size() uint32 {
	size := uint32(math.MaxUint32)
	for _, prefix := range s.CIDRs {
		if free := prefix.Addr().BitLen() - prefix.Bits(); free < 32 {
			size = min(size, 1<<free)
		}
	}
	return size
}

// At gives the addresses of an index, one for each of the subnet's CIDRs.
func (s *Subnet) At(index uint32) []netip.Addr {
	ips := make([]netip.Addr, 0, len(s.CIDRs))
	for _, prefix := range s.CIDRs {
		ips = append(ips, plus(prefix.Masked().Addr(), index))
	}
	return ips
}

// IndexOf gives the index of an address, false when the subnet has no such address.
func (s *Subnet) IndexOf(ip netip.Addr) (uint32, bool) {
	for _, prefix := range s.CIDRs {
		if prefix.Contains(ip) {
			index, ok := minus(ip, prefix.Masked().Addr())
			return index, ok && index < s.Size()
		}
	}
	return 0, false
}

// MAC gives the hardware address of an index: locally administered, and no other pod's in the subnet.
func MAC(index uint32) string {
	mac := net.HardwareAddr{0x02, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(mac[2:], index)
	return mac.String()
}

func plus(ip netip.Addr, n uint32) netip.Addr {
	if ip.Is4() {
		b := ip.As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+n)
		return netip.AddrFrom4(b)
	}
	b := ip.As16()
	low, carry := bits.Add64(binary.BigEndian.Uint64(b[8:]), uint64(n), 0)
	binary.BigEndian.PutUint64(b[8:], low)
	binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])+carry)
	return netip.AddrFrom16(b)
}

// minus is false where the distance does not fit an index.
func minus(ip, base netip.Addr) (uint32, bool) {
	if ip.Is4() {
		a, b := ip.As4(), base.As4()
		return binary.BigEndian.Uint32(a[:]) - binary.BigEndian.Uint32(b[:]), true
	}
	a, b := ip.As16(), base.As16()
	low, borrow := bits.Sub64(binary.BigEndian.Uint64(a[8:]), binary.BigEndian.Uint64(b[8:]), 0)
	high := binary.BigEndian.Uint64(a[:8]) - binary.BigEndian.Uint64(b[:8]) - borrow
	return uint32(low), high == 0 && low < math.MaxUint32
}
