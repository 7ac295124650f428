package provider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/vk-provider/internal/capacity"
	"vivarium.io/vivarium/vk-provider/internal/control"
	"vivarium.io/vivarium/vk-provider/internal/podspec"
	"vivarium.io/vivarium/vk-provider/internal/vpcs"
)

// Reasons of events on control pods.
const (
	eventRefused       = podspec.ReasonRefused
	eventConflict      = "PoolNameConflict"
	eventRejected      = string(podspec.Rejected)
	eventUnauthorized  = "PoolUnauthorized"
	eventNetwork       = "PoolNetwork"
	eventEnded         = "PoolEvicted"
	eventUnschedulable = string(podspec.Unschedulable)
)

// place finds out where a control pod goes and what it must see there.
func (w *worker) place(pod *corev1.Pod) (podspec.Placement, network.Binder, error) {
	tenant, namespace, err := w.config.Cache.Tenant(pod.Namespace)
	if err != nil {
		return podspec.Placement{}, nil, err
	}
	pool := w.cache.Pool
	spec := pool.Spec()
	driver := spec.Network.Driver
	binder, err := w.config.Binder(driver)
	if err != nil {
		return podspec.Placement{}, nil, fmt.Errorf("bind pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	plan, err := w.config.Networks.Plan(pod, tenant, w.config.Cache.NamespaceAnnotations(pod.Namespace))
	if err != nil {
		return podspec.Placement{}, nil, err
	}
	mutation, err := binder.BindPod(plan)
	if err != nil {
		return podspec.Placement{}, nil, fmt.Errorf("bind pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	at := podspec.Placement{
		Tenant: tenant, Namespace: namespace,
		Node:     w.node(pod.Spec.NodeName),
		Gateway:  w.config.Gateway,
		Identity: pool.Labels(Component, tenant, pod.UID),

		RuntimeClasses: spec.Pods.RuntimeClasses, PriorityClasses: spec.Pods.PriorityClasses,
		Restricted: spec.Pods.SecurityLevel == v1alpha1.SecurityRestricted,
		Network:    mutation,
	}
	if plan.VPC != nil {
		at.Gateway, at.VPC = inVPC(plan, binder.Capabilities(), at.Gateway)
	}
	return at, binder, nil
}

// node describes a virtual node; one that is gone keeps its name.
func (w *worker) node(name string) podspec.Node {
	n := podspec.Node{Name: name}
	node, ok := w.config.Cache.Node(name)
	if !ok {
		return n
	}
	n.PoolNode = node.Annotations[capacity.AnnotationPoolNode]
	for _, a := range node.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			n.Addresses = append(n.Addresses, a.Address)
		}
	}
	return n
}

// services are what a container that is made now is told about.
func (w *worker) services(namespace string) []podspec.Service {
	var out []podspec.Service
	for _, s := range w.config.Cache.ServicesInNamespace(namespace) {
		out = append(out, podspec.Service{Name: s.Name, ClusterIP: s.Spec.ClusterIP, Ports: s.Spec.Ports})
	}
	return out
}

// create makes the pool pod, or finds that it is there.
func (w *worker) create(ctx context.Context, pod *corev1.Pod) error {
	at, _, err := w.place(pod)
	switch {
	case errors.Is(err, control.ErrNotTenants):
		w.warn(pod, eventRefused, "Only pods in tenants' namespaces run in pools.")
		return &laterError{after: slow, cause: err}
	case errors.Is(err, vpcs.ErrUnknown):
		return &laterError{after: soon, cause: err}
	case errors.Is(err, vpcs.ErrNoPlace):
		return &laterError{after: slow, cause: err} // its place wakes it
	case errors.Is(err, network.ErrInvalid), errors.Is(err, network.ErrCapability):
		w.warn(pod, eventNetwork, "The pod cannot be connected to its network.")
		return &laterError{after: slow, cause: err}
	case err != nil:
		return err
	}
	if !w.config.Welcome(w.cache.Pool.Spec().Tenants, at.Tenant) {
		// The scheduler keeps pods away by a taint, which a pod may tolerate that nobody has chosen.
		return w.decline(ctx, pod, podspec.Excluded, podspec.Excluded.Message(), nil)
	}
	at.Services = w.services(pod.Namespace)
	poolPod, err := podspec.ToPool(pod, at)
	var refused *podspec.Refused
	if errors.As(err, &refused) {
		return w.refuse(ctx, pod, refused)
	}
	if err != nil {
		return err
	}
	if errors.As(podspec.Fits(pod, at), &refused) {
		return w.decline(ctx, pod, podspec.Unfit, "The pool asks for more of a pod than most: the pod "+refused.Error(), nil)
	}
	// Asked twice: what arrived while we made up our mind woke nobody.
	if missing, certain := w.cache.Missing(poolPod); len(missing) > 0 {
		err := w.wait(pod, missing, certain)
		if still, _ := w.cache.Missing(poolPod); err != nil && len(still) > 0 {
			return err
		}
	}
	return w.post(ctx, pod, poolPod)
}

func (w *worker) refuse(ctx context.Context, pod *corev1.Pod, refused *podspec.Refused) error {
	w.warn(pod, eventRefused, refused.Error())
	w.config.Metrics.refused.WithLabelValues(w.pool()).Inc()
	return w.writeStatus(ctx, pod, podspec.RefusedToControl(pod, refused))
}

// post creates the pool pod. It asks about the namespace first: the pool would take the pod in somebody else's as well.
func (w *worker) post(ctx context.Context, pod, poolPod *corev1.Pod) error {
	pool := w.cache.Pool
	if !w.cache.HasNamespace(poolPod.Namespace) {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		err := pools.EnsureNamespace(call, pool, names.ControlNamespace(poolPod.Namespace))
		cancel()
		switch {
		case errors.Is(err, pools.ErrNotOurs):
			w.conflict(pod, "The pod's namespace exists in the pool and is not the platform's.")
			return &laterError{after: slow, cause: err}
		case errors.Is(err, pools.ErrTerminating):
			return &laterError{after: awhile, cause: err}
		case err != nil:
			return err
		}
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := pool.Client.CoreV1().Pods(poolPod.Namespace).Create(call, poolPod, metav1.CreateOptions{FieldManager: Component})
	if err != nil {
		return w.overcome(ctx, pod, poolPod, classify(err), err)
	}
	w.wasCreated(pod.UID)
	return nil
}

// overcome deals with a create that the pool did not accept.
func (w *worker) overcome(ctx context.Context, pod, poolPod *corev1.Pod, obstacle obstacle, err error) error {
	err = fmt.Errorf("create pod %s/%s in pool %s: %w", poolPod.Namespace, poolPod.Name, w.pool(), err)
	switch obstacle {
	case taken:
		return w.adopt(ctx, pod, poolPod)
	case notYet, noNamespace:
		return &laterError{after: soon, cause: err}
	case unauthorized:
		w.warn(pod, eventUnauthorized, "The pool does not let the platform create pods; its operator has been told.")
		return &laterError{after: slow / 5, cause: err}
	case rejected:
		at, _, placeErr := w.place(pod)
		if placeErr != nil {
			return placeErr
		}
		return w.decline(ctx, pod, podspec.Rejected, "The pool does not take the pod: "+podspec.TextToTenant(messageOf(err), pod, poolPod, at), err)
	default:
		// Also when it is not known whether the pool acted: the name is the same next time.
		return err
	}
}

// adopt looks at the pool pod that has the name. Only its UID label says whose it is.
func (w *worker) adopt(ctx context.Context, pod, poolPod *corev1.Pod) error {
	there, err := w.getPool(ctx, poolPod.Namespace, poolPod.Name)
	switch {
	case apierrors.IsNotFound(err):
		return &laterError{after: soon, cause: err}
	case err != nil:
		return err
	case !w.cache.Pool.Owns(Component, there):
		w.conflict(pod, "A pod of the same name exists in the pool and is not the platform's.")
		return &laterError{after: slow, cause: fmt.Errorf("pod %s/%s in pool %s: %w", there.Namespace, there.Name, w.pool(), pools.ErrNotOurs)}
	case controlUID(there) == pod.UID:
		w.wasCreated(pod.UID)
		w.config.Metrics.adopted.WithLabelValues(w.pool()).Inc()
		return nil // the cache will show it
	}
	// One of the two control pods is gone, for they have one name. It may be ours that is, and the cache late.
	current, err := w.getControl(ctx, pod.Namespace, pod.Name)
	switch {
	case apierrors.IsNotFound(err):
		return nil // the cache will show it
	case err != nil:
		return err
	case current.UID != pod.UID:
		return nil
	}
	if there.DeletionTimestamp == nil {
		if err := w.stop(ctx, there, stopGrace(state{pool: there})); err != nil {
			return err
		}
	}
	return &laterError{after: awhile, cause: fmt.Errorf("pod %s/%s in pool %s: its predecessor is still there", there.Namespace, there.Name, w.pool())}
}

func (w *worker) wasCreated(uid types.UID) {
	w.mu.Lock()
	since, known := w.arrivals[uid]
	delete(w.arrivals, uid)
	w.mu.Unlock()
	if known {
		w.config.Metrics.created.WithLabelValues(w.pool()).Observe(time.Since(since).Seconds())
	}
}

// converge brings the pool pod up to date, and its status back.
func (w *worker) converge(ctx context.Context, s state) error {
	at, binder, err := w.place(s.control)
	if err != nil {
		return err
	}
	if err := misplaced(at, binder, s.pool); err != nil {
		return w.removeMisplaced(ctx, s, err)
	}
	wanted, err := podspec.ToPool(s.control, at)
	var refused *podspec.Refused
	if errors.As(err, &refused) {
		// It runs already; what was changed about it is not carried down.
		w.warn(s.control, eventRefused, refused.Error())
		return w.report(ctx, s, false)
	}
	if err != nil {
		return err
	}
	if len(s.control.Spec.EphemeralContainers) > 0 {
		at.Services = w.services(s.control.Namespace)
	}
	debug, err := podspec.EphemeralToPool(s.control, at)
	if errors.As(err, &refused) {
		w.warn(s.control, eventRefused, "An ephemeral container is refused: "+refused.Error())
	} else if err != nil {
		return err
	}
	changes, err := podspec.Diff(wanted, debug, s.pool)
	if err != nil {
		return err
	}
	if err := w.report(ctx, s, changes.None()); err != nil {
		return err
	}
	for _, patch := range []struct {
		body        []byte
		subresource []string
	}{
		{changes.Ephemeral, []string{"ephemeralcontainers"}},
		{changes.Resize, []string{"resize"}},
		{changes.Pod, nil},
	} {
		if patch.body == nil {
			continue
		}
		if err := w.patchPool(ctx, s, at, patch.body, patch.subresource...); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) patchPool(ctx context.Context, s state, at podspec.Placement, body []byte, subresource ...string) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := w.cache.Pool.Client.CoreV1().Pods(s.pool.Namespace).Patch(call, s.pool.Name, types.StrategicMergePatchType, body,
		metav1.PatchOptions{FieldManager: Component}, subresource...)
	switch {
	case err == nil, apierrors.IsNotFound(err):
		return nil // the cache will show it
	case apierrors.IsConflict(err):
		return contested(err, "change pod %s/%s in pool %s", s.pool.Namespace, s.pool.Name, w.pool())
	case apierrors.IsInvalid(err), apierrors.IsForbidden(err), apierrors.IsBadRequest(err):
		w.warn(s.control, eventRejected, "The pool does not take the change: "+podspec.TextToTenant(messageOf(err), s.control, s.pool, at))
		return &laterError{after: slow, cause: fmt.Errorf("change pod %s/%s in pool %s: %w", s.pool.Namespace, s.pool.Name, w.pool(), err)}
	default:
		return fmt.Errorf("change pod %s/%s in pool %s: %w", s.pool.Namespace, s.pool.Name, w.pool(), err)
	}
}

// report brings the status back. settled is true when the pool pod is what the control pod wants.
func (w *worker) report(ctx context.Context, s state, settled bool) error {
	if s.control == nil {
		return nil
	}
	at, binder, err := w.place(s.control)
	if err != nil {
		return err
	}
	view := podspec.View{Placement: at, Settled: settled, Now: w.now()}
	seen, err := binder.ObservePod(s.pool)
	if err != nil {
		// An address that is not the bound network's would lead the tenant's traffic to somebody else.
		w.warn(s.control, eventNetwork, "The pod is not in its network; its addresses are withheld.")
		boot.Logger(ctx).Error("pool pod is not in its network", "pool", w.pool(), "controlNamespace", s.control.Namespace, "name", s.control.Name, "error", err)
	}
	for _, ip := range seen.PodIPs() {
		view.PodIPs = append(view.PodIPs, ip.IP)
	}
	return w.writeStatus(ctx, s.control, podspec.StatusToControl(s.control, s.pool, view))
}

// writeStatus patches the control pod's status where it differs.
func (w *worker) writeStatus(ctx context.Context, pod *corev1.Pod, want corev1.PodStatus) error {
	count := func(result string) { w.config.Metrics.statuses.WithLabelValues(w.pool(), result).Inc() }
	patch, err := podspec.StatusPatch(pod, want)
	if err != nil {
		return err
	}
	if patch == nil {
		count("noop")
		return nil
	}
	// The cache may not show our own last write yet.
	sum := sha256.Sum256(patch)
	mark := writtenStatus{base: pod.ResourceVersion, digest: hex.EncodeToString(sum[:8])}
	w.mu.Lock()
	same := w.written[pod.UID] == mark
	w.mu.Unlock()
	if same {
		count("noop")
		return nil
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = w.config.Control.CoreV1().Pods(pod.Namespace).Patch(call, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldManager: Component}, "status")
	switch {
	case err == nil:
		count("ok")
		w.mu.Lock()
		w.written[pod.UID] = mark
		w.mu.Unlock()
		return nil
	case apierrors.IsNotFound(err):
		count("gone")
		return nil
	case apierrors.IsConflict(err):
		count("conflict")
		return contested(err, "write status of pod %s/%s", pod.Namespace, pod.Name)
	case apierrors.IsInvalid(err):
		count("invalid")
		return &laterError{after: slow, cause: fmt.Errorf("write status of pod %s/%s: %w", pod.Namespace, pod.Name, err)}
	default:
		count("error")
		return fmt.Errorf("write status of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
}

// stop deletes a pool pod.
func (w *worker) stop(ctx context.Context, poolPod *corev1.Pod, grace int64) error {
	if poolPod.DeletionTimestamp != nil && graceOf(poolPod) <= grace {
		return nil
	}
	options := seconds(grace)
	options.Preconditions = metav1.NewUIDPreconditions(string(poolPod.UID))
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := w.cache.Pool.Client.CoreV1().Pods(poolPod.Namespace).Delete(call, poolPod.Name, options)
	switch {
	case err == nil, apierrors.IsNotFound(err):
		return nil
	case apierrors.IsConflict(err):
		return contested(err, "delete pod %s/%s in pool %s", poolPod.Namespace, poolPod.Name, w.pool())
	default:
		return fmt.Errorf("delete pod %s/%s in pool %s: %w", poolPod.Namespace, poolPod.Name, w.pool(), err)
	}
}

// finish lets a control pod go whose pool pod is gone or never was.
func (w *worker) finish(ctx context.Context, pod *corev1.Pod) error {
	if err := w.proveGone(ctx, pod); err != nil {
		return err
	}
	if podspec.Accepted(pod) && !ended(pod) {
		if err := w.writeStatus(ctx, pod, podspec.EndedToControl(pod, w.now())); err != nil {
			return err
		}
	}
	options := seconds(0)
	options.Preconditions = metav1.NewUIDPreconditions(string(pod.UID))
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := w.config.Control.CoreV1().Pods(pod.Namespace).Delete(call, pod.Name, options)
	switch {
	case err == nil, apierrors.IsNotFound(err):
		return nil
	case apierrors.IsConflict(err):
		return contested(err, "let pod %s/%s go", pod.Namespace, pod.Name)
	default:
		return fmt.Errorf("let pod %s/%s go: %w", pod.Namespace, pod.Name, err)
	}
}

// lose ends a control pod whose pool pod the pool has removed.
func (w *worker) lose(ctx context.Context, pod *corev1.Pod) error {
	if err := w.proveGone(ctx, pod); errors.Is(err, errRestored) {
		return errors.Join(w.writeStatus(ctx, pod, podspec.SilentToControl(pod, w.now())), err)
	} else if err != nil {
		return err
	}
	if why, ok := w.wasBounced(pod); ok {
		// The cache is late, or the status could not be written when the pool pod went.
		return w.writeStatus(ctx, pod, podspec.BouncedToControl(pod, why, w.now()))
	}
	w.warn(pod, eventEnded, "The pool that ran the pod removed it.")
	w.config.Metrics.lost.WithLabelValues(w.pool()).Inc()
	return w.writeStatus(ctx, pod, podspec.LostToControl(pod, w.now()))
}

// errRestored says that a pool pod is missing from a pool that was restored from a backup.
var errRestored = errors.New("the pool was restored from a backup and does not know the pod, which may still run")

// proveGone returns nil when the pool pod of a control pod is certainly gone: its deletion was seen, or the pool itself
// says so now. A cache that has no such pod proves nothing, nor does a pool that has gone back in time.
func (w *worker) proveGone(ctx context.Context, pod *corev1.Pod) error {
	if w.seenGone(w.below, pod.UID) {
		return nil
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	mark := w.cache.Pool.Mark()
	// A list tells how new it is, which an answer that there is no such pod does not.
	list, err := w.cache.Pool.Client.CoreV1().Pods(pod.Namespace).List(call, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, pod.Name).String()})
	if err != nil {
		return fmt.Errorf("read pod %s/%s in pool %s: %w", pod.Namespace, pod.Name, w.pool(), err)
	}
	for i := range list.Items {
		if there := &list.Items[i]; there.Name == pod.Name && w.cache.Pool.Owns(Component, there) && controlUID(there) == pod.UID {
			return &laterError{after: soon, cause: fmt.Errorf("pod %s/%s in pool %s is there after all", pod.Namespace, pod.Name, w.pool())}
		}
	}
	if podspec.Accepted(pod) && (!w.cache.Pool.Continues(mark, list.ResourceVersion) || w.restored()) {
		return &laterError{after: 5 * awhile, cause: fmt.Errorf("pod %s/%s in pool %s: %w", pod.Namespace, pod.Name, w.pool(), errRestored)}
	}
	return nil
}

func (w *worker) getPool(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pod, err := w.cache.Pool.Client.CoreV1().Pods(namespace).Get(call, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read pod %s/%s in pool %s: %w", namespace, name, w.pool(), err)
	}
	return pod, nil
}

func (w *worker) getControl(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pod, err := w.config.Control.CoreV1().Pods(namespace).Get(call, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read pod %s/%s: %w", namespace, name, err)
	}
	return pod, nil
}

func (w *worker) conflict(pod *corev1.Pod, message string) {
	w.config.Metrics.conflicts.WithLabelValues(w.pool()).Inc()
	w.warn(pod, eventConflict, message)
}

func (w *worker) warn(pod *corev1.Pod, reason, message string) {
	w.config.Recorder.Event(pod, corev1.EventTypeWarning, reason, message)
}
