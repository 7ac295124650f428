package control

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
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
