package translate

import (
	"bytes"
	"strings"
	"testing"
)

// TestScalingAnnotations checks what an autoscaling/v1 object says in annotations.
func TestScalingAnnotations(t *testing.T) {
	k := Kind{Group: "autoscaling", Version: "v1", Resource: "horizontalpodautoscalers", Kind: "HorizontalPodAutoscaler", Namespaced: true}
	const tenant = `{"kind":"HorizontalPodAutoscaler","apiVersion":"autoscaling/v1","metadata":{"name":"a","namespace":"default","annotations":{"autoscaling.alpha.kubernetes.io/metrics":"[{\"type\":\"Object\",\"object\":{\"target\":{\"kind\":\"Foo\",\"apiVersion\":\"example.com/v1\"},\"x\":1.0}}]","autoscaling.alpha.kubernetes.io/behavior":"no JSON"}}}`
	control, _, err := view.BodyToControl(k, "create", "", []byte(tenant), "default", "")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(control), `\"zq7x9k-example.com/v1\"`) {
		t.Errorf("in control: %s", control)
	}
	var back bytes.Buffer
	if err := view.ObjectToTenant(k, &back, bytes.NewReader(control)); err != nil || back.String() != tenant {
		t.Errorf("%v %s", err, firstDifference(back.String(), tenant))
	}
}
