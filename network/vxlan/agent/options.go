//go:build linux

package agent

import (
	"fmt"
	"net/netip"

	cliflag "k8s.io/component-base/cli/flag"

	"vivarium.io/vivarium/internal/ranges"
	"vivarium.io/vivarium/network/vxlan/internal/resolver"
)

// Options are the agent's flags.
type Options struct {
	// Kubeconfig is a file: the pool, as whoever may read the ConfigMaps of one namespace. Empty in a pod.
	Kubeconfig string
	// TunnelAddress is the node's, which the tunnels of other nodes lead to.
	TunnelAddress string
	// Dir is where agent and plugin keep what is on the node.
	Dir string
	// Plugins is the directory of the stock CNI plugins.
	Plugins string
	// Protected and Allowed are ranges that pods never reach, and that they do although they are nobody's public addresses.
	Protected, Allowed []string
	// DNSUpstream are the name servers that pods of VPCs with egress are answered by for names outside of their cluster.
	DNSUpstream []string
	// ConfigFrom and ConfigTo are the network configuration for the runtime, and where it looks for one.
	ConfigFrom, ConfigTo string
}

// NewOptions gives the defaults.
func NewOptions() *Options { return &Options{Dir: "/run/vivarium-vpc", Plugins: "/opt/cni/bin"} }

// AddFlags implements boot.Options.
func (o *Options) AddFlags(groups *cliflag.NamedFlagSets) {
	node := groups.FlagSet("node")
	node.StringVar(&o.Kubeconfig, "kubeconfig", o.Kubeconfig, "Kubeconfig of the pool. Without it the agent's pod's own ServiceAccount is used.")
	node.StringVar(&o.TunnelAddress, "tunnel-address", o.TunnelAddress, "Address of this node that other nodes reach it by. Required.")
	node.StringVar(&o.Dir, "dir", o.Dir, "Directory of the state that agent and network plugin share. It has to be empty after a boot, as under /run.")
	node.StringVar(&o.Plugins, "plugins", o.Plugins, "Directory of the stock network plugins bridge, static and host-local.")
	node.StringSliceVar(&o.Protected, "protected", o.Protected, "Ranges that pods of VPCs never reach: nodes, pods and Services of the pool. Private and special ranges are closed already.")
	node.StringSliceVar(&o.Allowed, "allowed", o.Allowed, "Private ranges that pods of VPCs with egress may reach all the same.")
	node.StringSliceVar(&o.DNSUpstream, "dns-upstream", o.DNSUpstream, "Name servers (ADDRESS or ADDRESS:PORT) for names outside of tenants' clusters, asked from this node in this order, on behalf of VPCs with egress. Tenants learn what these know. Without any, there are no names outside.")
	node.StringVar(&o.ConfigFrom, "network-config", o.ConfigFrom, "Network configuration (.conflist) for the container runtime, put in place once this node is guarded.")
	node.StringVar(&o.ConfigTo, "network-config-path", o.ConfigTo, "Where the container runtime looks for it.")
}

// Validate implements boot.Options.
func (o *Options) Validate() []error {
	var problems []error
	if addr, err := netip.ParseAddr(o.TunnelAddress); err != nil || !addr.IsGlobalUnicast() {
		problems = append(problems, fmt.Errorf("--tunnel-address: %q is no address of a node", o.TunnelAddress))
	}
	if o.Dir == "" {
		problems = append(problems, fmt.Errorf("--dir: is required"))
	}
	if (o.ConfigFrom == "") != (o.ConfigTo == "") {
		problems = append(problems, fmt.Errorf("--network-config, --network-config-path: come together"))
	}
	if _, err := o.upstream(); err != nil {
		problems = append(problems, fmt.Errorf("--dns-upstream: %w", err))
	}
	for flag, list := range map[string][]string{"--protected": o.Protected, "--allowed": o.Allowed} {
		if _, err := ranges.ParsePrefixes(list); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", flag, err))
		}
	}
	return problems
}

// upstream reads the name servers.
func (o *Options) upstream() (resolver.Upstream, error) {
	var out resolver.Upstream
	for _, text := range o.DNSUpstream {
		at, err := netip.ParseAddrPort(text)
		if addr, bare := netip.ParseAddr(text); bare == nil {
			at, err = netip.AddrPortFrom(addr, 53), nil
		}
		if err != nil || at.Port() == 0 {
			return out, fmt.Errorf("%q is no address of a name server", text)
		}
		out.Servers = append(out.Servers, at)
	}
	return out, nil
}
