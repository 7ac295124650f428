package vkprovider_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

func echoPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "echo"}},
		Spec: corev1.PodSpec{
			Containers:                    []corev1.Container{{Name: "echo", Image: "vivarium.test/echo:v1"}},
			TerminationGracePeriodSeconds: ptr.To[int64](5),
			// No syncer runs here, and a pod waits a moment for its token.
			AutomountServiceAccountToken: ptr.To(false),
		},
	}
}

func (w *world) makePod(t *testing.T, namespace string, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	made, err := w.controlClient.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// waitPod waits until the control pod is as wanted.
func (w *world) waitPod(t *testing.T, namespace, name string, check func(*corev1.Pod) error) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	eventually(t, "pod "+namespace+"/"+name, func() error {
		var err error
		if pod, err = w.controlClient.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			return err
		}
		return check(pod)
	})
	return pod
}

func isReady(pod *corev1.Pod) error {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("not ready: %s %v", pod.Status.Phase, pod.Status.Conditions)
}

func (w *world) waitNoPod(t *testing.T, namespace, name string) {
	t.Helper()
	eventually(t, "no pod "+namespace+"/"+name, func() error {
		_, err := w.controlClient.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there: %w", err)
	})
}

// waitEvent waits for an event about a control pod.
func (w *world) waitEvent(t *testing.T, namespace, name, reason string) corev1.Event {
	t.Helper()
	var found corev1.Event
	eventually(t, "event "+reason+" about "+name, func() error {
		events, err := w.controlClient.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.InvolvedObject.Name == name && e.Reason == reason {
				found = e
				return nil
			}
		}
		return fmt.Errorf("among %d events", len(events.Items))
	})
	return found
}

// below gives our pods of a pool, by control UID.
func (p *pool) below(t *testing.T) map[types.UID]*corev1.Pod {
	t.Helper()
	out, err := p.ask(t)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// ask is below for a pool that may not answer.
func (p *pool) ask(t *testing.T) (map[types.UID]*corev1.Pod, error) {
	t.Helper()
	list, err := p.client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{LabelSelector: names.LabelManagedBy + "=vk-provider"})
	if err != nil {
		return nil, err
	}
	out := map[types.UID]*corev1.Pod{}
	for i := range list.Items {
		uid := controlUID(&list.Items[i])
		if _, twice := out[uid]; twice {
			t.Fatalf("DOUBLED: control pod %s has two pool pods in one pool", uid)
		}
		out[uid] = &list.Items[i]
	}
	return out, nil
}

func controlUID(poolPod *corev1.Pod) types.UID {
	return types.UID(poolPod.Labels[names.LabelControlUID])
}

