package provider

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/internal/boot"
)

// Limits of the collection. A control cluster that came back empty or from an old backup must not empty the pools.
const (
	// orphansOfFew is how many orphans are never too many.
	orphansOfFew = 20
	// collectedPerMinute is the share of a pool's pods that may be deleted in a minute, in percent.
	collectedPerMinute = 5
)

// collector deletes pool pods whose control pod is gone though nobody saw it go. It asks the control cluster itself,
// twice and some time apart, and asks it who it is.
type collector struct {
	worker *worker

	mu sync.Mutex // guards suspects
	// suspects maps control UIDs to the time of the first proof; zero before that.
	suspects map[types.UID]time.Time
}

func newCollector(w *worker) *collector {
	return &collector{worker: w, suspects: map[types.UID]time.Time{}}
}

// suspect notes a pool pod to be looked into.
func (c *collector) suspect(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.suspects[uid]; !known {
		c.suspects[uid] = time.Time{}
	}
}

func (c *collector) run(ctx context.Context) {
	pace := c.worker.config.OrphanGrace / 6
	ticker, scan := time.NewTicker(pace), time.NewTicker(c.worker.config.OrphanEvery)
	defer ticker.Stop()
	defer scan.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-scan.C:
			c.scan()
		case <-ticker.C:
			if c.worker.healthy() {
				c.collect(ctx, pace)
			}
		}
	}
}

// scan suspects every pool pod without a control pod in the cache: an event may have been missed.
func (c *collector) scan() {
	for _, pod := range c.worker.cache.Ours() {
		if _, ok := c.worker.config.Cache.PodByUID(controlUID(pod)); !ok && pod.DeletionTimestamp == nil {
			c.suspect(controlUID(pod))
		}
	}
}

// collect looks into every suspect once.
func (c *collector) collect(ctx context.Context, pace time.Duration) {
	c.mu.Lock()
	suspects := make(map[types.UID]time.Time, len(c.suspects))
	for uid, first := range c.suspects {
		suspects[uid] = first
	}
	c.mu.Unlock()
	c.worker.config.Metrics.orphans.WithLabelValues(c.worker.pool()).Set(float64(len(suspects)))
	if len(suspects) == 0 {
		return
	}
	log := boot.Logger(ctx).With("pool", c.worker.pool())
	var guilty []*corev1.Pod
	for uid, first := range suspects {
		if !first.IsZero() && time.Since(first) < c.worker.config.OrphanGrace {
			continue
		}
		pod, orphan, err := c.prove(ctx, uid)
		switch {
		case err != nil:
			log.Info("cannot tell whether a pool pod is an orphan", "uid", uid, "error", err)
		case !orphan:
			c.clear(uid)
		case first.IsZero():
			c.mu.Lock()
			c.suspects[uid] = time.Now()
			c.mu.Unlock()
		default:
			guilty = append(guilty, pod)
		}
	}
	total := len(c.worker.cache.Ours())
	if len(guilty) > orphansOfFew && 2*len(guilty) > total {
		log.Error("most of a pool's pods look like orphans; none is deleted until an operator has looked at the control cluster", "orphans", len(guilty), "pods", total)
		return
	}
	if len(guilty) == 0 {
		return
	}
	if err := c.sameControl(ctx); err != nil {
		log.Error("orphans are kept", "error", err)
		return
	}
	allowed := max(2, int(float64(total)*collectedPerMinute/100*pace.Minutes()))
	for _, pod := range guilty[:min(len(guilty), allowed)] {
		if err := c.worker.stop(ctx, pod, stopGrace(state{pool: pod})); err != nil {
			log.Info("orphan stays for now", "error", err)
			continue
		}
		log.Info("orphan deleted", "namespace", pod.Namespace, "name", pod.Name, "uid", controlUID(pod))
		c.worker.config.Metrics.collected.WithLabelValues(c.worker.pool()).Inc()
		c.clear(controlUID(pod))
	}
}

func (c *collector) clear(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.suspects, uid)
}

// prove asks the control cluster whether the control pod of a pool pod is gone.
func (c *collector) prove(ctx context.Context, uid types.UID) (*corev1.Pod, bool, error) {
	pod, there := c.worker.cache.Find(uid)
	if _, known := c.worker.config.Cache.PodByUID(uid); known || !there || pod.DeletionTimestamp != nil {
		return nil, false, nil
	}
	control, err := c.worker.getControl(ctx, pod.Namespace, pod.Name)
	switch {
	case apierrors.IsNotFound(err):
		return pod, true, nil
	case err != nil:
		return nil, false, err
	default:
		return pod, control.UID != uid, nil
	}
}

// sameControl makes sure that the control cluster is still the one whose pods these are.
func (c *collector) sameControl(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	system, err := c.worker.config.Control.CoreV1().Namespaces().Get(call, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("identify the control cluster: %w", err)
	}
	if want := c.worker.config.Registry.ControlUID(); system.UID != want {
		return fmt.Errorf("the control cluster is %s, not %s whose pods these are", system.UID, want)
	}
	return nil
}
