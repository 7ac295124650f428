package provider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/vk-provider/internal/podspec"
)

// Bounds of what a pool's events may cost the control cluster. They are a courtesy, so what does not fit is dropped.
const (
	eventsPerSecond = 50
	eventBurst      = 200
	// eventEvery is how often one repeating event is brought up to date.
	eventEvery = 10 * time.Second
	// eventBacklog is how many different events may wait.
	eventBacklog = 2000
	// eventHistory is how much older than the newest an event may be at the start: what happened during a short outage is
	// still told.
	eventHistory = 2 * time.Minute
)

// reflector brings what a pool's kubelets say about our pods to the control pods, in their tenants' words.
type reflector struct {
	worker *worker
	queue  workqueue.TypedDelayingInterface[string]
	limit  *rate.Limiter

	// since is the time, by the pool's own clocks, from which on events of lists are told; nil before the first list. Only
	// the one goroutine of the watch uses it.
	since *time.Time

	mu sync.Mutex // guards the rest
	// latest is what is to be written, by name.
	latest map[string]told
	// sent is when a name was last written.
	sent map[string]time.Time
}

// told is one event on its way up.
type told struct {
	event *corev1.Event
	// maybe is true when it may have been written before a restart.
	maybe bool
}

// reflectEvents runs until ctx is done.
func (w *worker) reflectEvents(ctx context.Context) {
	r := &reflector{
		worker: w,
		queue:  workqueue.NewTypedDelayingQueue[string](),
		limit:  rate.NewLimiter(eventsPerSecond, eventBurst),
		latest: map[string]told{}, sent: map[string]time.Time{},
	}
	events := w.cache.Pool.Client.CoreV1().Events("")
	aboutPods := func(o metav1.ListOptions) metav1.ListOptions {
		o.FieldSelector = fields.OneTermEqualSelector("involvedObject.kind", "Pod").String()
		return o
	}
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return events.List(ctx, aboutPods(o))
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return events.Watch(ctx, aboutPods(o))
		},
	}, w.cache.Pool.Client)
	var running sync.WaitGroup
	defer running.Wait()
	defer r.queue.ShutDown()
	running.Go(func() { r.write(ctx) })
	cache.NewReflectorWithOptions(lw, &corev1.Event{}, r, cache.ReflectorOptions{}).RunWithContext(ctx)
}

// Add, Update, Delete, Replace and Resync make it a store that keeps nothing.

func (r *reflector) Add(object any) error { r.hear(object, false); return nil }

func (r *reflector) Update(object any) error { r.hear(object, false); return nil }

func (r *reflector) Delete(any) error { return nil }

func (r *reflector) Resync() error { return nil }

func (r *reflector) Replace(objects []any, _ string) error {
	if r.since == nil {
		since := newest(objects).Add(-eventHistory)
		r.since = &since
	}
	for _, object := range objects {
		if event, ok := object.(*corev1.Event); ok && !lastSeen(event).Before(*r.since) {
			r.hear(object, true)
		}
	}
	return nil
}

// newest is when the last of the events happened. Its clock may be another one than ours.
func newest(objects []any) time.Time {
	var at time.Time
	for _, object := range objects {
		if event, ok := object.(*corev1.Event); ok && lastSeen(event).After(at) {
			at = lastSeen(event)
		}
	}
	return at
}

func (r *reflector) hear(object any, maybe bool) {
	event, ok := object.(*corev1.Event)
	if !ok {
		return
	}
	above, ok := r.translate(event)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	key := above.Namespace + "/" + above.Name
	if _, waiting := r.latest[key]; !waiting && len(r.latest) >= eventBacklog {
		r.worker.config.Metrics.events.WithLabelValues(r.worker.pool(), "dropped").Inc()
		return
	}
	r.latest[key] = told{above, maybe}
	r.queue.AddAfter(key, eventEvery-time.Since(r.sent[key]))
}

func lastSeen(event *corev1.Event) time.Time {
	for _, t := range []time.Time{event.LastTimestamp.Time, event.EventTime.Time, event.CreationTimestamp.Time} {
		if !t.IsZero() {
			return t
		}
	}
	return time.Time{}
}

