package poolcache

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
)

// TestPodEvents tells of a pod that went while nobody looked, also where a list shows nothing but its namesake, be it ours
// or a stranger's.
func TestPodEvents(t *testing.T) {
	const component = "vk-provider"
	pod := func(uid types.UID, ours bool) *corev1.Pod {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "abc123-web", Name: "p", UID: uid}}
		if ours {
			pod.Labels = map[string]string{names.LabelControl: "control", names.LabelManagedBy: component}
		}
		return pod
	}
	var told []string
	c := &Cache{Pool: &pools.Pool{ControlUID: "control"}, component: component}
	events := c.podEvents(Handler{
		Pod: func(pod *corev1.Pod) { told = append(told, "changed "+string(pod.UID)) },
		Gone: func(pod *corev1.Pod, seen bool) {
			told = append(told, map[bool]string{true: "deleted ", false: "missing "}[seen]+string(pod.UID))
		},
		Capacity: func() { told = append(told, "capacity") },
	})
	events.OnAdd(pod("one", true), true)
	events.OnUpdate(pod("one", true), pod("two", true))
	events.OnUpdate(pod("two", true), pod("stranger", false))
	events.OnUpdate(pod("stranger", false), pod("three", true))
	events.OnDelete(pod("three", true))
	events.OnDelete(cache.DeletedFinalStateUnknown{Obj: pod("four", true)})
	want := []string{"changed one", "missing one", "changed two", "missing two", "capacity", "capacity", "changed three", "deleted three", "missing four"}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}
