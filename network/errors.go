package network

import "errors"

// Kinds of errors of a driver, for errors.Is. Everything else is transient.
var (
	// ErrNotReady says that what was asked for is on its way: ask again.
	ErrNotReady = errors.New("network is not ready")
	// ErrInUse says that something still uses what was to be deleted.
	ErrInUse = errors.New("network is in use")
	// ErrCapability says that the driver cannot do what was asked; repeating does not help.
	ErrCapability = errors.New("network driver cannot do this")
	// ErrInvalid says that the input contradicts itself or what is there; repeating does not help.
	ErrInvalid = errors.New("network input is invalid")
	// ErrForeign says that a pool object of the wanted name was not made by this platform. It is left alone; the pool's
	// operator must act.
	ErrForeign = errors.New("pool object is not ours")
	// ErrBindingMismatch says that a pool's pod is not in the network that it was bound to.
	ErrBindingMismatch = errors.New("pod is not in the network it was bound to")
)

// Reason is a typed reason of a condition or an event about a network.
type Reason string

// The reasons.
const (
	ReasonReady             Reason = "Ready"
	ReasonVPCNotReady       Reason = "VPCNotReady"
	ReasonSubnetNotReady    Reason = "SubnetNotReady"
	ReasonIPExhausted       Reason = "IPExhausted"
	ReasonCapabilityMissing Reason = "CapabilityMissing"
	ReasonPoolUnreachable   Reason = "PoolUnreachable"
	ReasonInvalidSelection  Reason = "InvalidSelection"
	ReasonBindingMismatch   Reason = "BindingMismatch"
	ReasonForeignObject     Reason = "ForeignObject"
	ReasonNoAddress         Reason = "NoAddress"
)

// ReasonFor classifies an error of a driver: the reason to show for it. Nil is [ReasonReady]; what is no kind of ours is
// a pool that did not answer as it should.
func ReasonFor(err error) Reason {
	switch {
	case err == nil:
		return ReasonReady
	case errors.Is(err, ErrCapability):
		return ReasonCapabilityMissing
	case errors.Is(err, ErrInvalid):
		return ReasonInvalidSelection
	case errors.Is(err, ErrForeign):
		return ReasonForeignObject
	case errors.Is(err, ErrBindingMismatch):
		return ReasonBindingMismatch
	case errors.Is(err, ErrNotReady):
		return ReasonSubnetNotReady
	default:
		return ReasonPoolUnreachable
	}
}
