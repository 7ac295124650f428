// Program network lets the network drivers prepare tenants' namespaces in the pools.
package main

import (
	"context"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/network/controller"
	"vivarium.io/vivarium/network/drivers"
)

func main() {
	options := controller.NewOptions()
	boot.Main(boot.Component{
		Name:    "network",
		Short:   "Keeps tenants apart in the pools' networks.",
		Options: options,
		Run: func(ctx context.Context, health *boot.Health) error {
			c, err := controller.New(options, drivers.ByName)
			if err != nil {
				return err
			}
			return c.Run(ctx, health)
		},
	})
}
