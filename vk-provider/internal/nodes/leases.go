package nodes

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"

	"vivarium.io/vivarium/internal/boot"
)

const (
	// leaseSeconds is how long a Lease stands, as kubelets have it.
	leaseSeconds = 40
	// leaseWorkers bounds how many Leases are renewed together.
	leaseWorkers = 8
)

// leases renews the Leases of all virtual Nodes with a few workers, however many Nodes there are.
type leases struct {
	config Config
	queue  workqueue.TypedDelayingInterface[string]

	mu sync.Mutex // guards the rest
	// pools has the Nodes of each pool.
	pools map[string]map[string]bool
	// last is each Node's Lease as last written or read.
	last map[string]*coordinationv1.Lease
}

func newLeases(config Config) *leases {
	return &leases{
		config: config, queue: workqueue.NewTypedDelayingQueue[string](),
		pools: map[string]map[string]bool{}, last: map[string]*coordinationv1.Lease{},
	}
}

// set says which Nodes a pool has. They are renewed whether or not the pool answers: a Lease says that somebody looks
// after the Node, and the Ready condition how it is. Left to expire, the control cluster would write a condition of its
// own over ours, again and again.
func (l *leases) set(pool string, nodes []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.pools[pool]
	is := map[string]bool{}
	for _, node := range nodes {
		is[node] = true
		if !was[node] {
			l.queue.Add(node)
		}
	}
	for node := range was {
		if !is[node] {
			delete(l.last, node)
		}
	}
	l.pools[pool] = is
}

func (l *leases) wanted(node string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, nodes := range l.pools {
		if nodes[node] {
			return true
		}
	}
	return false
}

func (l *leases) run(ctx context.Context) {
	var running sync.WaitGroup
	for range leaseWorkers {
		running.Go(func() {
			for l.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	l.queue.ShutDown()
	running.Wait()
}

func (l *leases) next(ctx context.Context) bool {
	node, shutdown := l.queue.Get()
	if shutdown {
		return false
	}
	defer l.queue.Done(node)
	if !l.wanted(node) {
		return true
	}
	err := l.renew(ctx, node)
	if err != nil && ctx.Err() == nil {
		boot.Logger(ctx).Info("lease not renewed", "node", node, "error", err)
	}
	l.config.Metrics.leases.WithLabelValues(resultOf(err)).Inc()
	wait := l.config.LeaseEvery
	if err != nil {
		wait /= 5
	}
	// Spread out what was started together.
	l.queue.AddAfter(node, wait-time.Duration(rand.Int64N(int64(wait/10)+1))) //nolint:gosec // jitter
	return true
}

func (l *leases) renew(ctx context.Context, name string) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	client := l.config.Control.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	l.mu.Lock()
	lease := l.last[name]
	l.mu.Unlock()
	if lease == nil {
		got, err := client.Get(call, name, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("read Lease of Node %s: %w", name, err)
		}
		if err == nil {
			lease = got
		}
	}
	node, ok := l.config.Cache.Node(name)
	if !ok {
		return nil // it will be back, or is being created right now
	}
	want := filled(lease, node)
	var err error
	if lease == nil {
		want, err = client.Create(call, want, metav1.CreateOptions{FieldManager: Component})
	} else {
		want, err = client.Update(call, want, metav1.UpdateOptions{FieldManager: Component})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		delete(l.last, name)
		return fmt.Errorf("renew Lease of Node %s: %w", name, err)
	}
	l.last[name] = want
	return nil
}

func filled(lease *coordinationv1.Lease, node *corev1.Node) *coordinationv1.Lease {
	if lease == nil {
		lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: node.Name, Namespace: corev1.NamespaceNodeLease}}
	} else {
		lease = lease.DeepCopy()
	}
	lease.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}
	lease.Spec.HolderIdentity = ptr.To(node.Name)
	lease.Spec.LeaseDurationSeconds = ptr.To[int32](leaseSeconds)
	lease.Spec.RenewTime = ptr.To(metav1.NewMicroTime(time.Now()))
	return lease
}

func resultOf(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}
