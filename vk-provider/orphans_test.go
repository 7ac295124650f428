package vkprovider_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
)

// TestControlThatForgot takes the control cluster's memory of all pods away, as a restore from an old backup does, and
// then makes it another cluster. Nothing below is deleted until an operator says so, about exactly these pods.
func TestControlThatForgot(t *testing.T) {
	w := newWorld(t, "pool-a")
	a := w.pools["pool-a"]
	r := w.start(t, orphansSoon)
	w.ready(t, "pool-a")
	w.tenant(t, "abc123-default")
	const pods = 8
	for n := range pods {
		w.makePod(t, "abc123-default", echoPod(fmt.Sprintf("p%d", n)))
	}
	for n := range pods {
		w.waitPod(t, "abc123-default", fmt.Sprintf("p%d", n), isReady)
	}
	below := a.below(t)
	etcd := w.control.EtcdClient(t)
	// behind changes what the control cluster remembers behind its API server's back.
	behind := func(change func() error) {
		t.Helper()
		w.control.KillAPIServer(t)
		if err := change(); err != nil {
			t.Fatal(err)
		}
		w.control.RestartAPIServer(t)
	}
	condition := func() *metav1.Condition {
		t.Helper()
		resource := &v1alpha1.ResourcePool{}
		if err := w.admin.Get(t.Context(), types.NamespacedName{Name: "pool-a"}, resource); err != nil {
			t.Fatal(err)
		}
		return meta.FindStatusCondition(resource.Status.Conditions, v1alpha1.PoolOrphansKept)
	}
	kept := func(reason, words string) (message string) {
		t.Helper()
		eventually(t, "the condition says "+reason+": "+words, func() error {
			c := condition()
			if c == nil || c.Status != metav1.ConditionTrue || c.Reason != reason || !strings.Contains(c.Message, words) {
				return fmt.Errorf("condition %+v", c)
			}
			message = c.Message
			return nil
		})
		return message
	}
	untouched := func() {
		t.Helper()
		now := a.below(t)
		for uid, pod := range below {
			if now[uid] == nil || now[uid].UID != pod.UID || now[uid].DeletionTimestamp != nil {
				t.Fatalf("pool pod %s: %+v", pod.Name, now[uid])
			}
		}
	}
	acknowledge := func(code string) {
		t.Helper()
		resource := &v1alpha1.ResourcePool{ObjectMeta: metav1.ObjectMeta{Name: "pool-a"}}
		patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.AnnotationDeleteOrphans, code))
		if err := w.admin.Patch(t.Context(), resource, patch); err != nil {
			t.Fatal(err)
		}
	}

	behind(func() error {
		_, err := etcd.Delete(t.Context(), "/registry/pods/abc123-", clientv3.WithPrefix())
		return err
	})
	// It may have looked while only some of them were known to be gone.
	all := fmt.Sprintf("%[1]d of the pool's %[1]d pods", len(below))
	message := kept("TooMany", all)
	code := regexp.MustCompile(regexp.QuoteMeta(v1alpha1.AnnotationDeleteOrphans) + `=(\w+)`).FindStringSubmatch(message)
	if code == nil {
		t.Fatalf("the message does not say what to do: %s", message)
	}
	untouched()
	// A restart forgets what was suspected, and comes to the same.
	r.kill()
	w.start(t, orphansSoon)
	if again := kept("TooMany", all); again != message {
		t.Errorf("%q, and after a restart %q", message, again)
	}
	// An acknowledgement of other orphans is none.
	acknowledge("0123456789")
	w.makePod(t, "abc123-default", echoPod("new"))
	w.waitPod(t, "abc123-default", "new", isReady)
	untouched()

	acknowledge(code[1])
	eventually(t, "the orphans go", func() error {
		now := a.below(t)
		for uid := range below {
			if now[uid] != nil {
				return errors.New("some are there")
			}
		}
		return nil
	})
	eventually(t, "the condition goes", func() error {
		if c := condition(); c != nil {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	// What has a control pod was never in question.
	if pod := w.waitPod(t, "abc123-default", "new", isReady); a.below(t)[pod.UID] == nil {
		t.Error("a pod with a control pod went as well")
	}
}

// TestAnotherControl has another cluster answer where the control cluster was, with the same pods gone.
func TestAnotherControl(t *testing.T) {
	w := newWorld(t, "pool-a")
	a := w.pools["pool-a"]
	r := w.start(t, orphansSoon)
	w.ready(t, "pool-a")
	w.tenant(t, "abc123-default")
	made := w.makePod(t, "abc123-default", echoPod("one"))
	w.waitPod(t, "abc123-default", "one", isReady)
	etcd := w.control.EtcdClient(t)
	w.control.KillAPIServer(t)
	// Its API server makes a new one at once, with another UID: that is all the identity that a cluster has.
	for _, key := range []string{"/registry/namespaces/kube-system", "/registry/pods/abc123-default/one"} {
		if _, err := etcd.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	w.control.RestartAPIServer(t)
	check := func() {
		t.Helper()
		if pod := a.below(t)[made.UID]; pod == nil || pod.DeletionTimestamp != nil {
			t.Fatalf("the pool pod: %+v", pod)
		}
	}
	eventually(t, "the condition says it", func() error {
		check()
		resource := &v1alpha1.ResourcePool{}
		if err := w.admin.Get(t.Context(), types.NamespacedName{Name: "pool-a"}, resource); err != nil {
			return err
		}
		if c := meta.FindStatusCondition(resource.Status.Conditions, v1alpha1.PoolOrphansKept); c == nil || c.Reason != "OtherControlCluster" {
			return fmt.Errorf("condition %+v", c)
		}
		return nil
	})
	// To whoever starts now nothing below is its own, and it leaves the other's namespace alone.
	r.kill()
	w.start(t, orphansSoon)
	w.makePod(t, "abc123-default", echoPod("two"))
	w.waitEvent(t, "abc123-default", "two", "PoolNameConflict")
	check()
}
