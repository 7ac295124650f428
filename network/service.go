package network

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

// ResolverAddress and ResolverAddress6, port 53, are where every pod of a VPC asks for names, with drivers that are a
// [Servicer]: the same in all VPCs, beside [APIAddress].
const (
	ResolverAddress  = "198.19.255.2"
	ResolverAddress6 = "fd00:76:6976::2"
)

// ClusterDomain is the DNS domain of every tenant's cluster.
const ClusterDomain = "cluster.local"

// Servicer is an optional power of a [Driver]: pods of a VPC reach the tenant's Services at the addresses that the tenant
// sees, and by name.
type Servicer interface {
	// EnsureServices makes a pool know exactly these Services of a VPC, in any order; those that were told before and are
	// not among them end. The VPC was ensured there before; [ErrNotReady] when the pool does not know it. With one that
	// [Service.Validate] refuses, and with two of one name or of one address and port, nothing changes ([ErrInvalid]). They
	// are gone with the VPC.
	EnsureServices(ctx context.Context, pool Pool, vpc *VPC, services []Service) error
}

// Service is one of a tenant's Services in a form that needs no endpoints looked up, in the tenant's names. It has cluster
// addresses, or is headless, or stands for a name elsewhere.
type Service struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// IPs are its cluster addresses, at most one of each family.
	IPs []netip.Addr `json:"ips,omitempty"`
	// External is the name that it stands for (type ExternalName), without a dot at its end.
	External string `json:"external,omitempty"`
	// Sticky is how long a pod that was led to a backend is led there again (sessionAffinity ClientIP); 0 is not at all.
	Sticky time.Duration `json:"sticky,omitempty"`
	Ports  []ServicePort `json:"ports,omitempty"`
	// Hosts are the addresses that a headless Service's name stands for.
	Hosts []ServiceHost `json:"hosts,omitempty"`
}

// ServicePort is one port of a Service.
type ServicePort struct {
	// Name is empty where the Service's only port has none.
	Name string `json:"name,omitempty"`
	// Protocol is TCP, UDP or SCTP.
	Protocol string `json:"protocol"`
	// Port is the number at the Service's addresses.
	Port uint16 `json:"port"`
	// Backends are where it leads, in order, of the families of the Service's addresses; of a headless Service none. What
	// comes to a port without one of its family is answered as by a closed port.
	Backends []netip.AddrPort `json:"backends,omitempty"`
}

// ServiceHost is one pod, or whatever an EndpointSlice names, behind a headless Service.
type ServiceHost struct {
	// Name is its host name, by which it can be asked for below the Service's; empty where it has none.
	Name string     `json:"name,omitempty"`
	IP   netip.Addr `json:"ip"`
	// Ports are the numbers that the Service's named ports have at it.
	Ports []NamedPort `json:"ports,omitempty"`
}

// serviceProtocols are those that a Service's port can have.
var serviceProtocols = []string{"TCP", "UDP", "SCTP"}

// Validate reports what no driver can lead anywhere. Its errors are [ErrInvalid].
func (s *Service) Validate() error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: service %q/%q: %s", ErrInvalid, s.Namespace, s.Name, fmt.Sprintf(format, args...))
	}
	if len(validation.IsDNS1123Label(s.Namespace)) > 0 || len(validation.IsDNS1123Label(s.Name)) > 0 {
		return refuse("its name is no DNS label")
	}
	if s.External != "" && (len(validation.IsDNS1123Subdomain(s.External)) > 0 || len(s.IPs)+len(s.Ports)+len(s.Hosts) > 0) {
		return refuse("stands for %q", s.External)
	}
	if len(s.IPs) > 2 || len(s.IPs) == 2 && s.IPs[0].Is4() == s.IPs[1].Is4() || len(s.IPs) > 0 && len(s.Hosts) > 0 || s.Sticky < 0 {
		return refuse("addresses %v, %d hosts, sticky for %s", s.IPs, len(s.Hosts), s.Sticky)
	}
	ips := slices.Clone(s.IPs)
	for _, port := range s.Ports {
		if !slices.Contains(serviceProtocols, port.Protocol) || port.Port == 0 {
			return refuse("port %s %d", port.Protocol, port.Port)
		}
		for _, backend := range port.Backends {
			if backend.Port() == 0 {
				return refuse("backend %s", backend)
			}
			ips = append(ips, backend.Addr())
		}
	}
	for _, host := range s.Hosts {
		if host.Name != "" && len(validation.IsDNS1123Label(host.Name)) > 0 {
			return refuse("host %q", host.Name)
		}
		ips = append(ips, host.IP)
	}
	for _, ip := range ips {
		if !ip.IsValid() || ip.Is4In6() || ip.Zone() != "" || ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast() {
			return refuse("address %s", ip)
		}
	}
	return nil
}
