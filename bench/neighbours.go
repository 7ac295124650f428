package main

import (
	"context"
	"fmt"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"vivarium.io/vivarium/internal/names"
)

// ownObjects is how many objects the tenant has over all namespaces, beside its neighbours.
const ownObjects = 10

// neighbours measures a list over all namespaces of a tenant with a few objects in two worlds at once: alone, and beside
// many tenants with many objects.
func neighbours(ctx context.Context, c config, dir string) (Operation, error) {
	var worlds [2]*world
	for i, name := range []string{"alone", "beside"} {
		w, err := newWorld(ctx, c, filepath.Join(dir, name))
		if w != nil {
			defer w.stop()
		}
		if err != nil {
			return Operation{}, err
		}
		worlds[i] = w
		if err := w.namespace(ctx, nsObjects); err != nil {
			return Operation{}, err
		}
		s, err := openStore(w)
		if err != nil {
			return Operation{}, err
		}
		defer s.close()
		if err := s.configMaps(ctx, []string{tenant.Prefix() + nsObjects}, ownObjects); err != nil {
			return Operation{}, err
		}
		if i == 0 {
			continue
		}
		var namespaces []string
		if err := c.progress.Step(fmt.Sprintf("%d neighbours", c.scale.Neighbours), func() (err error) {
			namespaces, err = w.makeNeighbours(ctx, c.scale.Neighbours)
			return err
		}); err != nil {
			return Operation{}, err
		}
		if err := c.progress.Step(fmt.Sprintf("their %d objects", c.scale.NeighbourObjects), func() error {
			return s.configMaps(ctx, namespaces, c.scale.NeighbourObjects)
		}); err != nil {
			return Operation{}, err
		}
	}
	// Four lanes: in each world the gateway's list over all namespaces, and a direct list of the one namespace that has the
	// objects, which tells what the neighbours cost the control cluster itself.
	var all []*lane
	for i, w := range worlds {
		lanes, err := w.lanes()
		if err != nil {
			return Operation{}, err
		}
		gateway, direct := lanes[2], lanes[0]
		gateway.name = []string{"gateway, all namespaces, alone", "gateway, all namespaces, beside them"}[i]
		direct.name = []string{"direct, one namespace, alone", "direct, one namespace, beside them"}[i]
		direct.fixed, gateway.fixed = nsObjects, everyNamespace
		all = append(all, gateway, direct)
	}
	op, err := measure(ctx, all, c.scale, operation{
		name: "list-everywhere", clients: 1, request: get("/configmaps", nsObjects, mediaJSON),
		what: fmt.Sprintf("list of %d ConfigMaps over all namespaces, alone and beside %d tenants with %d", ownObjects, c.scale.Neighbours, c.scale.NeighbourObjects),
	})
	// Lane 0 is the gateway alone, so the ratio of lane 2 is with against without neighbours.
	return op, err
}

// makeNeighbours makes tenants and gives the namespaces that they have in the control cluster.
func (w *world) makeNeighbours(ctx context.Context, count int) ([]string, error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	namespaces := make([]string, count)
	for i := range count {
		id := names.TenantID(fmt.Sprintf("n%05d", i))
		namespaces[i] = id.Prefix() + "default"
		group.Go(func() error {
			if err := w.operator.CreateTenant(ctx, string(id), limits); err != nil {
				return err
			}
			_, err := w.operator.AwaitTenant(ctx, string(id))
			return err
		})
	}
	return namespaces, group.Wait()
}
