package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/operator"
)

func newPoolCommand() *cobra.Command {
	var a access
	cmd := &cobra.Command{
		Use:     "pool",
		Aliases: []string{"pools"},
		Short:   "Register clusters as pools, cordon, drain, fence and remove them",
	}
	a.addFlags(cmd.PersistentFlags())
	cmd.AddCommand(
		newPoolRegisterCommand(&a), newPoolRefreshCommand(&a), newPoolListCommand(&a), newPoolGetCommand(&a),
		newPoolCordonCommand(&a, true), newPoolCordonCommand(&a, false), newPoolDrainCommand(&a), newPoolFenceCommand(&a), newPoolRestoredCommand(&a),
		newPoolRemoveCommand(&a),
	)
	return cmd
}

// poolFlags are a ResourcePool's spec as flags.
type poolFlags struct {
	region, zone, mode, driver string
	failure, security          string
	tenants                    []string
	tenantSelector             string
	bounceAfter                time.Duration
	selector, labels, shape    map[string]string
	reserved                   []string
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
	flags.StringVar(&f.failure, "failure-policy", "", "What becomes of pods while the pool does not answer: Evict, Hold or Fence. (default Evict)")
	flags.DurationVar(&f.bounceAfter, "bounce-after", 0, fmt.Sprintf("How long the pool may look for a place for a pod before it is given back. (default %ds)", v1alpha1.DefaultBounceAfter))
	flags.StringSliceVar(&f.tenants, "tenants", nil, "Tenants whose pods may come, by name. (default everybody's)")
	flags.StringVar(&f.tenantSelector, "tenant-selector", "", "Tenants whose pods may come, by their labels, as in tier=gold. With --tenants, those as well.")
	flags.StringVar(&f.security, "pod-security", "", "Pod Security level that pods must meet: baseline or restricted. (default baseline)")
	flags.StringVar(&f.driver, "network", "", "Network driver: "+strings.Join(v1alpha1.Drivers(), " or ")+". (default "+v1alpha1.DriverFlat+")")
	flags.StringSliceVar(&f.reserved, "reserved", nil, "Ranges of the pool's nodes, pods and Services, which no VPC with a subnet here may use.")
}

