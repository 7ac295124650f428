package kubeovn

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/internal/custom"
)

const simulatedFinalizer = "kubeovn.io/kube-ovn-controller"

// simulateKubeOVN stands in for Kube-OVN's controller in a pool: it is NOT Kube-OVN and moves no packet. It fills in specs,
// sets finalizers and reports status as version 1.16 does, so that what is tested is the driver's side of the API.
func simulateKubeOVN(t *testing.T, pool network.Pool) {
	t.Helper()
	t.Log("SIMULATED: a stand-in for Kube-OVN's controller answers in this test; no packet is moved")
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			for _, k := range inOrder {
				list, err := k.In(pool).List(ctx, metav1.ListOptions{})
				if err != nil {
					continue
				}
				for i := range list.Items {
					err := simulate(ctx, pool, k, &list.Items[i])
					if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
						t.Errorf("SIMULATED Kube-OVN: %s %s: %v", k.Name, list.Items[i].GetName(), err)
					}
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// simulate does one step for one object.
func simulate(ctx context.Context, pool network.Pool, k custom.Kind, o *unstructured.Unstructured) error {
	client := k.In(pool)
	spec := func(field string) string { s, _, _ := unstructured.NestedString(o.Object, "spec", field); return s }
	exists := func(k custom.Kind, name string) bool {
		got, err := k.In(pool).Get(ctx, name, metav1.GetOptions{})
		return err == nil && got.GetDeletionTimestamp() == nil
	}
	if o.GetDeletionTimestamp() != nil {
		if k.Plural == vpcs.Plural {
			list, err := subnets.In(pool).List(ctx, metav1.ListOptions{})
			if err != nil {
				return err
			}
			for i := range list.Items {
				if vpc, _, _ := unstructured.NestedString(list.Items[i].Object, "spec", "vpc"); vpc == o.GetName() {
					return nil // not before its subnets
				}
			}
		}
		if using(o) {
			return nil
		}
		o.SetFinalizers(nil)
		_, err := client.Update(ctx, o, metav1.UpdateOptions{})
		return err
	}
	if k.Plural == subnets.Plural && spec("provider") == "" {
		if _, overlapping := o.GetLabels()[labelExternal]; !overlapping && !exists(vpcs, spec("vpc")) {
			return nil
		}
		if err := unstructured.SetNestedField(o.Object, "ovn", "spec", "provider"); err != nil {
			return err
		}
		o.SetFinalizers([]string{simulatedFinalizer})
		_, err := client.Update(ctx, o, metav1.UpdateOptions{})
		return err
	}
	if !slices.Contains(o.GetFinalizers(), simulatedFinalizer) && (k.Plural == vpcs.Plural || k.Plural == gateways.Plural) {
		o.SetFinalizers([]string{simulatedFinalizer})
		_, err := client.Update(ctx, o, metav1.UpdateOptions{})
		return err
	}
	if ready, _ := k.Ready(o); ready {
		return nil
	}
	var status map[string]any
	switch k.Plural {
	case vpcs.Plural:
		status = map[string]any{"standby": true, "router": o.GetName()}
	case subnets.Plural:
		now := time.Now().UTC().Format(time.RFC3339)
		condition := func(kind string) any {
			return map[string]any{"type": kind, "status": "True", "reason": "Simulated", "message": "", "lastUpdateTime": now, "lastTransitionTime": now}
		}
		status = map[string]any{"conditions": []any{condition("Validated"), condition("Ready")}, "v4usingIPs": int64(0), "v6usingIPs": int64(0)}
	case groups.Plural:
		for _, field := range []string{"ingressRules", "egressRules"} {
			rules, _, _ := unstructured.NestedSlice(o.Object, "spec", field)
			for _, one := range rules {
				rule, _ := one.(map[string]any)
				if remote, ok := rule["remoteSecurityGroup"].(string); ok && !exists(groups, remote) {
					return nil
				}
			}
		}
		status = map[string]any{"portGroup": "ovn.sg." + o.GetName(), "ingressLastSyncSuccess": true, "egressLastSyncSuccess": true}
	case gateways.Plural:
		if !exists(subnets, spec("internalSubnet")) || !exists(subnets, spec("externalSubnet")) || !exists(vpcs, spec("vpc")) {
			return nil
		}
		status = map[string]any{"ready": true, "phase": "Completed", "conditions": []any{}}
	case balancers.Plural:
		status = map[string]any{"service": spec("namespace") + "/slr-" + o.GetName()}
	}
	o.Object["status"] = status
	_, err := client.UpdateStatus(ctx, o, metav1.UpdateOptions{})
	return err
}

// written is what Kube-OVN writes back on a pod that it gave what it asked for.
func written(pod *corev1.Pod) map[string]string {
	planned, _ := parsePlan(pod.Annotations[annotationPlan])
	return map[string]string{
		keyAllocated: "true", keyDomain + "routed": "true", keyRouter: planned.router,
		keySwitch: pod.Annotations[keySwitch], keyAddress: pod.Annotations[keyAddress], keyMAC: pod.Annotations[keyMAC],
		keyDomain + "cidr": "10.20.0.0/24", keyDomain + "gateway": "10.20.0.1",
	}
}

// simulateCNI stands in for Kube-OVN's controller and node agent for one pod of a pool. It is NOT Kube-OVN.
func simulateCNI(t *testing.T, pool network.Pool, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": written(pod)}})
	if err != nil {
		t.Fatal(err)
	}
	pods := pool.Client.CoreV1().Pods(pod.Namespace)
	if _, err := pods.Patch(t.Context(), pod.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	var ips []string
	for ip := range strings.SplitSeq(pod.Annotations[keyAddress], ",") {
		ips = append(ips, fmt.Sprintf(`{"ip":%q}`, ip))
	}
	first, _, _ := strings.Cut(pod.Annotations[keyAddress], ",")
	status := fmt.Sprintf(`{"status":{"podIP":%q,"podIPs":[%s]}}`, first, strings.Join(ips, ","))
	got, err := pods.Patch(t.Context(), pod.Name, types.MergePatchType, []byte(status), metav1.PatchOptions{}, "status")
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// running is what a bound pod looks like in the pool once it runs with the addresses.
func running(pod *corev1.Pod, ips []netip.Addr) {
	pod.Status.PodIPs = network.PodNetworkStatus{IPs: ips}.PodIPs()
	pod.Status.PodIP = ips[0].String()
	for key, value := range written(pod) {
		pod.Annotations[key] = value
	}
}
