package kubeovn

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/internal/custom"
)

const (
	// labelExternal is an operator's word that VPCs go out by this Subnet of the pool.
	labelExternal = netkeys.Domain + "/external"
	// namespace is where a pool keeps what Kube-OVN wants a namespace for: gateways, and the Services of load balancers.
	namespace = "vivarium-kube-ovn"
)

func kind(name, plural, namespace string, ready func(*unstructured.Unstructured) (bool, string)) custom.Kind {
	return custom.Kind{
		GroupVersion: schema.GroupVersion{Group: "kubeovn.io", Version: "v1"}, Name: name, Plural: plural,
		Plugin: "Kube-OVN", Namespace: namespace, Ready: ready,
	}
}

var (
	vpcs      = kind("Vpc", "vpcs", "", truth("standby"))
	subnets   = kind("Subnet", "subnets", "", subnetReady)
	groups    = kind("SecurityGroup", "security-groups", "", truth("ingressLastSyncSuccess", "egressLastSyncSuccess"))
	gateways  = kind("VpcEgressGateway", "vpc-egress-gateways", namespace, truth("ready"))
	balancers = kind("SwitchLBRule", "switch-lb-rules", "", func(o *unstructured.Unstructured) (bool, string) {
		service, _, _ := unstructured.NestedString(o.Object, "status", "service")
		return service != "", "it has no Service yet"
	})
	// inOrder is the order in which what belongs to a VPC is removed: users before what they use.
	inOrder = []custom.Kind{balancers, gateways, subnets, vpcs, groups}
)

// truth is the readiness of a kind that says so in fields of its status.
func truth(fields ...string) func(*unstructured.Unstructured) (bool, string) {
	return func(o *unstructured.Unstructured) (bool, string) {
		for _, field := range fields {
			if yes, _, _ := unstructured.NestedBool(o.Object, "status", field); !yes {
				return false, "status." + field + " is not true"
			}
		}
		return true, ""
	}
}

func subnetReady(o *unstructured.Unstructured) (bool, string) {
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	met := map[string]bool{}
	said := "it has no condition Ready yet"
	for _, one := range conditions {
		condition, _ := one.(map[string]any)
		name, _ := condition["type"].(string)
		met[name] = condition["status"] == "True"
		if (name == "Ready" || name == "Validated") && !met[name] {
			said = fmt.Sprintf("%s: %v: %v", name, condition["reason"], condition["message"])
		}
	}
	return met["Ready"] && met["Validated"], said
}

// prune removes what a VPC does not want any more. A security group is emptied instead: a pod whose groups are all gone
// would have no filter, and one that is in an empty group is closed.
func prune(ctx context.Context, pool network.Pool, vpc *network.VPC, wants []custom.Object) error {
	for _, k := range []custom.Kind{balancers, gateways, subnets, groups} {
		list, err := custom.Ours(ctx, pool, k, vpc.UID)
		if err != nil {
			return err
		}
		for i := range list {
			o := &list[i]
			wanted := slices.ContainsFunc(wants, func(w custom.Object) bool { return w.Kind.Plural == k.Plural && w.Name == o.GetName() })
			if wanted || types.UID(o.GetLabels()[names.LabelControlUID]) != vpc.UID {
				continue
			}
			if k.Plural == groups.Plural {
				err = custom.Ensure(ctx, pool, ofVPC(vpc, groups, o.GetName(), map[string]any{"ingressRules": []any{}, "egressRules": []any{}, "allowSameGroupTraffic": false}))
			} else if err = custom.Remove(ctx, pool, k, o); err == nil {
				err = custom.Gone(ctx, pool, k, o)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// externalSubnet gives the name of the Subnet by which VPCs go out: the operator's, who marks it.
func externalSubnet(ctx context.Context, pool network.Pool) (string, error) {
	list, err := subnets.In(pool).List(ctx, metav1.ListOptions{LabelSelector: labelExternal + "=true"})
	switch {
	case apierrors.IsNotFound(err):
		return "", fmt.Errorf("%w: pool %s does not serve %s: is Kube-OVN there?", network.ErrNotReady, pool.Name, subnets.Resource())
	case err != nil:
		return "", fmt.Errorf("list %s in pool %s: %w", subnets.Resource(), pool.Name, err)
	}
	var marked []string
	for i := range list.Items {
		marked = append(marked, list.Items[i].GetName())
	}
	if len(marked) == 0 {
		return "", fmt.Errorf("%w: pool %s has no Subnet with label %s=true, which a VPC needs to reach the outside and its tenant's API",
			network.ErrCapability, pool.Name, labelExternal)
	}
	return slices.Min(marked), nil
}
