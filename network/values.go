package network

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/internal/ranges"
)

// Pool is one pool as a driver sees it.
type Pool struct {
	// Name is the ResourcePool's name.
	Name string
	// ControlUID is the identity of the control cluster; everything that a driver makes carries it in
	// names.LabelControl.
	ControlUID types.UID
	// Client writes in the pool with the platform's credentials.
	Client kubernetes.Interface
	// Dynamic does so for kinds that are not Kubernetes' own.
	Dynamic dynamic.Interface
}

// Namespace is a tenant's namespace in a pool.
type Namespace struct {
	Name   names.ControlNamespace
	Tenant names.TenantID
}

// APIAddress and APIAddress6, port [APIPort], are where every pod of a VPC finds its tenant's Kubernetes API: the same in
// all VPCs, of a range that no VPC may use. A driver that [Capabilities.LeadsAPI] leads them to [VPC.API], and nowhere else.
const (
	APIAddress  = "198.19.255.1"
	APIAddress6 = "fd00:76:6976::1"
	APIPort     = 443
)

// PodReady is the type of the condition on a tenant's pod that says whether it has its place in its VPC. It is False with
// a [Reason] until then; a pod in a flat network never has it.
const PodReady = "network.vivarium.io/Ready"

// Egress says how pods of a VPC reach what is outside of it.
type Egress string

// The kinds of egress.
const (
	// EgressSharedNAT lets pods out under an address of the pool. It is what an empty Egress means.
	EgressSharedNAT Egress = "SharedNAT"
	// EgressNone lets no pod out; the tenant's API alone is reached.
	EgressNone Egress = "None"
)

// VPC is one tenant's private network.
type VPC struct {
	// Name and UID are those of the VPC object; the UID is what labels in a pool carry.
	Name string
	UID  types.UID
	// Tenant is the only tenant whose pods may join.
	Tenant names.TenantID
	// CIDRs hold every subnet's; they only ever grow.
	CIDRs []netip.Prefix
	// MTU of the pods' interfaces; 0 is the driver's own.
	MTU int
	// Egress is how pods get out of the VPC. It may change.
	Egress Egress
	// SecurityGroups are the filters that pods can be in, by name. They may change.
	SecurityGroups []SecurityGroup
	// API is the tenant's API as the pool's nodes reach it: what [APIAddress] leads to. The zero value is none: the
	// address then leads nowhere.
	API netip.AddrPort
	// ProviderID names the network that exists already at a provider, for drivers that map to one; empty elsewhere.
	ProviderID string
}

// SecurityGroup is a named filter. A pod in no group has no filter; what a pod in groups may receive or send is what any
// rule of any of its groups allows, and answers to that.
type SecurityGroup struct {
	Name string
	// ProviderID names the group that exists already at a provider, whose rules hold; empty elsewhere.
	ProviderID      string
	Ingress, Egress []SecurityRule
}

// SecurityRule allows something.
type SecurityRule struct {
	// Protocol is TCP, UDP, ICMP (ICMPv6 too) or empty for everything.
	Protocol string
	// Ports are the receiver's; none is all of them.
	Ports []PortRange
	// CIDRs and Groups are the other ends that are meant: addresses, and pods of the VPC in these groups. Without either,
	// all are.
	CIDRs  []netip.Prefix
	Groups []string
}

// PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last uint16 }

// Subnet is a part of a VPC that pods are put in.
type Subnet struct {
	Name string
	UID  types.UID
	// VPC is the UID of the VPC it belongs to.
	VPC types.UID
	// CIDRs has one prefix for each family; it never changes.
	CIDRs []netip.Prefix
	// Gateway has one address for each of CIDRs.
	Gateway []netip.Addr
	// Reserved are addresses that no pod is ever given, besides the gateways.
	Reserved []ranges.Range
	// VNI is the number of its layer-2 segment, 1 to 2^24-1: the same in all pools, no other subnet's, and not soon another's
	// when the subnet is gone.
	VNI uint32
	// ProviderID names the subnet that exists already at a provider, for drivers that map to one; empty elsewhere.
	ProviderID string
}

// Endpoint is one pod's place in a VPC.
type Endpoint struct {
	Subnet types.UID
	// IPs has one address for each of the subnet's CIDRs.
	IPs []netip.Addr
	// MAC is unique in the subnet, spelled as net.HardwareAddr prints it.
	MAC string
	// SecurityGroups are the names of the groups that the pod is in, in order.
	SecurityGroups []string
	// Sets are those that policies name and the pod is in, in order; Ports the numbers of its ports that policies name. Only
	// drivers that are [Filterer] look at them.
	Sets  []string
	Ports []NamedPort
	// Node is the address under which other nodes reach the node that the pod runs on, and Pool the pool of that node.
	Node netip.Addr
	Pool string
	Pod  PodKey
}

// PoolBinding says how a VPC or subnet fares in one pool.
type PoolBinding struct {
	// Ready is true when pods can be put in it.
	Ready bool
	// Reason and Message say why not; an operator reads them.
	Reason  Reason
	Message string
	// Ref names the driver's object in the pool, "subnets.kubeovn.io/abc123-web"; empty where there is none.
	Ref string
}

// PodKey is one pod of a tenant in a pool.
type PodKey struct {
	Namespace names.ControlNamespace
	Name      string
	// UID is the control pod's.
	UID types.UID
}

// PodBinding is what [Binder.BindPod] decides on: whose pod it is and where it belongs.
type PodBinding struct {
	Tenant names.TenantID
	Pod    PodKey
	// VPC and Subnet are nil where the tenant's network is flat.
	VPC    *VPC
	Subnet *Subnet
	// IPs and MAC were chosen centrally; empty where the driver leaves the choice to the pool.
	IPs []netip.Addr
	MAC string
	// SecurityGroups are the names of the groups that the pod is in, in order; all of them are the VPC's.
	SecurityGroups []string
	// Bandwidth bounds the pod's traffic.
	Bandwidth netkeys.Rates
}

