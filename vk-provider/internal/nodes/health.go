package nodes

import (
	"vivarium.io/vivarium/internal/pools"
)

// health is what a pool's state means for its virtual Nodes.
type health struct {
	// known is false while nothing can be said; Nodes then stay as they are.
	known bool
	// ready says whether the Nodes are Ready.
	ready bool
	// open says whether new pods may come.
	open bool
	// reason and message are for the Ready condition when it is not true.
	reason, message string
}

// Reasons of the Ready condition of virtual Nodes.
const (
	reasonReady       = "PoolReady"
	reasonUnreachable = "PoolUnreachable"
	reasonClosed      = "PoolClosed"
	reasonNodeDown    = "PoolNodeNotReady"
)

// judge says what a pool's status means. The messages are read by tenants as well, so they do not repeat what a pool said.
func judge(status pools.Status, checked, frozen bool) health {
	switch {
	case !checked, frozen && !status.Reachable.Good():
		return health{}
	case !status.Reachable.Good():
		return health{known: true, reason: reasonUnreachable, message: "the pool does not answer"}
	case !status.Identified.Good():
		return health{known: true, reason: reasonClosed, message: "the pool is closed"}
	default:
		return health{known: true, ready: true, open: status.Authorized.Good(), reason: reasonReady, message: "the pool answers"}
	}
}