// TestLifeOfAPod follows pods of one pool from birth to death, and everything that may happen between.
func TestLifeOfAPod(t *testing.T) {
	w := newWorld(t, "pool-a")
	a := w.pools["pool-a"]
	w.start(t)
	w.ready(t, "pool-a")
	w.tenant(t, "abc123-default")

	t.Run("RunsAndReports", func(t *testing.T) {
		web := echoPod("web")
		web.Spec.AutomountServiceAccountToken = nil
		made := w.makePod(t, "abc123-default", web)
		pod := w.waitPod(t, "abc123-default", "web", isReady)
		if pod.Status.HostIP != "127.0.0.1" || pod.Status.PodIP == "" || pod.Status.Phase != corev1.PodRunning || pod.Status.StartTime == nil {
			t.Errorf("status %+v", pod.Status)
		}
		if pod.Status.ObservedGeneration != pod.Generation {
			t.Errorf("observed generation %d of %d", pod.Status.ObservedGeneration, pod.Generation)
		}
		below := a.below(t)[made.UID]
		if below == nil || below.Name != "web" || below.Namespace != "abc123-default" || below.Labels[names.LabelTenant] != "abc123" {
			t.Fatalf("below: %+v", below)
		}
		if below.Spec.ServiceAccountName != "default" || below.Spec.Volumes[0].Projected.Sources[0].Secret.Name != names.TokenSecret(made.UID) {
			t.Errorf("below: %+v", below.Spec)
		}
	})

	t.Run("ChangesGoDown", func(t *testing.T) {
		patch := []byte(`{"metadata":{"labels":{"app":null,"tier":"gold"}},"spec":{"containers":[{"name":"echo","image":"vivarium.test/echo:v2"}]}}`)
		pod, err := w.controlClient.CoreV1().Pods("abc123-default").Patch(t.Context(), "web", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the change", func() error {
			below := a.below(t)[pod.UID]
			if below.Spec.Containers[0].Image != "vivarium.test/echo:v2" || below.Labels["tier"] != "gold" || below.Labels["app"] != "" {
				return fmt.Errorf("below: %v %v", below.Spec.Containers[0].Image, below.Labels)
			}
			return nil
		})
		debug := []byte(`{"spec":{"ephemeralContainers":[{"name":"debug","image":"vivarium.test/shell:v1","targetContainerName":"echo"}]}}`)
		if _, err := w.controlClient.CoreV1().Pods("abc123-default").Patch(t.Context(), "web", types.StrategicMergePatchType, debug, metav1.PatchOptions{}, "ephemeralcontainers"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the ephemeral container", func() error {
			if below := a.below(t)[pod.UID]; len(below.Spec.EphemeralContainers) != 1 {
				return errors.New("not there")
			}
			return nil
		})
	})

	t.Run("OthersConditionsStay", func(t *testing.T) {
		patch := []byte(`{"status":{"conditions":[{"type":"example.com/mine","status":"True"}]}}`)
		if _, err := w.controlClient.CoreV1().Pods("abc123-default").Patch(t.Context(), "web", types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
		below := []byte(`{"status":{"conditions":[{"type":"Ready","status":"False","reason":"ContainersNotReady"}]}}`)
		if _, err := a.client.CoreV1().Pods("abc123-default").Patch(t.Context(), "web", types.StrategicMergePatchType, below, metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
		w.waitPod(t, "abc123-default", "web", func(pod *corev1.Pod) error {
			var mine, ready bool
			for _, c := range pod.Status.Conditions {
				mine = mine || c.Type == "example.com/mine"
				// The simulated kubelet makes it True again, perhaps before anybody looks, and leaves the reason.
				ready = ready || c.Type == corev1.PodReady && c.Reason == "ContainersNotReady"
			}
			if !mine || !ready {
				return fmt.Errorf("conditions %v", pod.Status.Conditions)
			}
			return nil
		})
	})

	t.Run("EventsComeUp", func(t *testing.T) {
		below := a.below(t)
		var pod *corev1.Pod
		for _, p := range below {
			pod = p
		}
		// A kubelet's clock may be behind.
		behind := metav1.NewTime(time.Now().Add(-5 * time.Minute))
		event := &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Name: "web.1", Namespace: pod.Namespace},
			InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
			Type:           corev1.EventTypeWarning, Reason: "BackOff", Count: 3,
			Message: "Back-off restarting failed container echo in pod web_abc123-default(" + string(pod.UID) + ")",
			Source:  corev1.EventSource{Component: "kubelet", Host: "node-0"}, FirstTimestamp: behind, LastTimestamp: behind,
		}
		if _, err := a.client.CoreV1().Events(pod.Namespace).Create(t.Context(), event, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		got := w.waitEvent(t, "abc123-default", "web", "BackOff")
		uid := pod.Labels[names.LabelControlUID]
		if got.Message != "Back-off restarting failed container echo in pod web_default("+uid+")" || string(got.InvolvedObject.UID) != uid || got.Count != 3 {
			t.Errorf("event %+v", got)
		}
	})

	t.Run("DeletedAboveAfterBelow", func(t *testing.T) {
		a.kubelet.pause(true)
		if err := w.controlClient.CoreV1().Pods("abc123-default").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "deletion below", func() error {
			for _, below := range a.below(t) {
				if below.DeletionTimestamp == nil {
					return errors.New("not deleted")
				}
				if *below.DeletionGracePeriodSeconds != 5 {
					t.Errorf("grace %d", *below.DeletionGracePeriodSeconds)
				}
			}
			return nil
		})
		if _, err := w.controlClient.CoreV1().Pods("abc123-default").Get(t.Context(), "web", metav1.GetOptions{}); err != nil {
			t.Errorf("the control pod went first: %v", err)
		}
		a.kubelet.pause(false)
		w.waitNoPod(t, "abc123-default", "web")
		if left := a.below(t); len(left) > 0 {
			t.Errorf("left below: %v", left)
		}
	})

	t.Run("SameNameAgain", func(t *testing.T) {
		first := w.makePod(t, "abc123-default", echoPod("again"))
		w.waitPod(t, "abc123-default", "again", isReady)
		if err := w.controlClient.CoreV1().Pods("abc123-default").Delete(t.Context(), "again", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
			t.Fatal(err)
		}
		second := w.makePod(t, "abc123-default", echoPod("again"))
		w.waitPod(t, "abc123-default", "again", isReady)
		below := a.below(t)
		if below[first.UID] != nil || below[second.UID] == nil {
			t.Errorf("below: %v", below)
		}
	})

	t.Run("EndedByThePool", func(t *testing.T) {
		pod := w.makePod(t, "abc123-default", echoPod("evicted"))
		w.waitPod(t, "abc123-default", "evicted", isReady)
		if err := a.client.CoreV1().Pods("abc123-default").Delete(t.Context(), "evicted", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
			t.Fatal(err)
		}
		got := w.waitPod(t, "abc123-default", "evicted", func(pod *corev1.Pod) error {
			if pod.Status.Phase != corev1.PodFailed {
				return errors.New(string(pod.Status.Phase))
			}
			return nil
		})
		disrupted := false
		for _, c := range got.Status.Conditions {
			disrupted = disrupted || c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue
		}
		if !disrupted || got.Status.ContainerStatuses[0].State.Terminated == nil {
			t.Errorf("status %+v", got.Status)
		}
		if a.below(t)[pod.UID] != nil {
			t.Error("it was made again")
		}
	})

	t.Run("RefusedByPolicy", func(t *testing.T) {
		bad := echoPod("bad")
		bad.Spec.HostNetwork = true
		w.makePod(t, "abc123-default", bad)
		got := w.waitPod(t, "abc123-default", "bad", func(pod *corev1.Pod) error {
			if pod.Status.Phase != corev1.PodFailed {
				return errors.New(string(pod.Status.Phase))
			}
			return nil
		})
		if got.Status.Reason != "PoolPolicyViolation" {
			t.Errorf("status %+v", got.Status)
		}
		w.waitEvent(t, "abc123-default", "bad", "PoolPolicyViolation")
	})

	t.Run("StrangersAreLeftAlone", func(t *testing.T) {
		stranger := echoPod("mine")
		if _, err := a.client.CoreV1().Pods("abc123-default").Create(t.Context(), stranger, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		w.makePod(t, "abc123-default", echoPod("mine"))
		w.waitEvent(t, "abc123-default", "mine", "PoolNameConflict")
		got, err := a.client.CoreV1().Pods("abc123-default").Get(t.Context(), "mine", metav1.GetOptions{})
		if err != nil || got.Labels[names.LabelManagedBy] != "" || got.DeletionTimestamp != nil {
			t.Errorf("the stranger's pod: %v, %v", got, err)
		}
		if _, err := a.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "abc123-taken"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		w.tenant(t, "abc123-taken")
		w.makePod(t, "abc123-taken", echoPod("web"))
		// The pool pod would be made in somebody else's namespace: that it exists is not enough.
		w.waitEvent(t, "abc123-taken", "web", "PoolNameConflict")
	})

	t.Run("NotATenantsPod", func(t *testing.T) {
		w.namespace(t, "operat-tools", nil)
		w.makePod(t, "operat-tools", echoPod("web"))
		w.waitEvent(t, "operat-tools", "web", "PoolPolicyViolation")
		if list, err := a.client.CoreV1().Pods("operat-tools").List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) > 0 {
			t.Errorf("pods below: %v, %v", list, err)
		}
	})
}

