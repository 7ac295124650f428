package podspec

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestAPoolThatIsRestricted takes what meets that level, tells what does not, and another pool takes that.
func TestAPoolThatIsRestricted(t *testing.T) {
	yes, no := true, false
	loose := simplePod()
	tight := simplePod()
	tight.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: &yes, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
	hard := &corev1.SecurityContext{AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
	tight.Spec.Containers[0].SecurityContext = hard
	open, restricted := place(), place()
	restricted.Restricted = true

	var refused *Refused
	if err := Fits(loose, open); err != nil {
		t.Errorf("a pool that asks for nothing more: %v", err)
	}
	if err := Fits(loose, restricted); !errors.As(err, &refused) || !strings.Contains(err.Error(), `"restricted"`) || !strings.Contains(err.Error(), "runAsNonRoot") {
		t.Errorf("a loose pod: %v", err)
	}
	if err := Fits(tight, restricted); err != nil {
		t.Errorf("a pod that meets the level: %v", err)
	}
	// It is not the pod's end: the same pod runs in another pool.
	if _, err := ToPool(loose, restricted); err != nil {
		t.Errorf("a loose pod is refused for good: %v", err)
	}
	debug := corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "vivarium.test/shell:v1"}}
	tight.Spec.EphemeralContainers = []corev1.EphemeralContainer{debug}
	if err := Fits(tight, restricted); err != nil {
		t.Errorf("its ephemeral containers come later: %v", err)
	}
	if _, err := EphemeralToPool(tight, restricted); !errors.As(err, &refused) {
		t.Errorf("a loose ephemeral container: %v", err)
	}
	if _, err := EphemeralToPool(tight, open); err != nil {
		t.Errorf("the same elsewhere: %v", err)
	}
	tight.Spec.EphemeralContainers[0].SecurityContext = hard
	if _, err := EphemeralToPool(tight, restricted); err != nil {
		t.Errorf("one that meets the level: %v", err)
	}
}

// TestWaitingToControl says why a pod waits, once.
func TestWaitingToControl(t *testing.T) {
	control := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}}
	status := WaitingToControl(control, Excluded, "not here", metav1.Unix(100, 0))
	c := find(status.Conditions, ConditionPlaced)
	if c == nil || c.Status != corev1.ConditionFalse || c.Reason != "PoolExcluded" || c.Message != "not here" {
		t.Fatalf("%+v", status)
	}
	control.Status = status
	again := WaitingToControl(control, Excluded, "not here", metav1.Unix(200, 0))
	if patch, err := StatusPatch(control, again); err != nil || patch != nil {
		t.Errorf("it is written again: %s, %v", patch, err)
	}
	control.Status.Phase = corev1.PodFailed
	control.Status.Conditions = nil
	if got := WaitingToControl(control, Excluded, "not here", metav1.Unix(200, 0)); len(got.Conditions) > 0 {
		t.Errorf("a pod that has ended waits: %+v", got)
	}
}
