package state

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/network"
)

// Namespace is the pool's namespace that holds the state; charts/vivarium-pool has it.
const Namespace = "vivarium-network"

// LabelVPC is on every ConfigMap of the state: the UID of its VPC.
const LabelVPC = Domain + "/vpc"

// Domain is the domain of the driver's own keys.
const Domain = "vxlan.network.vivarium.io"

// A VPC is a ConfigMap with the VPC and each of its subnets under keys of their own, so that who writes one does not write
// another; its endpoints are in several more, so that a pod that comes does not write all of them again.
const (
	vpcKey       = "vpc"
	policiesKey  = "policies"
	subnetPrefix = "subnet-"
	endpointsKey = "endpoints"
	servicesKey  = "services"
	namePrefix   = "vpc-"
	shardInfix   = "-pods-"
	serviceInfix = "-services-"
	// shards bounds a ConfigMap's size: 16 of a megabyte each hold some 80,000 endpoints of a VPC, and as many backends of its
	// Services.
	shards = 16
)

// VPCName is the name of a VPC's ConfigMap.
func VPCName(vpc types.UID) string { return namePrefix + string(vpc) }

// SubnetKey is the key of a subnet in it.
func SubnetKey(subnet types.UID) string { return subnetPrefix + string(subnet) }

// SubnetOfKey is the inverse of [SubnetKey].
func SubnetOfKey(key string) (types.UID, bool) {
	uid, ok := strings.CutPrefix(key, subnetPrefix)
	return types.UID(uid), ok
}

// VPCData sets the VPC among the data of its ConfigMap; its subnets are not touched.
func VPCData(data map[string]string, v VPC) error {
	v.Subnets, v.Policies = nil, nil
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode VPC %s: %w", v.UID, err)
	}
	data[vpcKey] = string(raw)
	return nil
}

// SubnetData sets a subnet among the data of its VPC's ConfigMap.
func SubnetData(data map[string]string, s Subnet) error {
	raw, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode subnet %s: %w", s.UID, err)
	}
	data[SubnetKey(s.UID)] = string(raw)
	return nil
}

// PoliciesData sets the policies among the data of their VPC's ConfigMap.
func PoliciesData(data map[string]string, vpc types.UID, policies []network.Policy) error {
	if len(policies) == 0 {
		delete(data, policiesKey)
		return nil
	}
	raw, err := json.Marshal(policies)
	if err != nil {
		return fmt.Errorf("encode policies of VPC %s: %w", vpc, err)
	}
	data[policiesKey] = string(raw)
	return nil
}

// ReadVPC is the inverse of [VPCData], [PoliciesData] and [SubnetData]. What it gives is valid.
func ReadVPC(data map[string]string) (*VPC, error) {
	var v VPC
	if err := json.Unmarshal([]byte(data[vpcKey]), &v); err != nil {
		return nil, fmt.Errorf("read a VPC: %w", err)
	}
	v.Subnets, v.Policies = nil, nil
	if raw, ok := data[policiesKey]; ok {
		if err := json.Unmarshal([]byte(raw), &v.Policies); err != nil {
			return nil, fmt.Errorf("read policies of VPC %s: %w", v.UID, err)
		}
	}
	for key, value := range data {
		uid, ok := SubnetOfKey(key)
		if !ok {
			continue
		}
		var s Subnet
		if err := json.Unmarshal([]byte(value), &s); err != nil || s.UID != uid {
			return nil, fmt.Errorf("read subnet %s of VPC %s: %w", uid, v.UID, err)
		}
		v.Subnets = append(v.Subnets, s)
	}
	slices.SortFunc(v.Subnets, func(a, b Subnet) int { return strings.Compare(string(a.UID), string(b.UID)) })
	return &v, v.Validate()
}

// Shards divides endpoints into the data of ConfigMaps, by name. Which one an endpoint is in depends on its pod alone.
func Shards(vpc types.UID, endpoints []Endpoint) (map[string]map[string]string, error) {
	return divide(vpc, shardInfix, endpointsKey, endpoints, func(e *Endpoint) string { return string(e.Pod) })
}

// divide gives the data of ConfigMaps, by name, that hold a VPC's things of one kind. Which one a thing is in depends on what
// it is called by alone.
func divide[T any](vpc types.UID, infix, key string, all []T, called func(*T) string) (map[string]map[string]string, error) {
	parts := map[string][]T{}
	for i := range all {
		hash := fnv.New32a()
		_, _ = hash.Write([]byte(called(&all[i])))
		name := VPCName(vpc) + infix + strconv.Itoa(int(hash.Sum32()%shards))
		parts[name] = append(parts[name], all[i])
	}
	out := map[string]map[string]string{}
	for name, part := range parts {
		raw, err := json.Marshal(part)
		if err != nil {
			return nil, fmt.Errorf("encode %s of VPC %s: %w", key, vpc, err)
		}
		out[name] = map[string]string{key: string(raw)}
	}
	return out, nil
}

// IsShard reports whether a ConfigMap of a VPC's state holds endpoints.
func IsShard(vpc types.UID, name string) bool {
	return strings.HasPrefix(name, VPCName(vpc)+shardInfix)
}

// ReadShard is the inverse of [Shards].
func ReadShard(data map[string]string) ([]Endpoint, error) {
	var endpoints []Endpoint
	if err := json.Unmarshal([]byte(data[endpointsKey]), &endpoints); err != nil {
		return nil, fmt.Errorf("read endpoints: %w", err)
	}
	return endpoints, nil
}

// ServiceShards divides Services into the data of ConfigMaps, by name. Which one a Service is in depends on its name alone.
func ServiceShards(vpc types.UID, services []network.Service) (map[string]map[string]string, error) {
	return divide(vpc, serviceInfix, servicesKey, services, func(s *network.Service) string { return s.Namespace + "/" + s.Name })
}

// IsServiceShard reports whether a ConfigMap of a VPC's state holds Services.
func IsServiceShard(vpc types.UID, name string) bool {
	return strings.HasPrefix(name, VPCName(vpc)+serviceInfix)
}

// ReadServiceShard is the inverse of [ServiceShards]. What all of them give together is valid once [network.ValidateServices]
// has said so.
func ReadServiceShard(data map[string]string) ([]network.Service, error) {
	var services []network.Service
	if err := json.Unmarshal([]byte(data[servicesKey]), &services); err != nil {
		return nil, fmt.Errorf("read Services: %w", err)
	}
	return services, nil
}
