package translate

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"vivarium.io/vivarium/internal/names"
)

// Kinds whose objects are small, or whose translation goes another way than that of pods.

var sampleTime = metav1.NewTime(time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC))

// sampleMeta is the metadata of an object that a client applied and a controller touched.
func sampleMeta(name string, n int, fields ...string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{
		Name: name, Namespace: "zq7x9k-default", UID: "2f1c9a54-7c0b-4a5e-9d55-0a7b00000001", ResourceVersion: fmt.Sprint(4711 + n),
		CreationTimestamp: sampleTime, Labels: map[string]string{"app.kubernetes.io/name": "web", "app.kubernetes.io/instance": fmt.Sprintf("web-%d", n)},
	}
	for _, f := range fields {
		m.ManagedFields = append(m.ManagedFields, metav1.ManagedFieldsEntry{
			Manager: "kube-controller-manager", Operation: "Update", APIVersion: "v1", Time: &sampleTime,
			FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: []byte(f)},
		})
	}
	return m
}

func sampleServices(b testing.TB, count int) sample {
	var list corev1.ServiceList
	single, cluster := corev1.IPFamilyPolicySingleStack, corev1.ServiceInternalTrafficPolicyCluster
	for i := range count {
		list.Items = append(list.Items, corev1.Service{
			ObjectMeta: sampleMeta(fmt.Sprintf("web-%d", i), i, `{"f:metadata":{"f:labels":{".":{},"f:app.kubernetes.io/instance":{},"f:app.kubernetes.io/name":{}}},"f:spec":{"f:internalTrafficPolicy":{},"f:ports":{".":{},"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:name":{},"f:port":{},"f:protocol":{},"f:targetPort":{}}},"f:selector":{},"f:sessionAffinity":{},"f:type":{}}}`),
			Spec: corev1.ServiceSpec{
				Ports:    []corev1.ServicePort{{Name: "http", Protocol: "TCP", Port: 80, TargetPort: intstr.FromString("http")}},
				Selector: map[string]string{"app.kubernetes.io/name": "web"}, ClusterIP: "10.96.12.7", ClusterIPs: []string{"10.96.12.7"}, Type: "ClusterIP",
				SessionAffinity: "None", IPFamilies: []corev1.IPFamily{"IPv4"}, IPFamilyPolicy: &single, InternalTrafficPolicy: &cluster,
			},
		})
	}
	k := Kind{Version: "v1", Resource: "services", Kind: "Service", Namespaced: true}
	return sampleOf(b, k, &list, schema.GroupVersionKind{Version: "v1", Kind: "ServiceList"})
}

func sampleEvents(b testing.TB, count int) sample {
	var list corev1.EventList
	for i := range count {
		name := fmt.Sprintf("web-5d8c7b9f4-%05d", i)
		m := sampleMeta(name+".18f4b2c3d4e5f607", i, `{"f:count":{},"f:firstTimestamp":{},"f:involvedObject":{},"f:lastTimestamp":{},"f:message":{},"f:reason":{},"f:reportingComponent":{},"f:source":{"f:component":{}},"f:type":{}}`)
		m.Labels = nil
		list.Items = append(list.Items, corev1.Event{
			ObjectMeta: m, Reason: "Pulled", Message: `Container image "vivarium.test/echo:v1" already present on machine`, Type: "Normal", Count: 1,
			InvolvedObject: corev1.ObjectReference{
				Kind: "Pod", Namespace: "zq7x9k-default", Name: name, UID: "2f1c9a54-7c0b-4a5e-9d55-0a7b00000001", APIVersion: "v1", ResourceVersion: "4711",
				FieldPath: "spec.containers{web}",
			},
			Source: corev1.EventSource{Component: "kubelet", Host: "pool-a-0"}, FirstTimestamp: sampleTime, LastTimestamp: sampleTime, ReportingController: "kubelet", ReportingInstance: "pool-a-0",
		})
	}
	k := Kind{Version: "v1", Resource: "events", Kind: "Event", Namespaced: true}
	return sampleOf(b, k, &list, schema.GroupVersionKind{Version: "v1", Kind: "EventList"})
}

