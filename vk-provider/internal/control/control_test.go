package control

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// TestPodEvents tells of a pod that went while nobody looked, also where a list shows nothing but its namesake.
func TestPodEvents(t *testing.T) {
	pod := func(uid types.UID) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "abc123-web", Name: "p", UID: uid}}
	}
	var told []string
	events := podEvents(PodHandler{
		Changed: func(pod *corev1.Pod) { told = append(told, "changed "+string(pod.UID)) },
		Deleted: func(pod *corev1.Pod, seen bool) {
			told = append(told, map[bool]string{true: "deleted ", false: "missing "}[seen]+string(pod.UID))
		},
	})
	events.OnAdd(pod("one"), true)
	events.OnUpdate(pod("one"), pod("one"))
	events.OnUpdate(pod("one"), pod("two"))
	events.OnDelete(pod("two"))
	events.OnDelete(cache.DeletedFinalStateUnknown{Obj: pod("three")})
	want := []string{"changed one", "changed one", "missing one", "changed two", "deleted two", "missing three"}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

// TestNodeEvents: of thousands of pods none is looked at because their Node was heard of.
func TestNodeEvents(t *testing.T) {
	node := func(change func(*corev1.Node)) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "pool-a-0", UID: "one", Labels: map[string]string{"pool": "pool-a"}}}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		change(n)
		return n
	}
	for name, tc := range map[string]struct {
		change func(*corev1.Node)
		want   bool
	}{
		"Heartbeat": {func(n *corev1.Node) {
			n.ResourceVersion, n.Status.Conditions[0].LastHeartbeatTime = "2", metav1.Unix(100, 0)
		}, false},
		"Capacity": {func(n *corev1.Node) {
			n.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("3")}
		}, false},
		"Silent":      {func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionFalse }, true},
		"Held":        {func(n *corev1.Node) { n.Status.Conditions[0].Reason = ReasonHeld }, true},
		"Tainted":     {func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "a"}} }, true},
		"OtherPool":   {func(n *corev1.Node) { n.Labels["pool"] = "pool-b" }, true},
		"Address":     {func(n *corev1.Node) { n.Status.Addresses = []corev1.NodeAddress{{Address: "10.0.0.1"}} }, true},
		"OtherMirror": {func(n *corev1.Node) { n.Annotations = map[string]string{"node": "n"} }, true},
		"Namesake":    {func(n *corev1.Node) { n.UID = "two" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			told := 0
			events := nodeEvents(MattersToPods, func(*corev1.Node) { told++ })
			events.OnUpdate(node(func(*corev1.Node) {}), node(tc.change))
			if (told == 1) != tc.want {
				t.Errorf("told %d times", told)
			}
			events.OnAdd(node(tc.change), false)
			events.OnDelete(cache.DeletedFinalStateUnknown{Obj: node(tc.change)})
			if tc.want {
				told--
			}
			if told != 2 {
				t.Errorf("told %d times that it came and went", told)
			}
		})
	}
}
