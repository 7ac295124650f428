// Package capacity decides which virtual Nodes a pool gets: how many, how big, how labelled. It is pure; the nodes
// controller writes what it decides.
//
// A virtual Node must never promise what the pool cannot hold in one piece: a pool with eight free cores on each of a
// hundred nodes has no room for a pod of nine. And it must never subtract our own pods: the control scheduler does that.
// Start at [Plan].
package capacity

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/version"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

// Labels of virtual Nodes besides names.LabelPool.
const (
	// LabelSimulated is "true" on the virtual Nodes of a pool whose nodes run no containers.
	LabelSimulated = names.Domain + "/simulated"
	labelType      = "type"
	typeVirtual    = "virtual-kubelet"
)

// AnnotationPoolNode is on a virtual Node that mirrors one node of its pool, and names that.
const AnnotationPoolNode = names.Domain + "/pool-node"

// defaultMax is how many virtual Nodes a pool gets at most when it does not say.
const defaultMax = 200

// PoolNode is what counts of one node of a pool.
type PoolNode struct {
	Name   string
	Labels map[string]string
	// Ready and Open say whether its kubelet is well, and whether a pod of a tenant may be scheduled on it.
	Ready, Open bool
	Allocatable corev1.ResourceList
	// Foreign is what pods that are not ours have reserved, with the number of them under "pods".
	Foreign   corev1.ResourceList
	Info      corev1.NodeSystemInfo
	Simulated bool
}

// FromNode reads a pool's node.
func FromNode(node *corev1.Node, foreign corev1.ResourceList) PoolNode {
	n := PoolNode{
		Name: node.Name, Labels: node.Labels, Open: !node.Spec.Unschedulable,
		Allocatable: node.Status.Allocatable, Foreign: foreign, Info: node.Status.NodeInfo,
		// KWOK's own marks; its default configuration manages the nodes with this annotation.
		Simulated: node.Annotations["kwok.x-k8s.io/node"] == "fake" || node.Labels["type"] == "kwok",
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			n.Ready = c.Status == corev1.ConditionTrue
		}
	}
	for _, taint := range node.Spec.Taints {
		// Our pods tolerate nothing. A node's own troubles are in its conditions already.
		if taint.Effect != corev1.TaintEffectPreferNoSchedule && taint.Key != corev1.TaintNodeNotReady && taint.Key != corev1.TaintNodeUnreachable {
			n.Open = false
		}
	}
	return n
}

// Pool is what a plan is made for.
type Pool struct {
	Name string
	Spec v1alpha1.ResourcePoolSpec
}

// Node is one virtual Node as it should be.
type Node struct {
	Name string
	// PoolNode is the node that it mirrors; empty where it stands for none in particular.
	PoolNode string
	Labels   map[string]string
	// Taints are those that say what the pool takes.
	Taints      []corev1.Taint
	Allocatable corev1.ResourceList
	// Offered is less than Allocatable while the pool has shown that it cannot keep what it promised; nil otherwise.
	Offered corev1.ResourceList
	Info    corev1.NodeSystemInfo
	// Ready is false while the mirrored node is not; Unschedulable keeps new pods away.
	Ready, Unschedulable bool
}

// Plan gives the virtual Nodes of a pool, in order of their names' ordinals or of the pool's node names. The same input
// gives the same plan, and a pool that grows or shrinks keeps the names that it still needs.
func Plan(pool Pool, nodes []PoolNode) []Node {
	nodes = selected(pool.Spec.Nodes.Selector, nodes)
	most := int(pool.Spec.Nodes.Max)
	if most <= 0 {
		most = defaultMax
	}
	var plan []Node
	switch pool.Spec.Nodes.Mode {
	case v1alpha1.NodesMirrored:
		plan = mirrored(pool, nodes)
	case v1alpha1.NodesAggregate:
		plan = aggregate(pool, inUse(nodes))
	default:
		plan = shaped(pool, inUse(nodes), most)
	}
	plan = plan[:min(len(plan), most)]
	limit(plan, pool.Spec.Limits)
	for i := range plan {
		plan[i].Unschedulable = plan[i].Unschedulable || pool.Spec.Cordoned
		plan[i].Taints = taints(pool)
	}
	return plan
}

// taints tell the scheduler what the pool takes. Pods of chosen tenants tolerate the one about tenants by themselves. Who
// meets a Pod Security level the scheduler cannot know, so that other pools are only preferred.
func taints(pool Pool) []corev1.Taint {
	var out []corev1.Taint
	if pool.Spec.Tenants != nil {
		out = append(out, corev1.Taint{Key: names.TaintTenants, Value: pool.Name, Effect: corev1.TaintEffectNoSchedule})
	}
	if level := pool.Spec.Pods.SecurityLevel; level == v1alpha1.SecurityRestricted {
		out = append(out, corev1.Taint{Key: names.TaintSecurity, Value: string(level), Effect: corev1.TaintEffectPreferNoSchedule})
	}
	return out
}

