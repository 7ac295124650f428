package ovnudn

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"vivarium.io/vivarium/network"
)

const simulatedFinalizer = "k8s.ovn.org/user-defined-network-protection"

// simulate stands in for OVN-Kubernetes in a pool: it is NOT OVN-Kubernetes and moves no packet. It holds networks by a
// finalizer and says that they are created, so that what is tested is the driver's side of the API.
func simulate(t *testing.T, pool network.Pool) {
	t.Helper()
	t.Log("SIMULATED: a stand-in for OVN-Kubernetes answers in this test; no packet is moved")
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if list, err := networks.In(pool).List(ctx, metav1.ListOptions{}); err == nil {
				for i := range list.Items {
					err := simulateOne(ctx, pool, &list.Items[i])
					if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
						t.Errorf("SIMULATED OVN-Kubernetes: %s: %v", list.Items[i].GetName(), err)
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

func simulateOne(ctx context.Context, pool network.Pool, o *unstructured.Unstructured) error {
	switch {
	case o.GetDeletionTimestamp() != nil:
		o.SetFinalizers(nil)
		_, err := networks.In(pool).Update(ctx, o, metav1.UpdateOptions{})
		return err
	case !slices.Contains(o.GetFinalizers(), simulatedFinalizer):
		o.SetFinalizers([]string{simulatedFinalizer})
		_, err := networks.In(pool).Update(ctx, o, metav1.UpdateOptions{})
		return err
	}
	if ready, _ := networks.Ready(o); ready {
		return nil
	}
	o.Object["status"] = map[string]any{"conditions": []any{map[string]any{
		"type": "NetworkCreated", "status": "True", "reason": "Simulated", "message": "by a stand-in", "lastTransitionTime": time.Now().UTC().Format(time.RFC3339),
	}}}
	_, err := networks.In(pool).UpdateStatus(ctx, o, metav1.UpdateOptions{})
	return err
}

// written is what OVN-Kubernetes writes on a pod of a network.
func written(pod *corev1.Pod, ips []netip.Addr) string {
	name, _, _ := strings.Cut(pod.Annotations[annotationPlan], ";")
	var own []string
	for _, ip := range ips {
		own = append(own, netip.PrefixFrom(ip, 16).String())
	}
	raw, _ := json.Marshal(map[string]any{
		"default":                  map[string]any{"ip_addresses": []string{"10.244.0.7/24"}, "ip_address": "10.244.0.7/24", "role": "infrastructure-locked"},
		pod.Namespace + "/" + name: map[string]any{"ip_addresses": own, "role": "primary", "mac_address": "0a:58:0a:14:00:09"},
	})
	return string(raw)
}

// running is what a bound pod looks like once it runs with the addresses in its network.
func running(pod *corev1.Pod, ips []netip.Addr) {
	pod.Annotations[keyGot] = written(pod, ips)
	pod.Status.PodIP, pod.Status.PodIPs = "10.244.0.7", []corev1.PodIP{{IP: "10.244.0.7"}}
}
