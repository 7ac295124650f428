package main

import (
	"context"

	"github.com/spf13/cobra"

	"vivarium.io/vivarium/internal/localcluster"
)

func newImageCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Bring images to the local nodes"}
	var runDir string
	load := &cobra.Command{
		Use:   "load TAR...",
		Short: "Load images from archives, OCI or Docker, into every local node",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.MinimumNArgs(1)(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			instance, err := localcluster.Open(runDir)
			if err != nil {
				return err
			}
			return instance.Load(cmd.Context(), args, localcluster.NewProgress(cmd.OutOrStdout()))
		},
	}
	runDirFlag(load.Flags(), &runDir)
	cmd.AddCommand(load)
	return cmd
}

func newBuildCommand() *cobra.Command {
	var images, clients, tools bool
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build ahead of time what `up` needs: the programs of Kubernetes, and images",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			source, err := localcluster.FindSource()
			if err != nil {
				return err
			}
			binaries, err := localcluster.OpenBinaries(source)
			if err != nil {
				return err
			}
			progress := localcluster.NewProgress(cmd.OutOrStdout())
			if err := binaries.Build(cmd.Context(), progress); err != nil {
				return err
			}
			progress.Say("Kubernetes %s is in %s", binaries.Version(), binaries.Dir())
			if tools {
				if err := localcluster.InstallTools(cmd.Context(), progress); err != nil {
					return err
				}
			}
			if clients {
				if err := buildClients(cmd.Context(), source, progress); err != nil {
					return err
				}
			}
			if !images {
				return nil
			}
			archives, err := localcluster.BuildImages(cmd.Context(), source, binaries, progress)
			if err != nil {
				return err
			}
			for _, archive := range archives {
				progress.Say("%s is in %s", archive.Name, archive.Path)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&images, "images", false, "Make the images for local nodes, too.")
	cmd.Flags().BoolVar(&tools, "tools", false, "Install the system's programs that real nodes need, where there can be such nodes.")
	cmd.Flags().BoolVar(&clients, "clients", false, "Build the clients that the tests run, too: older kubectls, Helm, kustomize.")
	return cmd
}

func buildClients(ctx context.Context, source string, progress *localcluster.Progress) error {
	clients, err := localcluster.OpenClients(source)
	if err != nil {
		return err
	}
	for _, binaries := range clients {
		if err := binaries.Build(ctx, progress); err != nil {
			return err
		}
		progress.Say("%s %s is in %s", binaries.Name(), binaries.Version(), binaries.Dir())
	}
	return nil
}
