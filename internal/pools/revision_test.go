package pools

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	k8stesting "k8s.io/client-go/testing"

	"vivarium.io/vivarium/api/v1alpha1"
)

func TestHistory(t *testing.T) {
	type step struct {
		seen, list string
		want       bool
		meanwhile  string // seen while the list was under way
	}
	for name, steps := range map[string][]step{
		"Nothing":    {{list: "5", want: true}, {list: "5", want: true}, {list: "6", want: true}},
		"NoNumbers":  {{seen: "abc", want: true}, {list: "x", want: true}},
		"Back":       {{list: "100", want: true}, {list: "99"}, {list: "200"}},
		"BehindAPod": {{list: "100", want: true}, {seen: "150", list: "149"}},
		"Overtaken":  {{list: "353", want: true, meanwhile: "354"}, {list: "354", want: true}, {list: "353"}},
		"Ahead":      {{seen: "150", list: "150", want: true}, {seen: "140", list: "151", want: true}},
		"Raised":     {{list: "100", want: true}, {list: "1000000100"}},
		"Far":        {{list: "100", want: true}, {list: "400000100", want: true}},
	} {
		t.Run(name, func(t *testing.T) {
			p := &Pool{}
			for n, s := range steps {
				if s.seen != "" {
					p.Saw(s.seen)
				}
				mark := p.Mark()
				if s.meanwhile != "" {
					p.Saw(s.meanwhile)
				}
				if got := p.Continues(mark, s.list); got != s.want {
					t.Errorf("step %d: %t", n, got)
				}
			}
		})
	}
}

// TestRestoredFromABackup: a pool whose versions go back is closed and opened anew, and says so until its ResourcePool
// remembers; then for as long as nobody has confirmed it, whatever else happens to it.
func TestRestoredFromABackup(t *testing.T) {
	w := newWorld(t)
	w.secret(t, "pool-a", "east")
	var revision atomic.Int64
	revision.Store(1000)
	w.cluster(t, "east", "cluster-a").PrependReactor("list", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
		return true, &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: fmt.Sprint(revision.Add(1))}}, nil
	})
	w.pool(t, "pool-a", "cluster-a", time.Hour)
	restored := func() Finding {
		status, _ := w.registry.Status("pool-a")
		return status.Restored
	}
	first := func() *Pool {
		pool, ok := w.registry.Pool("pool-a")
		if !ok {
			return nil
		}
		return pool
	}
	until(t, "the pool is open", func() bool { return first() != nil && number(first().Revision()) > 1010 })
	was := first()
	if restored() != (Finding{}) {
		t.Fatalf("%+v", restored())
	}
	revision.Store(500)
	until(t, "it is noticed, and the pool is another Pool", func() bool { return restored().Good() && first() != nil && first() != was })
	change := func(f func(*v1alpha1.ResourcePool)) {
		t.Helper()
		resource := &v1alpha1.ResourcePool{}
		if err := w.admin.Get(t.Context(), types.NamespacedName{Name: "pool-a"}, resource); err != nil {
			t.Fatal(err)
		}
		f(resource)
		if err := w.admin.Update(t.Context(), resource); err != nil {
			t.Fatal(err)
		}
	}
	change(func(r *v1alpha1.ResourcePool) {
		r.Status.Conditions = []metav1.Condition{{Type: v1alpha1.PoolRestored, Status: metav1.ConditionTrue, Reason: "WentBack", Message: "as written"}}
	})
	until(t, "the ResourcePool remembers", func() bool { return restored().Message == "as written" })
	change(func(r *v1alpha1.ResourcePool) { r.Annotations = map[string]string{v1alpha1.AnnotationRestored: "true"} })
	until(t, "it is confirmed", func() bool { return restored() == Finding{} })
	// One that begins now goes by what is written down.
	change(func(r *v1alpha1.ResourcePool) {
		r.Annotations, r.Status.Conditions, r.Status.Revision = nil, nil, "1000000"
	})
	w.secret(t, "pool-a", "nowhere")
	until(t, "it is closed", func() bool { return first() == nil })
	w.secret(t, "pool-a", "east")
	until(t, "it is noticed by what is written down", func() bool { return restored().Good() })
	// A word that was given about another restore is none about this one, and one that comes together with what it is about is.
	mine := restored()
	word := func(message string) {
		t.Helper()
		change(func(r *v1alpha1.ResourcePool) {
			r.Annotations = map[string]string{v1alpha1.AnnotationRestored: "true"}
			r.Status.Conditions = []metav1.Condition{{Type: v1alpha1.PoolRestored, Status: mine.Status, Reason: mine.Reason, Message: message}}
		})
	}
	word("as written of another one")
	w.secret(t, "pool-a", "nowhere")
	until(t, "it is closed again", func() bool { return first() == nil })
	if restored() != mine {
		t.Fatalf("%+v", restored())
	}
	word(mine.Message)
	until(t, "it is confirmed at once", func() bool { return restored() == Finding{} })
}
