package provider

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"vivarium.io/vivarium/internal/names"
)

// item is one pod to look at.
type item struct {
	tenant names.TenantID
	uid    types.UID
}

// Failures back off; a first look never waits.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = 30 * time.Second
)

type queue struct {
	workqueue.TypedRateLimitingInterface[item]
	pace workqueue.TypedRateLimiter[item]
}

// again puts a pod back whose obstacle is known to last for about that long. What should be over at once, and is not, is looked
// at less and less often; everything else has its pace.
func (q queue) again(i item, after time.Duration) {
	if after >= awhile {
		q.Forget(i)
	} else {
		after = min(max(after, q.pace.When(i)), awhile)
	}
	q.AddAfter(i, after)
}

// newQueue makes a work queue that serves tenants in turn: one that brings ten thousand pods delays the others by one
// pod each.
func newQueue() queue {
	pace := workqueue.NewTypedItemExponentialFailureRateLimiter[item](firstRetry, lastRetry)
	return queue{workqueue.NewTypedRateLimitingQueueWithConfig(
		pace,
		workqueue.TypedRateLimitingQueueConfig[item]{
			DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[item]{
				Queue: workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[item]{Queue: &turns{waiting: map[names.TenantID][]item{}}}),
			}),
		}), pace}
}

// turns is the order of the queue. The work queue calls it under its own lock.
type turns struct {
	waiting map[names.TenantID][]item
	// order has every tenant that waits, the next one first.
	order []names.TenantID
	count int
}

func (t *turns) Touch(item) {}

func (t *turns) Push(i item) {
	if len(t.waiting[i.tenant]) == 0 {
		t.order = append(t.order, i.tenant)
	}
	t.waiting[i.tenant] = append(t.waiting[i.tenant], i)
	t.count++
}

func (t *turns) Len() int { return t.count }

func (t *turns) Pop() item {
	tenant := t.order[0]
	t.order = t.order[1:]
	line := t.waiting[tenant]
	next := line[0]
	if line = line[1:]; len(line) > 0 {
		t.waiting[tenant] = line
		t.order = append(t.order, tenant)
	} else {
		delete(t.waiting, tenant)
	}
	t.count--
	return next
}
