package offers

import (
	"encoding/json"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/internal/names"
)

// The kinds of tenants' networks. They are the admin API's: each object is one tenant's, which sees it under the name
// without its prefix and without what is the operator's: who made it, how it fares in which pool, its segment's number.
var (
	VPCs    = Kind{v1alpha1.GroupVersion.Group, v1alpha1.GroupVersion.Version, "vpcs", "VPC"}
	Subnets = Kind{v1alpha1.GroupVersion.Group, v1alpha1.GroupVersion.Version, "subnets", "Subnet"}
)

// networkColumns are the columns of their tables. Those of the admin API's are for operators.
var networkColumns = map[string]string{
	VPCs.Kind: `[{"name":"Name","type":"string","format":"name","description":"Name of the VPC.","priority":0},
		{"name":"CIDRs","type":"string","format":"","description":"Prefixes of the VPC.","priority":0},
		{"name":"Egress","type":"string","format":"","description":"How pods reach what is outside of the VPC.","priority":0},
		{"name":"Ready","type":"string","format":"","description":"Whether pods can have it everywhere.","priority":0},
		{"name":"Age","type":"string","format":"","description":"Time since the VPC was made.","priority":0},
		{"name":"Groups","type":"string","format":"","description":"Security groups that pods can ask for.","priority":1}]`,
	Subnets.Kind: `[{"name":"Name","type":"string","format":"name","description":"Name of the subnet.","priority":0},
		{"name":"VPC","type":"string","format":"","description":"VPC that the subnet is a part of.","priority":0},
		{"name":"CIDRs","type":"string","format":"","description":"Prefixes of the subnet.","priority":0},
		{"name":"Used","type":"integer","format":"","description":"Addresses that are taken or in quarantine.","priority":0},
		{"name":"Total","type":"integer","format":"","description":"Addresses that there are for pods.","priority":0},
		{"name":"Ready","type":"string","format":"","description":"Whether pods can have it everywhere.","priority":0},
		{"name":"Age","type":"string","format":"","description":"Time since the subnet was made.","priority":0},
		{"name":"Zone","type":"string","format":"","description":"Zone that the subnet is limited to.","priority":1}]`,
}

// shown is what a tenant sees of every network object. What is not listed here and below stays with the operator.
type shown struct {
	Kind       string        `json:"kind"`
	APIVersion string        `json:"apiVersion"`
	Metadata   shownMetadata `json:"metadata"`
	Spec       any           `json:"spec"`
	Status     any           `json:"status"`
}

type shownMetadata struct {
	Name              string       `json:"name"`
	UID               types.UID    `json:"uid"`
	ResourceVersion   string       `json:"resourceVersion"`
	Generation        int64        `json:"generation,omitempty"`
	CreationTimestamp metav1.Time  `json:"creationTimestamp"`
	DeletionTimestamp *metav1.Time `json:"deletionTimestamp,omitempty"`
}

type shownVPC struct {
	CIDRs          []string            `json:"cidrs"`
	MTU            int32               `json:"mtu,omitempty"`
	Egress         v1alpha1.EgressMode `json:"egress,omitempty"`
	SecurityGroups []shownGroup        `json:"securityGroups,omitempty"`
}

type shownGroup struct {
	Name    string      `json:"name"`
	Ingress []shownRule `json:"ingress,omitempty"`
	Egress  []shownRule `json:"egress,omitempty"`
}

type shownRule struct {
	Protocol v1alpha1.Protocol `json:"protocol,omitempty"`
	Ports    []string          `json:"ports,omitempty"`
	CIDRs    []string          `json:"cidrs,omitempty"`
	Groups   []string          `json:"groups,omitempty"`
}

func shownRules(rules []v1alpha1.SecurityRule) []shownRule {
	var out []shownRule
	for _, r := range rules {
		out = append(out, shownRule{r.Protocol, r.Ports, r.CIDRs, r.Groups})
	}
	return out
}

type shownSubnet struct {
	VPC      string   `json:"vpc"`
	CIDRs    []string `json:"cidrs"`
	Zone     string   `json:"zone,omitempty"`
	Gateway  []string `json:"gateway,omitempty"`
	Reserved []string `json:"reserved,omitempty"`
}

