package policies

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"vivarium.io/vivarium/internal/names"
)

func rule(group, resource string, operations ...admissionregistrationv1.OperationType) admissionregistrationv1.NamedRuleWithOperations {
	return admissionregistrationv1.NamedRuleWithOperations{ResourceNames: []string{"x"}, RuleWithOperations: admissionregistrationv1.RuleWithOperations{
		Operations: operations, Rule: admissionregistrationv1.Rule{APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: []string{resource}},
	}}
}

func TestWhoIsAskedAbout(t *testing.T) {
	create, update := admissionregistrationv1.Create, admissionregistrationv1.Update
	policies := []policy{
		{"abc123-pods", []admissionregistrationv1.NamedRuleWithOperations{rule("", "pods", update, create)}},
		{"zzz999-pods", []admissionregistrationv1.NamedRuleWithOperations{rule("", "pods", create, update), rule("events.k8s.io", "events", create)}},
		{"abc123-unbound", []admissionregistrationv1.NamedRuleWithOperations{rule("apps", "deployments", create)}},
		{"vivarium-tenant-scope", []admissionregistrationv1.NamedRuleWithOperations{rule("*", "*/*", create)}},
		{"everyt-hing", nil},
	}
	bindings := []binding{
		{"zzz999-a", "of-tenant.zzz999-pods"},
		{"abc123-a", "of-tenant.abc123-pods"},
		{"abc123-b", "of-tenant.abc123-missing"},
		// None of these may make anybody be asked about: a foreign policy, the operator's own binding, one that binds for real.
		{"abc123-c", "of-tenant.zzz999-pods"},
		{"vivarium-tenant-scope", "vivarium-tenant-scope"},
		{"other1-a", "other1-pods"},
	}
	b := collect(policies, bindings)
	if diff := cmp.Diff([]names.TenantID{"abc123", "zzz999"}, b.tenants); diff != "" {
		t.Error(diff)
	}
	var said []string
	for _, r := range b.rules {
		said = append(said, strings.Join(r.APIGroups, "|")+" "+strings.Join(r.APIVersions, "|")+" "+strings.Join(r.Resources, "|"))
	}
	// Versions and order make no difference, and both groups of Events are one.
	if diff := cmp.Diff([]string{"|events.k8s.io * events", " * pods"}, said); diff != "" {
		t.Error(diff)
	}
	client := admissionregistrationv1.WebhookClientConfig{}
	hooks := b.validating(client)
	if len(hooks) != 1 || *hooks[0].FailurePolicy != admissionregistrationv1.Fail || !strings.Contains(hooks[0].MatchConditions[0].Expression, "in ['abc123-', 'zzz999-']") {
		t.Errorf("%+v", hooks)
	}
	if hooks := collect(policies, bindings[3:]).validating(client); hooks != nil {
		t.Errorf("nobody has policies, and yet: %+v", hooks)
	}
	if hooks := collect(policies, nil).mutating(client); hooks != nil {
		t.Errorf("nobody has policies, and yet: %+v", hooks)
	}
	var many []admissionregistrationv1.NamedRuleWithOperations
	for range maxRules + 1 {
		many = append(many, rule("", "pods"+strings.Repeat("x", len(many))))
	}
	if b := collect([]policy{{"abc123-many", many}}, []binding{{"abc123-a", "of-tenant.abc123-many"}}); len(b.rules) != 1 || b.rules[0].Resources[0] != "*/*" {
		t.Errorf("%d rules", len(b.rules))
	}
	if b := collect([]policy{{"abc123-all", nil}}, []binding{{"abc123-a", "of-tenant.abc123-all"}}); len(b.rules) != 1 || b.rules[0].Resources[0] != "*/*" {
		t.Errorf("a policy without rules: %+v", b.rules)
	}
}
