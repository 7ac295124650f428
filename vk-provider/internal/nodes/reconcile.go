package nodes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/vk-provider/internal/capacity"
	"vivarium.io/vivarium/vk-provider/internal/poolcache"
)

// callTimeout bounds one call to the control cluster or the admin API.
const callTimeout = 10 * time.Second

// pass is one look at a pool.
type pass struct {
	resource *v1alpha1.ResourcePool
	// cache is nil while the pool is closed or not known yet.
	cache  *poolcache.Cache
	health health
	plan   []capacity.Node
	// nodes are the pool's virtual Nodes as they are.
	nodes map[string]*corev1.Node
	// drained is how far a drain is; nil while there is none.
	drained *remains
}

func (p *pass) leaving() bool { return p.resource.DeletionTimestamp != nil }

// reconcile brings one pool's virtual Nodes and the ResourcePool's status in line.
func (c *Controller) reconcile(ctx context.Context, pool string) error {
	p := &pass{nodes: map[string]*corev1.Node{}}
	for _, node := range c.config.Cache.NodesOfPool(pool) {
		p.nodes[node.Name] = node
	}
	if !c.config.Registry.HasSynced() {
		return nil // what is not known yet is not gone
	}
	resource, ok := c.config.Registry.Resource(pool)
	if !ok {
		return c.abandoned(ctx, pool, p)
	}
	p.resource = resource
	status, checked := c.config.Registry.Status(pool)
	c.judgeSilence(ctx)
	p.health = judge(c.outlook(resource, status, checked))
	known := 0
	if err := c.unfence(ctx, p); err != nil {
		return err
	}
	if cache := c.cache(pool); cache != nil && cache.HasSynced() {
		p.cache = cache
		spec := resource.Spec
		spec.Cordoned = spec.Cordoned || p.leaving() || spec.Drain != nil
		p.plan = capacity.Plan(capacity.Pool{Name: pool, Spec: spec}, cache.Nodes())
		known = c.correct(pool, p.plan)
	}
	if p.leaving() {
		if err := c.drain(ctx, p); err != nil {
			return err
		}
	} else if err := c.keep(ctx, p); err != nil {
		return err
	}
	trouble := c.publish(ctx, p)
	if resource.Spec.Drain != nil && !p.leaving() {
		trouble = errors.Join(trouble, c.empty(ctx, p))
	}
	var alive []string
	for name := range p.nodes {
		alive = append(alive, name)
	}
	c.leases.set(pool, alive)
	c.config.Books.Of(pool).Shown(known)
	c.measure(p)
	return errors.Join(trouble, c.report(ctx, p, status, checked))
}

// abandoned deals with Nodes whose ResourcePool is gone although we never let it go: the admin API has lost it. Their
// pods may be running, so nothing is deleted.
func (c *Controller) abandoned(ctx context.Context, pool string, p *pass) error {
	var alive []string
	for name, node := range p.nodes {
		alive = append(alive, name)
		if node.Spec.Unschedulable {
			continue
		}
		boot.Logger(ctx).Error("virtual Node has no ResourcePool; it is cordoned", "node", name, "pool", pool)
		changed := node.DeepCopy()
		changed.Spec.Unschedulable = true
		if _, err := c.patch(ctx, node, changed); err != nil {
			return err
		}
	}
	c.leases.set(pool, alive)
	return nil
}

// keep makes the Nodes what the plan says.
func (c *Controller) keep(ctx context.Context, p *pass) error {
	planned := map[string]bool{}
	for i := range p.plan {
		planned[p.plan[i].Name] = true
		if err := c.ensure(ctx, p, &p.plan[i]); err != nil {
			return err
		}
	}
	for name, node := range p.nodes {
		if planned[name] {
			c.needed(name)
			continue
		}
		if err := c.surplus(ctx, p, node); err != nil {
			return err
		}
	}
	return nil
}

// ensure makes one Node.
func (c *Controller) ensure(ctx context.Context, p *pass, want *capacity.Node) error {
	node := p.nodes[want.Name]
	if node == nil {
		if !p.health.ready || p.health.silent {
			return nil
		}
		created, err := c.create(ctx, want, p.health)
		if err != nil {
			return err
		}
		node = created
	} else if shelled := shell(node, *want, p.health, c.now()); !same(node, shelled) {
		patched, err := c.patch(ctx, node, shelled)
		if err != nil {
			return err
		}
		node = patched
	}
	p.nodes[want.Name] = node
	patched, err := c.patchStatus(ctx, node, status(node, want, p.health, c.place(), c.now()))
	if err != nil {
		return err
	}
	p.nodes[want.Name] = patched
	return nil
}

func (c *Controller) create(ctx context.Context, want *capacity.Node, h health) (*corev1.Node, error) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	node, err := c.config.Control.CoreV1().Nodes().Create(call, shell(nil, *want, h, c.now()), metav1.CreateOptions{FieldManager: Component})
	if err != nil {
		// Also when it is there: a Node of that name without our label is somebody else's.
		return nil, fmt.Errorf("create Node %s: %w", want.Name, err)
	}
	boot.Logger(ctx).Info("virtual node created", "node", want.Name)
	return node, nil
}