// Validate reports what no driver can bind: it is the part of BindPod that all drivers share. Its errors are
// [ErrInvalid].
func (b PodBinding) Validate() error {
	owner, _, ok := names.SplitNamespace(b.Pod.Namespace)
	switch {
	case b.Tenant == "":
		return fmt.Errorf("%w: pod %s has no tenant", ErrInvalid, b.Pod.Name)
	case !ok || owner != b.Tenant:
		return fmt.Errorf("%w: namespace %q is not tenant %s's", ErrInvalid, b.Pod.Namespace, b.Tenant)
	case b.Pod.UID == "":
		return fmt.Errorf("%w: pod %s/%s has no UID", ErrInvalid, b.Pod.Namespace, b.Pod.Name)
	case b.VPC == nil && b.Subnet == nil:
		if len(b.IPs) > 0 || len(b.SecurityGroups) > 0 || !b.Bandwidth.None() {
			return fmt.Errorf("%w: an address, a security group or a bandwidth without a subnet", ErrInvalid)
		}
		return nil
	case b.VPC == nil || b.Subnet == nil:
		return fmt.Errorf("%w: a VPC and a subnet come together", ErrInvalid)
	case b.VPC.Tenant != b.Tenant:
		return fmt.Errorf("%w: VPC %s is not tenant %s's", ErrInvalid, b.VPC.Name, b.Tenant)
	case b.Subnet.VPC != b.VPC.UID:
		return fmt.Errorf("%w: subnet %s is not in VPC %s", ErrInvalid, b.Subnet.Name, b.VPC.Name)
	}
	for _, ip := range b.IPs {
		if !contains(b.Subnet.CIDRs, ip) {
			return fmt.Errorf("%w: address %s is not in subnet %s", ErrInvalid, ip, b.Subnet.Name)
		}
	}
	for _, group := range b.SecurityGroups {
		if !slices.ContainsFunc(b.VPC.SecurityGroups, func(g SecurityGroup) bool { return g.Name == group }) {
			return fmt.Errorf("%w: VPC %s has no security group %q", ErrInvalid, b.VPC.Name, group)
		}
	}
	return nil
}

func contains(prefixes []netip.Prefix, ip netip.Addr) bool {
	for _, prefix := range prefixes {
		if prefix.Contains(ip) {
			return true
		}
	}
	return false
}

// PodMutation is what a driver wants on a pool's pod.
type PodMutation struct {
	Annotations map[string]string
	Labels      map[string]string
}

// Apply puts the mutation on a pool pod's metadata. It wins over what is there: a driver's key is nobody else's to set.
func (m PodMutation) Apply(meta *metav1.ObjectMeta) {
	meta.Annotations = merged(meta.Annotations, m.Annotations)
	meta.Labels = merged(meta.Labels, m.Labels)
}

func merged(into, from map[string]string) map[string]string {
	if len(from) == 0 {
		return into
	}
	if into == nil {
		into = make(map[string]string, len(from))
	}
	maps.Copy(into, from)
	return into
}

// PodNetworkStatus is a pod's network as its tenant must see it.
type PodNetworkStatus struct {
	// IPs are the addresses to report, the primary one first; empty until Ready.
	IPs []netip.Addr
	// Ready is true when the pod is in its network.
	Ready bool
	// Reason says why it is not.
	Reason Reason
}

// PodIPs gives the addresses in the form that a pod's status has them.
func (s PodNetworkStatus) PodIPs() []corev1.PodIP {
	ips := make([]corev1.PodIP, 0, len(s.IPs))
	for _, ip := range s.IPs {
		ips = append(ips, corev1.PodIP{IP: ip.String()})
	}
	return ips
}

// ObservePodIPs reads the addresses that a pool reports of a pod, for drivers whose pods' addresses there are the ones
// that tenants see. It does not look at the binding. What no pod can have (loopback, link-local, no address at all) is
// [ErrBindingMismatch]: it would lead a tenant's Services to whatever is there on somebody's machine.
func ObservePodIPs(poolPod *corev1.Pod) (PodNetworkStatus, error) {
	podIPs := poolPod.Status.PodIPs
	if len(podIPs) == 0 && poolPod.Status.PodIP != "" {
		podIPs = []corev1.PodIP{{IP: poolPod.Status.PodIP}}
	}
	if len(podIPs) == 0 {
		return PodNetworkStatus{Reason: ReasonNoAddress}, nil
	}
	status := PodNetworkStatus{Ready: true, Reason: ReasonReady}
	for _, podIP := range podIPs {
		ip, err := netip.ParseAddr(podIP.IP)
		if err != nil || !ip.IsGlobalUnicast() || ip.Zone() != "" {
			return PodNetworkStatus{}, fmt.Errorf("%w: %q is no address of a pod", ErrBindingMismatch, podIP.IP)
		}
		status.IPs = append(status.IPs, ip)
	}
	return status, nil
}

// LiveSet is every owner that a driver's objects in a pool may have.
type LiveSet struct {
	// AsOf is when the set was complete; objects made later are not swept.
	AsOf time.Time
	// Namespaces are the tenants' namespaces that the pool has.
	Namespaces map[names.ControlNamespace]names.TenantID
	// VPCs and Subnets are the UIDs of the objects that exist.
	VPCs, Subnets map[types.UID]bool
	// Pods are the UIDs of the control pods that exist.
	Pods map[types.UID]bool
}
