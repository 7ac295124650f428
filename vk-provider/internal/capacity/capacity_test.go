package capacity

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

func list(pairs ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

func node(name string, allocatable, foreign corev1.ResourceList) PoolNode {
	return PoolNode{
		Name: name, Ready: true, Open: true, Allocatable: allocatable, Foreign: foreign,
		Info: corev1.NodeSystemInfo{OperatingSystem: "linux", Architecture: "amd64", KubeletVersion: "v1.36.3"},
	}
}

// summary spells a plan in one line per node.
func summary(plan []Node) []string {
	var out []string
	for _, n := range plan {
		s := n.Name
		for _, name := range []corev1.ResourceName{"cpu", "memory", "pods", "vivarium.test/gpu"} {
			if q, ok := n.Allocatable[name]; ok {
				s += fmt.Sprintf(" %s=%s", name, q.String())
			}
		}
		if n.PoolNode != "" {
			s += " on " + n.PoolNode
		}
		if !n.Ready {
			s += " not-ready"
		}
		if n.Unschedulable {
			s += " unschedulable"
		}
		out = append(out, s)
	}
	return out
}

func TestPlan(t *testing.T) {
	big := list("cpu", "8", "memory", "32Gi", "pods", "110")
	small := list("cpu", "2", "memory", "8Gi", "pods", "110")
	none := corev1.ResourceList{}
	labelled := func(n PoolNode, key, value string) PoolNode { n.Labels = map[string]string{key: value}; return n }
	notReady := func(n PoolNode) PoolNode { n.Ready = false; return n }
	closed := func(n PoolNode) PoolNode { n.Open = false; return n }
	arm := func(n PoolNode) PoolNode { n.Info.Architecture = "arm64"; return n }

	cases := map[string]struct {
		spec  v1alpha1.ResourcePoolSpec
		nodes []PoolNode
		want  []string
	}{
		"NoNodes":       {v1alpha1.ResourcePoolSpec{}, nil, nil},
		"OnePerNode":    {v1alpha1.ResourcePoolSpec{}, []PoolNode{node("b", big, none), node("a", big, none)}, []string{"p-0 cpu=8 memory=32Gi pods=110", "p-1 cpu=8 memory=32Gi pods=110"}},
		"StrangersTake": {v1alpha1.ResourcePoolSpec{}, []PoolNode{node("a", big, list("cpu", "1", "pods", "3")), node("b", big, list("memory", "2Gi", "pods", "1"))}, []string{"p-0 cpu=7 memory=30Gi pods=107", "p-1 cpu=7 memory=30Gi pods=109"}},
		"AFullNodeDoesNotShrinkTheShape": {v1alpha1.ResourcePoolSpec{}, []PoolNode{node("a", big, list("cpu", "7")), node("b", big, none), node("c", big, none)},
			[]string{"p-0 cpu=8 memory=32Gi pods=110", "p-1 cpu=8 memory=32Gi pods=110"}},
		"ANodeThatIsTooSmallHoldsNone": {v1alpha1.ResourcePoolSpec{}, []PoolNode{node("a", big, none), node("b", big, none), node("c", small, none)},
			[]string{"p-0 cpu=8 memory=32Gi pods=110", "p-1 cpu=8 memory=32Gi pods=110"}},
		"ABiggerNodeHoldsSeveral": {v1alpha1.ResourcePoolSpec{}, []PoolNode{node("a", small, none), node("b", small, none), node("c", big, none)},
			[]string{"p-0 cpu=2 memory=8Gi pods=110", "p-1 cpu=2 memory=8Gi pods=110", "p-2 cpu=2 memory=8Gi pods=27", "p-3 cpu=2 memory=8Gi pods=27", "p-4 cpu=2 memory=8Gi pods=27", "p-5 cpu=2 memory=8Gi pods=27"}},
		"ShapeByChoice": {v1alpha1.ResourcePoolSpec{Nodes: v1alpha1.PoolNodes{Shape: list("cpu", "3", "memory", "4Gi")}}, []PoolNode{node("a", big, list("pods", "10")), node("b", small, none)},
			[]string{"p-0 cpu=3 memory=4Gi pods=50", "p-1 cpu=3 memory=4Gi pods=50"}},
		"TheScarcestResourceDecides": {v1alpha1.ResourcePoolSpec{Nodes: v1alpha1.PoolNodes{Shape: list("cpu", "1", "vivarium.test/gpu", "2")}},
			[]PoolNode{node("a", list("cpu", "8", "vivarium.test/gpu", "4", "pods", "10"), none), node("b", big, none)},
			[]string{"p-0 cpu=1 pods=5 vivarium.test/gpu=2", "p-1 cpu=1 pods=5 vivarium.test/gpu=2"}},
		"NothingFits":      {v1alpha1.ResourcePoolSpec{Nodes: v1alpha1.PoolNodes{Shape: list("cpu", "9")}}, []PoolNode{node("a", big, none)}, nil},
		"NoMoreThanMax":    {v1alpha1.ResourcePoolSpec{Nodes: v1alpha1.PoolNodes{Shape: list("cpu", "1"), Max: 2}}, []PoolNode{node("a", big, none)}, []string{"p-0 cpu=1 pods=13", "p-1 cpu=1 pods=13"}},
		"OnlySelected":     {v1alpha1.ResourcePoolSpec{Nodes: v1alpha1.PoolNodes{Selector: map[string]string{"for": "tenants"}}}, []PoolNode{node("a", big, none), labelled(node("b", small, none), "for", "tenants")}, []string{"p-0 cpu=2 memory=8Gi pods=110"}},
		"OnlyUsable":       {v1alpha1.ResourcePoolSpec{}, []PoolNode{notReady(node("a", big, none)), closed(node("b", big, none)), node("c", small, none)}, []string{"p-0 cpu=2 memory=8Gi pods=110"}},
		"OnePlatform":      {v1alpha1.ResourcePoolSpec{}, []PoolNode{arm(node("a", small, none)), node("b", big, none), node("c", big, none)}, []string{"p-0 cpu=8 memory=32Gi pods=110", "p-1 cpu=8 memory=32Gi pods=110"}},
		"Cordoned":         {v1alpha1.ResourcePoolSpec{Cordoned: true}, []PoolNode{node("a", small, none)}, []string{"p-0 cpu=2 memory=8Gi pods=110 unschedulable"}},
		"StrangersTakeAll": {v1alpha1.ResourcePoolSpec{}, []PoolNode{node("a", small, list("cpu", "5"))}, nil},
		"Aggregate":        {v1alpha1.ResourcePoolSpec{Nodes: v1alpha1.PoolNodes{Mode: v1alpha1.NodesAggregate}}, []PoolNode{node("a", small, list("cpu", "1")), node("b", big, none), notReady(node("c", big, none))}, []string{"p-0 cpu=9 memory=40Gi pods=220"}},
		"Mirrored": {v1alpha1.ResourcePoolSpec{Nodes: v1alpha1.PoolNodes{Mode: v1alpha1.NodesMirrored}}, []PoolNode{node("b.x", small, list("cpu", "1")), notReady(closed(node("a", big, none))), arm(node("c", small, none))},
			[]string{"p-a cpu=8 memory=32Gi pods=110 on a not-ready unschedulable", "p-b.x cpu=1 memory=8Gi pods=110 on b.x", "p-c cpu=2 memory=8Gi pods=110 on c"}},
		"MirroredNameTooLong": {v1alpha1.ResourcePoolSpec{Nodes: v1alpha1.PoolNodes{Mode: v1alpha1.NodesMirrored}}, []PoolNode{node(strings.Repeat("n", 252), small, none)}, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pool := Pool{Name: "p", Spec: tc.spec}
			if diff := cmp.Diff(tc.want, summary(Plan(pool, tc.nodes))); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLabelsAndInfo(t *testing.T) {
	size := list("cpu", "1", "memory", "1Gi", "pods", "9")
	a, b := node("a", size, nil), node("b", size, nil)
	b.Info.KubeletVersion = "v1.35.9"
	b.Simulated, a.Simulated = true, true
	pool := Pool{Name: "pool-a", Spec: v1alpha1.ResourcePoolSpec{
		Location: v1alpha1.PoolLocation{Region: "bj"},
		Nodes:    v1alpha1.PoolNodes{Labels: map[string]string{"tier": "gold", names.LabelPool: "forged"}},
	}}
	got := Plan(pool, []PoolNode{a, b})[1]
	want := map[string]string{
		"tier": "gold", "vivarium.io/pool": "pool-a", "vivarium.io/simulated": "true", "type": "virtual-kubelet",
		"kubernetes.io/hostname": "pool-a-1", "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
		"topology.kubernetes.io/zone": "pool-a", "topology.kubernetes.io/region": "bj",
		"node.kubernetes.io/exclude-from-external-load-balancers": "true",
	}
	if diff := cmp.Diff(want, got.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if got.Info.KubeletVersion != "v1.35.9" {
		t.Errorf("kubelet version %s is not what all nodes have", got.Info.KubeletVersion)
	}
	if count, simulated := InUse(pool, []PoolNode{a, b}); count != 2 || !simulated {
		t.Errorf("InUse = %d, %t", count, simulated)
	}
	a.Simulated = false
	if _, simulated := InUse(pool, []PoolNode{a, b}); simulated {
		t.Error("a pool with one real node is called simulated")
	}
}

func TestFromNode(t *testing.T) {
	ready := corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}
	taint := func(key string, effect corev1.TaintEffect) corev1.NodeSpec {
		return corev1.NodeSpec{Taints: []corev1.Taint{{Key: key, Effect: effect}}}
	}
	cases := map[string]struct {
		node        corev1.Node
		ready, open bool
	}{
		"Good":         {corev1.Node{Status: ready}, true, true},
		"NeverReady":   {corev1.Node{}, false, true},
		"Cordoned":     {corev1.Node{Status: ready, Spec: corev1.NodeSpec{Unschedulable: true}}, true, false},
		"ControlPlane": {corev1.Node{Status: ready, Spec: taint("node-role.kubernetes.io/control-plane", corev1.TaintEffectNoSchedule)}, true, false},
		"SoftTaint":    {corev1.Node{Status: ready, Spec: taint("x", corev1.TaintEffectPreferNoSchedule)}, true, true},
		"OwnTrouble":   {corev1.Node{Spec: taint(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute)}, false, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := FromNode(&tc.node, nil); got.Ready != tc.ready || got.Open != tc.open {
				t.Errorf("ready %t, open %t", got.Ready, got.Open)
			}
		})
	}
	if !FromNode(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"kwok.x-k8s.io/node": "fake"}}}, nil).Simulated {
		t.Error("a KWOK node is taken for a real one")
	}
}

