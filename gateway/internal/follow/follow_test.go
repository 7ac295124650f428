package follow

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

// TestPatience checks which answers are waited for, and that none is waited for long.
func TestPatience(t *testing.T) {
	resource := schema.GroupResource{Resource: "widgets"}
	tooLarge := apierrors.NewTimeoutError("too large", 1)
	tooLarge.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge}}
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"Away": {errors.New("connection refused"), true}, "Starting": {apierrors.NewForbidden(resource, "", errors.New("no roles yet")), true},
		"Unauthorized": {apierrors.NewUnauthorized("no"), true}, "Busy": {apierrors.NewTooManyRequests("busy", 1), true},
		"Broken": {apierrors.NewInternalError(errors.New("etcd")), true}, "Unavailable": {apierrors.NewServiceUnavailable("later"), true},
		"Missing": {apierrors.NewNotFound(resource, ""), false}, "Expired": {apierrors.NewResourceExpired("old"), false},
		"Invalid": {apierrors.NewBadRequest("no"), false}, "TooLarge": {tooLarge, false},
		"NotAcceptable": {apierrors.NewGenericServerResponse(http.StatusNotAcceptable, "list", resource, "", "", 0, true), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				lw := ListWatch("widgets", func(context.Context, metav1.ListOptions) (runtime.Object, error) {
					if asked++; asked < 20 {
						return nil, tc.err
					}
					return &metav1.List{}, nil
				}, nil)
				began := time.Now()
				_, err := lw.ListWithContext(t.Context(), metav1.ListOptions{})
				switch {
				case tc.want && (err != nil || asked != 20):
					t.Errorf("%v after %d attempts", err, asked)
				case tc.want && time.Since(began) > 20*last:
					t.Errorf("waited %s", time.Since(began))
				case !tc.want && (!errors.Is(err, tc.err) || asked != 1):
					t.Errorf("%v after %d attempts", err, asked)
				}
			})
		})
	}
	t.Run("Over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			away := errors.New("connection refused")
			lw := ListWatch("widgets", nil, func(context.Context, metav1.ListOptions) (watch.Interface, error) { return nil, away })
			if _, err := lw.WatchWithContext(ctx, metav1.ListOptions{}); !errors.Is(err, away) {
				t.Errorf("%v", err)
			}
		})
	})
}
