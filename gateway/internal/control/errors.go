package control

import (
	"context"
	"errors"
	"net"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/gateway/internal/guard"
	"vivarium.io/vivarium/internal/boot"
)

// Trouble turns what went wrong on the way to the control cluster into what a tenant may know of it: addresses,
// certificates and system calls are for the log.
func Trouble(ctx context.Context, err error) error {
	var refusal *guard.Refusal
	var network net.Error
	switch {
	case errors.As(err, &refusal):
		boot.Logger(ctx).Error("The guard refused a request", "error", err)
		return status(http.StatusInternalServerError, metav1.StatusReasonInternalError, "the gateway could not make a request that stays inside this tenant")
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		boot.Logger(ctx).Error("The control cluster did not answer in time", "error", err)
		return Timeout()
	}
	boot.Logger(ctx).Error("The control cluster cannot be reached", "error", err)
	return Unavailable()
}

// Timeout says that the control cluster did not answer in time.
func Timeout() error {
	return status(http.StatusGatewayTimeout, metav1.StatusReasonTimeout, "the request was not answered in time")
}

// Unavailable says that the control cluster is away for now.
func Unavailable() error {
	err := status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "the API is not available at the moment")
	err.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: 1}
	return err
}

func internalError(ctx context.Context, err error) error {
	boot.Logger(ctx).Error("A request for the control cluster cannot be made", "error", err)
	return status(http.StatusInternalServerError, metav1.StatusReasonInternalError, "the gateway could not make the request")
}

func badGateway(ctx context.Context, code int) error {
	boot.Logger(ctx).Error("The control cluster answered with a redirect, which is not followed", "code", code)
	return status(http.StatusBadGateway, metav1.StatusReasonUnknown, "the API gave an answer that cannot be passed on")
}

func status(code int32, reason metav1.StatusReason, message string) *apierrors.StatusError {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Code: code, Reason: reason, Message: message,
	}}
}
