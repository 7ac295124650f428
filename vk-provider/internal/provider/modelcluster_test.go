package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/utils/ptr"
)

// modelCluster is a cluster whose pods behave as an API server's do: UIDs, versions, preconditions, graceful deletion, watches
// with a history that can be cut off and compacted. Its writes go wrong while there is trouble.
type modelCluster struct {
	kubernetes.Interface

	mu      sync.Mutex // guards the rest
	random  *rand.Rand
	trouble bool
	pods    map[types.NamespacedName]*corev1.Pod
	version int
	history []modelEvent
	// compacted is the newest version that is not in the history any more.
	compacted int
	// cut ends the watches, and keeps new ones and lists away.
	cut bool
	// moved is closed when something has happened.
	moved chan struct{}
	// calls counts what was asked and written.
	calls int
}

type modelEvent struct {
	version int
	kind    watch.EventType
	pod     *corev1.Pod
}

func newModelCluster(seed uint64) *modelCluster {
	return &modelCluster{
		Interface: fake.NewClientset(), random: rand.New(rand.NewPCG(seed, 2)), //nolint:gosec // to be repeated
		pods: map[types.NamespacedName]*corev1.Pod{}, moved: make(chan struct{}),
	}
}

// IsWatchListSemanticsUnSupported has informers list and watch.
func (c *modelCluster) IsWatchListSemanticsUnSupported() bool { return true }

func (c *modelCluster) CoreV1() typedcorev1.CoreV1Interface {
	return modelCore{c.Interface.CoreV1(), c}
}

type modelCore struct {
	typedcorev1.CoreV1Interface
	cluster *modelCluster
}

func (c modelCore) Pods(namespace string) typedcorev1.PodInterface {
	return &modelPods{c.CoreV1Interface.Pods(namespace), c.cluster, namespace}
}

// modelPods has what the provider uses of it.
type modelPods struct {
	typedcorev1.PodInterface
	*modelCluster
	namespace string
}

func (c *modelCluster) roll(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.random.IntN(n)
}

func (c *modelCluster) pause(most time.Duration) { time.Sleep(time.Duration(c.roll(int(most)))) }

// during calls f while nothing else happens in the cluster.
func (c *modelCluster) during(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// write has a write arrive, or not, or be answered or not, or arrive later.
func (c *modelCluster) write(act func() (*corev1.Pod, error)) (*corev1.Pod, error) {
	var trouble bool
	c.during(func() { trouble = c.trouble; c.calls++ })
	c.pause(20 * time.Millisecond)
	now := func() (pod *corev1.Pod, err error) {
		c.during(func() { pod, err = act() })
		return pod, err
	}
	lost := apierrors.NewTimeoutError("the answer was lost", 1)
	if trouble {
		switch c.roll(10) {
		case 0:
			return nil, lost
		case 1:
			_, _ = now()
			return nil, lost
		case 2:
			late := time.Duration(c.roll(int(5 * time.Second)))
			time.AfterFunc(late, func() { _, _ = now() })
			return nil, lost
		case 3:
			return nil, apierrors.NewInternalError(fmt.Errorf("trouble"))
		}
	}
	return now()
}

// put stores a pod and tells of it. Called under mu, as all that follow.
func (c *modelCluster) put(kind watch.EventType, pod *corev1.Pod) {
	c.version++
	pod.ResourceVersion = strconv.Itoa(c.version)
	key := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	if kind == watch.Deleted {
		delete(c.pods, key)
	} else {
		c.pods[key] = pod
	}
	c.history = append(c.history, modelEvent{c.version, kind, pod.DeepCopy()})
	c.wake()
}

func (c *modelCluster) wake() {
	close(c.moved)
	c.moved = make(chan struct{})
}

func (c *modelCluster) make(pod *corev1.Pod) (*corev1.Pod, error) {
	if _, there := c.pods[types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}]; there {
		return nil, apierrors.NewAlreadyExists(corev1.Resource("pods"), pod.Name)
	}
	pod = pod.DeepCopy()
	pod.UID, pod.CreationTimestamp, pod.Status = uuid.NewUUID(), metav1.Now(), corev1.PodStatus{Phase: corev1.PodPending}
	c.put(watch.Added, pod)
	return pod.DeepCopy(), nil
}

func (c *modelCluster) find(namespace, name string) (*corev1.Pod, error) {
	if pod := c.pods[types.NamespacedName{Namespace: namespace, Name: name}]; pod != nil {
		return pod.DeepCopy(), nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("pods"), name)
}

func (c *modelCluster) remove(namespace, name string, o metav1.DeleteOptions) error {
	pod, err := c.find(namespace, name)
	if err != nil {
		return err
	}
	if p := o.Preconditions; p != nil && (p.UID != nil && *p.UID != pod.UID || p.ResourceVersion != nil && *p.ResourceVersion != pod.ResourceVersion) {
		return apierrors.NewConflict(corev1.Resource("pods"), name, fmt.Errorf("another one"))
	}
	grace := ptr.Deref(o.GracePeriodSeconds, 30)
	if pod.Spec.NodeName == "" || ended(pod) {
		grace = 0
	}
	switch {
	case grace == 0:
		c.put(watch.Deleted, pod)
	case pod.DeletionTimestamp == nil || graceOf(pod) > grace:
		pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = ptr.To(metav1.Now()), &grace
		c.put(watch.Modified, pod)
	}
	return nil
}

