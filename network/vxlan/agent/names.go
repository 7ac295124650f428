//go:build linux

package agent

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"sync"

	"github.com/fsnotify/fsnotify"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/vxlan/internal/plane"
	"vivarium.io/vivarium/network/vxlan/internal/resolver"
)

// names are the resolvers of the VPCs that have a namespace on the node: one for each, at sockets in that namespace. Of other
// VPCs nothing is kept.
type names struct {
	node     *plane.Node
	upstream resolver.Upstream

	// mu guards resolvers.
	mu        sync.Mutex
	resolvers map[types.UID]*resolving
}

// resolving is one that is asked.
type resolving struct {
	*resolver.Resolver
	told   told
	server *resolver.Server
	// space is the namespace that its sockets are in.
	space string
}

// told is what a resolver goes by.
type told struct {
	cidrs    []netip.Prefix
	services []network.Service
	egress   bool
}

func newNames(node *plane.Node, upstream resolver.Upstream) *names {
	return &names{node: node, upstream: upstream, resolvers: map[types.UID]*resolving{}}
}

// look has a VPC's resolver be where the VPC is, if it is here, and answer by what is stored of it.
func (n *names) look(vpc types.UID) error {
	space, err := n.node.Space(vpc)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leave(vpc, space)
	if space == "" {
		return nil
	}
	desired, err := n.node.Stored(vpc)
	if err != nil {
		return err
	}
	services, err := n.node.StoredServices(vpc)
	if err != nil {
		return err
	}
	now := told{desired.CIDRs, services, desired.Egress}
	if r := n.resolvers[vpc]; r != nil {
		if !reflect.DeepEqual(r.told, now) {
			r.Set(now.cidrs, now.services, now.egress)
			r.told = now
		}
		return nil
	}
	sockets, err := n.node.Listen(vpc)
	if sockets == nil || err != nil {
		return err
	}
	r := &resolving{Resolver: resolver.New(n.upstream), told: now, space: sockets.Space}
	r.Set(now.cidrs, now.services, now.egress)
	r.server = resolver.Serve(r.Resolver, sockets.Packets, sockets.Listeners)
	n.resolvers[vpc] = r
	return nil
}

// here reports whether a VPC's resolver is where the VPC is. What it answers by is brought by who writes that down.
func (n *names) here(vpc types.UID) bool {
	space, err := n.node.Space(vpc)
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.resolvers[vpc]
	return err == nil && r != nil && r.space == space
}

// release lets go of a namespace that is not the VPC's any more: it, and the tunnels in it, live as long as somebody has
// sockets there.
func (n *names) release(vpc types.UID) error {
	space, err := n.node.Space(vpc)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leave(vpc, space)
	return nil
}

// leave ends a resolver that is in another namespace than that.
func (n *names) leave(vpc types.UID, space string) {
	if r := n.resolvers[vpc]; r != nil && r.space != space {
		r.server.Close()
		delete(n.resolvers, vpc)
	}
}

// close ends all of them.
func (n *names) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for vpc := range n.resolvers {
		n.leave(vpc, "")
	}
}

// follow looks at all VPCs that are here, for which the pool need not be reached, and then at that of every pod that is
// plugged in, until ctx is done: the network plugin makes a VPC's namespace for its first pod, which will ask for names before
// anything in the pool changes.
func (n *names) follow(ctx context.Context) error {
	look := func(vpc types.UID) {
		if err := n.look(vpc); err != nil {
			boot.Logger(ctx).Info("names are not answered yet, tried again", "vpc", string(vpc), "error", err)
		}
	}
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer watcher.Close()
		err = watcher.Add(n.node.PodsDir())
	}
	known, unknown := n.node.Known()
	for _, vpc := range known {
		look(vpc)
	}
	if err = errors.Join(err, unknown); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case event := <-watcher.Events:
			if vpc, ok := plane.VPCOfPod(event.Name); ok && event.Has(fsnotify.Create) && !n.here(vpc) {
				look(vpc)
			}
		case err := <-watcher.Errors:
			// Some were missed: they are found when everything is looked at again.
			boot.Logger(ctx).Info("not every pod was seen", "error", err)
		}
	}
}
