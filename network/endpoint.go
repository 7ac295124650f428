package network

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// ValidateEndpoints reports what no driver can mesh: it is the part of [Mesher.EnsureEndpoints] that all drivers share. Its
// errors are [ErrInvalid].
func ValidateEndpoints(vpc *VPC, endpoints []Endpoint) error {
	type hardware struct {
		subnet types.UID
		mac    string
	}
	addresses, macs := make(map[netip.Addr]PodKey, len(endpoints)), make(map[hardware]PodKey, len(endpoints))
	for i := range endpoints {
		e := &endpoints[i]
		mac, err := net.ParseMAC(e.MAC)
		switch {
		case len(e.IPs) == 0:
			return fmt.Errorf("%w: pod %s/%s has no address in VPC %s", ErrInvalid, e.Pod.Namespace, e.Pod.Name, vpc.Name)
		case err != nil || mac.String() != e.MAC:
			return fmt.Errorf("%w: pod %s/%s has MAC %q", ErrInvalid, e.Pod.Namespace, e.Pod.Name, e.MAC)
		case !e.Node.IsValid():
			return fmt.Errorf("%w: pod %s/%s is on no node", ErrInvalid, e.Pod.Namespace, e.Pod.Name)
		}
		if other, taken := macs[hardware{e.Subnet, e.MAC}]; taken {
			return fmt.Errorf("%w: pods %s/%s and %s/%s share MAC %s", ErrInvalid, other.Namespace, other.Name, e.Pod.Namespace, e.Pod.Name, e.MAC)
		}
		macs[hardware{e.Subnet, e.MAC}] = e.Pod
		for _, ip := range e.IPs {
			if other, taken := addresses[ip]; taken {
				return fmt.Errorf("%w: pods %s/%s and %s/%s share address %s", ErrInvalid, other.Namespace, other.Name, e.Pod.Namespace, e.Pod.Name, ip)
			}
			if !contains(vpc.CIDRs, ip) {
				return fmt.Errorf("%w: address %s is not in VPC %s", ErrInvalid, ip, vpc.Name)
			}
			addresses[ip] = e.Pod
		}
	}
	return nil
}

// SortedEndpoints gives the endpoints in an order that depends on nothing but what they are: by subnet, address and pod. It
// changes nothing of its input.
func SortedEndpoints(endpoints []Endpoint) []Endpoint {
	sorted := slices.Clone(endpoints)
	slices.SortFunc(sorted, func(a, b Endpoint) int {
		if c := strings.Compare(string(a.Subnet), string(b.Subnet)); c != 0 {
			return c
		}
		if c := slices.CompareFunc(a.IPs, b.IPs, netip.Addr.Compare); c != 0 {
			return c
		}
		return strings.Compare(string(a.Pod.UID), string(b.Pod.UID))
	})
	return sorted
}
