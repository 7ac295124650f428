package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/operator"
)

func newPoolCommand() *cobra.Command {
	var a access
	cmd := &cobra.Command{
		Use:     "pool",
		Aliases: []string{"pools"},
		Short:   "Register clusters as pools, cordon and remove them",
	}
	a.addFlags(cmd.PersistentFlags())
	cmd.AddCommand(
		newPoolRegisterCommand(&a), newPoolListCommand(&a), newPoolGetCommand(&a),
		newPoolCordonCommand(&a, true), newPoolCordonCommand(&a, false), newPoolRemoveCommand(&a),
	)
	return cmd
}

// poolFlags are a ResourcePool's spec as flags.
type poolFlags struct {
	region, zone, mode, driver string
	selector, labels, shape    map[string]string
	max                        int32
}

func (f *poolFlags) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&f.region, "region", "", "Topology label topology.kubernetes.io/region of the pool's virtual nodes.")
	flags.StringVar(&f.zone, "zone", "", "Topology label topology.kubernetes.io/zone. (default the pool's name)")
	flags.StringVar(&f.mode, "node-mode", "", "How capacity is cut into virtual nodes: Shaped, Mirrored or Aggregate. (default Shaped)")
	flags.StringToStringVar(&f.selector, "node-selector", nil, "Labels of the pool's nodes to use. (default all)")
	flags.StringToStringVar(&f.shape, "node-shape", nil, "Size of a virtual node in mode Shaped, as in cpu=8,memory=32Gi. (default that of most nodes)")
	flags.StringToStringVar(&f.labels, "node-labels", nil, "Labels to put on the virtual nodes.")
	flags.Int32Var(&f.max, "max-nodes", 0, fmt.Sprintf("Virtual nodes at most. (default %d)", v1alpha1.DefaultMaxVirtualNodes))
	flags.StringVar(&f.driver, "network", "", "Network driver. (default "+v1alpha1.DriverFlat+")")
}

func (f *poolFlags) spec() (v1alpha1.ResourcePoolSpec, error) {
	spec := v1alpha1.ResourcePoolSpec{
		Location: v1alpha1.PoolLocation{Region: f.region, Zone: f.zone},
		Nodes:    v1alpha1.PoolNodes{Selector: f.selector, Labels: f.labels, Max: f.max},
		Network:  v1alpha1.PoolNetwork{Driver: f.driver},
	}
	for _, mode := range []v1alpha1.NodeMode{v1alpha1.NodesShaped, v1alpha1.NodesMirrored, v1alpha1.NodesAggregate} {
		if strings.EqualFold(f.mode, string(mode)) {
			spec.Nodes.Mode = mode
		}
	}
	if f.mode != "" && spec.Nodes.Mode == "" {
		return spec, usageError{fmt.Errorf("--node-mode: %q is none of Shaped, Mirrored, Aggregate", f.mode)}
	}
	for name, text := range f.shape {
		quantity, err := resource.ParseQuantity(text)
		if err != nil {
			return spec, usageError{fmt.Errorf("--node-shape: %s=%s: %w", name, text, err)}
		}
		if spec.Nodes.Shape == nil {
			spec.Nodes.Shape = corev1.ResourceList{}
		}
		spec.Nodes.Shape[corev1.ResourceName(name)] = quantity
	}
	return spec, nil
}

