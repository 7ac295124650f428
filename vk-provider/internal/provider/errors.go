package provider

import (
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// laterError says that a pod has to be looked at again after a while that is known.
type laterError struct {
	after time.Duration
	cause error
}

func (e *laterError) Error() string {
	if e.cause == nil {
		return "look again later"
	}
	return e.cause.Error()
}

func (e *laterError) Unwrap() error { return e.cause }

// Paces of known obstacles.
const (
	// soon: the pool is about to do its part.
	soon = 200 * time.Millisecond
	// awhile: another pod has to go first; an event usually comes before.
	awhile = 2 * time.Second
	// slow: somebody has to change something.
	slow = 5 * time.Minute
)

// obstacle is a class of errors of a create in a pool.
type obstacle int

const (
	// trouble is everything that may pass by itself: try again with backoff.
	trouble obstacle = iota
	// taken: a pod of that name is there.
	taken
	// noNamespace: the namespace is not there.
	noNamespace
	// notYet: the namespace is there but not complete, or on its way out.
	notYet
	// rejected: the pool does not want this pod, and will not until something is changed.
	rejected
	// unauthorized: the pool does not let us.
	unauthorized
)

func classify(err error) obstacle {
	switch {
	case apierrors.IsAlreadyExists(err):
		return taken
	case apierrors.IsNotFound(err):
		return noNamespace
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return notYet
	case apierrors.IsForbidden(err):
		return classifyForbidden(err)
	case apierrors.IsUnauthorized(err):
		return unauthorized
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsRequestEntityTooLargeError(err):
		return rejected
	default:
		return trouble
	}
}

// classifyForbidden tells refusals apart that have one code. Admission and RBAC leave nothing but words to tell them by.
func classifyForbidden(err error) obstacle {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return trouble
	}
	message := status.Status().Message
	switch {
	case strings.Contains(message, "error looking up service account"):
		// A fresh namespace has no ServiceAccount "default" for a moment.
		return notYet
	case strings.Contains(message, "cannot create resource"):
		return unauthorized
	default:
		// Quota, Pod Security, an admission policy or webhook.
		return rejected
	}
}

// contested is for a write that was refused with a conflict. Either the pod of the name is another one by now, which the
// cache will show soon, or too many wrote to it at once, and then nothing would show that this write is missing. So it is
// looked at again in any case.
func contested(err error, format string, args ...any) error {
	return &laterError{after: awhile, cause: fmt.Errorf(format+": %w", append(args, err)...)}
}

// messageOf gives what an API server said, without our own wrapping.
func messageOf(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return status.Status().Message
	}
	return err.Error()
}

func seconds(n int64) metav1.DeleteOptions { return metav1.DeleteOptions{GracePeriodSeconds: &n} }
