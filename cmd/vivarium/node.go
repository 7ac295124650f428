package main

import (
	"github.com/spf13/cobra"

	"vivarium.io/vivarium/internal/localcluster/node"
)

// newNodeCommand is what `up` runs as the first process of a node. People have no use for it.
func newNodeCommand() *cobra.Command {
	return &cobra.Command{
		Use:    node.InitArg + " FILE",
		Short:  "Be the first process of a local node",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   func(_ *cobra.Command, args []string) error { return node.Run(args[0]) },
	}
}
