package podspec

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/utils/ptr"
)

// born is the pool pod of control as the pool made it: with what its own admission added.
func born(t *testing.T, control *corev1.Pod) *corev1.Pod {
	t.Helper()
	pool, err := ToPool(control, place())
	if err != nil {
		t.Fatal(err)
	}
	pool.UID = "pool-uid"
	pool.Labels["topology.kubernetes.io/zone"] = "real-zone"
	pool.Annotations["pool.vivarium.test/network-status"] = "up"
	pool.Spec.Containers[0].Image = "mirror.vivarium.test/" + pool.Spec.Containers[0].Image
	pool.Spec.Containers[0].Env = append(pool.Spec.Containers[0].Env, corev1.EnvVar{Name: "INJECTED"})
	return pool
}

func diff(t *testing.T, control, live *corev1.Pod) Changes {
	t.Helper()
	wanted, err := ToPool(control, place())
	if err != nil {
		t.Fatal(err)
	}
	debug, err := EphemeralToPool(control, place())
	if err != nil {
		t.Fatal(err)
	}
	changes, err := Diff(wanted, debug, live)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

func apply(t *testing.T, live *corev1.Pod, patch []byte) *corev1.Pod {
	t.Helper()
	raw, err := json.Marshal(live)
	if err != nil {
		t.Fatal(err)
	}
	merged, err := strategicpatch.StrategicMergePatch(raw, patch, corev1.Pod{})
	if err != nil {
		t.Fatal(err)
	}
	out := &corev1.Pod{}
	if err := json.Unmarshal(merged, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestNothingToDoAfterBirth(t *testing.T) {
	control := simplePod()
	if changes := diff(t, control, born(t, control)); !changes.None() {
		t.Errorf("what the pool added is taken for a change: %s %s %s", changes.Pod, changes.Resize, changes.Ephemeral)
	}
}

func TestUpdate(t *testing.T) {
	control := simplePod()
	control.Labels = map[string]string{"app": "web", "old": "x"}
	control.Annotations = map[string]string{"example.com/old": "x"}
	control.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "a"}}
	live := born(t, control)

	control.Labels = map[string]string{"app": "shop"}
	control.Annotations = map[string]string{"example.com/new": "y"}
	control.Spec.Containers[0].Image = "vivarium.test/echo:v2"
	control.Spec.ActiveDeadlineSeconds = ptr.To[int64](60)
	changes := diff(t, control, live)
	if changes.Resize != nil || changes.Ephemeral != nil || changes.Pod == nil {
		t.Fatalf("changes: %+v", changes)
	}
	got := apply(t, live, changes.Pod)
	if got.Labels["app"] != "shop" || got.Labels["topology.kubernetes.io/zone"] != "real-zone" || got.Labels["old"] != "" {
		t.Errorf("labels: %v", got.Labels)
	}
	if got.Annotations["example.com/new"] != "y" || got.Annotations["pool.vivarium.test/network-status"] != "up" {
		t.Errorf("annotations: %v", got.Annotations)
	}
	if _, there := got.Annotations["example.com/old"]; there {
		t.Error("a removed annotation stayed")
	}
	if got.Spec.Containers[0].Image != "vivarium.test/echo:v2" || len(got.Spec.Containers[0].Env) == 0 || *got.Spec.ActiveDeadlineSeconds != 60 {
		t.Errorf("spec: %+v", got.Spec)
	}
	if changes := diff(t, control, got); !changes.None() {
		t.Errorf("a second look changes: %s", changes.Pod)
	}
}

func TestResize(t *testing.T) {
	control := simplePod()
	control.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("1")}
	live := born(t, control)
	control.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("2")}
	changes := diff(t, control, live)
	if changes.Resize == nil || changes.Pod == nil {
		t.Fatalf("changes: %+v", changes)
	}
	got := apply(t, live, changes.Resize)
	if q := got.Spec.Containers[0].Resources.Requests["cpu"]; q.String() != "2" {
		t.Errorf("cpu %s", q.String())
	}
	// The resize alone is repeated after a crash; with the record it is done.
	if again := diff(t, control, got); again.Resize == nil {
		t.Error("a resize without its record is forgotten")
	}
	if again := diff(t, control, apply(t, got, changes.Pod)); !again.None() {
		t.Error("a recorded resize is repeated")
	}
}

func TestEphemeralContainersAreAdded(t *testing.T) {
	control := simplePod()
	live := born(t, control)
	control.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "vivarium.test/shell:v1"}, TargetContainerName: "c"}}
	changes := diff(t, control, live)
	if changes.Ephemeral == nil || changes.Pod != nil || changes.Resize != nil {
		t.Fatalf("changes: %+v", changes)
	}
	got := apply(t, live, changes.Ephemeral)
	var names []string
	for _, e := range got.Spec.EphemeralContainers {
		names = append(names, e.Name+" on "+e.TargetContainerName)
	}
	if d := cmp.Diff([]string{"debug on c"}, names); d != "" {
		t.Errorf("ephemeral containers (-want +got):\n%s", d)
	}
	if again := diff(t, control, got); !again.None() {
		t.Error("it is added twice")
	}
}

func TestABrokenRecordIsRewritten(t *testing.T) {
	control := simplePod()
	live := born(t, control)
	live.Annotations[AppliedAnnotation] = "{"
	changes := diff(t, control, live)
	if changes.Pod == nil {
		t.Fatal("nothing is written")
	}
	if again := diff(t, control, apply(t, live, changes.Pod)); !again.None() {
		t.Error("it is written for ever")
	}
}
