package carrier

import (
	"k8s.io/client-go/util/workqueue"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/syncer/internal/kind"
)

// fair is the order in which keys are worked on: one key of each tenant in turn, so that a tenant with ten thousand new
// Secrets delays its own pods and nobody else's. The queue around it serialises the calls.
type fair struct {
	turns []names.TenantID
	lines map[names.TenantID][]kind.Key
	size  int
}

var _ workqueue.Queue[kind.Key] = (*fair)(nil)

func newFair() *fair { return &fair{lines: map[names.TenantID][]kind.Key{}} }

// Touch implements workqueue.Queue: a key that is queued already keeps its place.
func (*fair) Touch(kind.Key) {}

// Push implements workqueue.Queue.
func (f *fair) Push(key kind.Key) {
	tenant, _, _ := names.SplitNamespace(key.Namespace)
	if len(f.lines[tenant]) == 0 {
		f.turns = append(f.turns, tenant)
	}
	f.lines[tenant] = append(f.lines[tenant], key)
	f.size++
}

// Len implements workqueue.Queue.
func (f *fair) Len() int { return f.size }

// Pop implements workqueue.Queue; it is called only when Len is positive.
func (f *fair) Pop() kind.Key {
	tenant := f.turns[0]
	f.turns = f.turns[1:]
	line := f.lines[tenant]
	key := line[0]
	if len(line) > 1 {
		f.lines[tenant] = line[1:]
		f.turns = append(f.turns, tenant)
	} else {
		delete(f.lines, tenant)
	}
	f.size--
	return key
}
