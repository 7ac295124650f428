package controller

import (
	"fmt"
	"net/netip"

	cliflag "k8s.io/component-base/cli/flag"
)

// Options are the network controller's flags.
type Options struct {
	// ControlKubeconfig and AdminKubeconfig are files: the control cluster, and the gateway's admin API.
	ControlKubeconfig string
	AdminKubeconfig   string
	// Gateway is where the pools' nodes find the gateway, an address and a port: what pods of VPCs are led to when they ask
	// for their tenant's API. Empty: nowhere.
	Gateway string
	// LeaderElect lets several replicas run, one of which works.
	LeaderElect bool

	gateway netip.AddrPort
}

// NewOptions gives the defaults.
func NewOptions() *Options { return &Options{LeaderElect: true} }

// AddFlags implements boot.Options.
func (o *Options) AddFlags(groups *cliflag.NamedFlagSets) {
	clusters := groups.FlagSet("clusters")
	clusters.StringVar(&o.ControlKubeconfig, "control-kubeconfig", o.ControlKubeconfig, "Kubeconfig of the control cluster. Required.")
	clusters.StringVar(&o.AdminKubeconfig, "admin-kubeconfig", o.AdminKubeconfig, "Kubeconfig of the gateway's admin API. Required.")
	clusters.StringVar(&o.Gateway, "gateway", o.Gateway, "Address and port of the gateway as the pools' nodes reach it, as in 192.0.2.1:6443: what pods in VPCs are led to for their tenant's API. Without it they reach none.")
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
	if o.Gateway != "" {
		var err error
		if o.gateway, err = netip.ParseAddrPort(o.Gateway); err != nil {
			problems = append(problems, fmt.Errorf("--gateway: must be an address and a port: %w", err))
		}
	}
	return problems
}
