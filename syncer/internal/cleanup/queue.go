package cleanup

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/workqueue"

	"vivarium.io/vivarium/internal/boot"
)

// next works on one item of a queue and reports whether there may be more.
func next[T comparable](ctx context.Context, queue workqueue.TypedRateLimitingInterface[T], work func(context.Context, T) (again bool, err error)) bool {
	item, shutdown := queue.Get()
	if shutdown {
		return false
	}
	defer queue.Done(item)
	if ctx.Err() != nil {
		return false
	}
	attempt, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	again, err := work(attempt, item)
	switch {
	case err != nil:
		if !apierrors.IsConflict(err) {
			boot.Logger(ctx).Info("clean-up is tried again later", "error", err)
		}
		queue.AddRateLimited(item)
	case again:
		queue.Forget(item)
		queue.AddAfter(item, pollEvery)
	default:
		queue.Forget(item)
	}
	return true
}
