package provider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/boot"
)

// Limits of the collection. A control cluster that came back empty or from an old backup must not empty the pools.
const (
	// orphansOfFew is how many orphans are never too many, as long as the control cluster has pods at all.
	orphansOfFew = 5
	// collectedPerMinute is the share of a pool's pods that may be deleted in a minute, in percent.
	collectedPerMinute = 5
)

// tooMany is the breaker: it says whether what looks like orphans looks more like a control cluster that has lost its
// memory. above is how many pods that one knows.
func tooMany(orphans, pods, above int) bool {
	return orphans > 0 && above == 0 || orphans > orphansOfFew && 2*orphans > pods
}

// Reasons why orphans are kept.
const (
	reasonTooMany      = "TooMany"
	reasonOtherControl = "OtherControlCluster"
)

// Kept says that a pool's orphans are not deleted until an operator has looked. The zero value says that none is kept.
type Kept struct{ Reason, Message string }

// collector deletes pool pods whose control pod is gone though nobody saw it go. It asks the control cluster itself,
// twice and some time apart, and asks it who it is.
type collector struct {
	worker *worker

	mu sync.Mutex // guards the rest
	// suspects maps control UIDs to the time of the first proof; zero before that.
	suspects map[types.UID]time.Time
	// acknowledged are those that an operator has said may go.
	acknowledged map[types.UID]bool
	kept         Kept
}

func newCollector(w *worker) *collector {
	return &collector{worker: w, suspects: map[types.UID]time.Time{}, acknowledged: map[types.UID]bool{}}
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
	suspects := c.current()
	c.worker.config.Metrics.orphans.WithLabelValues(c.worker.pool()).Set(float64(len(suspects)))
	if len(suspects) == 0 {
		c.keep(ctx, Kept{})
		return
	}
	if err := c.sameControl(ctx); err != nil {
		if errors.Is(err, errOtherControl) {
			c.keep(ctx, Kept{reasonOtherControl, err.Error() + "; none of them is deleted"})
		} else {
			boot.Logger(ctx).Info("cannot tell whether pool pods are orphans", "pool", c.worker.pool(), "error", err)
		}
		return
	}
	total := len(c.worker.cache.Ours())
	c.remove(ctx, c.prove(ctx, c.released(ctx, suspects, total)), max(2, int(float64(total)*collectedPerMinute/100*pace.Minutes())))
}

// current gives the suspects, less those that need no question: whose control pod is known after all, and who are gone.
func (c *collector) current() map[types.UID]time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[types.UID]time.Time, len(c.suspects))
	for uid, first := range c.suspects {
		pod, there := c.worker.cache.Find(uid)
		if _, known := c.worker.config.Cache.PodByUID(uid); known || !there || pod.DeletionTimestamp != nil {
			delete(c.suspects, uid)
			delete(c.acknowledged, uid)
			continue
		}
		out[uid] = first
	}
	return out
}

// released gives those suspects that the breaker lets through: all of them while they are few, and otherwise those that
// an operator has acknowledged. Whoever was not looked into yet counts as well, for they come one after the other.
func (c *collector) released(ctx context.Context, suspects map[types.UID]time.Time, total int) map[types.UID]time.Time {
	c.mu.Lock()
	var doubtful []types.UID
	out := map[types.UID]time.Time{}
	for uid, first := range suspects {
		if c.acknowledged[uid] {
			out[uid] = first
		} else {
			doubtful = append(doubtful, uid)
		}
	}
	c.mu.Unlock()
	if !tooMany(len(doubtful), total, c.worker.config.Cache.PodCount()) {
		c.keep(ctx, Kept{})
		return suspects
	}
	code := codeOf(doubtful)
	resource, ok := c.worker.config.Registry.Resource(c.worker.pool())
	if !ok || resource.Annotations[v1alpha1.AnnotationDeleteOrphans] != code {
		c.keep(ctx, Kept{reasonTooMany, fmt.Sprintf(
			"%d of the pool's %d pods have no pod in the control cluster, as if that had been restored; none of them is deleted. If they shall go: kubectl annotate --overwrite resourcepool %s %s=%s",
			len(doubtful), total, c.worker.pool(), v1alpha1.AnnotationDeleteOrphans, code)})
		return out
	}
	boot.Logger(ctx).Info("an operator has acknowledged orphans", "pool", c.worker.pool(), "orphans", len(doubtful))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, uid := range doubtful {
		c.acknowledged[uid] = true
	}
	return suspects
}

// codeOf stands for exactly these orphans, so that an operator's word is about what the operator has seen.
func codeOf(uids []types.UID) string {
	slices.Sort(uids)
	sum := sha256.New()
	for _, uid := range uids {
		fmt.Fprintln(sum, uid)
	}
	return hex.EncodeToString(sum.Sum(nil)[:5])
}

// keep makes known whether orphans are kept, and why.
func (c *collector) keep(ctx context.Context, kept Kept) {
	c.mu.Lock()
	news := c.kept != kept
	c.kept = kept
	c.mu.Unlock()
	if !news {
		return
	}
	if kept != (Kept{}) {
		boot.Logger(ctx).Error("orphans are kept", "pool", c.worker.pool(), "reason", kept.Reason, "message", kept.Message)
	}
	if c.worker.config.OnKept != nil {
		c.worker.config.OnKept(c.worker.pool())
	}
}

// prove asks the control cluster about each suspect, and gives those that are proven to be orphans for the second time.
func (c *collector) prove(ctx context.Context, suspects map[types.UID]time.Time) []*corev1.Pod {
	var guilty []*corev1.Pod
	for uid, first := range suspects {
		if !first.IsZero() && time.Since(first) < c.worker.config.OrphanGrace {
			continue
		}
		pod, orphan, err := c.ask(ctx, uid)
		switch {
		case err != nil:
			boot.Logger(ctx).Info("cannot tell whether a pool pod is an orphan", "pool", c.worker.pool(), "uid", uid, "error", err)
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
	return guilty
}

// remove deletes as many of the guilty as are allowed at once.
func (c *collector) remove(ctx context.Context, guilty []*corev1.Pod, allowed int) {
	log := boot.Logger(ctx).With("pool", c.worker.pool())
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
	delete(c.acknowledged, uid)
}

// ask asks the control cluster whether the control pod of a pool pod is gone.
func (c *collector) ask(ctx context.Context, uid types.UID) (*corev1.Pod, bool, error) {
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

// errOtherControl says that the control cluster is another one than it was.
var errOtherControl = errors.New("the control cluster is another one")

// sameControl makes sure that the control cluster is still the one whose pods these are.
func (c *collector) sameControl(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	system, err := c.worker.config.Control.CoreV1().Namespaces().Get(call, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("identify the control cluster: %w", err)
	}
	if want := c.worker.config.Registry.ControlUID(); system.UID != want {
		return fmt.Errorf("%w: it is %s, not %s whose pods these are", errOtherControl, system.UID, want)
	}
	return nil
}
