// Program gateway serves tenants their clusters and operators the platform's own API.
package main

import (
	"context"

	"vivarium.io/vivarium/gateway"
	"vivarium.io/vivarium/internal/boot"
)

func main() {
	options := gateway.NewOptions()
	boot.Main(boot.Component{
		Name:    "gateway",
		Short:   "Makes one shared control cluster look like a cluster of each tenant's own.",
		Options: options,
		Run: func(ctx context.Context, health *boot.Health) error {
			server, err := gateway.New(ctx, options, health)
			if err != nil {
				return err
			}
			return server.Run(ctx)
		},
	})
}