type shownVPCStatus struct {
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

type shownSubnetStatus struct {
	Total      int64              `json:"total"`
	Used       int64              `json:"used"`
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// presentNetwork makes an Object of a row with a VPC or a Subnet in it.
func presentNetwork(kind string, row *jsonwire.Value) (*Object, error) {
	raw := row.Get("object").Append(nil)
	switch kind {
	case VPCs.Kind:
		var v v1alpha1.VPC
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, fmt.Errorf("read a VPC: %w", err)
		}
		conditions := forTenant(v.Status.Conditions)
		spec := shownVPC{CIDRs: v.Spec.CIDRs, MTU: v.Spec.MTU, Egress: v.Spec.Egress}
		var groups []string
		for _, g := range v.Spec.SecurityGroups {
			groups = append(groups, g.Name)
			spec.SecurityGroups = append(spec.SecurityGroups, shownGroup{g.Name, shownRules(g.Ingress), shownRules(g.Egress)})
		}
		return newNetwork(kind, &v.ObjectMeta, spec, shownVPCStatus{conditions},
			strings.Join(v.Spec.CIDRs, ","), string(v.Spec.Egress), readiness(conditions), "", strings.Join(groups, ","))
	default:
		var s v1alpha1.Subnet
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, fmt.Errorf("read a subnet: %w", err)
		}
		_, vpc, ok := names.SplitNamespace(names.ControlNamespace(s.Spec.VPC))
		if !ok {
			return nil, fmt.Errorf("subnet %q is of VPC %q", s.Name, s.Spec.VPC)
		}
		conditions := forTenant(s.Status.Conditions)
		spec := shownSubnet{string(vpc), s.Spec.CIDRs, s.Spec.Zone, s.Spec.Gateway, s.Spec.Reserved}
		return newNetwork(kind, &s.ObjectMeta, spec, shownSubnetStatus{s.Status.Total, s.Status.Used, conditions},
			string(vpc), strings.Join(s.Spec.CIDRs, ","), s.Status.Used, s.Status.Total, readiness(conditions), "", s.Spec.Zone)
	}
}

func newNetwork(kind string, object *metav1.ObjectMeta, spec, status any, cells ...any) (*Object, error) {
	owner, label, ok := names.SplitNamespace(names.ControlNamespace(object.Name))
	if !ok {
		return nil, fmt.Errorf("%s %q is no tenant's", kind, object.Name)
	}
	o := &Object{Name: object.Name, TenantName: string(label), network: true, owner: owner, Created: object.CreationTimestamp.Time}
	if _, err := fmt.Sscan(object.ResourceVersion, &o.Version); err != nil {
		return nil, fmt.Errorf("%s %q: resource version: %w", kind, object.Name, err)
	}
	raw, err := json.Marshal(shown{
		Kind: kind, APIVersion: v1alpha1.GroupVersion.String(), Spec: spec, Status: status,
		Metadata: shownMetadata{o.TenantName, object.UID, object.ResourceVersion, object.Generation, object.CreationTimestamp, object.DeletionTimestamp},
	})
	if err != nil {
		return nil, fmt.Errorf("write %s %q: %w", kind, object.Name, err)
	}
	o.JSON = raw
	for _, cell := range append([]any{o.TenantName}, cells...) {
		text, err := json.Marshal(cell)
		if err != nil {
			return nil, fmt.Errorf("write %s %q: %w", kind, object.Name, err)
		}
		o.Cells = append(o.Cells, text)
	}
	return o, nil
}

// forTenant leaves of conditions what they say without their message, which is for operators and names pools.
func forTenant(conditions []metav1.Condition) []metav1.Condition {
	out := make([]metav1.Condition, len(conditions))
	for i, c := range conditions {
		c.Message = ""
		out[i] = c
	}
	return out
}

func readiness(conditions []metav1.Condition) string {
	if c := meta.FindStatusCondition(conditions, v1alpha1.VPCReady); c != nil {
		if c.Status != metav1.ConditionTrue {
			return c.Reason
		}
		return string(c.Status)
	}
	return string(metav1.ConditionUnknown)
}
