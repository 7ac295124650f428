package customs

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/gateway/internal/kinds"
	"vivarium.io/vivarium/internal/names"
)

// A tenant in a VPC sees its network as kinds of the group vivarium.io, which look like custom ones and have no definition
// anywhere: discovery, OpenAPI and RBAC need no more than these to treat them like any other. A tenant without a VPC has a
// stock cluster, without the group.

// networks gives the kinds of a tenant's network.
func (r *Registry) networks(id names.TenantID) []*Resource {
	if r.shared == nil {
		return nil
	}
	if t, ok := r.shared.tenants.Get(id); !ok || t.VPC == "" {
		return nil
	}
	var out []*Resource
	for _, crd := range []*apiextensionsv1.CustomResourceDefinition{vpcDefinition, subnetDefinition} {
		accepted, version := crd.Spec.Names, crd.Spec.Versions[0].Name
		out = append(out, &Resource{
			Kind:  kinds.NewNetwork(crd.Spec.Group, accepted.Plural, accepted.Kind, version, &kinds.Custom{ListKind: accepted.ListKind}),
			Names: accepted, Versions: []Version{{Name: version}}, Storage: version, Definition: crd.Name, builtIn: crd,
		})
	}
	return out
}

type property = apiextensionsv1.JSONSchemaProps

// network makes the definition of a kind.
func network(singular, kind, description string, spec, status map[string]property) *apiextensionsv1.CustomResourceDefinition {
	group := v1alpha1.GroupVersion.Group
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: names.JoinDefinition(singular+"s", group)},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: group, Scope: apiextensionsv1.ClusterScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: singular + "s", Singular: singular, Kind: kind, ListKind: kind + "List"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: v1alpha1.GroupVersion.Version, Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &property{
					Type: "object", Description: description, Properties: map[string]property{
						"apiVersion": text("Version of this representation of the object."),
						"kind":       text("Kind of the object."),
						"metadata":   {Type: "object"},
						"spec":       {Type: "object", Description: "What the operator has set up.", Properties: spec},
						"status":     {Type: "object", Description: "What the platform reports.", Properties: status},
					},
				}},
			}},
		},
	}
}

func text(description string) property { return property{Type: "string", Description: description} }

func number(description string) property {
	return property{Type: "integer", Format: "int64", Description: description}
}

func list(description string, of property) property {
	return property{Type: "array", Description: description, Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &of}}
}

func texts(description string) property { return list(description, property{Type: "string"}) }

func conditions() property {
	return list("Ready says whether pods can have it.", property{Type: "object", Properties: map[string]property{
		"type": text("Ready."), "status": text("True, False or Unknown."), "reason": text("Why, in one word."), "message": text("Always empty."),
		"observedGeneration": number("Generation of spec that the condition is about."),
		"lastTransitionTime": {Type: "string", Format: "date-time", Description: "When status changed last."},
	}})
}

func rules(description string) property {
	return list(description, property{Type: "object", Properties: map[string]property{
		"protocol": text("TCP, UDP or ICMP; everything if it is not there."),
		"ports":    texts("Ports of the receiver, or ranges of them; all if there are none."),
		"cidrs":    texts("The other ends that are meant, by address."),
		"groups":   texts("The other ends that are meant, as members of security groups."),
	}})
}

var vpcDefinition = network("vpc", "VPC",
	"VPC is the private network of this cluster's pods. Only they can join it, wherever they run. It is the operator's to change.",
	map[string]property{
		"cidrs":  texts("Prefixes that hold those of every subnet."),
		"mtu":    {Type: "integer", Format: "int32", Description: "Largest packet; the platform's choice if it is not there."},
		"egress": text("SharedNAT: pods reach what is outside under an address of their node. None: they do not."),
		"securityGroups": list("Filters that pods can ask for by the annotation network.vivarium.io/security-groups.", property{Type: "object", Properties: map[string]property{
			"name": text("Name to ask for."), "ingress": rules("What the group's pods may receive."), "egress": rules("What the group's pods may send."),
		}}),
	},
	map[string]property{"conditions": conditions()})

var subnetDefinition = network("subnet", "Subnet",
	"Subnet is a part of the VPC that pods have addresses of. Pods and namespaces ask for subnets by the annotation network.vivarium.io/subnets.",
	map[string]property{
		"vpc":      text("VPC that the subnet is a part of."),
		"cidrs":    texts("One prefix of IPv4, of IPv6 or of each."),
		"zone":     text("Zone that the subnet is limited to; none if it is not there."),
		"gateway":  texts("Address of the router, for each of cidrs."),
		"reserved": texts("Addresses, ranges and prefixes that no pod is given."),
	},
	map[string]property{
		"total":      number("Addresses that there are for pods."),
		"used":       number("Addresses that are taken, those in quarantine included."),
		"conditions": conditions(),
	})
