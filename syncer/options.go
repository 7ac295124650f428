package syncer

import (
	"errors"
	"fmt"

	cliflag "k8s.io/component-base/cli/flag"
)

// DefaultTokenAudience is the gateway's audience, the same as the gateway's own default.
const DefaultTokenAudience = "vivarium-gateway"

// Options are the syncer's flags.
type Options struct {
	// ControlKubeconfig and AdminKubeconfig are files: the control cluster, and the gateway's admin API.
	ControlKubeconfig string
	AdminKubeconfig   string
	// GatewayCAFile holds the PEM certificates that pods check the gateway with.
	GatewayCAFile string
	// TokenAudience is the audience of tokens that are for the gateway.
	TokenAudience string
	// LeaderElect lets several replicas run, one of which works.
	LeaderElect bool
}

// NewOptions gives the defaults.
func NewOptions() *Options {
	return &Options{TokenAudience: DefaultTokenAudience, LeaderElect: true}
}

// AddFlags implements boot.Options.
func (o *Options) AddFlags(groups *cliflag.NamedFlagSets) {
	clusters := groups.FlagSet("clusters")
	clusters.StringVar(&o.ControlKubeconfig, "control-kubeconfig", o.ControlKubeconfig, "Kubeconfig of the control cluster. Required.")
	clusters.StringVar(&o.AdminKubeconfig, "admin-kubeconfig", o.AdminKubeconfig, "Kubeconfig of the gateway's admin API. Required.")
	clusters.BoolVar(&o.LeaderElect, "leader-elect", o.LeaderElect, "Work only while holding the Lease \"syncer\" in the control cluster. Turn it off for a single replica that must start at once.")
	pods := groups.FlagSet("what pods get")
	pods.StringVar(&o.GatewayCAFile, "gateway-ca-file", o.GatewayCAFile, "PEM certificates that pods check the gateway with; becomes every tenant's kube-root-ca.crt in the pools and is followed when it changes. Required.")
	pods.StringVar(&o.TokenAudience, "token-audience", o.TokenAudience, "Audience of ServiceAccount tokens whose pod names none; the gateway's --token-audience.")
}

// Validate implements boot.Options.
func (o *Options) Validate() []error {
	var problems []error
	for _, required := range []struct{ flag, value string }{
		{"--control-kubeconfig", o.ControlKubeconfig},
		{"--admin-kubeconfig", o.AdminKubeconfig},
		{"--gateway-ca-file", o.GatewayCAFile},
	} {
		if required.value == "" {
			problems = append(problems, fmt.Errorf("%s: is required", required.flag))
		}
	}
	if o.TokenAudience == "" {
		problems = append(problems, errors.New("--token-audience: must not be empty: a token without an audience would be one for the control cluster itself"))
	}
	return problems
}
