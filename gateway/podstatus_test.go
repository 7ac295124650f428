package gateway

import (
	"io/fs"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/charts"
)

// TestPodStatusPolicyKnowsEveryField fails for a field of a pod's status that the policy neither keeps as it was nor is
// meant to let pass.
func TestPodStatusPolicyKnowsEveryField(t *testing.T) {
	raw, err := fs.ReadFile(charts.FS, "vivarium/files/policy/tenant-pod-status.yaml")
	if err != nil {
		t.Fatal(err)
	}
	pass := map[string]bool{"conditions": true, "reason": true, "message": true}
	for i := range reflect.TypeFor[corev1.PodStatus]().NumField() {
		name, _, _ := strings.Cut(reflect.TypeFor[corev1.PodStatus]().Field(i).Tag.Get("json"), ",")
		kept := strings.Contains(string(raw), "object.?status.?"+name+" == oldObject.?status.?"+name+"\n") ||
			strings.Contains(string(raw), "object.?status.?"+name+" == oldObject.?status.?"+name+" &&\n")
		if kept == pass[name] {
			t.Errorf("status.%s: kept as it was: %v, want %v", name, kept, !pass[name])
		}
	}
}

// TestPodStatus writes the status of a pod as a tenant's own controllers do. Conditions are theirs, where a pod is and what
// it has is not.
func TestPodStatus(t *testing.T) {
	w := theWorld(t)
	pods := clientset(t, client(t, w.tenant(t, "state0"))).CoreV1().Pods("default")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "gated"}, Spec: corev1.PodSpec{
		Containers:     []corev1.Container{{Name: "c", Image: "i"}},
		ReadinessGates: []corev1.PodReadinessGate{{ConditionType: "example.com/open"}},
	}}
	if _, err := pods.Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	write := func(patch string) (*corev1.Pod, error) {
		return pods.Patch(t.Context(), "gated", types.StrategicMergePatchType, []byte(`{"status":`+patch+`}`), metav1.PatchOptions{}, "status")
	}
	// The policy takes a moment to come into force.
	eventually(t, "the policy is in force", func() bool {
		_, err := write(`{"podIP":"192.0.2.1"}`)
		return apierrors.IsForbidden(err)
	})
	for name, patch := range map[string]string{
		"Phase":              `{"phase":"Succeeded"}`,
		"StartTime":          `{"startTime":"2026-01-01T00:00:00Z"}`,
		"NominatedNode":      `{"nominatedNodeName":"pool-a-0"}`,
		"PodIPs":             `{"podIPs":[{"ip":"192.0.2.1"}]}`,
		"HostIP":             `{"hostIP":"192.0.2.1"}`,
		"Containers":         `{"containerStatuses":[{"name":"c","image":"i","imageID":"","ready":true,"restartCount":0,"allocatedResources":{"cpu":"1000"}}]}`,
		"AllocatedResources": `{"allocatedResources":{"cpu":"1000"}}`,
		"ConditionAndPhase":  `{"phase":"Running","conditions":[{"type":"example.com/open","status":"True"}]}`,
	} {
		if _, err := write(patch); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "word of the node") {
			t.Errorf("%s: %v", name, err)
		}
	}
	patched, err := write(`{"reason":"Asked","message":"from default","conditions":[{"type":"example.com/open","status":"True"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	if patched.Status.Reason != "Asked" || patched.Status.Message != "from default" || patched.Namespace != "default" {
		t.Errorf("patched: %s/%s %+v", patched.Namespace, patched.Name, patched.Status)
	}
	patched.Status.Conditions = append(patched.Status.Conditions, corev1.PodCondition{Type: "example.com/too", Status: corev1.ConditionFalse})
	updated, err := pods.UpdateStatus(t.Context(), patched, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(updated.Status.Conditions); n < 2 {
		t.Errorf("%d conditions after the update", n)
	}
}