// TestKilledMidBurst kills the program again and again while pods come and go, and compares both sides by UID.
func TestKilledMidBurst(t *testing.T) {
	w := newWorld(t, "pool-a", "pool-b")
	r := w.start(t)
	w.ready(t, "pool-a", "pool-b")
	const tenants, each = 4, 40
	var namespaces []string
	for n := range tenants {
		namespace := fmt.Sprintf("burst%d-default", n)
		namespaces = append(namespaces, namespace)
		w.tenant(t, namespace)
	}
	stop := make(chan struct{})
	var killing sync.WaitGroup
	killing.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(1500 * time.Millisecond):
			}
			r.kill()
			r = w.start(t)
		}
	})
	var making sync.WaitGroup
	for _, namespace := range namespaces {
		making.Go(func() {
			for n := range each {
				pod, err := w.controlClient.CoreV1().Pods(namespace).Create(t.Context(), echoPod(fmt.Sprintf("p%d", n)), metav1.CreateOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				switch n % 4 {
				case 1: // gone soon after
					_ = w.controlClient.CoreV1().Pods(namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{})
				case 2: // gone by force, and a namesake at once
					_ = w.controlClient.CoreV1().Pods(namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
					if _, err := w.controlClient.CoreV1().Pods(namespace).Create(t.Context(), echoPod(pod.Name), metav1.CreateOptions{}); err != nil {
						t.Error(err)
					}
				}
				time.Sleep(60 * time.Millisecond)
			}
		})
	}
	making.Wait()
	close(stop)
	killing.Wait()
	if t.Failed() {
		return
	}

	w.settle(t, []*running{r}, func() error {
		want := map[types.UID]bool{}
		for _, namespace := range namespaces {
			list, err := w.controlClient.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				return err
			}
			for i := range list.Items {
				if err := isReady(&list.Items[i]); err != nil {
					return fmt.Errorf("%s: %w", list.Items[i].Name, err)
				}
				want[list.Items[i].UID] = true
			}
		}
		if len(want) != tenants*each*3/4 {
			return fmt.Errorf("%d control pods", len(want))
		}
		got := map[types.UID]bool{}
		for _, p := range w.pools {
			pods, err := p.ask(t)
			if err != nil {
				return err
			}
			for uid := range pods {
				if got[uid] {
					t.Fatalf("control pod %s runs in two pools", uid)
				}
				got[uid] = true
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("pods (-control +pools):\n%s", diff)
		}
		return nil
	})

	// Nothing is written once both sides agree, and a restart writes nothing either.
	versions := func() map[types.UID]string {
		out := map[types.UID]string{}
		for _, namespace := range namespaces {
			list, err := w.controlClient.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, pod := range list.Items {
				out[pod.UID] = pod.ResourceVersion
			}
		}
		for _, p := range w.pools {
			for uid, pod := range p.below(t) {
				out["below-"+uid] = pod.ResourceVersion
			}
		}
		return out
	}
	before := versions()
	r.kill()
	r = w.start(t)
	w.ready(t, "pool-a", "pool-b")
	// The Nodes are ready as they were; who runs a new pod in a pool has opened it.
	for _, name := range []string{"pool-a", "pool-b"} {
		pod := echoPod("after-" + name)
		pod.Spec.NodeName = name + "-0"
		w.makePod(t, namespaces[0], pod)
	}
	for _, name := range []string{"pool-a", "pool-b"} {
		w.waitPod(t, namespaces[0], "after-"+name, isReady)
	}
	after := versions()
	for uid, version := range before {
		if after[uid] != version {
			t.Errorf("%s was written by the restart", uid)
		}
	}
}

// TestPoolComesAndGoes registers a pool while the program runs, drains it, and lets it go.
func TestPoolComesAndGoes(t *testing.T) {
	w := newWorld(t, "pool-a", "pool-b")
	b := w.pools["pool-b"]
	w.start(t)
	w.ready(t, "pool-a", "pool-b")
	w.tenant(t, "abc123-default")

	resource := func() *v1alpha1.ResourcePool {
		t.Helper()
		r := &v1alpha1.ResourcePool{}
		if err := w.admin.Get(t.Context(), types.NamespacedName{Name: "pool-b"}, r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	eventually(t, "pool-b is ready", func() error {
		status := resource().Status
		for _, kind := range []string{v1alpha1.PoolReachable, v1alpha1.PoolIdentified, v1alpha1.PoolAuthorized, v1alpha1.PoolReady} {
			if !meta.IsStatusConditionTrue(status.Conditions, kind) {
				return fmt.Errorf("conditions %v", status.Conditions)
			}
		}
		if status.Nodes != 1 || status.VirtualNodes != 1 || status.KubernetesVersion == "" || status.Allocatable.Cpu().IsZero() {
			return fmt.Errorf("status %+v", status)
		}
		return nil
	})

	// So that the pods go to pool-b.
	w.cordon(t, "pool-a", true)
	var made []*corev1.Pod
	for n := range 3 {
		made = append(made, w.makePod(t, "abc123-default", echoPod(fmt.Sprintf("p%d", n))))
	}
	for _, pod := range made {
		got := w.waitPod(t, "abc123-default", pod.Name, isReady)
		if got.Spec.NodeName != "pool-b-0" {
			t.Errorf("pod %s is on %s", pod.Name, got.Spec.NodeName)
		}
	}
	w.cordon(t, "pool-a", false)

	if err := w.admin.Delete(t.Context(), resource()); err != nil {
		t.Fatal(err)
	}
	for _, pod := range made {
		w.waitNoPod(t, "abc123-default", pod.Name)
	}
	eventually(t, "the ResourcePool goes", func() error {
		err := w.admin.Get(t.Context(), types.NamespacedName{Name: "pool-b"}, &v1alpha1.ResourcePool{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there: %w", err)
	})
	if left := b.below(t); len(left) > 0 {
		t.Errorf("left in the pool: %v", left)
	}
	if _, err := w.controlClient.CoreV1().Nodes().Get(t.Context(), "pool-b-0", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("its node: %v", err)
	}
}
