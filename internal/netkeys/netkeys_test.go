package netkeys

import "testing"

func TestForbidden(t *testing.T) {
	cases := map[string]struct {
		reason string
		keys   []string
		want   bool
	}{
		"NetworkPlugins": {"each lets a pod choose its network", []string{
			"ovn.kubernetes.io/logical_switch", "ovn.kubernetes.io/anything", "net1.default.ovn.kubernetes.io/ip_address",
			"attach.kubernetes.io/ip_address.0", "attach.kubernetes.io/security_groups",
			"v1.multus-cni.io/default-network", "k8s.v1.cni.cncf.io/networks", "cni.cncf.io/x",
			"cni.projectcalico.org/ipAddrs", "k8s.ovn.org/primary-user-defined-network", "io.cilium.io/x", "ipam.cilium.io/ip-pool",
			"ipam.antrea.io/ippools", "kubeovn.io/x", "io.cilium/lb-ipam-ips", "net1.kubernetes.io/mac_address", "net1.kubernetes.io/mac_address.0",
			"ovn.kubernetes.io/mac_address", "cni", "multi-ip-preferences", "ncp/subnets", "danm.k8s.io/interfaces", "coil.cybozu.com/pool",
			"openstack.org/kuryr-vif", "netnamespace.network.openshift.io/multitenant.change-network", "macvlan.panda.io/subnet",
			"opflex.cisco.com/endpoint-group", "networkservicemesh.io/net", "k8s.v1.cni.galaxy.io/args", "ovs-cni.network.kubevirt.io/x",
		}, true},
		"Clouds": {"each lets a pod choose a subnet or security group of the cloud", []string{
			"k8s.aliyun.com/eci-vswitch", "k8s.aliyun.com/eci-private-ip-address", "network.alibabacloud.com/pod-networking",
			"vpc.amazonaws.com/pod-eni", "vci.volcengine.com/preferred-subnet-ids", "networking.gke.io/interfaces",
			"bci.virtual-kubelet.io/bci-subnet-id", "eks.tke.cloud.tencent.com/subnet", "networking.alibaba.com/specified-subnet",
			"kubernetes.azure.com/podnetwork", "oci.oraclecloud.com/x", "yangtse.io/security-group-ids", "k8s.ksyun.com/kci-subnet-id",
			"virtual-kubelet.io/dns-label",
		}, true},
		"Ours":          {"the binding is the platform's word", []string{"network.vivarium.io/binding", "network.vivarium.io/anything"}, true},
		"TenantKeys":    {"meant for tenants", []string{"network.vivarium.io/subnets", "network.vivarium.io/ip", "network.vivarium.io/security-groups", "network.vivarium.io/bandwidth"}, false},
		"CaseOfADomain": {"a plugin may compare without case", []string{"OVN.Kubernetes.io/logical_switch", "v1.Multus-CNI.io/default-network"}, true},
		"Ordinary": {"keys that every cluster uses", []string{
			"app", "app.kubernetes.io/name", "kubernetes.io/hostname", "kubernetes.io/ingress-bandwidth",
			"service.beta.kubernetes.io/x", "prometheus.io/scrape", "example.com/logical_switch", "sidecar.istio.io/inject",
			"notcilium.io/x", "kubectl.kubernetes.io/last-applied-configuration", "batch.kubernetes.io/job-name", "",
		}, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for _, key := range tc.keys {
				if got := Forbidden(key); got != tc.want {
					t.Errorf("Forbidden(%q) = %t, want %t: %s", key, got, tc.want, tc.reason)
				}
			}
		})
	}
}
