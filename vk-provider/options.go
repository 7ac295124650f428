package vkprovider

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	cliflag "k8s.io/component-base/cli/flag"
)

// Options are the component's flags.
type Options struct {
	ControlKubeconfig string
	AdminKubeconfig   string

	Listen       string
	NodeAddress  string
	NodePort     int32
	TLSCertFile  string
	TLSKeyFile   string
	ClientCAFile string
	ClientName   string

	MetricsListen       string
	MetricsClientCAFile string
	MetricsClientName   string

	GatewayHost string
	GatewayPort string

	LeaderElect bool
	OrphanGrace time.Duration
}

// NewOptions gives the defaults.
func NewOptions() *Options {
	return &Options{
		Listen:            "0.0.0.0:10250",
		ClientName:        "kube-apiserver-kubelet-client",
		MetricsClientName: "front-proxy-client",
		LeaderElect:       true,
		OrphanGrace:       30 * time.Second,
	}
}

// AddFlags registers the flags.
func (o *Options) AddFlags(groups *cliflag.NamedFlagSets) {
	clusters := groups.FlagSet("clusters")
	clusters.StringVar(&o.ControlKubeconfig, "control-kubeconfig", o.ControlKubeconfig, "Kubeconfig of the control cluster.")
	clusters.StringVar(&o.AdminKubeconfig, "admin-kubeconfig", o.AdminKubeconfig, "Kubeconfig of the gateway's admin API, which has the ResourcePools.")
	clusters.BoolVar(&o.LeaderElect, "leader-elect", o.LeaderElect, "Let one replica write while the others wait; every replica serves streams.")

	nodes := groups.FlagSet("virtual nodes")
	nodes.StringVar(&o.NodeAddress, "node-address", o.NodeAddress, "IP address at which the control cluster's API server reaches the kubelet API; every virtual node's InternalIP.")
	nodes.Int32Var(&o.NodePort, "node-port", o.NodePort, "Port that goes with it. 0 is the port of --listen.")

	serving := groups.FlagSet("kubelet API")
	serving.StringVar(&o.Listen, "listen", o.Listen, "Address that serves the kubelet API of every virtual node.")
	serving.StringVar(&o.TLSCertFile, "tls-cert-file", o.TLSCertFile, "Serving certificate; it must name --node-address.")
	serving.StringVar(&o.TLSKeyFile, "tls-private-key-file", o.TLSKeyFile, "Private key of the serving certificate.")
	serving.StringVar(&o.ClientCAFile, "client-ca-file", o.ClientCAFile, "Authority of the certificate that the control cluster's API server shows to kubelets.")
	serving.StringVar(&o.ClientName, "client-name", o.ClientName, "Common name of that certificate.")

	metrics := groups.FlagSet("metrics")
	metrics.StringVar(&o.MetricsListen, "metrics-listen", o.MetricsListen, "Address that serves metrics.k8s.io to the control cluster's API server, with the certificate of --tls-cert-file. Empty: not served, and `kubectl top` and autoscaling do not work.")
	metrics.StringVar(&o.MetricsClientCAFile, "metrics-client-ca-file", o.MetricsClientCAFile, "Authority of the certificate that the control cluster's API server shows to extension API servers: its --requestheader-client-ca-file.")
	metrics.StringVar(&o.MetricsClientName, "metrics-client-name", o.MetricsClientName, "Common name of that certificate.")

	pods := groups.FlagSet("pods")
	pods.StringVar(&o.GatewayHost, "gateway-host", o.GatewayHost, "Where pods find their tenant's API: KUBERNETES_SERVICE_HOST.")
	pods.StringVar(&o.GatewayPort, "gateway-port", o.GatewayPort, "Port that goes with it: KUBERNETES_SERVICE_PORT.")
	pods.DurationVar(&o.OrphanGrace, "orphan-grace", o.OrphanGrace, "Time between the two proofs that a pool pod's control pod is gone, when nobody saw it go.")
}

// Validate reports every problem.
func (o *Options) Validate() []error {
	var problems []error
	for _, required := range []struct{ flag, value string }{
		{"--control-kubeconfig", o.ControlKubeconfig},
		{"--admin-kubeconfig", o.AdminKubeconfig},
		{"--node-address", o.NodeAddress},
		{"--tls-cert-file", o.TLSCertFile},
		{"--tls-private-key-file", o.TLSKeyFile},
		{"--client-ca-file", o.ClientCAFile},
		{"--client-name", o.ClientName},
		{"--gateway-host", o.GatewayHost},
		{"--gateway-port", o.GatewayPort},
	} {
		if required.value == "" {
			problems = append(problems, errors.New(required.flag+": is required"))
		}
	}
	if o.OrphanGrace < time.Second {
		problems = append(problems, fmt.Errorf("--orphan-grace: %s is too short to be two moments", o.OrphanGrace))
	}
	if _, err := netip.ParseAddr(o.NodeAddress); err != nil && o.NodeAddress != "" {
		problems = append(problems, fmt.Errorf("--node-address: %q is not an IP address", o.NodeAddress))
	}
	if o.MetricsListen != "" && o.MetricsClientCAFile == "" {
		problems = append(problems, errors.New("--metrics-client-ca-file: is required with --metrics-listen"))
	}
	if o.MetricsListen != "" && o.MetricsClientName == "" {
		problems = append(problems, errors.New("--metrics-client-name: is required with --metrics-listen"))
	}
	if _, err := o.nodePort(); err != nil {
		problems = append(problems, err)
	}
	if _, err := parsePort(o.GatewayPort); err != nil && o.GatewayPort != "" {
		problems = append(problems, fmt.Errorf("--gateway-port: %w", err))
	}
	return problems
}

// nodePort gives the port that virtual Nodes publish.
func (o *Options) nodePort() (int32, error) {
	if o.NodePort < 0 || o.NodePort > 65535 {
		return 0, fmt.Errorf("--node-port: %d is not a port", o.NodePort)
	}
	if o.NodePort != 0 {
		return o.NodePort, nil
	}
	_, text, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return 0, fmt.Errorf("--listen: %w", err)
	}
	port, err := parsePort(text)
	if err != nil {
		return 0, fmt.Errorf("--listen: %w", err)
	}
	return port, nil
}

func parsePort(text string) (int32, error) {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("%q is not a port", text)
	}
	return int32(port), nil //nolint:gosec // 16 bits
}
