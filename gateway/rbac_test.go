package gateway

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"vivarium.io/vivarium/gateway/internal/kinds"
)

// TestGatewayMayWatch checks that the gateway's role lets it list and watch every kind whose watches tenants could share;
// the others would silently cost what they did before.
func TestGatewayMayWatch(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "charts", "vivarium", "files", "rbac", "gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(raw), "\n---\n")
	var role rbacv1.ClusterRole
	if err := yaml.UnmarshalStrict([]byte(first), &role); err != nil {
		t.Fatal(err)
	}
	may := func(verb, group, resource string) bool {
		return slices.ContainsFunc(role.Rules, func(r rbacv1.PolicyRule) bool {
			return slices.Contains(r.APIGroups, group) && len(r.ResourceNames) == 0 &&
				(slices.Contains(r.Resources, resource) || slices.Contains(r.Resources, "*")) && slices.Contains(r.Verbs, verb)
		})
	}
	seen := 0
	for kind := range kinds.NewTable().All() {
		if !kind.Allows("", "watch") || kind.Kept || kind.Confined != kinds.ByName && kind.Confined != kinds.ByNamespace {
			continue
		}
		seen++
		for _, verb := range []string{"list", "watch"} {
			if !may(verb, kind.Group, kind.Resource) {
				t.Errorf("the gateway may not %s %s of %q", verb, kind.Resource, kind.Group)
			}
		}
	}
	if seen < 25 {
		t.Errorf("only %d kinds", seen)
	}
}
