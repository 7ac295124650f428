package v1alpha1

import (
	"math"
	"net/netip"
)

// Defaults that the admin API fills in on every write and read, so that a stored object always says what holds.
const (
	DefaultWeight            = 10
	DefaultRequestsPerSecond = 200
	DefaultMaxInFlight       = 100
	DefaultMaxWatches        = 1000
	DefaultMaxStreams        = 100
	DefaultMaxVirtualNodes   = 200
	// DefaultCustomResourceDefinitions is how many a tenant may have.
	DefaultCustomResourceDefinitions = 100
	// DefaultBounceAfter is how many seconds a pool may look for a place for a pod.
	DefaultBounceAfter = 30
	// DriverFlat is the network driver of a pool that names none.
	DriverFlat = "flat"
	// DriverVXLAN is the platform's own driver for tenants with VPCs.
	DriverVXLAN = "vxlan"
	// DriverKubeOVN is for pools whose network plugin is Kube-OVN.
	DriverKubeOVN = "kube-ovn"
	// DriverOVNUDN is for pools whose network plugin is OVN-Kubernetes with user-defined networks.
	DriverOVNUDN = "ovn-udn"
	// DriverMultus is DriverVXLAN for pools whose network plugin is Multus.
	DriverMultus = "multus"
	// DriverECI, DriverACS and DriverVCI are for pools whose pods run at a cloud.
	DriverECI = "eci"
	DriverACS = "acs"
	DriverVCI = "vci"
)

// Drivers gives the network drivers that pools can have, the default first.
func Drivers() []string {
	return []string{DriverFlat, DriverVXLAN, DriverKubeOVN, DriverOVNUDN, DriverMultus, DriverECI, DriverACS, DriverVCI}
}

// SetDefaultsTenant fills in what the operator left out of a Tenant. It never changes a value that is set.
func SetDefaultsTenant(t *Tenant) {
	setDefault(&t.Spec.Weight, DefaultWeight)
	limits := &t.Spec.Limits
	setDefault(&limits.RequestsPerSecond, DefaultRequestsPerSecond)
	// Saturates, so that an absurd rate meets validation instead of becoming a negative burst here.
	setDefault(&limits.Burst, int32(min(2*int64(limits.RequestsPerSecond), math.MaxInt32)))
	setDefault(&limits.MaxInFlight, DefaultMaxInFlight)
	setDefault(&limits.MaxWatches, DefaultMaxWatches)
	setDefault(&limits.MaxStreams, DefaultMaxStreams)
	setDefault(&limits.CustomResourceDefinitions, DefaultCustomResourceDefinitions)
	setDefault(&t.Spec.Network.Mode, NetworkFlat)
}

// SetDefaultsResourcePool fills in what the operator left out of a ResourcePool. It never changes a value that is set.
func SetDefaultsResourcePool(p *ResourcePool) {
	setDefault(&p.Spec.Location.Zone, p.Name)
	setDefault(&p.Spec.Nodes.Mode, NodesShaped)
	setDefault(&p.Spec.Nodes.Max, DefaultMaxVirtualNodes)
	setDefault(&p.Spec.Network.Driver, DriverFlat)
	setDefault(&p.Spec.Bounce.AfterSeconds, DefaultBounceAfter)
	setDefault(&p.Spec.Failure.Policy, FailureEvict)
	setDefault(&p.Spec.Pods.SecurityLevel, SecurityBaseline)
}

// SetDefaultsVPC fills in what the operator left out of a VPC. It never changes a value that is set.
func SetDefaultsVPC(v *VPC) {
	setDefault(&v.Spec.Egress, EgressSharedNAT)
}

// SetDefaultsSubnet fills in what the operator left out of a Subnet. It never changes a value that is set, and leaves it
// to validation to speak about prefixes that are none.
func SetDefaultsSubnet(s *Subnet) {
	if len(s.Spec.Gateway) > 0 {
		return
	}
	for _, cidr := range s.Spec.CIDRs {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil || !prefix.Masked().Addr().Next().IsValid() {
			s.Spec.Gateway = nil
			return
		}
		s.Spec.Gateway = append(s.Spec.Gateway, prefix.Masked().Addr().Next().String())
	}
}

func setDefault[T comparable](field *T, value T) {
	var unset T
	if *field == unset {
		*field = value
	}
}
