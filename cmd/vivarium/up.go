package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vivarium.io/vivarium/charts"
	"vivarium.io/vivarium/internal/localcluster"
)

// upFlags are shared by the commands that start clusters.
type upFlags struct {
	runDir       string
	portBase     numberSetting
	nodesPerPool numberSetting
	nodes        string
	network      string
}

func (f *upFlags) add(flags *pflag.FlagSet) {
	runDirFlag(flags, &f.runDir)
	f.portBase = numberSetting{variable: "PORT_BASE"}
	flags.StringVar(&f.portBase.text, "port-base", setting("PORT_BASE", ""), "First port of the instance; 16000 unless it has one already. [$PORT_BASE]")
	f.nodesPerPool = numberSetting{variable: "NODES_PER_POOL"}
	flags.StringVar(&f.nodesPerPool.text, "nodes-per-pool", setting("NODES_PER_POOL", "1"), "Nodes of each new pool. [$NODES_PER_POOL]")
	flags.StringVar(&f.nodes, "nodes", setting("NODES", "auto"), "What nodes are: real (containers run), kwok (simulated), or auto: real where the machine can. [$NODES]")
	flags.StringVar(&f.network, "network", setting("NETWORK", "flat"), "Network driver of each new pool: flat (tenants share the pool's network) or vxlan (tenants can have VPCs; real nodes only). [$NETWORK]")
}

func (f *upFlags) config(cmd *cobra.Command) (localcluster.UpConfig, error) {
	config := localcluster.UpConfig{RunDir: f.runDir, Nodes: localcluster.NodeKind(f.nodes), Network: f.network, Progress: localcluster.NewProgress(cmd.OutOrStdout())}
	switch config.Nodes {
	case localcluster.NodesReal, localcluster.NodesKwok, localcluster.NodesAuto:
	default:
		return config, usageError{fmt.Errorf("NODES: %q is none of real, kwok, auto", f.nodes)}
	}
	var err error
	if config.PortBase, err = f.portBase.value(); err != nil {
		return config, err
	}
	if config.NodesPerPool, err = f.nodesPerPool.value(); err != nil {
		return config, err
	}
	config.Self, err = self()
	return config, err
}

func newUpCommand() *cobra.Command {
	var (
		flags      upFlags
		pools      = numberSetting{variable: "POOLS"}
		tenants    string
		components bool
	)
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the whole system on this machine, or whatever of it does not run",
		Long: `Start the whole system on this machine: a control cluster, pool clusters with nodes, the gateway, the vk-provider, the
syncer and the network controller. What runs already keeps running; what has died is started again.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := flags.config(cmd)
			if err != nil {
				return err
			}
			if config.Pools, err = pools.value(); err != nil {
				return err
			}
			if config.Manifests, err = charts.ControlManifests(); err != nil {
				return err
			}
			config.Components = components
			config.Tenants = list(tenants)
			return localcluster.Up(cmd.Context(), config)
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().StringVar(&pools.text, "pools", setting("POOLS", fmt.Sprint(localcluster.DefaultPools)), "Pool clusters to start at least. [$POOLS]")
	cmd.Flags().StringVar(&tenants, "tenants", setting("TENANTS", "demo01"), "Tenants to create, separated by commas. [$TENANTS]")
	cmd.Flags().BoolVar(&components, "components", true, "Run the platform. Without it there are only the clusters.")
	return cmd
}

func newDownCommand() *cobra.Command {
	var (
		runDir string
		keep   bool
	)
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop the local system and remove everything it took from this machine",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return localcluster.Down(cmd.Context(), runDir, keep, localcluster.NewProgress(cmd.OutOrStdout()))
		},
	}
	runDirFlag(cmd.Flags(), &runDir)
	cmd.Flags().BoolVar(&keep, "keep", false, "Keep the directory with its logs and data.")
	return cmd
}

func newLocalPoolCommand() *cobra.Command {
	var flags upFlags
	cmd := &cobra.Command{
		Use:   "local-pool NAME",
		Short: "Start one more pool cluster on this machine, for you to register",
		Args:  exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := flags.config(cmd)
			if err != nil {
				return err
			}
			return localcluster.AddPool(cmd.Context(), config, args[0])
		},
	}
	flags.add(cmd.Flags())
	return cmd
}

func newLocalRebootCommand() *cobra.Command {
	var flags upFlags
	cmd := &cobra.Command{
		Use:   "local-reboot NODE",
		Short: "Cut the power of a node on this machine, and start it again",
		Long: `Kill a node, named as ` + "`vivarium status`" + ` lists it (such as pool-a-node-0), with everything that runs on it, and start it
again. Its disk is there again, its memory and /run are not.`,
		Args: exactly("NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := flags.config(cmd)
			if err != nil {
				return err
			}
			return localcluster.Reboot(cmd.Context(), config, args[0])
		},
	}
	flags.add(cmd.Flags())
	return cmd
}
