package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/gateway/internal/kinds"
	"vivarium.io/vivarium/gateway/internal/translate"
	"vivarium.io/vivarium/internal/boot"
)

// statusOf turns an error into what a tenant is told. An error that is none of those made for a tenant says nothing of
// itself: its text is for the log.
func statusOf(ctx context.Context, err error) *metav1.Status {
	var api apierrors.APIStatus
	var refused *translate.Error
	switch {
	case errors.As(err, &api):
		s := api.Status()
		s.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		return &s
	case errors.As(err, &refused):
		return refused.Status()
	}
	boot.Logger(ctx).Error("A request failed", "error", err)
	return &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError,
		Message: "the gateway could not answer this request",
	}
}

// writeError answers with an error.
func writeError(ctx context.Context, w http.ResponseWriter, err error) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, private")
	h.Set("X-Content-Type-Options", "nosniff")
	if errors.Is(err, kinds.ErrNoSuchPath) {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "404 page not found\n")
		return
	}
	var passed *controlError
	if errors.As(err, &passed) {
		for name, values := range passed.header {
			h[name] = values
		}
		h.Set("Content-Length", strconv.Itoa(len(passed.body)))
		w.WriteHeader(passed.code)
		_, _ = w.Write(passed.body)
		return
	}
	status := statusOf(ctx, err)
	if status.Details != nil && status.Details.RetryAfterSeconds > 0 {
		h.Set("Retry-After", strconv.Itoa(int(status.Details.RetryAfterSeconds)))
	}
	if status.Code == http.StatusRequestEntityTooLarge || status.Code == http.StatusUnsupportedMediaType {
		// The body was not read to its end.
		h.Set("Connection", "close")
	}
	raw, encodeErr := json.Marshal(status)
	if encodeErr != nil {
		raw = []byte("{}")
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(raw)))
	w.WriteHeader(int(status.Code))
	_, _ = w.Write(raw)
}
