package network

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"vivarium.io/vivarium/internal/names"
)

// Binder is the pure half of a driver: what a pod's network looks like on the pod. It takes values and returns values,
// never blocks, and is safe for concurrent use. The pod translation uses it and nothing else of a driver.
type Binder interface {
	// Capabilities says what the driver can do. It is constant. What it denies, the methods refuse with
	// [ErrCapability].
	Capabilities() Capabilities

	// BindPod gives what must be put on the pool's pod so that it joins exactly the wanted network. Equal input gives
	// equal output. The result always carries [BindingAnnotation]. It fails with [ErrInvalid] on input that no network
	// matches (no tenant, no UID, a network of another tenant) and with [ErrCapability] on what the driver cannot do;
	// the pod is then not created. It keeps nothing of its input.
	BindPod(in PodBinding) (PodMutation, error)

	// ObservePod reads from a pool's pod what its tenant must see: the addresses in the tenant's network, not
	// necessarily those in the pool's status. A pod that has no network yet is Ready=false without an error. A pod whose
	// binding is missing, or whose addresses are not the ones it was bound to, is [ErrBindingMismatch]: nothing of it may
	// be shown to a tenant. It does not modify the pod.
	ObservePod(poolPod *corev1.Pod) (PodNetworkStatus, error)

	// OwnedKeys reports whether the driver owns a label or annotation key of a pod or namespace in a pool. Nobody else
	// may set such a key there. [BindingAnnotation] is owned by every driver.
	OwnedKeys(key string) bool
}

// Driver connects pods in pools. One value serves all pools and all tenants.
//
// Every method that takes a context:
//   - is idempotent and level-triggered: it makes what is there agree with what is given, and does nothing when it does;
//     a call that was cut short is repeated with the same arguments, also by another process;
//   - is safe for concurrent use, also for one pool; calls about one VPC, subnet or namespace in one pool do not overlap;
//   - returns when the context ends, and holds no lock across a call to a pool, so that one pool that hangs stalls only
//     the calls about it. Callers give every call a deadline;
//   - changes only what carries the platform's labels, the pool's control identity included, and returns [ErrForeign]
//     for an object of the wanted name that does not. It never adopts one;
//   - knows neither order nor use of VPCs and subnets that it keeps nothing of in a pool, because they exist at a provider:
//     what is said of those below is then for whoever made them there;
//   - wraps its causes; what is none of the kinds in errors.go is transient and tried again with backoff.
type Driver interface {
	Binder

	// Name is the driver's name in ResourcePool.spec.network.driver: a DNS label, the same for the life of the process.
	Name() string

	// EnsureNamespace makes a tenant's pool namespace ready for pods: fences, labels that a plugin selects by. The
	// namespace exists and is ours. It returns nil only when a pod created afterwards is covered; [ErrNotReady] when the
	// pool still has to act.
	EnsureNamespace(ctx context.Context, pool Pool, namespace Namespace) error

	// EnsureVPC makes a VPC exist in a pool and says whether it is ready there. A VPC whose fields cannot be changed in
	// place is [ErrInvalid].
	EnsureVPC(ctx context.Context, pool Pool, vpc *VPC) (PoolBinding, error)

	// EnsureSubnet makes a subnet exist in a pool. Its VPC was ensured there before; [ErrNotReady] when the pool does not
	// know it yet.
	EnsureSubnet(ctx context.Context, pool Pool, vpc *VPC, subnet *Subnet) (PoolBinding, error)

	// ReleasePod gives back what a pod held outside itself: addresses, ports. It is called when the pool's pod is gone; a
	// pod that held nothing, or is not known, is no error.
	ReleasePod(ctx context.Context, pool Pool, pod PodKey) error

	// DeleteSubnet removes a subnet from a pool: [ErrInUse] while a pod is in it, nil when it is gone or never was.
	DeleteSubnet(ctx context.Context, pool Pool, subnet *Subnet) error

	// DeleteVPC removes a VPC from a pool: [ErrInUse] while it has a subnet there, nil when it is gone or never was.
	DeleteVPC(ctx context.Context, pool Pool, vpc *VPC) error

	// Sweep removes what the driver made in a pool for owners that are not in live, and nothing younger than the moment
	// live was read at. It is safe to call at any time with a complete LiveSet; callers that do not know every owner must
	// not call it.
	Sweep(ctx context.Context, pool Pool, live LiveSet) error
}

