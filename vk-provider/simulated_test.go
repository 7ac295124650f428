package vkprovider_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
)

// register makes the node, ready and of a modest size.
func (k *simulatedKubelet) register(t *testing.T) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: k.node, Labels: map[string]string{corev1.LabelHostname: k.node}}}
	node, err := k.client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node.Status = corev1.NodeStatus{
		Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("256Gi"), corev1.ResourcePods: resource.MustParse("5000"),
		},
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		NodeInfo:   corev1.NodeSystemInfo{OperatingSystem: "linux", Architecture: "amd64", KubeletVersion: "v1.36.3"},
	}
	node.Status.Capacity = node.Status.Allocatable
	// A patch: the pool's own controllers write the Node at the same time.
	patch, err := json.Marshal(map[string]any{"status": node.Status})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.client.CoreV1().Nodes().PatchStatus(t.Context(), node.Name, patch); err != nil {
		t.Fatal(err)
	}
}

// heartbeat keeps the pool's own controllers from taking the node for dead, and says that it is not where they have.
func (k *simulatedKubelet) heartbeat(ctx context.Context) {
	for {
		k.beat(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Second):
		}
	}
}

func (k *simulatedKubelet) beat(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	leases, now := k.client.CoordinationV1().Leases(corev1.NamespaceNodeLease), metav1.NewMicroTime(time.Now())
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: k.node},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &k.node, LeaseDurationSeconds: ptr.To[int32](40), RenewTime: &now},
	}
	if _, err := leases.Create(ctx, lease, metav1.CreateOptions{}); err != nil {
		patch, _ := json.Marshal(map[string]any{"spec": map[string]any{"renewTime": now}})
		_, _ = leases.Patch(ctx, k.node, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	if node, err := k.client.CoreV1().Nodes().Get(ctx, k.node, metav1.GetOptions{}); err == nil && !nodeReady(node) {
		_, _ = k.client.CoreV1().Nodes().PatchStatus(ctx, k.node, []byte(`{"status":{"conditions":[{"type":"Ready","status":"True","reason":"KubeletReady"}]}}`))
	}
}

// callLimit bounds a call to a pool that may have been killed meanwhile.
const callLimit = 20 * time.Second

// run plays every pod on the node.
func (k *simulatedKubelet) run(ctx context.Context) {
	// What failed is tried again with each resync.
	factory := informers.NewSharedInformerFactoryWithOptions(k.client, time.Second, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = "spec.nodeName=" + k.node
	}))
	work := workqueue.NewTyped[cache.ObjectName]()
	notify := func(object any) {
		if pod, ok := object.(*corev1.Pod); ok {
			work.Add(cache.MetaObjectToName(pod))
		}
	}
	pods := factory.Core().V1().Pods()
	if _, err := pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: notify, UpdateFunc: func(_, o any) { notify(o) }}); err != nil {
		return
	}
	factory.Start(ctx.Done())
	var playing sync.WaitGroup
	for n := range 8 {
		playing.Go(func() {
			for {
				name, shutdown := work.Get()
				if shutdown {
					return
				}
				if pod, err := pods.Lister().Pods(name.Namespace).Get(name.Name); err == nil && !k.isPaused() {
					k.play(ctx, pod, n)
				}
				work.Done(name)
			}
		})
	}
	<-ctx.Done()
	work.ShutDown()
	playing.Wait()
	factory.Shutdown()
}

func (k *simulatedKubelet) play(ctx context.Context, pod *corev1.Pod, n int) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	switch {
	case pod.DeletionTimestamp != nil:
		if pod.Status.Phase == corev1.PodRunning {
			k.patchPod(ctx, pod, map[string]any{"phase": "Succeeded", "containerStatuses": statuses(pod, corev1.ContainerState{
				Terminated: &corev1.ContainerStateTerminated{Reason: "Completed"},
			}, false)})
		}
		_ = k.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: ptr.To[int64](0), Preconditions: metav1.NewUIDPreconditions(string(pod.UID)),
		})
	case condition(pod, corev1.PodReady) == corev1.ConditionFalse && condition(pod, corev1.ContainersReady) == corev1.ConditionTrue && len(pod.Spec.ReadinessGates) == 0:
		// The pool's controllers have taken the node for dead.
		k.patchPod(ctx, pod, map[string]any{"conditions": []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}})
	case pod.Status.Phase == corev1.PodPending:
		now := metav1.Now()
		var conditions []corev1.PodCondition
		for _, kind := range []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
			conditions = append(conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: now})
		}
		ip := fmt.Sprintf("10.1.%d.%d", n, time.Now().UnixNano()%250+1)
		k.patchPod(ctx, pod, map[string]any{
			"phase": "Running", "startTime": now, "hostIP": "10.9.9.9", "podIP": ip, "podIPs": []corev1.PodIP{{IP: ip}},
			"observedGeneration": pod.Generation, "conditions": conditions,
			"containerStatuses": statuses(pod, corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}, true),
		})
	}
}

// condition gives what a pod's condition of that type says.
func condition(pod *corev1.Pod, kind corev1.PodConditionType) corev1.ConditionStatus {
	for _, c := range pod.Status.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return corev1.ConditionUnknown
}

func statuses(pod *corev1.Pod, state corev1.ContainerState, ready bool) []corev1.ContainerStatus {
	var out []corev1.ContainerStatus
	for _, c := range pod.Spec.Containers {
		out = append(out, corev1.ContainerStatus{Name: c.Name, Image: c.Image, State: state, Ready: ready, Started: &ready, ContainerID: "simulated://" + string(pod.UID)})
	}
	return out
}
