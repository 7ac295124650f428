// Program syncer carries into each pool what tenants' pods need besides themselves.
package main

import (
	"context"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/syncer"
)

func main() {
	options := syncer.NewOptions()
	boot.Main(boot.Component{
		Name:    "syncer",
		Short:   "Carries ConfigMaps, Secrets and ServiceAccount tokens of tenants' pods into the pools.",
		Options: options,
		Run: func(ctx context.Context, health *boot.Health) error {
			s, err := syncer.New(options)
			if err != nil {
				return err
			}
			return s.Run(ctx, health)
		},
	})
}