// Watcher is an optional power of a driver: it notices when somebody else changes in a pool what EnsureNamespace made.
type Watcher interface {
	// WatchNamespaces calls changed with the name of every namespace whose set-up changed or vanished, until ctx ends. It
	// returns only then, or when it cannot watch at all; changed does not block.
	WatchNamespaces(ctx context.Context, pool Pool, changed func(names.ControlNamespace)) error
}

// Mesher is an optional power of a driver: it is told where every pod of a VPC is, in all pools, so that nodes need not ask
// each other. A driver that has it connects pods of different nodes by nothing else.
type Mesher interface {
	// EnsureEndpoints makes a pool know exactly these endpoints of a VPC: all of them, those in other pools included, in any
	// order. The VPC was ensured there before; [ErrNotReady] when the pool does not know it. Endpoints without an address, a
	// MAC or a node, and two that share an address, are [ErrInvalid], and nothing changes. They are gone with the VPC.
	EnsureEndpoints(ctx context.Context, pool Pool, vpc *VPC, endpoints []Endpoint) error
}

// Filterer is an optional power of a [Mesher]: it holds the pods of a VPC to policies. Which pods a policy is about and whom
// it allows is in the sets of endpoints.
type Filterer interface {
	// EnsurePolicies makes a pool hold a VPC's pods to exactly these policies. While there are any, a pod whose endpoint a
	// node was not told of yet receives and sends nothing there. The VPC was ensured before; [ErrNotReady] when the pool
	// does not know it. With one that [Policy.Validate] refuses nothing changes. They are gone with the VPC.
	EnsurePolicies(ctx context.Context, pool Pool, vpc *VPC, policies []Policy) error
}

// ProbeMode says which of a tenant's probes a driver's pods can have.
type ProbeMode string

// The probe modes.
const (
	// ProbesAll allows every probe.
	ProbesAll ProbeMode = "All"
	// ProbesExecOnly allows exec probes: the node cannot reach the pod's address.
	ProbesExecOnly ProbeMode = "ExecOnly"
)

// Capabilities is what a driver can do.
type Capabilities struct {
	// VPC is false for drivers that know no VPCs and subnets; OverlappingCIDRs, CrossPool, ExplicitIP, SecurityGroups,
	// NetworkPolicies, Services, Bandwidth and LeadsAPI are false then too.
	VPC bool
	// OverlappingCIDRs allows two VPCs with equal addresses in one pool.
	OverlappingCIDRs bool
	// CrossPool connects pods of one VPC that are in different pools.
	CrossPool bool
	// ExplicitIP lets the platform choose a pod's address before the pod exists.
	ExplicitIP bool
	// SecurityGroups filters between pods of one VPC.
	SecurityGroups bool
	// NetworkPolicies says that the driver is a [Filterer], so that NetworkPolicies of tenants hold in their VPCs.
	NetworkPolicies bool
	// Services says that the driver is a [Servicer], so that pods reach Services and are answered for names at
	// [ResolverAddress].
	Services bool
	// Bandwidth bounds a pod's traffic.
	Bandwidth bool
	// DualStack gives pods an IPv4 and an IPv6 address.
	DualStack bool
	// Enforced is true when the driver itself makes tenants unreachable to each other once EnsureNamespace, or the subnet,
	// is ready. It is false when that depends on something in the pool that the driver cannot see.
	Enforced bool
	// PodIPIsTenantIP is true when status.podIPs in the pool are the addresses that the tenant sees.
	PodIPIsTenantIP bool
	// LeadsAPI is true when pods of a VPC find their tenant's API at [APIAddress]. Where it is false they are told the address
	// that pods in flat networks are told, and have to reach it by the VPC's way out.
	LeadsAPI bool
	// Probes are the kinds of probes that work.
	Probes ProbeMode
}