// change changes a pod if it is still there.
func (c *modelCluster) change(pod *corev1.Pod, f func(*corev1.Pod)) {
	if now, err := c.find(pod.Namespace, pod.Name); err == nil && now.UID == pod.UID {
		f(now)
		c.put(watch.Modified, now)
	}
}

func (p *modelPods) Create(_ context.Context, pod *corev1.Pod, _ metav1.CreateOptions) (*corev1.Pod, error) {
	return p.write(func() (*corev1.Pod, error) { return p.make(pod) })
}

func (p *modelPods) Delete(_ context.Context, name string, o metav1.DeleteOptions) error {
	_, err := p.write(func() (*corev1.Pod, error) {
		if p.trouble && p.random.IntN(5) == 0 {
			return nil, apierrors.NewConflict(corev1.Resource("pods"), name, fmt.Errorf("too many wrote to it"))
		}
		return nil, p.remove(p.namespace, name, o)
	})
	return err
}

func (p *modelPods) Patch(_ context.Context, name string, _ types.PatchType, patch []byte, _ metav1.PatchOptions, subresources ...string) (*corev1.Pod, error) {
	return p.write(func() (*corev1.Pod, error) {
		pod, err := p.find(p.namespace, name)
		if err != nil {
			return nil, err
		}
		if p.trouble && p.random.IntN(5) == 0 {
			return nil, apierrors.NewConflict(corev1.Resource("pods"), name, fmt.Errorf("too many wrote to it"))
		}
		before, err := json.Marshal(pod)
		if err != nil {
			return nil, err
		}
		after, err := strategicpatch.StrategicMergePatch(before, patch, corev1.Pod{})
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		changed := &corev1.Pod{}
		if err := json.Unmarshal(after, changed); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		if changed.UID != pod.UID {
			return nil, apierrors.NewConflict(corev1.Resource("pods"), name, fmt.Errorf("another UID"))
		}
		if len(subresources) == 1 && subresources[0] == "status" {
			changed.Spec = pod.Spec
		} else {
			changed.Status = pod.Status
		}
		if again, _ := json.Marshal(changed); string(again) != string(before) {
			p.put(watch.Modified, changed)
		}
		return changed, nil
	})
}

func (p *modelPods) Get(_ context.Context, name string, _ metav1.GetOptions) (pod *corev1.Pod, err error) {
	p.pause(10 * time.Millisecond)
	p.during(func() {
		p.calls++
		if pod, err = p.find(p.namespace, name); p.trouble && p.random.IntN(10) == 0 {
			pod, err = nil, apierrors.NewTimeoutError("no answer", 1)
		}
	})
	return pod, err
}

func (p *modelPods) List(_ context.Context, o metav1.ListOptions) (*corev1.PodList, error) {
	p.pause(10 * time.Millisecond)
	selector, err := fields.ParseSelector(o.FieldSelector)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	if p.cut {
		return nil, apierrors.NewTimeoutError("no answer", 1)
	}
	list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(p.version)}}
	for _, pod := range p.pods {
		if (p.namespace == "" || p.namespace == pod.Namespace) && selector.Matches(fieldsOf(pod)) {
			list.Items = append(list.Items, *pod.DeepCopy())
		}
	}
	return list, nil
}

func fieldsOf(pod *corev1.Pod) fields.Set {
	return fields.Set{metav1.ObjectNameField: pod.Name, "spec.nodeName": pod.Spec.NodeName}
}

func (p *modelPods) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	from, err := strconv.Atoi(o.ResourceVersion)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.cut:
		return nil, apierrors.NewTimeoutError("no answer", 1)
	case from < p.compacted:
		return nil, apierrors.NewResourceExpired("too old")
	}
	w := &modelWatch{out: make(chan watch.Event), stopped: make(chan struct{})}
	go w.run(ctx, p.modelCluster, from)
	return w, nil
}

type modelWatch struct {
	out     chan watch.Event
	once    sync.Once
	stopped chan struct{}
}

func (w *modelWatch) ResultChan() <-chan watch.Event { return w.out }

func (w *modelWatch) Stop() { w.once.Do(func() { close(w.stopped) }) }

func (w *modelWatch) run(ctx context.Context, c *modelCluster, from int) {
	defer close(w.out)
	for {
		var events []modelEvent
		var moved chan struct{}
		var cut bool
		c.during(func() {
			for _, e := range c.history {
				if e.version > from {
					events = append(events, e)
				}
			}
			// What was compacted under an open watch is as good as a line that broke.
			moved, cut = c.moved, c.cut || from < c.compacted && c.compacted > 0
		})
		if cut {
			return
		}
		for _, e := range events {
			select {
			case w.out <- watch.Event{Type: e.kind, Object: e.pod.DeepCopy()}:
				from = e.version
			case <-w.stopped:
				return
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-moved:
		case <-w.stopped:
			return
		case <-ctx.Done():
			return
		}
	}
}

// breakFor cuts the cluster off from who reads it, for as long as between has something happen, and forgets its history if
// that is asked for.
func (c *modelCluster) breakFor(between func(), compact bool) {
	c.during(func() { c.cut = true; c.wake() })
	between()
	c.during(func() {
		if compact {
			c.compacted, c.history = c.version, nil
		}
		c.cut = false
		c.wake()
	})
}
