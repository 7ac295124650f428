//go:build linux

// Program vpc-agent keeps the VPCs of tenants on one node of a pool whose network driver is vxlan.
package main

import (
	"context"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/network/vxlan/agent"
)

func main() {
	options := agent.NewOptions()
	boot.Main(boot.Component{
		Name:    "vpc-agent",
		Short:   "Keeps the tenants' VPCs on one node of a pool.",
		Options: options,
		Run: func(ctx context.Context, health *boot.Health) error {
			a, err := agent.New(options)
			if err != nil {
				return err
			}
			return a.Run(ctx, health)
		},
	})
}
