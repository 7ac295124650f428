package offers

import (
	"strings"
	"testing"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
)

// TestPresentNetwork checks what is left of VPCs and subnets on their way to their tenant.
func TestPresentNetwork(t *testing.T) {
	const meta = `"uid":"u","resourceVersion":"7","generation":2,"creationTimestamp":"2026-01-01T00:00:00Z","labels":{"rack":"secret"},"annotations":{"a":"secret"},"finalizers":["vivarium.io/network"],"ownerReferences":[{"name":"abc123"}],"managedFields":[{"manager":"secret"}]`
	const conditions = `"conditions":[{"type":"Ready","status":"False","reason":"VPCNotReady","message":"pool secret","lastTransitionTime":"2026-01-01T00:00:00Z"}]`
	cases := map[string]struct{ kind, object, want, cells string }{
		"VPC": {"VPC",
			`{"kind":"VPC","apiVersion":"vivarium.io/v1alpha1","metadata":{"name":"abc123-main",` + meta + `},"spec":{"tenant":"abc123","cidrs":["10.0.0.0/16","fd00::/48"],"egress":"None","providerID":"secret","securityGroups":[{"name":"web","providerID":"secret","ingress":[{"protocol":"TCP"}]}]},"status":{"observedGeneration":2,` + conditions + `,"pools":[{"pool":"secret","ready":true}]}}`,
			`{"kind":"VPC","apiVersion":"vivarium.io/v1alpha1","metadata":{"name":"main","uid":"u","resourceVersion":"7","generation":2,"creationTimestamp":"2026-01-01T00:00:00Z"},"spec":{"cidrs":["10.0.0.0/16","fd00::/48"],"egress":"None","securityGroups":[{"name":"web","ingress":[{"protocol":"TCP"}]}]},"status":{"conditions":[{"type":"Ready","status":"False","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"VPCNotReady","message":""}]}}`,
			`"main" "10.0.0.0/16,fd00::/48" "None" "VPCNotReady" "" "web"`},
		"Subnet": {"Subnet",
			`{"kind":"Subnet","apiVersion":"vivarium.io/v1alpha1","metadata":{"name":"abc123-web",` + meta + `},"spec":{"vpc":"abc123-main","cidrs":["10.0.1.0/24"],"pools":["secret"],"zone":"here","gateway":["10.0.1.1"]},"status":{"vni":4711,"total":253,"used":3,` + conditions + `,"pools":[{"pool":"secret","ready":true}]}}`,
			`{"kind":"Subnet","apiVersion":"vivarium.io/v1alpha1","metadata":{"name":"web","uid":"u","resourceVersion":"7","generation":2,"creationTimestamp":"2026-01-01T00:00:00Z"},"spec":{"vpc":"main","cidrs":["10.0.1.0/24"],"zone":"here","gateway":["10.0.1.1"]},"status":{"total":253,"used":3,"conditions":[{"type":"Ready","status":"False","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"VPCNotReady","message":""}]}}`,
			`"web" "main" "10.0.1.0/24" 3 253 "VPCNotReady" "" "here"`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			o, err := presentNetwork(tc.kind, row(t, tc.object))
			if err != nil {
				t.Fatal(err)
			}
			var cells []string
			for _, cell := range o.Cells {
				cells = append(cells, string(cell))
			}
			if string(o.JSON) != tc.want || strings.Join(cells, " ") != tc.cells || o.Version != 7 {
				t.Errorf("present:\n%s\n%s\nwant\n%s\n%s", o.JSON, cells, tc.want, tc.cells)
			}
			if !o.Visible(Viewer{ID: "abc123"}) || o.Visible(Viewer{ID: "abc124"}) || o.Visible(Viewer{}) {
				t.Error("it is not its tenant's alone")
			}
			columns, err := jsonwire.Parse([]byte(networkColumns[tc.kind]))
			if err != nil || len(columns.Elems()) != len(o.Cells) {
				t.Errorf("%d columns, %d cells: %v", len(columns.Elems()), len(o.Cells), err)
			}
		})
	}
	for _, object := range []string{`{"kind":"VPC","metadata":{"name":"main","resourceVersion":"7"}}`, `{"kind":"VPC","metadata":{"name":"abc123-main","resourceVersion":"x"}}`} {
		if o, err := presentNetwork("VPC", row(t, object)); err == nil {
			t.Errorf("%s is taken: %+v", object, o)
		}
	}
}
