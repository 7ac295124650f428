// Program vivarium is the operator's command line: the whole system on one machine, tenants, pools, images. It also works
// as `kubectl vivarium` when a link to it is called kubectl-vivarium.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"vivarium.io/vivarium/internal/boot"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newRootCommand().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "vivarium: %v\n", err)
	var usage usageError
	if errors.As(err, &usage) {
		os.Exit(2)
	}
	os.Exit(1)
}

// usageError marks an error of whoever typed the command.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func newRootCommand() *cobra.Command {
	name := "vivarium"
	if plugin, ok := strings.CutPrefix(filepath.Base(os.Args[0]), "kubectl-"); ok {
		name = "kubectl " + plugin
	}
	root := &cobra.Command{
		Use:           "vivarium",
		Short:         "Serverless Kubernetes for many small tenants",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       boot.Version(),
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: name},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddGroup(
		&cobra.Group{ID: groupPlatform, Title: "The platform:"},
		&cobra.Group{ID: groupLocal, Title: "The whole system on this machine:"},
	)
	platform := []*cobra.Command{newTenantCommand(), newPoolCommand()}
	local := []*cobra.Command{
		newUpCommand(), newDownCommand(), newStatusCommand(), newDoctorCommand(), newImageCommand(), newLocalPoolCommand(), newLocalRebootCommand(), newBuildCommand(), newConformanceCommand(),
	}
	for group, commands := range map[string][]*cobra.Command{groupPlatform: platform, groupLocal: local} {
		for _, command := range commands {
			command.GroupID = group
			root.AddCommand(command)
		}
	}
	root.AddCommand(newVersionCommand(), newNodeCommand())
	return root
}

const (
	groupPlatform = "platform"
	groupLocal    = "local"
)
