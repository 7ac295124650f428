package tenants

import (
	"context"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"
)

// TestRightsAreAwaited has an API server that learns of a binding late.
func TestRightsAreAwaited(t *testing.T) {
	control, asked := fake.NewClientset(), 0
	control.PrependReactor("create", "subjectaccessreviews", func(action kubetesting.Action) (bool, runtime.Object, error) {
		review := action.(kubetesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview).DeepCopy()
		if review.Spec.User != "abc123-admin" || review.Spec.Groups[0] != "abc123-system:masters" {
			t.Errorf("asked about %+v", review.Spec)
		}
		asked++
		review.Status.Allowed = asked == 3
		return true, review, nil
	})
	awaitRights(t.Context(), control, "abc123")
	if asked != 3 {
		t.Errorf("asked %d times", asked)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	awaitRights(ctx, control, "abc123")
}
