package ipam

import (
	"fmt"
	"net/netip"
	"slices"

	"vivarium.io/vivarium/internal/ranges"
	"vivarium.io/vivarium/network"
)

// layout says which indexes of a subnet pods can have.
type layout struct {
	size uint32
	// reserved are the indexes that no pod is given, in order and apart.
	reserved []span
}

// span is a range of indexes, both ends included.
type span struct{ first, last uint32 }

// newLayout reserves the first address of each prefix, the gateways, the broadcast address and what the operator reserved:
// addresses, ranges as in 10.0.0.10-10.0.0.19, or prefixes.
func newLayout(subnet *network.Subnet, reserved []string) (*layout, error) {
	l := &layout{size: subnet.Size()}
	spans := []span{{0, 0}}
	one := func(ip netip.Addr) {
		if index, ok := subnet.IndexOf(ip); ok {
			spans = append(spans, span{index, index})
		}
	}
	for _, prefix := range subnet.CIDRs {
		if prefix.Addr().Is4() {
			one(ranges.Last(prefix))
		}
	}
	for _, ip := range subnet.Gateway {
		one(ip)
	}
	for _, text := range reserved {
		r, err := ranges.ParseRange(text)
		if err != nil {
			return nil, fmt.Errorf("subnet %s: reserved %q: %w", subnet.Name, text, err)
		}
		if s, ok := cut(subnet, r); ok {
			spans = append(spans, s)
		}
	}
	l.reserved = merge(spans)
	return l, nil
}

// cut gives the part of a range of addresses that is in the subnet, in indexes.
func cut(subnet *network.Subnet, r ranges.Range) (span, bool) {
	for _, prefix := range subnet.CIDRs {
		if prefix.Addr().Is4() != r.First.Is4() || r.Last.Less(prefix.Masked().Addr()) || ranges.Last(prefix).Less(r.First) {
			continue
		}
		s := span{0, subnet.Size() - 1}
		if prefix.Contains(r.First) {
			index, ok := subnet.IndexOf(r.First)
			if !ok {
				return span{}, false // beyond what the smaller family leaves
			}
			s.first = index
		}
		if index, ok := subnet.IndexOf(r.Last); ok {
			s.last = index
		}
		return s, true
	}
	return span{}, false
}

func merge(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int {
		switch {
		case a.first < b.first:
			return -1
		case a.first > b.first:
			return 1
		}
		return 0
	})
	out := spans[:1]
	for _, s := range spans[1:] {
		if top := &out[len(out)-1]; s.first <= top.last || s.first == top.last+1 {
			top.last = max(top.last, s.last)
		} else {
			out = append(out, s)
		}
	}
	return out
}

// available reports whether pods can have an index.
func (l *layout) available(index uint32) bool {
	return index < l.size && l.next(index) == index
}

// next gives the first index from there on that pods can have; the size when there is none.
func (l *layout) next(from uint32) uint32 {
	at, _ := slices.BinarySearchFunc(l.reserved, from, func(s span, index uint32) int {
		switch {
		case s.last < index:
			return -1
		case s.first > index:
			return 1
		}
		return 0
	})
	for ; at < len(l.reserved) && l.reserved[at].first <= from; at++ {
		if l.reserved[at].last >= l.size-1 {
			return l.size
		}
		from = l.reserved[at].last + 1
	}
	return min(from, l.size)
}

// total is how many indexes pods can have.
func (l *layout) total() int64 {
	n := int64(l.size)
	for _, s := range l.reserved {
		if s.first < l.size {
			n -= int64(min(s.last, l.size-1)) - int64(s.first) + 1
		}
	}
	return n
}
