// Package ranges reads the prefixes and ranges of addresses that people write down, and knows those that no VPC may have.
//
// Every error is meant for whoever typed the text. The package must never repair what it is given: "10.0.0.1/24" is a
// slip, and guessing which of two things was meant gives somebody the wrong network. Start at [ParsePrefix].
package ranges

import (
	"fmt"
	"net/netip"
	"strings"
)

// ParsePrefix reads a prefix in its one canonical form: no bit set beyond its length, the address written as Go and
// RFC 5952 write it, neither a zone nor an IPv4 address in IPv6's clothes.
func ParsePrefix(s string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("must be a prefix, as in 10.0.0.0/16 or fd00:1::/64")
	}
	if prefix.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("must not be an IPv4 address written as IPv6")
	}
	if canonical := prefix.Masked(); canonical.String() != s {
		return netip.Prefix{}, fmt.Errorf("must be written as %s", canonical)
	}
	return prefix, nil
}

// ParsePrefixes reads a list of them; its error says which is wrong.
func ParsePrefixes(texts []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, text := range texts {
		prefix, err := ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("%q %w", text, err)
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, nil
}

// ParseAddr reads an address in its one canonical form.
func ParseAddr(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	switch {
	case err != nil || addr.Zone() != "":
		return netip.Addr{}, fmt.Errorf("must be an address, as in 10.0.0.1 or fd00:1::1")
	case addr.Is4In6():
		return netip.Addr{}, fmt.Errorf("must not be an IPv4 address written as IPv6")
	case addr.String() != s:
		return netip.Addr{}, fmt.Errorf("must be written as %s", addr)
	}
	return addr, nil
}

// Range is every address from First to Last, both included and of one family.
type Range struct{ First, Last netip.Addr }

// ParseRange reads an address, a range as in 10.0.0.10-10.0.0.19, or a prefix.
func ParseRange(s string) (Range, error) {
	if strings.Contains(s, "/") {
		prefix, err := ParsePrefix(s)
		if err != nil {
			return Range{}, err
		}
		return Range{First: prefix.Addr(), Last: Last(prefix)}, nil
	}
	from, to, ok := strings.Cut(s, "-")
	first, err := ParseAddr(from)
	if err != nil {
		return Range{}, err
	}
	if !ok {
		return Range{First: first, Last: first}, nil
	}
	last, err := ParseAddr(to)
	switch {
	case err != nil:
		return Range{}, err
	case first.Is4() != last.Is4():
		return Range{}, fmt.Errorf("must not begin in one family and end in the other")
	case last.Less(first):
		return Range{}, fmt.Errorf("must not end before it begins")
	}
	return Range{First: first, Last: last}, nil
}

// Within reports whether every address of the range is in a prefix.
func (r Range) Within(prefix netip.Prefix) bool {
	return prefix.Contains(r.First) && prefix.Contains(r.Last)
}

// Contains reports whether an address is in the range.
func (r Range) Contains(addr netip.Addr) bool {
	return r.First.BitLen() == addr.BitLen() && !addr.Less(r.First) && !r.Last.Less(addr)
}

// Last gives the last address of a prefix.
func Last(prefix netip.Prefix) netip.Addr {
	bytes := prefix.Masked().Addr().AsSlice()
	for bit := prefix.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 1 << (7 - bit%8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}

// Within reports whether a prefix lies in one of others.
func Within(prefix netip.Prefix, others []netip.Prefix) bool {
	for _, other := range others {
		if other.Bits() <= prefix.Bits() && other.Contains(prefix.Addr()) {
			return true
		}
	}
	return false
}

// Overlapping gives the first of others that shares an address with a prefix.
func Overlapping(prefix netip.Prefix, others []netip.Prefix) (netip.Prefix, bool) {
	for _, other := range others {
		if prefix.Overlaps(other) {
			return other, true
		}
	}
	return netip.Prefix{}, false
}

// Platform are the prefixes of the platform's own addresses in every VPC: where its API is, and what answers for names.
var Platform = []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("fd00:76:6976::/48")}

// reserved are the prefixes that no VPC may have, and what they are for.
var reserved = []struct {
	prefix netip.Prefix
	reason string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
	{netip.MustParsePrefix("100.64.0.0/10"), "addresses between carriers, which network plugins use inside nodes"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local addresses and clouds' metadata"},
	{Platform[0], "the platform's own addresses in every VPC"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "future use"},
	{netip.MustParsePrefix("::/8"), "loopback and embedded IPv4 addresses"},
	{Platform[1], "the platform's own addresses in every VPC"},
	{netip.MustParsePrefix("fe80::/10"), "link-local addresses"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// Reserved reports whether a prefix shares an address with one that no VPC may have, and which and why.
func Reserved(prefix netip.Prefix) (taken netip.Prefix, reason string, ok bool) {
	for _, r := range reserved {
		if prefix.Overlaps(r.prefix) {
			return r.prefix, r.reason, true
		}
	}
	return netip.Prefix{}, "", false
}
