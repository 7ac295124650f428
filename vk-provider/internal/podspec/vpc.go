package podspec

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/network"
)

// InVPC is what a pod sees of the VPC that it is in, all of it decided before the pool pod exists.
type InVPC struct {
	// IPs are the pod's addresses.
	IPs []string
	// Hidden is true where the address that the pool has for the pod is another one, which no container may learn: it leads
	// nowhere from inside.
	Hidden bool
	// Resolver answers DNS questions in the VPC, for the tenant's names too; empty where nobody does.
	Resolver string
}

const (
	// HostsAnnotation carries the file /etc/hosts of a pod whose address a kubelet does not know.
	HostsAnnotation = netkeys.Domain + "/hosts"
	hostsVolume     = "vivarium-hosts"
	hostsPath       = "/etc/hosts"
)

// noResolver is the name server of a pod that has none: nobody answers there, so that a name fails at once and not after
// a wait. The pool's own would tell of the pool, and is behind the wall around the VPC.
const noResolver = "127.0.0.1"

// dns gives the resolver's set-up. In a flat network the cluster that ClusterFirst means is the tenant's, which has no
// resolver yet, and the pool's would answer with the pool's Services; so the pod gets the resolver of the node it lands on:
// names outside work, cluster names do not. In a VPC the node's is as far away as the pool's, so everything is written out.
func (t *translator) dns(in *corev1.PodSpec) (corev1.DNSPolicy, *corev1.PodDNSConfig) {
	switch {
	case in.DNSPolicy == corev1.DNSNone:
		return corev1.DNSNone, in.DNSConfig
	case t.at.VPC == nil:
		return corev1.DNSDefault, in.DNSConfig
	}
	config := &corev1.PodDNSConfig{}
	if t.at.VPC.Resolver != "" {
		config.Nameservers = []string{t.at.VPC.Resolver}
		if in.DNSPolicy != corev1.DNSDefault {
			config.Searches = []string{string(t.at.Namespace) + ".svc." + network.ClusterDomain, "svc." + network.ClusterDomain, network.ClusterDomain}
			ndots := "5"
			config.Options = []corev1.PodDNSConfigOption{{Name: "ndots", Value: &ndots}}
		}
	}
	if asked := in.DNSConfig; asked != nil {
		// As a kubelet merges them: what the pod says is added, and wins where it names the same option.
		config.Nameservers = appendNew(config.Nameservers, asked.Nameservers)
		config.Searches = appendNew(config.Searches, asked.Searches)
		for _, option := range asked.Options {
			config.Options = slices.DeleteFunc(config.Options, func(o corev1.PodDNSConfigOption) bool { return o.Name == option.Name })
		}
		config.Options = append(config.Options, asked.Options...)
	}
	if len(config.Nameservers) == 0 {
		config.Nameservers = []string{noResolver}
	}
	return corev1.DNSNone, config
}

func appendNew(list, more []string) []string {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// hosts mounts a hosts file of ours in every container that does not bring its own. A kubelet would write one with the
// address that it knows. The file is read-only, and ephemeral containers do not have it: no volume can be mounted there in
// part.
func (t *translator) hosts(out *corev1.PodSpec) {
	if t.at.VPC == nil || !t.at.VPC.Hidden {
		return
	}
	volume := hostsVolume
	for slices.ContainsFunc(out.Volumes, func(v corev1.Volume) bool { return v.Name == volume }) {
		volume += "-x"
	}
	t.fields[HostsAnnotation] = t.hostsFile()
	out.Volumes = append(out.Volumes, corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
		Items: []corev1.DownwardAPIVolumeFile{{
			Path: "hosts", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.annotations['" + HostsAnnotation + "']"},
		}},
	}}})
	for _, containers := range [][]corev1.Container{out.InitContainers, out.Containers} {
		for i := range containers {
			c := &containers[i]
			if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == hostsPath }) {
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: volume, MountPath: hostsPath, SubPath: "hosts", ReadOnly: true})
			}
		}
	}
}

// hostsFile spells the file as a kubelet does.
func (t *translator) hostsFile() string {
	spec := &t.control.Spec
	host := t.control.Name
	if spec.Hostname != "" {
		host = spec.Hostname
	}
	// What a pod with a subdomain is called in full, where somebody answers for such names. An override stands alone.
	var domain string
	if spec.Subdomain != "" && t.at.VPC.Resolver != "" {
		domain = "." + spec.Subdomain + "." + string(t.at.Namespace) + ".svc." + network.ClusterDomain
	}
	if spec.HostnameOverride != nil {
		host, domain = *spec.HostnameOverride, ""
	}
	if len(host) > 63 {
		host = strings.TrimRight(host[:63], "-.")
	}
	var b strings.Builder
	b.WriteString("# Kubernetes-managed hosts file.\n" +
		"127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\n" +
		"fe00::\tip6-mcastprefix\n" +
		"fe00::1\tip6-allnodes\n" +
		"fe00::2\tip6-allrouters\n")
	for _, ip := range t.at.VPC.IPs {
		b.WriteString(ip + "\t")
		if domain != "" {
			b.WriteString(host + domain + "\t")
		}
		b.WriteString(host + "\n")
	}
	if len(spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, alias := range spec.HostAliases {
			b.WriteString(alias.IP + "\t" + strings.Join(alias.Hostnames, "\t") + "\n")
		}
	}
	return b.String()
}
