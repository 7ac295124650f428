package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/operator"
)

func newTenantCommand() *cobra.Command {
	var a access
	cmd := &cobra.Command{
		Use:     "tenant",
		Aliases: []string{"tenants"},
		Short:   "Make tenants, hand out their kubeconfigs, suspend and delete them",
	}
	a.addFlags(cmd.PersistentFlags())
	cmd.AddCommand(
		newTenantCreateCommand(&a), newTenantListCommand(&a), newTenantGetCommand(&a), newTenantKubeconfigCommand(&a),
		newTenantRotateCommand(&a), newTenantSuspendCommand(&a, true), newTenantSuspendCommand(&a, false), newTenantDeleteCommand(&a),
	)
	return cmd
}

// waiting is the pair of flags of every command that waits.
type waiting struct {
	wait    bool
	timeout time.Duration
}

func (w *waiting) addFlags(flags *pflag.FlagSet, wait bool, timeout time.Duration, what string) {
	flags.BoolVar(&w.wait, "wait", wait, "Wait until "+what+".")
	flags.DurationVar(&w.timeout, "timeout", timeout, "How long to wait.")
}

func (w *waiting) context(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, w.timeout)
}

func newTenantCreateCommand(a *access) *cobra.Command {
	var (
		spec    v1alpha1.TenantSpec
		network networkFlags
		w       waiting
		output  string
	)
	cmd := &cobra.Command{
		Use:   "create ID",
		Short: "Make a tenant; ID is six characters of a-z and 0-9",
		Example: `  vivarium tenant create demo02
  vivarium tenant create demo02 -o kubeconfig > demo02.kubeconfig
  vivarium tenant create demo02 --vpc-cidr 10.0.0.0/16
  vivarium tenant create demo02 --vpc-cidr 10.0.0.0/16 --subnet web=10.0.1.0/24 --subnet db=10.0.2.0/24@east`,
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "" && output != "kubeconfig" {
				return usageError{fmt.Errorf("--output: %q: only kubeconfig can be printed; into a file: vivarium tenant kubeconfig %s --output FILE", output, args[0])}
			}
			var err error
			if spec.Network, err = network.network(); err != nil {
				return err
			}
			o, err := a.operator(cmd, false)
			if err != nil {
				return err
			}
			ctx, cancel := w.context(cmd.Context())
			defer cancel()
			if err := o.CreateTenant(ctx, args[0], spec); err != nil {
				return err
			}
			if !w.wait && output == "" {
				fmt.Fprintf(cmd.OutOrStdout(), "tenant %s created\n", args[0])
				return nil
			}
			tenant, err := o.AwaitTenant(ctx, args[0])
			if err != nil {
				return err
			}
			if output == "kubeconfig" {
				raw, err := operator.Kubeconfig(tenant)
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write(raw)
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "tenant %s is ready at %s; its kubeconfig: vivarium tenant kubeconfig %s\n", args[0], tenant.Status.Server, args[0])
			if c := meta.FindStatusCondition(tenant.Status.Conditions, v1alpha1.TenantNetworkReady); c != nil && c.Status != metav1.ConditionTrue {
				fmt.Fprintf(cmd.OutOrStdout(), "its network is not ready yet: %s\n", c.Message)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.Int32Var(&spec.Weight, "weight", 0, fmt.Sprintf("Share of the control cluster's request capacity, 1 to 100. (default %d)", v1alpha1.DefaultWeight))
	flags.Int32Var(&spec.Limits.RequestsPerSecond, "requests-per-second", 0, fmt.Sprintf("Sustained rate of requests at each gateway. (default %d)", v1alpha1.DefaultRequestsPerSecond))
	flags.Int32Var(&spec.Limits.Burst, "burst", 0, "Requests that may come at once above the rate. (default twice the rate)")
	flags.Int32Var(&spec.Limits.MaxInFlight, "max-in-flight", 0, fmt.Sprintf("Requests under way at once. (default %d)", v1alpha1.DefaultMaxInFlight))
	flags.Int32Var(&spec.Limits.MaxWatches, "max-watches", 0, fmt.Sprintf("Open watches. (default %d)", v1alpha1.DefaultMaxWatches))
	flags.Int32Var(&spec.Limits.MaxStreams, "max-streams", 0, fmt.Sprintf("Open exec, attach, port-forward and log streams. (default %d)", v1alpha1.DefaultMaxStreams))
	flags.Int32Var(&spec.Limits.CustomResourceDefinitions, "max-crds", 0, fmt.Sprintf("CustomResourceDefinitions. (default %d)", v1alpha1.DefaultCustomResourceDefinitions))
	network.addFlags(flags)
	flags.StringVarP(&output, "output", "o", "", "kubeconfig: print the tenant's kubeconfig once it is ready.")
	w.addFlags(flags, true, time.Minute, "the tenant is ready")
	return cmd
}

func newTenantListCommand(a *access) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the tenants",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := a.operator(cmd, false)
			if err != nil {
				return err
			}
			return show(cmd, o, format, "tenants", "", func() (any, error) {
				list, err := o.Tenants(cmd.Context())
				return list, err
			})
		},
	}
	listFlag(cmd, &format)
	return cmd
}

