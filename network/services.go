package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// ValidateServices reports what no driver can lead: it is the part of [Servicer.EnsureServices] that all drivers share. Its
// errors are [ErrInvalid].
func ValidateServices(services []Service) error {
	type place struct {
		ip       netip.Addr
		protocol string
		port     uint16
	}
	names, places := make(map[[2]string]bool, len(services)), make(map[place]string, len(services))
	for i := range services {
		s := &services[i]
		if err := s.Validate(); err != nil {
			return err
		}
		name := [2]string{s.Namespace, s.Name}
		if names[name] {
			return fmt.Errorf("%w: there are two services %s/%s", ErrInvalid, s.Namespace, s.Name)
		}
		names[name] = true
		for _, ip := range s.IPs {
			for _, port := range s.Ports {
				at := place{ip, port.Protocol, port.Port}
				if other, taken := places[at]; taken {
					return fmt.Errorf("%w: services %s and %s/%s share %s port %d at %s", ErrInvalid, other, s.Namespace, s.Name, port.Protocol, port.Port, ip)
				}
				places[at] = s.Namespace + "/" + s.Name
			}
		}
	}
	return nil
}

// SortedServices gives Services in the order of their names, which depends on nothing but what they are. It changes nothing
// of its input.
func SortedServices(services []Service) []Service {
	sorted := slices.Clone(services)
	slices.SortFunc(sorted, func(a, b Service) int {
		if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return sorted
}
