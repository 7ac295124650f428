package provider

import (
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"vivarium.io/vivarium/internal/clock"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/vk-provider/internal/poolcache"
)

// TestContested has both clusters refuse writes because others write at the same time. Nothing else would bring the pod
// back, so it has to be looked at again.
func TestContested(t *testing.T) {
	busy := func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewConflict(corev1.Resource("pods"), "p", errors.New("the object has been modified"))
	}
	control, pool := fake.NewClientset(), fake.NewClientset()
	for _, client := range []*fake.Clientset{control, pool} {
		client.PrependReactor("patch", "pods", busy)
		client.PrependReactor("delete", "pods", busy)
	}
	cache, err := poolcache.New(&pools.Pool{Name: "pool-a", Client: pool}, Component)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorker(Config{Control: control, Clock: &clock.Clock{}, Metrics: NewMetrics(prometheus.NewRegistry())}, cache)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "abc123-web", Name: "p", UID: "one"}}
	w.below[pod.UID] = metav1.Now().Time
	for what, err := range map[string]error{
		"status": w.writeStatus(t.Context(), pod, corev1.PodStatus{Phase: corev1.PodRunning}),
		"stop":   w.stop(t.Context(), pod, 1),
		"finish": w.finish(t.Context(), pod),
	} {
		var later *laterError
		if !errors.As(err, &later) {
			t.Errorf("%s: %v, and nobody looks again", what, err)
		}
	}
}
