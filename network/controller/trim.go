package controller

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/services"
)

// What follows keeps of the objects that are watched what is asked of them, and nothing else: of tenants no credentials,
// of pods no specs.

func tenants(o *metav1.ListOptions) { o.LabelSelector = names.LabelTenant }

func virtual(o *metav1.ListOptions) { o.LabelSelector = names.LabelPool }

// bound leaves out pods that no scheduler has placed yet.
func bound(o *metav1.ListOptions) {
	o.FieldSelector = fields.OneTermNotEqualSelector("spec.nodeName", "").String()
}

func trimTenant(object any) (any, error) {
	tenant, ok := object.(*v1alpha1.Tenant)
	if !ok {
		return object, nil
	}
	return &v1alpha1.Tenant{
		ObjectMeta: metav1.ObjectMeta{Name: tenant.Name, UID: tenant.UID, ResourceVersion: tenant.ResourceVersion},
		Spec:       v1alpha1.TenantSpec{Network: tenant.Spec.Network},
	}, nil
}

func trimNode(object any) (any, error) {
	node, ok := object.(*corev1.Node)
	if !ok {
		return object, nil
	}
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node.Name, UID: node.UID, ResourceVersion: node.ResourceVersion, Labels: node.Labels}}, nil
}

func trimPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	small := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
			Labels: pod.Labels, Annotations: pod.Annotations, DeletionTimestamp: pod.DeletionTimestamp, OwnerReferences: pod.OwnerReferences,
		},
		Spec: corev1.PodSpec{
			NodeName: pod.Spec.NodeName, Containers: namedPorts(pod.Spec.Containers), InitContainers: namedPorts(pod.Spec.InitContainers),
		},
		Status: corev1.PodStatus{Phase: pod.Status.Phase},
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == network.PodReady {
			small.Status.Conditions = []corev1.PodCondition{c}
		}
	}
	return small, nil
}

// namedPorts keeps of containers the ports that policies can name.
func namedPorts(containers []corev1.Container) []corev1.Container {
	var out []corev1.Container
	for i := range containers {
		small := corev1.Container{RestartPolicy: containers[i].RestartPolicy}
		for _, port := range containers[i].Ports {
			if port.Name != "" {
				small.Ports = append(small.Ports, corev1.ContainerPort{Name: port.Name, Protocol: port.Protocol, ContainerPort: port.ContainerPort})
			}
		}
		if len(small.Ports) > 0 {
			out = append(out, small)
		}
	}
	return out
}

func trimPolicy(object any) (any, error) {
	policy, ok := object.(*networkingv1.NetworkPolicy)
	if !ok {
		return object, nil
	}
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: policy.Namespace, Name: policy.Name, UID: policy.UID, ResourceVersion: policy.ResourceVersion, Generation: policy.Generation},
		Spec:       policy.Spec,
	}, nil
}

func trimService(object any) (any, error) {
	if service, ok := object.(*corev1.Service); ok {
		return services.TrimService(service), nil
	}
	return object, nil
}

func trimSlice(object any) (any, error) {
	if slice, ok := object.(*discoveryv1.EndpointSlice); ok {
		return services.TrimSlice(slice), nil
	}
	return object, nil
}

// tenantIndex is by the tenant that a namespace's name says.
func tenantIndex(object any) ([]string, error) {
	if o, ok := object.(metav1.Object); ok {
		if id, _, ok := names.SplitNamespace(names.ControlNamespace(o.GetNamespace())); ok {
			return []string{string(id)}, nil
		}
	}
	return nil, nil
}

func uidIndex(object any) ([]string, error) {
	if o, ok := object.(metav1.Object); ok {
		return []string{string(o.GetUID())}, nil
	}
	return nil, nil
}

func vpcIndex(object any) ([]string, error) {
	if subnet, ok := object.(*v1alpha1.Subnet); ok {
		return []string{subnet.Spec.VPC}, nil
	}
	return nil, nil
}
