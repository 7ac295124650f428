package follow

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/internal/boot"
)

const (
	first, last = 100 * time.Millisecond, 2 * time.Second
	// sayEvery is how often it is said that nobody answers.
	sayEvery = 30 * time.Second
)

// Pause tells how long to wait between attempts: each time twice as long, up to two seconds. The zero value is ready.
type Pause struct{ next time.Duration }

// Wait waits, or gives false when ctx is done.
func (p *Pause) Wait(ctx context.Context) bool {
	p.next = min(max(first, 2*p.next), last)
	select {
	case <-ctx.Done():
		return false
	case <-time.After(p.next/2 + rand.N(p.next/2)): //nolint:gosec // spreads load, keeps no secret
		return true
	}
}

// Reset makes the next pause short.
func (p *Pause) Reset() { p.next = 0 }

// ListWatch is a source for an informer that waits for the control cluster: an attempt ends when there is an answer that
// asking again does not change. what is named in the log.
func ListWatch(
	what string,
	list func(context.Context, metav1.ListOptions) (runtime.Object, error),
	open func(context.Context, metav1.ListOptions) (watch.Interface, error),
) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return patiently(ctx, what, options, list)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return patiently(ctx, what, options, open)
		},
	}
}

func patiently[T any](ctx context.Context, what string, options metav1.ListOptions, ask func(context.Context, metav1.ListOptions) (T, error)) (T, error) {
	var pause Pause
	var said time.Time
	for {
		answer, err := ask(ctx, options)
		if err == nil || !passing(err) {
			return answer, err
		}
		if time.Since(said) > sayEvery {
			said = time.Now()
			boot.Logger(ctx).Error("The control cluster cannot be followed", "what", what, "error", err)
		}
		if !pause.Wait(ctx) {
			return answer, err
		}
	}
}

// passing reports whether an error may be over in a moment. An API server that has just started knows neither tokens nor
// roles.
func passing(err error) bool {
	status, ok := err.(apierrors.APIStatus) //nolint:errorlint // clients give it bare
	if !ok {
		// There was no answer.
		return true
	}
	if _, tooLarge := apierrors.StatusCause(err, metav1.CauseTypeResourceVersionTooLarge); tooLarge {
		return false
	}
	switch code := status.Status().Code; code {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
		return true
	default:
		return code >= http.StatusInternalServerError
	}
}