func newPoolRegisterCommand(a *access) *cobra.Command {
	var (
		flags      poolFlags
		kubeconfig string
		printRole  bool
		w          waiting
	)
	cmd := &cobra.Command{
		Use:   "register NAME --kubeconfig FILE",
		Short: "Make a cluster a pool: tenants' pods run there from then on",
		Long: `Make a cluster a pool: tenants' pods run there from then on.

The kubeconfig is an administrator's and is used once: to make a ServiceAccount with the ClusterRole vivarium-pool, whose
token is what the platform keeps. If anything fails, everything that was made is removed again.`,
		Example: `  vivarium pool register pool-c --kubeconfig pool-c.kubeconfig --region eu --zone eu-1
  vivarium pool register --print-role | kubectl --kubeconfig pool-c.kubeconfig apply -f -`,
		Args: func(cmd *cobra.Command, args []string) error {
			if printRole {
				return noArgs(cmd, args)
			}
			if err := exactly("NAME")(cmd, args); err != nil {
				return err
			}
			if kubeconfig == "" {
				return usageError{errors.New("--kubeconfig is required: an administrator's kubeconfig of the cluster")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			manifests, err := poolManifests()
			if err != nil {
				return err
			}
			if printRole {
				_, err := cmd.OutOrStdout().Write(manifests.YAML())
				return err
			}
			registration := operator.Registration{Name: args[0], Manifests: manifests}
			if w.wait {
				registration.Wait = w.timeout
			}
			if registration.Spec, err = flags.spec(); err != nil {
				return err
			}
			if registration.Kubeconfig, err = operator.ReadKubeconfig(kubeconfig); err != nil {
				return err
			}
			o, err := a.operator(cmd, true)
			if err != nil {
				return err
			}
			if err := o.Register(cmd.Context(), registration); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "pool %s registered\n", args[0])
			return nil
		},
	}
	flags.addFlags(cmd.Flags())
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "Kubeconfig of the cluster, an administrator's. Required.")
	cmd.Flags().BoolVar(&printRole, "print-role", false, "Print what would be set up in the pool, and do nothing.")
	w.addFlags(cmd.Flags(), true, 2*time.Minute, "pods can be placed in the pool")
	return cmd
}

func newPoolListCommand(a *access) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the pools",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := a.operator(cmd, false)
			if err != nil {
				return err
			}
			return show(cmd, o, format, "resourcepools", "", func() (any, error) {
				list, err := o.Pools(cmd.Context())
				return list, err
			})
		},
	}
	listFlag(cmd, &format)
	return cmd
}

func newPoolGetCommand(a *access) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "get NAME",
		Short: "Show one pool",
		Args:  exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := a.operator(cmd, false)
			if err != nil {
				return err
			}
			pool, err := o.Pool(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return show(cmd, o, format, "resourcepools", args[0], func() (any, error) {
				pool.ManagedFields = nil
				return pool, nil
			})
		},
	}
	listFlag(cmd, &format)
	return cmd
}

func newPoolCordonCommand(a *access, cordon bool) *cobra.Command {
	verb, short, done := "uncordon NAME", "Let new pods into a pool again", "uncordoned"
	if cordon {
		verb, short, done = "cordon NAME", "Keep new pods away from a pool; the running ones stay", "cordoned"
	}
	return &cobra.Command{
		Use:   verb,
		Short: short,
		Args:  exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := a.operator(cmd, false)
			if err != nil {
				return err
			}
			if err := o.CordonPool(cmd.Context(), args[0], cordon); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "pool %s %s\n", args[0], done)
			return nil
		},
	}
}

func newPoolRemoveCommand(a *access) *cobra.Command {
	var (
		force      bool
		kubeconfig string
		timeout    time.Duration
	)
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Give a pool back: its pods end, nothing of tenants stays there",
		Args:  exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var (
				raw []byte
				err error
			)
			if kubeconfig != "" {
				if raw, err = operator.ReadKubeconfig(kubeconfig); err != nil {
					return err
				}
			}
			o, err := a.operator(cmd, true)
			if err != nil {
				return err
			}
			if err := o.RemovePool(cmd.Context(), args[0], force, timeout); err != nil {
				return err
			}
			manifests, err := poolManifests()
			if err != nil {
				return err
			}
			if raw != nil {
				if err := operator.Uninstall(cmd.Context(), raw, manifests); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "pool %s removed, and what was set up in the cluster\n", args[0])
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "pool %s removed; what was set up in the cluster goes with\n  vivarium pool register --print-role | kubectl --kubeconfig FILE delete -f -\n", args[0])
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "Do not wait for a pool that cannot be reached; what is in it stays there.")
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "An administrator's kubeconfig of the cluster, to remove what was set up there as well.")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "How long to wait until the pool is empty.")
	return cmd
}
