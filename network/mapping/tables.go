package mapping

import "vivarium.io/vivarium/api/v1alpha1"

// table says by which keys of a pod a provider is told of its network.
type table struct {
	name string
	// subnet, groups and address are annotations: the provider's IDs of the subnet and of security groups, and the pod's
	// address. A provider without such a key has an empty one, and the driver is then not capable of it.
	subnet, groups, address string
	// mostGroups bounds the groups of a pod.
	mostGroups int
	// annotations and labels are on every pod that goes into a VPC: they keep it off nodes where the rest means nothing.
	annotations, labels map[string]string
	// meanings explains each key, for the README.
	meanings map[string]string
}

// tables are the providers, by what they document of their pods' annotations.
var tables = []table{
	{
		name:   v1alpha1.DriverECI,
		subnet: "k8s.aliyun.com/eci-vswitch", groups: "k8s.aliyun.com/eci-security-group", address: "k8s.aliyun.com/eci-private-ip-address",
		mostGroups: 1,
		labels:     map[string]string{"alibabacloud.com/eci": "true"},
		meanings: map[string]string{
			"k8s.aliyun.com/eci-vswitch":            "vSwitch of the instance",
			"k8s.aliyun.com/eci-security-group":     "its security group",
			"k8s.aliyun.com/eci-private-ip-address": "its private address, IPv4",
			"alibabacloud.com/eci":                  "(label) the pod runs as an Elastic Container Instance and on no node",
		},
	},
	{
		name:   v1alpha1.DriverACS,
		subnet: "network.alibabacloud.com/vswitch-ids", groups: "network.alibabacloud.com/security-group-ids",
		mostGroups: 5,
		labels:     map[string]string{"alibabacloud.com/acs": "true"},
		meanings: map[string]string{
			"network.alibabacloud.com/vswitch-ids":        "vSwitch of the pod",
			"network.alibabacloud.com/security-group-ids": "its security groups",
			"alibabacloud.com/acs":                        "(label) the pod runs on Container Compute Service and on no node",
		},
	},
	{
		name:   v1alpha1.DriverVCI,
		subnet: "vke.volcengine.com/preferred-subnet-ids", groups: "vke.volcengine.com/security-group-ids",
		mostGroups:  5,
		annotations: map[string]string{"vke.volcengine.com/burst-to-vci": "enforce"},
		meanings: map[string]string{
			"vke.volcengine.com/preferred-subnet-ids": "subnet of the instance",
			"vke.volcengine.com/security-group-ids":   "its security groups",
			"vke.volcengine.com/burst-to-vci":         "the pod runs as a container instance and on no node",
		},
	},
}
