package bounce

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// limitKey says what a limit is about: one resource, of the whole pool or of one virtual Node that mirrors a node.
type limitKey struct {
	node     string
	resource corev1.ResourceName
}

// limit says that there is no room for a pod that asks for so much or more.
type limit struct {
	below resource.Quantity
	until time.Time
	// hold is how long it was last set for.
	hold time.Duration
}

// Learn notes that the pool has no room for a pod with these requests: until further notice no virtual Node has as much of
// the resource of which the pod wants the largest part of a Node. Smaller pods may come; a taint would shut out everybody
// for one tenant's pod that fits nowhere. node is given when it mirrors a node of the pool, for then it alone is full. It
// reports whether virtual Nodes show it already.
func (b *Book) Learn(node string, requests, allocatable corev1.ResourceList) (shown bool) {
	name, want, ok := dominant(requests, allocatable)
	b.mu.Lock()
	if !ok {
		shown = b.applied >= b.version
		b.mu.Unlock()
		return shown
	}
	now := b.now()
	key := limitKey{node, name}
	l := b.limits[key]
	news := true
	switch {
	case l == nil || now.Sub(l.until) > l.hold:
		b.limits[key] = &limit{below: want, hold: FirstHold, until: now.Add(FirstHold)}
	case now.After(l.until):
		// Again, soon after it was over.
		l.hold = min(2*l.hold, lastHold)
		l.below, l.until = want, now.Add(l.hold)
	default:
		news = want.Cmp(l.below) < 0
		if news {
			l.below = want
		}
	}
	if news {
		b.version++
	}
	shown = b.applied >= b.version
	b.mu.Unlock()
	if !shown {
		b.changed()
	}
	return shown
}

// Limits gives what a virtual Node must not have room for now.
func (b *Book) Limits(node string) (below corev1.ResourceList) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	for key, l := range b.limits {
		if now.Sub(l.until) > l.hold {
			delete(b.limits, key)
			continue
		}
		if now.After(l.until) || key.node != "" && key.node != node {
			continue
		}
		if below == nil {
			below = corev1.ResourceList{}
		}
		if have, there := below[key.resource]; !there || l.below.Cmp(have) < 0 {
			below[key.resource] = l.below.DeepCopy()
		}
	}
	return below
}

// Version is that of the limits now, to tell [Book.Shown]; ask for it before [Book.Limits].
func (b *Book) Version() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.version
}

// Shown notes that the virtual Nodes show the limits of a version.
func (b *Book) Shown(version int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.applied = max(b.applied, version)
}

// dominant gives the resource of which a pod wants the largest part of what a Node has.
func dominant(requests, allocatable corev1.ResourceList) (corev1.ResourceName, resource.Quantity, bool) {
	var (
		best  corev1.ResourceName
		share float64
	)
	for name, want := range requests {
		have := allocatable[name]
		if want.Sign() <= 0 || have.Sign() <= 0 {
			continue
		}
		if s := want.AsApproximateFloat64() / have.AsApproximateFloat64(); s > share || s == share && name < best {
			best, share = name, s
		}
	}
	return best, requests[best], best != ""
}

// Within gives what a virtual Node may offer: no more than is used on it and a bit less than each limit.
func Within(allocatable, used, below corev1.ResourceList) corev1.ResourceList {
	if len(below) == 0 {
		return allocatable
	}
	out := allocatable.DeepCopy()
	for name, limit := range below {
		room := used[name].DeepCopy()
		room.Add(limit)
		if name == corev1.ResourceCPU {
			room.Sub(*resource.NewMilliQuantity(1, resource.DecimalSI))
		} else {
			room.Sub(*resource.NewQuantity(1, resource.DecimalSI))
		}
		if have, there := out[name]; there && room.Cmp(have) < 0 {
			out[name] = room
		}
	}
	return out
}