// surplus deals with a Node that the plan has no need of: it takes no new pods, and goes when it has been empty and
// unneeded for a while. A pool's node that only restarts must not take a virtual one with it.
func (c *Controller) surplus(ctx context.Context, p *pass, node *corev1.Node) error {
	node, err := c.close(ctx, p, node, p.cache != nil)
	if err != nil {
		return err
	}
	if p.cache == nil {
		c.needed(node.Name) // without a plan nothing is unneeded
		return nil
	}
	if c.unneededFor(node.Name) < c.config.RetireAfter || len(c.config.Cache.PodsOnNode(node.Name)) > 0 {
		return nil
	}
	return c.remove(ctx, p, node)
}

// close brings a Node in line that no plan has: cordoned or as it is, and with its pool's health.
func (c *Controller) close(ctx context.Context, p *pass, node *corev1.Node, cordon bool) (*corev1.Node, error) {
	changed := node.DeepCopy()
	changed.Spec.Unschedulable = changed.Spec.Unschedulable || cordon
	changed.Spec.Taints = taints(node, p.health, c.now())
	if !same(node.Spec, changed.Spec) {
		patched, err := c.patch(ctx, node, changed)
		if err != nil {
			return node, err
		}
		node = patched
	}
	patched, err := c.patchStatus(ctx, node, status(node, nil, p.health, c.place(), c.now()))
	if err != nil {
		return node, err
	}
	p.nodes[node.Name] = patched
	return patched, nil
}

func (c *Controller) remove(ctx context.Context, p *pass, node *corev1.Node) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := c.config.Control.CoreV1().Nodes().Delete(call, node.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(node.UID))})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete Node %s: %w", node.Name, err)
	}
	boot.Logger(ctx).Info("virtual node deleted", "node", node.Name)
	delete(p.nodes, node.Name)
	c.needed(node.Name)
	return nil
}

func (c *Controller) needed(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.unneeded, node)
}

func (c *Controller) unneededFor(node string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	since, ok := c.unneeded[node]
	if !ok {
		c.unneeded[node] = time.Now()
		return 0
	}
	return time.Since(since)
}

func (c *Controller) place() place { return place{c.config.Address.String(), c.config.Port} }

func (c *Controller) now() metav1.Time { return metav1.NewTime(time.Now().Truncate(time.Second)) }

// patch writes metadata and spec, on condition that nobody else did meanwhile: taints have one list and several writers.
func (c *Controller) patch(ctx context.Context, was, now *corev1.Node) (*corev1.Node, error) {
	patch, err := difference(was, now)
	if err != nil || patch == nil {
		return was, err
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	node, err := c.config.Control.CoreV1().Nodes().Patch(call, was.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldManager: Component})
	if err != nil {
		return nil, fmt.Errorf("change Node %s: %w", was.Name, err)
	}
	return node, nil
}

func (c *Controller) patchStatus(ctx context.Context, was *corev1.Node, want corev1.NodeStatus) (*corev1.Node, error) {
	if same(was.Status, want) {
		return was, nil
	}
	now := was.DeepCopy()
	now.Status = want
	patch, err := difference(was, now)
	if err != nil || patch == nil {
		return was, err
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	node, err := c.config.Control.CoreV1().Nodes().PatchStatus(call, was.Name, patch)
	if err != nil {
		return nil, fmt.Errorf("write status of Node %s: %w", was.Name, err)
	}
	if before, after := condition(was, corev1.NodeReady), condition(node, corev1.NodeReady); after != nil && (before == nil || before.Status != after.Status) {
		boot.Logger(ctx).Info("virtual node changed", "node", node.Name, "ready", after.Status, "reason", after.Reason)
		kind := corev1.EventTypeNormal
		if after.Status != corev1.ConditionTrue {
			kind = corev1.EventTypeWarning
		}
		c.config.Recorder.Event(node, kind, after.Reason, after.Message)
	}
	return node, nil
}

// difference gives the strategic merge patch between two Nodes with the first one's version as its condition; nil when
// they are alike.
func difference(was, now *corev1.Node) ([]byte, error) {
	before, err := json.Marshal(was)
	if err != nil {
		return nil, fmt.Errorf("compare Node %s: %w", was.Name, err)
	}
	after, err := json.Marshal(now)
	if err != nil {
		return nil, fmt.Errorf("compare Node %s: %w", was.Name, err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Node{})
	if err != nil {
		return nil, fmt.Errorf("compare Node %s: %w", was.Name, err)
	}
	fields := map[string]any{}
	if err := json.Unmarshal(patch, &fields); err != nil {
		return nil, fmt.Errorf("compare Node %s: %w", was.Name, err)
	}
	if len(fields) == 0 {
		return nil, nil
	}
	meta, _ := fields["metadata"].(map[string]any)
	if meta == nil {
		meta = map[string]any{}
	}
	meta["resourceVersion"], meta["uid"] = was.ResourceVersion, was.UID
	fields["metadata"] = meta
	return json.Marshal(fields)
}
