package podspec

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// TestClassesGoByThePoolsTables: a runtime that the pool does not offer is refused, for another may isolate less; a priority
// that it does not know is its default.
func TestClassesGoByThePoolsTables(t *testing.T) {
	at := Placement{
		Tenant: "abc123", Namespace: "default", Node: Node{Name: "pool-a-0"}, Gateway: Gateway{Host: "h", Port: "1"},
		RuntimeClasses: map[string]string{"sandboxed": "kata"}, PriorityClasses: map[string]string{"urgent": "tenants-high"},
	}
	pod := func(runtime *string, priority string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "abc123-default", UID: "u"},
			Spec: corev1.PodSpec{
				RuntimeClassName: runtime, PriorityClassName: priority, Priority: ptr.To[int32](7), Overhead: corev1.ResourceList{},
				Containers: []corev1.Container{{Name: "c", Image: "vivarium.test/echo:v1"}},
			},
		}
	}
	got, err := ToPool(pod(ptr.To("sandboxed"), "urgent"), at)
	if err != nil {
		t.Fatal(err)
	}
	if got.Spec.RuntimeClassName == nil || *got.Spec.RuntimeClassName != "kata" || got.Spec.PriorityClassName != "tenants-high" || got.Spec.Priority != nil || got.Spec.Overhead != nil {
		t.Errorf("spec %+v", got.Spec)
	}
	if got, err = ToPool(pod(nil, "idle"), at); err != nil || got.Spec.RuntimeClassName != nil || got.Spec.PriorityClassName != "" {
		t.Errorf("without classes: %v, %+v", err, got)
	}
	for _, name := range []string{"gvisor", "kata", ""} {
		var refused *Refused
		if _, err := ToPool(pod(&name, ""), at); !errors.As(err, &refused) || !strings.Contains(err.Error(), "runtimeClassName") {
			t.Errorf("runtime class %q: %v", name, err)
		}
	}
}
