package translate

import (
	"fmt"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Error is a refusal in the tenant's words. Nothing was sent to the control cluster when a function that translates
// towards it returns one.
type Error struct {
	// Code is the HTTP status: 400 malformed, 403 against the platform's policy, 404, 413, 415, 422 a bad value.
	Code    int
	Reason  metav1.StatusReason
	Message string
	// Field is the path of the field that is refused, as in "spec.nodeName"; empty when the whole body is.
	Field string
}

// Error gives the message, with the field where there is one.
func (e *Error) Error() string {
	if e.Field == "" {
		return e.Message
	}
	return e.Field + ": " + e.Message
}

// Status gives the error as the API object to answer with.
func (e *Error) Status() *metav1.Status {
	s := &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: int32(e.Code), Reason: e.Reason, Message: e.Error(),
	}
	if e.Field != "" {
		s.Details = &metav1.StatusDetails{Causes: []metav1.StatusCause{{
			Type: metav1.CauseTypeFieldValueInvalid, Field: e.Field, Message: e.Message,
		}}}
	}
	return s
}

func malformed(format string, args ...any) *Error {
	return &Error{Code: http.StatusBadRequest, Reason: metav1.StatusReasonBadRequest, Message: fmt.Sprintf(format, args...)}
}

func forbidden(field, format string, args ...any) *Error {
	return &Error{Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Field: field, Message: fmt.Sprintf(format, args...)}
}

func invalid(field, format string, args ...any) *Error {
	return &Error{Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

func tooLarge(format string, args ...any) *Error {
	return &Error{Code: http.StatusRequestEntityTooLarge, Reason: metav1.StatusReasonRequestEntityTooLarge, Message: fmt.Sprintf(format, args...)}
}

func unsupportedMedia(format string, args ...any) *Error {
	return &Error{Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType, Message: fmt.Sprintf(format, args...)}
}

// ForeignError says that the control cluster answered with something that is not the tenant's, or in a shape this package
// does not know. Nothing of it may be shown; the front answers 500 and logs the text, which is in the control cluster's
// words and not for the tenant.
type ForeignError struct{ What string }

// Error describes what was found, for the log.
func (e *ForeignError) Error() string { return "response of the control cluster: " + e.What }

func foreign(format string, args ...any) *ForeignError {
	return &ForeignError{What: fmt.Sprintf(format, args...)}
}