func newTenantGetCommand(a *access) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "get ID",
		Short: "Show one tenant",
		Args:  exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := a.operator(cmd, false)
			if err != nil {
				return err
			}
			tenant, err := o.Tenant(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return show(cmd, o, format, "tenants", args[0], func() (any, error) { return operator.WithoutKubeconfig(tenant), nil })
		},
	}
	listFlag(cmd, &format)
	return cmd
}

func newTenantKubeconfigCommand(a *access) *cobra.Command {
	return newCredentialCommand(a, "kubeconfig ID", "Print the kubeconfig of a tenant's administrator",
		"How long to wait for the kubeconfig of a new tenant.", (*operator.Operator).TenantKubeconfig)
}

func newTenantRotateCommand(a *access) *cobra.Command {
	return newCredentialCommand(a, "rotate ID", "Refuse every client certificate of a tenant from now on, and print a new kubeconfig",
		"How long to wait for the new kubeconfig.", (*operator.Operator).RotateTenant)
}

// newCredentialCommand makes a command that prints a tenant's kubeconfig, or writes it to a file, once get has it.
func newCredentialCommand(a *access, use, short, timeoutUsage string, get func(*operator.Operator, context.Context, string) ([]byte, error)) *cobra.Command {
	var (
		file string
		w    waiting
	)
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := a.operator(cmd, false)
			if err != nil {
				return err
			}
			ctx, cancel := w.context(cmd.Context())
			defer cancel()
			raw, err := get(o, ctx, args[0])
			if err != nil {
				return err
			}
			return deliver(cmd, file, raw)
		},
	}
	cmd.Flags().StringVar(&file, "output", "", "File to write instead, readable by you alone.")
	cmd.Flags().DurationVar(&w.timeout, "timeout", time.Minute, timeoutUsage)
	return cmd
}

// deliver writes a kubeconfig to a file, whole or not at all, or prints it.
func deliver(cmd *cobra.Command, file string, raw []byte) error {
	if file == "" {
		_, err := cmd.OutOrStdout().Write(raw)
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-")
	if err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	defer os.Remove(temporary.Name())
	_, err = temporary.Write(raw)
	if closeErr := temporary.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temporary.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	return nil
}

func newTenantSuspendCommand(a *access, suspend bool) *cobra.Command {
	verb, short, done := "resume ID", "Let a suspended tenant in again", "resumed"
	if suspend {
		verb, short, done = "suspend ID", "Refuse every request of a tenant; its pods keep running", "suspended"
	}
	return &cobra.Command{
		Use:   verb,
		Short: short,
		Args:  exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := a.operator(cmd, false)
			if err != nil {
				return err
			}
			if err := o.ChangeTenant(cmd.Context(), args[0], func(spec *v1alpha1.TenantSpec) { spec.Suspended = suspend }); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "tenant %s %s\n", args[0], done)
			return nil
		},
	}
}

func newTenantDeleteCommand(a *access) *cobra.Command {
	var w waiting
	cmd := &cobra.Command{
		Use:   "delete ID",
		Short: "Delete a tenant and everything that it has, in the control cluster and in every pool",
		Args:  exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := a.operator(cmd, false)
			if err != nil {
				return err
			}
			if err := o.DeleteTenant(cmd.Context(), args[0]); err != nil {
				return err
			}
			if !w.wait {
				fmt.Fprintf(cmd.OutOrStdout(), "tenant %s is being deleted; its credentials are refused already\n", args[0])
				return nil
			}
			ctx, cancel := w.context(cmd.Context())
			defer cancel()
			if err := o.AwaitTenantGone(ctx, args[0]); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "tenant %s deleted\n", args[0])
			return nil
		},
	}
	w.addFlags(cmd.Flags(), true, 5*time.Minute, "nothing of the tenant is left")
	return cmd
}
