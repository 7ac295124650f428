package identity

import (
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// errUnauthorized is all that a stranger learns, whatever was wrong: a stock API server says no more.
func errUnauthorized() error { return apierrors.NewUnauthorized("Unauthorized") }

func errSuspended() error {
	return status(http.StatusForbidden, metav1.StatusReasonForbidden, "this tenant is suspended by the operator", 0)
}

func errUnavailable(message string) error {
	return status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, message, 1)
}

func errBadRequest(message string) error { return apierrors.NewBadRequest(message) }

func status(code int32, reason metav1.StatusReason, message string, retryAfter int32) error {
	s := &apierrors.StatusError{ErrStatus: metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Code: code, Reason: reason, Message: message,
	}}
	if retryAfter > 0 {
		s.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: retryAfter}
	}
	return s
}
