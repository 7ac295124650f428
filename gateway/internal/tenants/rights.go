package tenants

import (
	"context"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"vivarium.io/vivarium/internal/names"
)

// rightsPatience is how long a tenant's rights are waited for. Whoever took them away keeps a tenant from nothing else.
const rightsPatience = 10 * time.Second

// awaitRights waits until what was bound to a tenant's administrators holds: an API server learns of a binding a moment after
// it was made, and the first thing a new tenant hears should not be that it may do nothing.
func awaitRights(ctx context.Context, control kubernetes.Interface, id names.TenantID) {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:               id.UserToControl(adminUser),
		Groups:             []string{id.UserGroupToControl(mastersGroup), id.UserGroupToControl(authenticatedGroup)},
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "*", Group: "*", Resource: "*"},
	}}
	_ = wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, rightsPatience, true, func(ctx context.Context) (bool, error) {
		answer, err := control.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		// Who may not ask need not wait.
		return apierrors.IsForbidden(err) || err == nil && answer.Status.Allowed, nil
	})
}