// limit takes from a plan what is more than the limits together, from the last Nodes first.
func limit(plan []Node, limits corev1.ResourceList) {
	for name, most := range limits {
		left := most.DeepCopy()
		for i := range plan {
			have, there := plan[i].Allocatable[name]
			if !there {
				continue
			}
			if left.Cmp(have) < 0 {
				have = left.DeepCopy()
				plan[i].Allocatable[name] = have
			}
			left.Sub(have.DeepCopy())
		}
	}
}

// InUse counts the pool's nodes that a plan stands on, and tells whether they are simulated.
func InUse(pool Pool, nodes []PoolNode) (count int, simulated bool) {
	using := inUse(selected(pool.Spec.Nodes.Selector, nodes))
	return len(using), allSimulated(using)
}

func selected(selector map[string]string, nodes []PoolNode) []PoolNode {
	var out []PoolNode
	for _, n := range nodes {
		if containsAll(n.Labels, selector) {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b PoolNode) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func containsAll(labels, wanted map[string]string) bool {
	for key, value := range wanted {
		if got, ok := labels[key]; !ok || got != value {
			return false
		}
	}
	return true
}

// inUse gives the nodes that pods can go to, all of one platform: a virtual Node that stands for several can promise only
// one, and the control scheduler's choice of a platform does not reach the pool's. A pool of several platforms is
// registered once for each, with a selector.
func inUse(nodes []PoolNode) []PoolNode {
	byPlatform := map[string][]PoolNode{}
	for _, n := range nodes {
		if n.Ready && n.Open {
			key := n.Info.OperatingSystem + "/" + n.Info.Architecture
			byPlatform[key] = append(byPlatform[key], n)
		}
	}
	return byPlatform[most(byPlatform)]
}

// most gives the key with the longest list; the lowest of equals.
func most[V any](lists map[string][]V) string {
	var best string
	for _, key := range slices.Sorted(maps.Keys(lists)) {
		if len(lists[key]) > len(lists[best]) {
			best = key
		}
	}
	return best
}

func mirrored(pool Pool, nodes []PoolNode) []Node {
	var plan []Node
	for _, n := range nodes {
		name := pool.Name + "-" + n.Name
		if len(validation.IsDNS1123Subdomain(name)) > 0 {
			continue // the name is too long to be a Node's
		}
		node := newNode(pool, name, []PoolNode{n}, usable(n))
		node.PoolNode, node.Ready, node.Unschedulable = n.Name, n.Ready, !n.Open
		plan = append(plan, node)
	}
	return plan
}

func aggregate(pool Pool, nodes []PoolNode) []Node {
	if len(nodes) == 0 {
		return nil
	}
	total := corev1.ResourceList{}
	for _, n := range nodes {
		Add(total, usable(n))
	}
	return []Node{newNode(pool, pool.Name+"-0", nodes, total)}
}

// shaped cuts the nodes into pieces of one shape. Each piece fits on a node beside the other pieces of that node, so what
// the control scheduler puts on it the pool can place.
func shaped(pool Pool, nodes []PoolNode, most int) []Node {
	shape := pool.Spec.Nodes.Shape
	if len(shape) == 0 {
		shape = commonShape(nodes)
	}
	var plan []Node
	for _, n := range nodes {
		left := usable(n)
		count := pieces(left, shape)
		for range count {
			if len(plan) == most {
				return plan
			}
			plan = append(plan, newNode(pool, fmt.Sprintf("%s-%d", pool.Name, len(plan)), nodes, piece(left, shape, count)))
		}
	}
	return plan
}

// pieces is how many pieces of the shape fit in what a node has left.
func pieces(left, shape corev1.ResourceList) int {
	count := int64(-1)
	for name, want := range shape {
		have := left[name]
		if want.MilliValue() <= 0 {
			continue
		}
		fit := have.MilliValue() / want.MilliValue()
		if count < 0 || fit < count {
			count = fit
		}
	}
	pods := left[corev1.ResourcePods]
	return int(max(0, min(count, pods.Value())))
}

// piece is the allocatable of one of count pieces: the shape, and an equal share of what every pod takes though no shape
// mentions it.
func piece(left, shape corev1.ResourceList, count int) corev1.ResourceList {
	out := shape.DeepCopy()
	for _, name := range []corev1.ResourceName{corev1.ResourcePods, corev1.ResourceEphemeralStorage} {
		have, there := left[name]
		if _, set := out[name]; !set && there {
			out[name] = *resource.NewQuantity(have.Value()/int64(count), have.Format)
		}
	}
	return out
}

// commonShape is the size that most of the nodes have, less what strangers take there: of the nodes of the commonest
// allocatable size, the least that any has left. Nodes of which strangers hold more than half are left out, or one of
// them would make every piece tiny.
func commonShape(nodes []PoolNode) corev1.ResourceList {
	bySize := map[string][]PoolNode{}
	for _, n := range nodes {
		key := n.Allocatable.Cpu().String() + "/" + n.Allocatable.Memory().String()
		bySize[key] = append(bySize[key], n)
	}
	group := bySize[most(bySize)]
	free := slices.DeleteFunc(slices.Clone(group), func(n PoolNode) bool {
		left := usable(n)
		return 2*left.Cpu().MilliValue() < n.Allocatable.Cpu().MilliValue() || 2*left.Memory().Value() < n.Allocatable.Memory().Value()
	})
	if len(free) == 0 {
		free = group
	}
	var shape corev1.ResourceList
	for _, n := range free {
		left := usable(n)
		if shape == nil {
			shape = left
			continue
		}
		for name, have := range shape {
			if q := left[name]; q.Cmp(have) < 0 {
				shape[name] = q
			}
		}
	}
	if shape.Cpu().IsZero() || shape.Memory().IsZero() {
		return nil // strangers hold everything
	}
	// What every pod takes is shared out between the pieces of a node instead; see piece.
	delete(shape, corev1.ResourcePods)
	delete(shape, corev1.ResourceEphemeralStorage)
	return shape
}

// usable is what a node has for tenants.
func usable(n PoolNode) corev1.ResourceList { return Left(n.Allocatable, n.Foreign) }

// Left is what is left of a when b is taken; nothing where b is more.
func Left(a, b corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	for name, q := range a {
		left := q.DeepCopy()
		if taken, ok := b[name]; ok {
			left.Sub(taken)
		}
		if left.Sign() < 0 {
			left = *resource.NewQuantity(0, q.Format)
		}
		out[name] = left
	}
	return out
}

// Offer is what the virtual Node offers now.
func (n *Node) Offer() corev1.ResourceList {
	if n.Offered != nil {
		return n.Offered
	}
	return n.Allocatable
}

// Totals gives what the nodes that a plan stands on have together, and their kubelets' versions, the oldest first.
func Totals(pool Pool, nodes []PoolNode) (total corev1.ResourceList, kubelets []string) {
	total = corev1.ResourceList{}
	for _, n := range inUse(selected(pool.Spec.Nodes.Selector, nodes)) {
		Add(total, n.Allocatable)
		if v := n.Info.KubeletVersion; v != "" && !slices.Contains(kubelets, v) {
			kubelets = append(kubelets, v)
		}
	}
	slices.SortFunc(kubelets, func(a, b string) int {
		one, err := version.ParseGeneric(a)
		other, otherErr := version.ParseGeneric(b)
		switch {
		case err != nil || otherErr != nil || a == b:
			return cmp.Compare(a, b)
		case one.LessThan(other):
			return -1
		default:
			return 1
		}
	})
	return total, kubelets
}

func newNode(pool Pool, name string, nodes []PoolNode, allocatable corev1.ResourceList) Node {
	labels := maps.Clone(pool.Spec.Nodes.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	first := nodes[0].Info
	zone := pool.Spec.Location.Zone
	if zone == "" {
		zone = pool.Name
	}
	for key, value := range map[string]string{
		names.LabelPool:            pool.Name,
		labelType:                  typeVirtual,
		corev1.LabelHostname:       name,
		corev1.LabelOSStable:       first.OperatingSystem,
		corev1.LabelArchStable:     first.Architecture,
		corev1.LabelTopologyZone:   zone,
		corev1.LabelTopologyRegion: pool.Spec.Location.Region,
	} {
		if value != "" && len(validation.IsValidLabelValue(value)) == 0 {
			labels[key] = value
		}
	}
	// A virtual Node has no address that a load balancer could send to.
	labels[corev1.LabelNodeExcludeBalancers] = "true"
	if allSimulated(nodes) {
		labels[LabelSimulated] = "true"
	}
	return Node{
		Name: name, Labels: labels, Allocatable: allocatable, Ready: true,
		Info: corev1.NodeSystemInfo{
			OperatingSystem: first.OperatingSystem, Architecture: first.Architecture,
			KubeletVersion: oldestKubelet(nodes), OSImage: "virtual node of pool " + pool.Name, ContainerRuntimeVersion: "vivarium://pool",
		},
	}
}

// oldestKubelet is the version that all nodes can be expected to have.
func oldestKubelet(nodes []PoolNode) string {
	oldest := nodes[0].Info.KubeletVersion
	for _, n := range nodes[1:] {
		have, err := version.ParseGeneric(oldest)
		other, otherErr := version.ParseGeneric(n.Info.KubeletVersion)
		if err != nil || otherErr == nil && other.LessThan(have) {
			oldest = n.Info.KubeletVersion
		}
	}
	return oldest
}

func allSimulated(nodes []PoolNode) bool {
	for _, n := range nodes {
		if !n.Simulated {
			return false
		}
	}
	return len(nodes) > 0
}

// Add adds b to a.
func Add(a, b corev1.ResourceList) {
	for name, q := range b {
		sum := a[name]
		sum.Add(q)
		a[name] = sum
	}
}
