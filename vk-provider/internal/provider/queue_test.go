package provider

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/internal/names"
)

// TestTenantsTakeTurns: whoever brings much waits behind himself only.
func TestTenantsTakeTurns(t *testing.T) {
	q := newQueue()
	defer q.ShutDown()
	for i := range 4 {
		q.Add(item{"noisy1", types.UID(fmt.Sprint(i))})
	}
	q.Add(item{"quiet1", "a"})
	q.Add(item{"quiet2", "b"})
	q.Add(item{"quiet1", "a"}) // again: once is enough
	var got []string
	for range 6 {
		i, _ := q.Get()
		got = append(got, string(i.tenant)+"/"+string(i.uid))
		q.Done(i)
	}
	want := []string{"noisy1/0", "quiet1/a", "quiet2/b", "noisy1/1", "noisy1/2", "noisy1/3"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if q.Len() != 0 {
		t.Errorf("%d are left", q.Len())
	}
}

// TestTheFirstLookNeverWaits: ten thousand pods of one tenant come out as fast as they are taken.
func TestTheFirstLookNeverWaits(t *testing.T) {
	const many = 10_000
	q := newQueue()
	defer q.ShutDown()
	for i := range many {
		q.Add(item{"abc123", types.UID(fmt.Sprint(i))})
	}
	if q.Len() != many {
		t.Errorf("%d of %d are ready", q.Len(), many)
	}
}

func TestItemFor(t *testing.T) {
	if got := itemFor("abc123-web", "u"); got != (item{"abc123", "u"}) {
		t.Errorf("got %v", got)
	}
	if got := itemFor("kube-system", "u"); got != (item{names.TenantID(""), "u"}) {
		t.Errorf("got %v", got)
	}
}

// TestWhatShouldBeOver and is not is looked at less and less often, and as soon as ever when it was over once.
func TestWhatShouldBeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		defer q.ShutDown()
		pod := item{"abc123", "a"}
		look := func(within time.Duration) (looks int) {
			q.Add(pod)
			for end := time.Now().Add(within); ; looks++ {
				i, _ := q.Get()
				if time.Now().After(end) {
					q.again(i, time.Hour) // it is over, and looked at as everything is
					q.Done(i)
					return looks
				}
				q.again(i, soon)
				q.Done(i)
			}
		}
		if looks := look(time.Second); looks < 4 {
			t.Errorf("%d looks in the first second", looks)
		}
		if looks := look(10 * time.Minute); looks > 10+10*60/2 {
			t.Errorf("%d looks in ten minutes", looks)
		}
		if looks := look(time.Second); looks < 4 {
			t.Errorf("%d looks in the first second after it was over", looks)
		}
	})
}
