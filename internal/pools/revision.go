package pools

import (
	"context"
	"strconv"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// A cluster whose store is restored from a backup keeps its UID. What gives it away is that its resourceVersions, which only
// grow, go back; or that they leap, because whoever restores a store is told to raise them so that caches notice. What was
// known of the cluster is of no use then: watches that go on from a version which is yet to come see nothing, and say nothing.

// leap is further than a cluster gets between two looks: half of what etcd's tools raise versions by.
const leap = 500_000_000

// history is how far a cluster has been seen to be. The zero value has seen nothing.
type history struct {
	newest  atomic.Uint64
	restart atomic.Bool
}

// see notes a version, of an object or of a list.
func (h *history) see(version string) {
	v := number(version)
	for {
		newest := h.newest.Load()
		if v <= newest || h.newest.CompareAndSwap(newest, v) {
			return
		}
	}
}

// holds reports whether a version that is the cluster's newest by its own word goes on from a mark that was taken before the
// cluster was asked: what was seen since, of the same cluster, may well be newer. When it does not, it never does again.
func (h *history) holds(mark uint64, version string) bool {
	if v := number(version); v != 0 && mark != 0 && (v < mark || v > mark+leap) {
		h.restart.Store(true)
	}
	h.see(version)
	return !h.restart.Load()
}

// number reads a version; zero for what is none.
func number(version string) uint64 {
	v, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		return 0
	}
	return v
}

// Saw notes the resourceVersion of a pod that came from the pool.
func (p *Pool) Saw(resourceVersion string) { p.history.see(resourceVersion) }

// Mark is what [Pool.Continues] compares with; take it before the pool is asked.
func (p *Pool) Mark() uint64 { return p.history.newest.Load() }

// Continues reports whether an answer of the pool goes on from what it had told when the mark was taken, by the
// resourceVersion of a list of pods that was asked for after that and read from its store. False says that the pool has been
// restored from a backup: nothing that is known of it holds, and that something is not there proves nothing. The Pool is
// closed soon, and opened anew.
func (p *Pool) Continues(mark uint64, resourceVersion string) bool {
	return p.history.holds(mark, resourceVersion)
}

// Revision is the newest resourceVersion that the pool was seen at; empty for none, and for what was seen before a restore.
func (p *Pool) Revision() string {
	if v := p.history.newest.Load(); v != 0 && !p.history.restart.Load() {
		return strconv.FormatUint(v, 10)
	}
	return ""
}

// revision asks a cluster for the newest resourceVersion of its pods.
func revision(ctx context.Context, client kubernetes.Interface) (string, error) {
	// Without a version the answer is as new as the store; one object is enough to have it. Of pods, for the store of other
	// kinds may be another one.
	list, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return "", err
	}
	return list.ResourceVersion, nil
}
