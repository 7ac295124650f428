package provider

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/vk-provider/internal/bounce"
	"vivarium.io/vivarium/vk-provider/internal/capacity"
	"vivarium.io/vivarium/vk-provider/internal/podspec"
)

// book is the pool's book of pods without a place.
func (w *worker) book() *bounce.Book { return w.config.Books.Of(w.pool()) }

// recall tells the book what pods show of what another process had in it: since when they wait, and which were given back, so
// that waits go on, owners do not begin anew, and what was too large a moment ago is not promised again. All these times are
// the control cluster's; the book keeps our own.
func (w *worker) recall() {
	type leaver struct {
		pod *corev1.Pod
		at  time.Time
	}
	var leavers []leaver
	book := w.book()
	ours := func(at metav1.Time) time.Time { return time.Now().Add(-w.config.Clock.Since(at.Time)) }
	for _, node := range w.config.Cache.NodesOfPool(w.pool()) {
		for _, pod := range w.config.Cache.PodsOnNode(node.Name) {
			if since, waits := podspec.WaitsSince(pod); waits {
				book.Waited(pod.UID, ours(since))
			}
			why, at, ok := podspec.GivenBack(pod)
			if !ok {
				continue
			}
			leavers = append(leavers, leaver{pod, ours(at)})
			if why == podspec.Unschedulable && w.config.Clock.Since(at.Time) < bounce.FirstHold {
				w.learn(pod)
			}
		}
	}
	slices.SortFunc(leavers, func(a, b leaver) int { return a.at.Compare(b.at) })
	for _, l := range leavers {
		book.Recall(l.pod.UID, bounce.Owner(l.pod), ours(l.pod.CreationTimestamp), l.at)
	}
}

// learn notes that the pool has no room for a pod, and reports whether its Nodes show it.
func (w *worker) learn(pod *corev1.Pod) (shown bool) {
	node, ok := w.config.Cache.Node(pod.Spec.NodeName)
	if !ok {
		return true
	}
	mirror := ""
	if node.Annotations[capacity.AnnotationPoolNode] != "" {
		mirror = node.Name
	}
	return w.book().Learn(mirror, capacity.Requests(pod), node.Status.Allocatable)
}

// bounceAfter is how long a pod may be without a place at first.
func (w *worker) bounceAfter() time.Duration {
	after := w.cache.Pool.Spec().Bounce.AfterSeconds
	if after <= 0 {
		after = v1alpha1.DefaultBounceAfter
	}
	return time.Duration(after) * time.Second
}

// bounce gives a pod back that the pool's scheduler finds no place for: the pool pod goes, and the control pod fails so
// that its controller makes another one. The pool pod goes first, and only as the very version that has no place: what has
// been bound meanwhile runs.
func (w *worker) bounce(ctx context.Context, s state) error {
	pod, book := s.control, w.book()
	if !podspec.Unplaced(s.pool) {
		book.Settled(pod.UID)
		return nil
	}
	if w.restored() {
		return &laterError{after: 5 * awhile} // it may have had a place that the pool has forgotten
	}
	by := bounce.Owner(pod)
	verdict := book.Judge(pod.UID, by, w.bounceAfter())
	if !verdict.Go {
		return waits(verdict, nil)
	}
	there, err := w.getPool(ctx, s.pool.Namespace, s.pool.Name)
	switch {
	case apierrors.IsNotFound(err):
		return nil // the cache will show it
	case err != nil:
		return err
	case there.UID != s.pool.UID || there.DeletionTimestamp != nil || !podspec.Unplaced(there):
		return nil
	}
	// Before anything makes another one it must be known that there is no room here.
	if !w.learn(pod) {
		return &laterError{after: soon}
	}
	options := seconds(0)
	options.Preconditions = &metav1.Preconditions{UID: &there.UID, ResourceVersion: &there.ResourceVersion}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = w.cache.Pool.Client.CoreV1().Pods(there.Namespace).Delete(call, there.Name, options)
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return &laterError{after: soon}
	case err != nil:
		return fmt.Errorf("delete pod %s/%s without a place in pool %s: %w", there.Namespace, there.Name, w.pool(), err)
	}
	return w.giveBack(ctx, pod, podspec.Unschedulable)
}

// decline gives a pod back that is not in the pool and that the pool does not take, and tells its tenant why. cause is what
// the pool itself said; nil when it was not asked.
func (w *worker) decline(ctx context.Context, pod *corev1.Pod, why podspec.Bounce, message string, cause error) error {
	w.warn(pod, string(why), message)
	if cause == nil {
		cause = fmt.Errorf("pod %s/%s in pool %s: %s", pod.Namespace, pod.Name, w.pool(), message)
	}
	verdict := w.book().Judge(pod.UID, bounce.Owner(pod), w.bounceAfter())
	if !verdict.Go {
		if err := w.writeStatus(ctx, pod, podspec.WaitingToControl(pod, why, message, w.now())); err != nil {
			return err
		}
		return waits(verdict, cause)
	}
	// An earlier attempt may have arrived although its answer did not.
	if err := w.proveGone(ctx, pod); err != nil {
		return err
	}
	return w.giveBack(ctx, pod, why)
}

// now is the control cluster's time, as the API keeps times: whoever reads it there may have another clock than we.
func (w *worker) now() metav1.Time { return metav1.NewTime(w.config.Clock.Now().Truncate(time.Second)) }

// waits says when a verdict is to be asked for again.
func waits(verdict bounce.Verdict, cause error) error {
	switch {
	case verdict.Wait > 0:
		return &laterError{after: min(verdict.Wait, slow), cause: cause}
	case cause != nil:
		return &laterError{after: slow, cause: cause}
	default:
		return nil // a change wakes it
	}
}

// giveBack ends a control pod whose pool pod is gone or never was, because the pool has no place for it.
func (w *worker) giveBack(ctx context.Context, pod *corev1.Pod, why podspec.Bounce) error {
	w.book().Left(pod.UID, bounce.Owner(pod))
	if why == podspec.Unschedulable {
		w.mu.Lock()
		w.bounced[pod.UID] = why
		w.mu.Unlock()
	}
	w.config.Metrics.bounced.WithLabelValues(w.pool(), string(why)).Inc()
	w.warn(pod, string(why), why.Message())
	boot.Logger(ctx).Info("pod given back", "pool", w.pool(), "controlNamespace", pod.Namespace, "name", pod.Name, "uid", pod.UID, "reason", string(why))
	return w.writeStatus(ctx, pod, podspec.BouncedToControl(pod, why, w.now()))
}

// wasBounced tells why a pod was given back.
func (w *worker) wasBounced(pod *corev1.Pod) (podspec.Bounce, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	why, ok := w.bounced[pod.UID]
	return why, ok
}
