// Command vk-provider makes pools look like nodes of the control cluster; see package vkprovider.
package main

import (
	"context"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/network/drivers"
	vkprovider "vivarium.io/vivarium/vk-provider"
)

func main() {
	options := vkprovider.NewOptions()
	boot.Main(boot.Component{
		Name:    "vk-provider",
		Short:   "vk-provider runs tenants' pods in the pools and shows each pool as virtual nodes of the control cluster.",
		Options: options,
		Run: func(ctx context.Context, health *boot.Health) error {
			provider, err := vkprovider.New(options, drivers.Binder)
			if err != nil {
				return err
			}
			return provider.Run(ctx, health)
		},
	})
}