func TestRequests(t *testing.T) {
	container := func(cpu string) corev1.Container {
		return corev1.Container{Resources: corev1.ResourceRequirements{Requests: list("cpu", cpu)}}
	}
	sidecar := func(cpu string) corev1.Container {
		c := container(cpu)
		c.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
		return c
	}
	cases := map[string]struct {
		spec corev1.PodSpec
		want string
	}{
		"Containers":         {corev1.PodSpec{Containers: []corev1.Container{container("1"), container("2")}}, "3"},
		"BigInit":            {corev1.PodSpec{Containers: []corev1.Container{container("1")}, InitContainers: []corev1.Container{container("5")}}, "5"},
		"Sidecar":            {corev1.PodSpec{Containers: []corev1.Container{container("1")}, InitContainers: []corev1.Container{sidecar("2"), container("2")}}, "4"},
		"SidecarAfterInit":   {corev1.PodSpec{Containers: []corev1.Container{container("1")}, InitContainers: []corev1.Container{container("2"), sidecar("2")}}, "3"},
		"Overhead":           {corev1.PodSpec{Containers: []corev1.Container{container("1")}, Overhead: list("cpu", "1")}, "2"},
		"PodLevelOverridesC": {corev1.PodSpec{Containers: []corev1.Container{container("1")}, Resources: &corev1.ResourceRequirements{Requests: list("cpu", "7")}}, "7"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := Requests(&corev1.Pod{Spec: tc.spec})
			if cpu := got[corev1.ResourceCPU]; cpu.Cmp(resource.MustParse(tc.want)) != 0 {
				t.Errorf("cpu %s, want %s", cpu.String(), tc.want)
			}
			if pods := got[corev1.ResourcePods]; pods.Value() != 1 {
				t.Errorf("pods %s", pods.String())
			}
		})
	}
}
