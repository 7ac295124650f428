package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/charts"
	"vivarium.io/vivarium/internal/localcluster"
	"vivarium.io/vivarium/internal/operator"
)

// access says which platform a command is about: by default the local one.
type access struct {
	admin, control string
}

func (a *access) addFlags(flags *pflag.FlagSet) {
	dir := setting("RUN_DIR", localcluster.DefaultRunDir)
	flags.StringVar(&a.admin, "admin-kubeconfig", filepath.Join(dir, "admin.kubeconfig"), "Kubeconfig of the gateway's admin API. [$RUN_DIR/admin.kubeconfig]")
	flags.StringVar(&a.control, "control-kubeconfig", filepath.Join(dir, "control.kubeconfig"), "Kubeconfig of the control cluster, where pools' credentials are kept. [$RUN_DIR/control.kubeconfig]")
}

// operator opens the admin API, and the control cluster where it is needed.
func (a *access) operator(cmd *cobra.Command, control bool) (*operator.Operator, error) {
	o, err := operator.OpenAdmin(a.admin)
	if err != nil {
		return nil, err
	}
	o.Say = func(format string, args ...any) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...) }
	if control {
		err = o.OpenControl(a.control)
	}
	return o, err
}

// poolManifests are the files of the pool's chart, with those for network drivers where there are any.
func poolManifests(drivers ...string) (operator.Manifests, error) {
	var m operator.Manifests
	for file, into := range map[string]*[]byte{"clusterrole.yaml": &m.Role, "access.yaml": &m.Access, "policy.yaml": &m.Policy} {
		raw, err := charts.FS.ReadFile("vivarium-pool/files/" + file)
		if err != nil {
			return m, fmt.Errorf("read the pool's manifests: %w", err)
		}
		*into = raw
	}
	for _, driver := range parts(drivers) {
		for file, into := range map[string]*[]byte{"access.yaml": &m.Access, "policy.yaml": &m.Policy} {
			raw, err := charts.FS.ReadFile("vivarium-pool/files/" + driver + "/" + file)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return m, fmt.Errorf("read the manifests of pools with driver %s: %w", driver, err)
			}
			*into = slices.Concat(*into, []byte("\n---\n"), raw)
		}
	}
	return m, nil
}

// parts are the drivers whose files the drivers need: what Multus plugs pods in with is the driver vxlan.
func parts(drivers []string) []string {
	var all []string
	for _, driver := range drivers {
		if driver == v1alpha1.DriverMultus {
			all = append(all, v1alpha1.DriverVXLAN)
		}
		all = append(all, driver)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// exactly wants so many arguments, and says what they are.
func exactly(what ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(what) {
			return usageError{fmt.Errorf("%s wants %v, got %q", cmd.CommandPath(), what, args)}
		}
		return nil
	}
}

// show prints objects of the admin API: as the server's table, or as values for scripts.
func show(cmd *cobra.Command, o *operator.Operator, format, resource, name string, value func() (any, error)) error {
	switch format {
	case "", "wide":
		table, err := o.Table(cmd.Context(), resource, name)
		if err != nil {
			return err
		}
		out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 3, ' ', 0)
		operator.WriteTable(out, table, format == "wide")
		return out.Flush()
	default:
		v, err := value()
		if err != nil {
			return err
		}
		return write(cmd.OutOrStdout(), format, v, func(io.Writer) {})
	}
}

func listFlag(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVarP(format, "output", "o", "", "Output format: wide, json or yaml; a table for people unless given.")
}
