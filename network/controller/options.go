package controller

import (
	"fmt"

	cliflag "k8s.io/component-base/cli/flag"
)

// Options are the network controller's flags.
type Options struct {
	// ControlKubeconfig and AdminKubeconfig are files: the control cluster, and the gateway's admin API.
	ControlKubeconfig string
	AdminKubeconfig   string
	// LeaderElect lets several replicas run, one of which works.
	LeaderElect bool
}

// NewOptions gives the defaults.
func NewOptions() *Options { return &Options{LeaderElect: true} }

// AddFlags implements boot.Options.
func (o *Options) AddFlags(groups *cliflag.NamedFlagSets) {
	clusters := groups.FlagSet("clusters")
	clusters.StringVar(&o.ControlKubeconfig, "control-kubeconfig", o.ControlKubeconfig, "Kubeconfig of the control cluster. Required.")
	clusters.StringVar(&o.AdminKubeconfig, "admin-kubeconfig", o.AdminKubeconfig, "Kubeconfig of the gateway's admin API. Required.")
	clusters.BoolVar(&o.LeaderElect, "leader-elect", o.LeaderElect, "Work only while holding the Lease \"network\" in the control cluster. Turn it off for a single replica that must start at once.")
}

// Validate implements boot.Options.
func (o *Options) Validate() []error {
	var problems []error
	for _, required := range []struct{ flag, value string }{
		{"--control-kubeconfig", o.ControlKubeconfig},
		{"--admin-kubeconfig", o.AdminKubeconfig},
	} {
		if required.value == "" {
			problems = append(problems, fmt.Errorf("%s: is required", required.flag))
		}
	}
	return problems
}
