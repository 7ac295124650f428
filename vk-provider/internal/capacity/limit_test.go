package capacity

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"vivarium.io/vivarium/api/v1alpha1"
)

// TestLimitsBoundWhatANodeModeOffers in all, in each mode, and what a pool does not have is not made up.
func TestLimitsBoundWhatANodeModeOffers(t *testing.T) {
	nodes := []PoolNode{
		node("a", list("cpu", "8", "memory", "16Gi", "pods", "100"), nil),
		node("b", list("cpu", "8", "memory", "16Gi", "pods", "100"), nil),
	}
	cases := map[string]struct {
		mode   v1alpha1.NodeMode
		limits []string
		want   []string
	}{
		"None":      {v1alpha1.NodesShaped, nil, []string{"pool-a-0 cpu=8 memory=16Gi pods=100", "pool-a-1 cpu=8 memory=16Gi pods=100"}},
		"Shaped":    {v1alpha1.NodesShaped, []string{"cpu", "10", "pods", "5"}, []string{"pool-a-0 cpu=8 memory=16Gi pods=5", "pool-a-1 cpu=2 memory=16Gi pods=0"}},
		"Mirrored":  {v1alpha1.NodesMirrored, []string{"memory", "20Gi"}, []string{"pool-a-a cpu=8 memory=16Gi pods=100 on a", "pool-a-b cpu=8 memory=4Gi pods=100 on b"}},
		"Aggregate": {v1alpha1.NodesAggregate, []string{"cpu", "10"}, []string{"pool-a-0 cpu=10 memory=32Gi pods=200"}},
		"Nothing":   {v1alpha1.NodesAggregate, []string{"pods", "0"}, []string{"pool-a-0 cpu=16 memory=32Gi pods=0"}},
		"Wide":      {v1alpha1.NodesAggregate, []string{"cpu", "1000", "vivarium.test/gpu", "4"}, []string{"pool-a-0 cpu=16 memory=32Gi pods=200"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pool := Pool{Name: "pool-a", Spec: v1alpha1.ResourcePoolSpec{Nodes: v1alpha1.PoolNodes{Mode: tc.mode}, Limits: list(tc.limits...)}}
			if diff := cmp.Diff(tc.want, summary(Plan(pool, nodes))); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}
