// Package netkeys is the one table of label and annotation keys by which a network plugin or a cloud chooses a pod's
// network. Whoever may set one of them on a pool's pod or namespace may join another tenant's network, so no tenant may:
// the gateway refuses them in a request, and the pod translation never passes one on.
//
// The package must never decide what a tenant's own keys mean; it only says which keys are not the tenant's to set, and how
// the four are written that are. Start at [Forbidden] and [Check].
package netkeys

import "strings"

// Domain is where the platform's own network keys live. All of it lies in the platform's domain, so names.Reserved
// covers it too.
const Domain = "network.vivarium.io"

// The only network keys that are meant for tenants: annotations of pods, of their templates and of namespaces, for tenants
// whose pods are in a VPC. values.go says what they hold; whoever acts on one checks it against the tenant's own objects.
const (
	Subnets        = Domain + "/subnets"
	IP             = Domain + "/ip"
	SecurityGroups = Domain + "/security-groups"
	Bandwidth      = Domain + "/bandwidth"
)

// UserDefinedNetwork is the label by which OVN-Kubernetes knows that the pods of a namespace have a network of their own. It
// believes it from the namespace's creation alone.
const UserDefinedNetwork = "k8s.ovn.org/primary-user-defined-network"

// OfTenant reports whether a key is one of the four that are meant for tenants.
func OfTenant(key string) bool {
	switch key {
	case Subnets, IP, SecurityGroups, Bandwidth:
		return true
	default:
		return false
	}
}

// domains belong to network plugins and clouds: every key in one of them or below it is forbidden. Whole domains and
// not single keys, because plugins add keys with every release.
var domains = map[string]bool{
	Domain: true,

	// Network plugins.
	"antrea.io":                true,
	"antrea.tanzu.vmware.com":  true,
	"cilium.io":                true,
	"cisco.com":                true,
	"cni.cncf.io":              true,
	"coil.cybozu.com":          true,
	"danm.io":                  true,
	"danm.k8s.io":              true,
	"everoute.io":              true,
	"flannel.alpha.coreos.com": true,
	"galaxy.io":                true,
	"io.cilium":                true,
	"juniper.net":              true,
	"k8s.ovn.org":              true,
	"kube-router.io":           true,
	"kubeovn.io":               true,
	"kubeslice.io":             true,
	"multus-cni.io":            true,
	"ncp":                      true,
	"network.harvesterhci.io":  true,
	"network.kubevirt.io":      true,
	"network.openshift.io":     true,
	"networkservicemesh.io":    true,
	"nsx.vmware.com":           true,
	"nuage.io":                 true,
	"opencontrail.org":         true,
	"openstack.org":            true,
	"ovn.kubernetes.io":        true,
	"panda.io":                 true,
	"pandaria.io":              true,
	"projectcalico.org":        true,
	"spidernet.io":             true,
	"submariner.io":            true,
	"tigera.io":                true,
	"weave.works":              true,

	// Clouds, whose virtual nodes and network plugins read annotations of pods.
	"alibaba.com":            true,
	"alibabacloud.com":       true,
	"aliyun.com":             true,
	"amazonaws.com":          true,
	"azure.com":              true,
	"baidu.com":              true,
	"baidubce.com":           true,
	"bci.virtual-kubelet.io": true,
	"huaweicloud.com":        true,
	"jdcloud.com":            true,
	"ksyun.com":              true,
	"networking.gke.io":      true,
	"oraclecloud.com":        true,
	"tencent.com":            true,
	"ucloud.cn":              true,
	"virtual-kubelet.io":     true,
	"virtualkubelet.io":      true,
	"volcengine.com":         true,
	"yangtse.io":             true,

	// Other systems that move pods between clusters and would act on their keys if a pool runs them too.
	"admiralty.io": true,
	"liqo.io":      true,
	"kosmos.io":    true,
}

// bare are the keys without a domain by which a plugin (CNI-Genie) lets pods choose.
var bare = map[string]bool{"cni": true, "multi-ip-preferences": true}

// kubeOVN are the keys that Kube-OVN reads under any provider's domain, "<provider>.kubernetes.io/<key>", where the
// provider is whatever a NetworkAttachmentDefinition is called.
var kubeOVN = map[string]bool{
	"aaps": true, "activation_strategy": true, "allocated": true, "cidr": true, "default_route": true,
	"dhcp-v4-options": true, "dhcp-v6-options": true, "egress_burst": true, "egress_rate": true, "eip": true,
	"gateway": true, "ingress_burst": true, "ingress_rate": true, "ip_family": true, "ip_pool": true, "jitter": true,
	"latency": true, "layer2_forward": true, "limit": true, "logical_router": true, "logical_switch": true, "loss": true,
	"mirror": true, "north_gateway": true, "pod_nic_type": true, "port_security": true,
	"port_vips": true, "provider_network": true, "routed": true, "routes": true, "security_groups": true, "snat": true,
	"vip": true, "virtualmachine": true, "vlan_id": true, "vpc": true, "vpc_cidrs": true, "vpc_nat_gw": true,
}

// Forbidden reports whether a label or annotation key chooses a network and is therefore not a tenant's to set, on pods,
// pod templates, namespaces and Services. It is false for the four keys that are meant for tenants, which
// names.Reserved still covers where they mean nothing. Case does not matter: the API server keeps the case of keys and plugins differ in how
// they compare.
func Forbidden(key string) bool {
	if OfTenant(key) {
		return false
	}
	domain, name, ok := strings.Cut(strings.ToLower(key), "/")
	if !ok {
		return bare[domain]
	}
	if within(domain, "kubernetes.io") || within(domain, "k8s.io") {
		if kubeOVN[name] || strings.HasPrefix(name, "ip_address") || strings.HasPrefix(name, "mac_address") {
			return true
		}
	}
	for {
		if domains[domain] {
			return true
		}
		_, parent, ok := strings.Cut(domain, ".")
		if !ok {
			return false
		}
		domain = parent
	}
}

func within(domain, parent string) bool {
	return domain == parent || strings.HasSuffix(domain, "."+parent)
}
