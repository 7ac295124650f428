package nodes

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/vk-provider/internal/capacity"
)

// annotationLabels remembers which labels of a Node are ours to remove.
const annotationLabels = names.Domain + "/applied-labels"

// heartbeatEvery is how often an unchanged status is written all the same, as kubelets do.
const heartbeatEvery = 5 * time.Minute

// place is where a virtual Node's kubelet API is.
type place struct {
	address string
	port    int32
}

// shell gives the metadata and spec of a virtual Node: those of the one that is there, with our part changed.
func shell(there *corev1.Node, want capacity.Node, h health, now metav1.Time) *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: want.Name}}
	if there != nil {
		node = there.DeepCopy()
	}
	if node.Labels == nil {
		node.Labels = map[string]string{}
	}
	if node.Annotations == nil {
		node.Annotations = map[string]string{}
	}
	for _, key := range strings.Split(node.Annotations[annotationLabels], ",") {
		delete(node.Labels, key)
	}
	maps.Copy(node.Labels, want.Labels)
	node.Annotations[annotationLabels] = strings.Join(slices.Sorted(maps.Keys(want.Labels)), ",")
	if want.PoolNode != "" {
		node.Annotations[capacity.AnnotationPoolNode] = want.PoolNode
	}
	if h.known {
		node.Spec.Unschedulable = want.Unschedulable || !h.open && h.ready
	}
	node.Spec.Taints = demands(taints(node, h, now), want.Taints)
	return node
}

// demands puts the taints that say what a pool takes in place of those that said it before.
func demands(taints, want []corev1.Taint) []corev1.Taint {
	ours := func(t corev1.Taint) bool { return t.Key == names.TaintTenants || t.Key == names.TaintSecurity }
	if slices.Equal(slices.DeleteFunc(slices.Clone(taints), func(t corev1.Taint) bool { return !ours(t) }), want) {
		return taints
	}
	return append(slices.DeleteFunc(slices.Clone(taints), ours), want...)
}

// status gives the status of a virtual Node: that of the one that is there, with our part changed. want is nil for a Node
// that no plan has any more: then only its health changes.
func status(there *corev1.Node, want *capacity.Node, h health, at place, now metav1.Time) corev1.NodeStatus {
	s := *there.Status.DeepCopy()
	if want != nil {
		s.Capacity, s.Allocatable = want.Allocatable.DeepCopy(), want.Offer().DeepCopy()
		s.NodeInfo = want.Info
		// declaredFeatures stay empty: without them the API server speaks SPDY to us.
		s.Addresses = []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: at.address},
			{Type: corev1.NodeHostName, Address: there.Name},
		}
		s.DaemonEndpoints = corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: at.port}}
	}
	if !h.known {
		return s
	}
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: h.reason, Message: h.message}
	switch {
	case h.ready && want != nil && !want.Ready:
		ready.Reason, ready.Message = reasonNodeDown, "the pool's node is not ready"
	case h.ready:
		ready.Status = corev1.ConditionTrue
	}
	setCondition(&s, ready, now)
	if h.ready {
		for _, kind := range []corev1.NodeConditionType{corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure, corev1.NodeNetworkUnavailable} {
			setCondition(&s, corev1.NodeCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reasonReady, Message: "the pool looks after its nodes"}, now)
		}
	}
	return s
}

func setCondition(s *corev1.NodeStatus, c corev1.NodeCondition, now metav1.Time) {
	c.LastHeartbeatTime, c.LastTransitionTime = now, now
	for i := range s.Conditions {
		old := &s.Conditions[i]
		if old.Type != c.Type {
			continue
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		if old.Status == c.Status && old.Reason == c.Reason && old.Message == c.Message && now.Sub(old.LastHeartbeatTime.Time) < heartbeatEvery {
			return
		}
		*old = c
		return
	}
	s.Conditions = append(s.Conditions, c)
}

func condition(node *corev1.Node, kind corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == kind {
			return &node.Status.Conditions[i]
		}
	}
	return nil
}

func same(a, b any) bool { return equality.Semantic.DeepEqual(a, b) }