func (f *poolFlags) spec() (v1alpha1.ResourcePoolSpec, error) {
	spec := v1alpha1.ResourcePoolSpec{
		Location: v1alpha1.PoolLocation{Region: f.region, Zone: f.zone},
		Nodes:    v1alpha1.PoolNodes{Selector: f.selector, Labels: f.labels, Max: f.max},
		Network:  v1alpha1.PoolNetwork{Driver: f.driver, Reserved: f.reserved},
		Bounce:   v1alpha1.PoolBounce{AfterSeconds: int32(min(f.bounceAfter.Seconds(), math.MaxInt32))},
	}
	var err error
	if spec.Failure.Policy, err = oneOf("--failure-policy", f.failure, v1alpha1.FailurePolicies()); err != nil {
		return spec, err
	}
	if spec.Nodes.Mode, err = oneOf("--node-mode", f.mode, v1alpha1.NodeModes()); err != nil {
		return spec, err
	}
	if spec.Pods.SecurityLevel, err = oneOf("--pod-security", f.security, v1alpha1.PodSecurityLevels()); err != nil {
		return spec, err
	}
	if len(f.tenants) > 0 || f.tenantSelector != "" {
		spec.Tenants = &v1alpha1.TenantChoice{Names: f.tenants}
	}
	if f.tenantSelector != "" {
		if spec.Tenants.Selector, err = metav1.ParseToLabelSelector(f.tenantSelector); err != nil {
			return spec, usageError{fmt.Errorf("--tenant-selector: %w", err)}
		}
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

// oneOf reads a flag that takes one of some words, in any case; nothing when it is not given.
func oneOf[T ~string](flag, text string, known []T) (T, error) {
	if text == "" {
		return "", nil
	}
	var words []string
	for _, one := range known {
		if strings.EqualFold(text, string(one)) {
			return one, nil
		}
		words = append(words, string(one))
	}
	return "", usageError{fmt.Errorf("%s: %q is none of %s", flag, text, strings.Join(words, ", "))}
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
			manifests, err := poolManifests(flags.driver)
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

func newPoolRefreshCommand(a *access) *cobra.Command {
	var kubeconfig string
	cmd := &cobra.Command{
		Use:   "refresh NAME --kubeconfig FILE",
		Short: "Bring what the platform needs in a pool up to date, before an upgrade of the platform",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := exactly("NAME")(cmd, args); err != nil {
				return err
			}
			if kubeconfig == "" {
				return usageError{errors.New("--kubeconfig is required: an administrator's kubeconfig of the cluster")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := operator.ReadKubeconfig(kubeconfig)
			if err != nil {
				return err
			}
			o, err := a.operator(cmd, false)
			if err != nil {
				return err
			}
			pool, err := o.Pool(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			manifests, err := poolManifests(pool.Spec.Network.Driver)
			if err != nil {
				return err
			}
			if err := o.Refresh(cmd.Context(), args[0], raw, manifests); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "pool %s is up to date\n", args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "Kubeconfig of the cluster, an administrator's. Required.")
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
	verb, short, done := "uncordon NAME", "Let new pods into a pool again, and stop a drain", "uncordoned"
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

func newPoolDrainCommand(a *access) *cobra.Command {
	var (
		unmanaged bool
		w         waiting
	)
	cmd := &cobra.Command{
		Use:   "drain NAME",
		Short: "Empty a pool: its pods are evicted within their disruption budgets",
		Long: `Empty a pool: new pods are kept away, and the running ones are evicted within their disruption budgets, however long that
takes. The platform does it: when this command ends early the drain goes on, and running it again follows it.
"vivarium pool uncordon" stops it.`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := a.operator(cmd, false)
			if err != nil {
				return err
			}
			within := time.Duration(0)
			if w.wait {
				within = w.timeout
			}
			if err := o.DrainPool(cmd.Context(), args[0], unmanaged, within); err != nil {
				return err
			}
			if !w.wait {
				fmt.Fprintf(cmd.OutOrStdout(), "pool %s is being drained\n", args[0])
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "pool %s is empty\n", args[0])
			return nil
		},
	}
	cmd.Flags().BoolVar(&unmanaged, "unmanaged", false, "Evict also pods that no controller makes anew; they are gone for good.")
	w.addFlags(cmd.Flags(), true, 30*time.Minute, "the pool is empty")
	return cmd
}

// newPoolWordCommand is a command by which an operator gives the word about a pool that the platform cannot have itself.
func newPoolWordCommand(a *access, cmd *cobra.Command, word, meaning, asks, done string, give func(*operator.Operator, context.Context, string) error) *cobra.Command {
	var given bool
	cmd.Args = exactly("NAME")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !given {
			return usageError{fmt.Errorf("give --%s to confirm it: %s", word, asks)}
		}
		o, err := a.operator(cmd, false)
		if err != nil {
			return err
		}
		if err := give(o, cmd.Context(), args[0]); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "pool %s %s\n", args[0], done)
		return nil
	}
	cmd.Flags().BoolVar(&given, word, false, meaning)
	return cmd
}

func newPoolFenceCommand(a *access) *cobra.Command {
	return newPoolWordCommand(a, &cobra.Command{
		Use:   "fence NAME",
		Short: "Confirm that nothing runs any more in a pool that does not answer",
		Long: `Confirm that nothing runs any more in a pool that does not answer: its machines are off, or cut off from all that their pods
could harm. Its pods are ended at once and replaced elsewhere, those of StatefulSets too. If the word is wrong, two pods of
one StatefulSet run at the same time.`,
	}, "nothing-runs-there", "Confirm that no pod of the pool can be running.",
		"the platform cannot see the pool and believes you", "fenced until it answers again", (*operator.Operator).FencePool)
}

func newPoolRestoredCommand(a *access) *cobra.Command {
	return newPoolWordCommand(a, &cobra.Command{
		Use:   "restored NAME",
		Short: "Confirm what runs in a pool that was restored from a backup",
		Long: `Confirm that nothing of tenants runs in a pool that was restored from a backup but what its API server knows: its kubelets, or
its machines, have been restarted since. The pods that the pool lost are then ended and replaced, and new ones come. If the
word is wrong, two pods of one StatefulSet run at the same time.`,
	}, "nothing-else-runs-there", "Confirm that no pod runs that the pool does not know.",
		"the platform cannot see what the pool has forgotten, and believes you", "is used again; the pods that it lost are replaced", (*operator.Operator).PoolRestored)
}

func newPoolRemoveCommand(a *access) *cobra.Command {
	var (
		evict      bool
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
			if err := o.RemovePool(cmd.Context(), args[0], evict, force, timeout); err != nil {
				return err
			}
			manifests, err := poolManifests(v1alpha1.Drivers()...)
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
	cmd.Flags().BoolVar(&evict, "evict", false, "Evict the pods that are left, within their disruption budgets.")
	cmd.Flags().BoolVar(&force, "force", false, "Do not wait for a pool that cannot be reached; what is in it stays there.")
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "An administrator's kubeconfig of the cluster, to remove what was set up there as well.")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "How long to wait until the pool is empty.")
	return cmd
}