// translate gives the control cluster's event for one of a pool; false for what is not a kubelet's word about a pod of
// ours. What other parts of a pool say is about other things than the pod: its scheduler's reasons name its nodes.
func (r *reflector) translate(event *corev1.Event) (*corev1.Event, bool) {
	poolPod, ok := r.worker.cache.Pod(event.InvolvedObject.Namespace, event.InvolvedObject.Name)
	if !ok || poolPod.UID != event.InvolvedObject.UID {
		return nil, false
	}
	pod, ok := r.worker.config.Cache.PodByUID(controlUID(poolPod))
	if !ok {
		return nil, false
	}
	at, _, err := r.worker.place(pod)
	if err != nil {
		return nil, false
	}
	reason, message := event.Reason, podspec.TextToTenant(event.Message, pod, poolPod, at)
	switch {
	case event.Source.Component == "kubelet" || event.ReportingController == "kubelet":
	case event.Reason == "FailedScheduling":
		reason, message = eventUnschedulable, "No node of the pool has room for the pod at the moment."
	default:
		return nil, false
	}
	sum := sha256.Sum256([]byte(string(r.worker.cache.Pool.ClusterUID) + "/" + string(event.UID)))
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: eventName(pod.Name, hex.EncodeToString(sum[:8]))},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, FieldPath: event.InvolvedObject.FieldPath,
		},
		Type: event.Type, Reason: reason, Message: message,
		Source:         corev1.EventSource{Component: "kubelet", Host: pod.Spec.NodeName},
		Count:          max(1, event.Count),
		FirstTimestamp: metav1.NewTime(firstSeen(event)), LastTimestamp: metav1.NewTime(lastSeen(event)),
		ReportingController: "kubelet", ReportingInstance: pod.Spec.NodeName,
	}, true
}

func firstSeen(event *corev1.Event) time.Time {
	if !event.FirstTimestamp.IsZero() {
		return event.FirstTimestamp.Time
	}
	return lastSeen(event)
}

// eventName joins a pod's name and a digest within the length of a name.
func eventName(pod, digest string) string {
	const longest = 253
	return pod[:min(len(pod), longest-1-len(digest))] + "." + digest
}

// write sends what waits, one at a time.
func (r *reflector) write(ctx context.Context) {
	for {
		key, shutdown := r.queue.Get()
		if shutdown {
			return
		}
		r.mu.Lock()
		t, ok := r.latest[key]
		delete(r.latest, key)
		r.mu.Unlock()
		if ok && r.limit.Wait(ctx) == nil {
			err := r.send(ctx, t)
			r.worker.config.Metrics.events.WithLabelValues(r.worker.pool(), result(err)).Inc()
			if err != nil && ctx.Err() == nil {
				boot.Logger(ctx).Debug("event dropped", "pool", r.worker.pool(), "error", err)
			}
			r.mu.Lock()
			r.sent[key] = time.Now()
			r.forgetOld()
			r.mu.Unlock()
		}
		r.queue.Done(key)
	}
}

// forgetOld bounds what is remembered. Called under mu.
func (r *reflector) forgetOld() {
	if len(r.sent) < 2*eventBacklog {
		return
	}
	for key, at := range r.sent {
		if time.Since(at) > eventEvery {
			delete(r.sent, key)
		}
	}
}

func (r *reflector) send(ctx context.Context, t told) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	events := r.worker.config.Control.CoreV1().Events(t.event.Namespace)
	if t.maybe {
		// A restart must not write what is there already.
		old, err := events.Get(call, t.event.Name, metav1.GetOptions{})
		if err == nil && old.Count >= t.event.Count {
			return nil
		}
	}
	_, err := events.Create(call, t.event, metav1.CreateOptions{FieldManager: Component})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	patch, err := json.Marshal(map[string]any{"count": t.event.Count, "lastTimestamp": t.event.LastTimestamp, "message": t.event.Message})
	if err != nil {
		return fmt.Errorf("write event %s/%s: %w", t.event.Namespace, t.event.Name, err)
	}
	_, err = events.Patch(call, t.event.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: Component})
	return err
}