func sampleSlices(b testing.TB, count int) sample {
	var list discoveryv1.EndpointSliceList
	ready, name, port, protocol := true, "http", int32(8080), corev1.ProtocolTCP
	for i := range count {
		s := discoveryv1.EndpointSlice{
			ObjectMeta:  sampleMeta(fmt.Sprintf("web-%d-x7k2p", i), i, `{"f:addressType":{},"f:endpoints":{},"f:metadata":{"f:annotations":{".":{},"f:endpoints.kubernetes.io/last-change-trigger-time":{}},"f:generateName":{},"f:labels":{".":{},"f:endpointslice.kubernetes.io/managed-by":{},"f:kubernetes.io/service-name":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"b5d7c1de-02fb-4f53-8a1c-ff7b3d3c3f10\"}":{}}},"f:ports":{}}`),
			AddressType: "IPv4", Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &protocol}},
		}
		s.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: fmt.Sprintf("web-%d", i), UID: "b5d7c1de-02fb-4f53-8a1c-ff7b3d3c3f10", Controller: &ready}}
		for j := range 5 {
			node := fmt.Sprintf("pool-a-%d", j)
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{fmt.Sprintf("10.9.0.%d", j)}, Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &ready}, NodeName: &node,
				TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "zq7x9k-default", Name: fmt.Sprintf("web-5d8c7b9f4-%05d", j), UID: "2f1c9a54-7c0b-4a5e-9d55-0a7b00000001"},
			})
		}
		list.Items = append(list.Items, s)
	}
	k := Kind{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices", Kind: "EndpointSlice", Namespaced: true}
	return sampleOf(b, k, &list, schema.GroupVersionKind{Group: "discovery.k8s.io", Version: "v1", Kind: "EndpointSliceList"})
}

func sampleNamespaces(b testing.TB, count int) sample {
	var list corev1.NamespaceList
	for i := range count {
		m := sampleMeta(fmt.Sprintf("zq7x9k-team-%d", i), i, `{"f:metadata":{"f:labels":{".":{},"f:kubernetes.io/metadata.name":{}}}}`)
		m.Namespace, m.Labels["kubernetes.io/metadata.name"] = "", m.Name
		list.Items = append(list.Items, corev1.Namespace{ObjectMeta: m, Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{"kubernetes"}}, Status: corev1.NamespaceStatus{Phase: "Active"}})
	}
	k := Kind{Version: "v1", Resource: "namespaces", Kind: "Namespace"}
	return sampleOf(b, k, &list, schema.GroupVersionKind{Version: "v1", Kind: "NamespaceList"})
}

func sampleNodes(b testing.TB, count int) sample {
	var list corev1.NodeList
	for i := range count {
		m := sampleMeta(fmt.Sprintf("pool-a-%d", i), i, `{"f:metadata":{"f:labels":{".":{},"f:kubernetes.io/arch":{},"f:kubernetes.io/hostname":{},"f:kubernetes.io/os":{}}}}`, `{"f:status":{"f:allocatable":{},"f:capacity":{},"f:conditions":{},"f:nodeInfo":{}}}`)
		m.Namespace, m.Labels["kubernetes.io/hostname"], m.Labels["kubernetes.io/arch"] = "", m.Name, "amd64"
		m.Labels[names.LabelPool] = "pool-a"
		n := corev1.Node{ObjectMeta: m}
		n.Status.Capacity = corev1.ResourceList{"cpu": resource.MustParse("8"), "memory": resource.MustParse("32Gi"), "pods": resource.MustParse("110")}
		n.Status.Allocatable = n.Status.Capacity
		for _, c := range []string{"MemoryPressure", "DiskPressure", "PIDPressure", "Ready"} {
			n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{
				Type: corev1.NodeConditionType(c), Status: "False", LastHeartbeatTime: sampleTime, LastTransitionTime: sampleTime,
				Reason: "KubeletHas", Message: "kubelet has sufficient of everything",
			})
		}
		n.Status.NodeInfo = corev1.NodeSystemInfo{KernelVersion: "6.12.0", OSImage: "Debian", ContainerRuntimeVersion: "containerd://2.2.0", KubeletVersion: "v1.36.3", OperatingSystem: "linux", Architecture: "amd64"}
		list.Items = append(list.Items, n)
	}
	k := Kind{Version: "v1", Resource: "nodes", Kind: "Node"}
	return sampleOf(b, k, &list, schema.GroupVersionKind{Version: "v1", Kind: "NodeList"})
}
